// SPDX-License-Identifier: Apache-2.0
// Who multiplies on the host: the definitions behind interface.hpp. They bring the headers of Eigen and oneDNN with them, a
// good third of the compile time of a program: see gemm.hpp for how to compile them once.
#pragma once
#include "dpmp/gemm/host_eigen.hpp"
#include "dpmp/gemm/host_onednn.hpp"
#include "dpmp/gemm/interface.hpp"

// Empty in the one unit that has them for all others.
#ifndef DPMP_GEMM_LINKAGE
#define DPMP_GEMM_LINKAGE inline
#endif

namespace dpmp::inline DPMP_ABI {
namespace detail {
#if !defined(DPMP_WITH_ONEDNN) || !DPMP_WITH_ONEDNN
inline void run_onednn(const Workers&, const GemmSpec&) {}
inline bool onednn_has_bf16() { return false; }
inline std::string onednn_version() { return {}; }
inline std::string_view onednn_isa() { return {}; }
#endif

/// A batch of row blocks of one tall matrix, all times one b, is that tall matrix times b.
inline GemmSpec fold_batch(GemmSpec s) {
  const bool tall = s.b.batch_stride == 0 && !s.a.transposed && s.a.batch_stride == s.m * s.a.row_stride &&
                    s.out.batch_stride == s.m * s.out.row_stride &&
                    (!s.residual || s.residual_batch_stride == s.m * s.residual_row_stride);
  if (s.batch > 1 && tall) {
    s.m *= s.batch;
    s.batch = 1;
  }
  return s;
}
}  // namespace detail

DPMP_GEMM_LINKAGE void gemm(Context& ctx, const GemmSpec& spec, GemmBackend backend) {
  check_gemm(spec);
  DPMP_CHECK(backend != GemmBackend::onednn || detail::has_onednn,
             "expected a GEMM backend of this build (eigen), got onednn");
  DPMP_CHECK(backend != GemmBackend::onednn || spec.a.dtype != DType::f64,
             "expected f32, bf16 or f16 for the GEMM backend onednn, got f64");
  if (spec.m == 0 || spec.batch == 0 || (spec.n == 0 && !spec.row_sums)) return;
  GemmSpec folded = detail::fold_batch(spec);
  if (folded.alpha == 0.0f) folded.k = 0;
  if (folded.k == 0 && folded.accumulate) return;
#if defined(DPMP_WITH_CUDA) && DPMP_WITH_CUDA
  if (ctx.on_cuda()) {
    DPMP_CHECK(backend == GemmBackend::automatic, "expected the automatic GEMM backend on ", ctx.device());
    return detail::gemm_on_cuda<Context>(ctx, folded);
  }
#endif
  if (folded.row_sums) detail::sum_rows_of_a(ctx, folded);
  if (folded.n == 0) return;
  const detail::Workers workers(ctx, folded);
  const bool eigen = backend == GemmBackend::eigen || !detail::has_onednn || spec.a.dtype == DType::f64;
  if (eigen)
    detail::run_blocked<detail::EigenLeaf>(workers, folded);
  else
    detail::run_onednn(workers, folded);
}

DPMP_GEMM_LINKAGE std::string gemm_backend_info(Context& ctx) {
  if (ctx.on_cuda()) return detail::concat("f32, bf16, f16, f64: cuBLASLt on ", ctx.device());
  const std::string eigen = detail::concat("Eigen (", detail::EigenLeaf::instruction_sets(), ")");
  const std::string threads = detail::concat(", threads: ", ctx.threads());
  if (!detail::has_onednn) return detail::concat("f32, f64: ", eigen, "; bf16, f16: cast to f32", threads);
  const std::string onednn = detail::concat(detail::onednn_version(), " (", detail::onednn_isa(), ")");
  return detail::concat("f32: ", onednn, " sgemm; bf16: ", detail::onednn_has_bf16() ? "matmul" : "cast to f32",
                        "; f16: cast to f32; f64: ", eigen, threads);
}
}  // namespace dpmp::inline DPMP_ABI

// SPDX-License-Identifier: Apache-2.0
// Matrix products on the host: checks a spec, chooses who computes it, runs it.
#pragma once
#include "dpmp/gemm/host_eigen.hpp"
#include "dpmp/gemm/host_onednn.hpp"
#include "dpmp/gemm/reference.hpp"

namespace dpmp::inline DPMP_ABI {
namespace detail {
#if defined(DPMP_WITH_ONEDNN) && DPMP_WITH_ONEDNN
inline constexpr bool has_onednn = true;
#else
inline constexpr bool has_onednn = false;
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

/// Computes `spec` on the context's threads; called from inside a ThreadTeam::run body, on the calling thread alone. The
/// same spec with the same number of threads gives the same bits. Reads no value to decide anything. Throws what check_gemm
/// throws, and when `backend` is not in this build or does not take the dtype.
inline void gemm(Context& ctx, const GemmSpec& spec, GemmBackend backend = GemmBackend::automatic) {
  check_gemm(spec);
  DPMP_CHECK(backend != GemmBackend::onednn || detail::has_onednn,
             "expected a GEMM backend of this build (eigen), got onednn");
  DPMP_CHECK(backend != GemmBackend::onednn || spec.a.dtype != DType::f64,
             "expected f32, bf16 or f16 for the GEMM backend onednn, got f64");
  if (spec.m == 0 || spec.n == 0 || spec.batch == 0) return;
  GemmSpec folded = detail::fold_batch(spec);
  if (folded.alpha == 0.0f) folded.k = 0;
  if (folded.k == 0 && folded.accumulate) return;
  const detail::Workers workers(ctx, folded);
  const bool eigen = backend == GemmBackend::eigen || !detail::has_onednn || spec.a.dtype == DType::f64;
  if (eigen)
    detail::run_blocked<detail::EigenLeaf>(workers, folded);
  else
    detail::run_onednn(workers, folded);
}

/// One line: who multiplies which dtype here, and with which instruction sets.
inline std::string gemm_backend_info(Context& ctx) {
  const std::string eigen = detail::concat("Eigen (", detail::EigenLeaf::instruction_sets(), ")");
  const std::string threads = detail::concat(", threads: ", ctx.threads());
  if (!detail::has_onednn) return detail::concat("f32, f64: ", eigen, "; bf16, f16: cast to f32", threads);
  const std::string onednn = detail::concat(detail::onednn_version(), " (", detail::onednn_isa(), ")");
  return detail::concat("f32: ", onednn, " sgemm; bf16: ", detail::onednn_has_bf16() ? "matmul" : "cast to f32",
                        "; f16: cast to f32; f64: ", eigen, threads);
}
}  // namespace dpmp::inline DPMP_ABI

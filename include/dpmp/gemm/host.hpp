// SPDX-License-Identifier: Apache-2.0
// Products on the host: the definitions of interface.hpp.
#pragma once
#include "dpmp/gemm/host_onednn.hpp"
#include "dpmp/gemm/host_panels.hpp"
#include "dpmp/gemm/interface.hpp"

namespace dpmp::inline DPMP_ABI {
namespace detail {
/// Null but where gemm/host_eigen.hpp is part of the program, so that the others need not compile Eigen.
inline void (*eigen_product)(const Workers&, const GemmSpec&) = nullptr;
#if !defined(DPMP_WITH_ONEDNN) || !DPMP_WITH_ONEDNN
inline void run_onednn(const Workers&, const GemmSpec&) {}
inline bool run_onednn_bf16(const Workers&, const GemmSpec&) { return false; }
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

DPMP_KEPT inline void gemm(Context& ctx, const GemmSpec& spec, GemmBackend backend) {
  check_gemm(spec);
  DPMP_CHECK(backend != GemmBackend::onednn || detail::has_onednn,
             "expected a GEMM backend of this build (panels), got onednn");
  DPMP_CHECK(backend != GemmBackend::eigen || detail::eigen_product != nullptr,
             "expected a GEMM backend of this program (panels), got eigen, which dpmp/gemm/host_eigen.hpp brings along");
  DPMP_CHECK(backend != GemmBackend::onednn || spec.a.dtype != DType::f64,
             "expected f32, bf16 or f16 for the GEMM backend onednn, got f64");
  const bool wide = spec.out.dtype == DType::f64 && spec.a.dtype != DType::f64;
  DPMP_CHECK(!wide || (!ctx.on_cuda() && (backend == GemmBackend::automatic || backend == GemmBackend::panels)),
             "expected a CPU and the GEMM backend panels for sums of ", spec.a.dtype, " in double");
  if (spec.m == 0 || spec.batch == 0 || (spec.n == 0 && !spec.row_sums && !spec.row_squares)) return;
  GemmSpec folded = detail::fold_batch(spec);
  if (folded.alpha == 0) folded.k = 0;
  if (folded.k == 0 && folded.accumulate) return;
  DPMP_IF_CUDA (ctx.on_cuda()) {
    DPMP_CHECK(!spec.row_squares, "expected a CPU for a gemm that squares its rows, got ", ctx.device());
    DPMP_CHECK(backend == GemmBackend::automatic, "expected the automatic GEMM backend on ", ctx.device());
    return detail::gemm_on_cuda<Context>(ctx, folded);
  }
  if (folded.row_sums) detail::sum_rows_of_a(ctx, folded);
  if (folded.n == 0) {
    if (folded.row_squares) std::fill_n(folded.row_squares, folded.batch * folded.m, 0.0);
    return;
  }
  const detail::Workers workers(ctx, folded);
  switch (backend) {
    case GemmBackend::eigen: detail::eigen_product(workers, folded); return detail::square_all_rows(workers, folded);
    case GemmBackend::onednn: return detail::run_onednn(workers, folded);
    case GemmBackend::automatic:
      if (detail::onednn_has_bf16() && detail::run_onednn_bf16(workers, folded)) return;
      break;
    case GemmBackend::panels: break;
  }
  detail::run_panels(workers, folded);
}

DPMP_KEPT inline index_t product_chain(DeviceKind device, DType dtype, index_t depth) {
  const bool library = device == DeviceKind::cuda || (dtype == DType::bf16 && detail::onednn_has_bf16());
  return library ? depth : kernels::panel_chain(depth);
}

DPMP_KEPT inline std::string gemm_backend_info(Context& ctx) {
  if (ctx.on_cuda()) return detail::concat("f32, bf16, f16, f64: cuBLASLt on ", ctx.device());
  const std::string panels = detail::concat("panels (", name_of(best_isa()), ")");
  const std::string threads = detail::concat(", threads: ", ctx.threads());
  if (!detail::onednn_has_bf16()) return detail::concat("f32, bf16, f16, f64: ", panels, threads);
  return detail::concat("f32, f16, f64: ", panels, "; bf16: ", detail::onednn_version(), " matmul (", detail::onednn_isa(),
                        ")", threads);
}
}  // namespace dpmp::inline DPMP_ABI

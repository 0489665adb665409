// SPDX-License-Identifier: Apache-2.0
// Matrix products as everything above sees them.
#pragma once
#include <string>

#include "dpmp/gemm/reference.hpp"
#include "dpmp/gemm/spec.hpp"
#include "dpmp/runtime/context.hpp"

namespace dpmp::inline DPMP_ABI {
namespace detail {
#if defined(DPMP_WITH_ONEDNN) && DPMP_WITH_ONEDNN
inline constexpr bool has_onednn = true;
#else
inline constexpr bool has_onednn = false;
#endif
/// Defined in gemm/cublaslt.cuh.
template <class Context_>
void gemm_on_cuda(Context_& ctx, const GemmSpec& spec);
}  // namespace detail

/// Computes `spec` on the context's threads; called from inside a ThreadTeam::run body, on the calling thread alone. The
/// same spec with the same number of threads gives the same bits. Reads no value to decide anything. Throws what check_gemm
/// throws, and when `backend` is not in this build or does not take the dtype.
void gemm(Context& ctx, const GemmSpec& spec, GemmBackend backend = GemmBackend::automatic);

/// Most roundings between a term and a sum of `depth` terms in what gemm() gives for operands of that dtype: of blocks and
/// their sum where the product is our own, one for each term where a library chooses the order. (How a GPU rounds:
/// kernels/gram_constants.hpp.)
index_t product_chain(DeviceKind device, DType dtype, index_t depth);

/// One line: who multiplies which dtype here, and with which instruction sets.
std::string gemm_backend_info(Context& ctx);
}  // namespace dpmp::inline DPMP_ABI

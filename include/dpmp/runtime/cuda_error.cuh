// SPDX-License-Identifier: Apache-2.0
// A failed call of the CUDA runtime as a dpmp::Error.
#pragma once
#include <cuda_runtime.h>

#include <string_view>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// Throws unless `code` is cudaSuccess; `what` says what was tried. A fault inside a kernel may be reported by a later call.
inline void check_cuda(cudaError_t code, std::string_view what, const char* file = __builtin_FILE(),
                       int line = __builtin_LINE()) {
  if (code != cudaSuccess) [[unlikely]]
    throw Error(concat("expected CUDA to ", what, ", got ", cudaGetErrorName(code), ": ", cudaGetErrorString(code)), file,
                line);
}
}  // namespace dpmp::inline DPMP_ABI::detail

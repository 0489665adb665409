// SPDX-License-Identifier: Apache-2.0
// How samples may be added up. Removing one sample changes the rounding of every addition after it, and that counts as
// sensitivity: dp/clipping.hpp derives its rounding share from this constant, and whoever adds samples up asserts it.
#pragma once
#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
/// Most samples of one chain of additions in double. What is longer is cut, and the parts meet in a sum that carries its
/// rounding errors along (kernels::FoldSums).
inline constexpr index_t samples_per_chain = 512;
}  // namespace dpmp::inline DPMP_ABI

// SPDX-License-Identifier: Apache-2.0
// Dropout (Srivastava et al. 2014) with a mask that is a pure function of (seed, record, element): never stored.
#pragma once
#include "dpmp/core/low_precision.hpp"
#include "dpmp/core/philox.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// output[i, e] = word(i, e) >= threshold ? input[i, e] * factor : 0 * input[i, e] (so that NaN stays visible).
/// The word of element e is word e % 4 of the Philox block of counter words {e / 4, record low, record high, 0}. One sample
/// a row.
template <class T>
struct Dropout {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;               // [B, width]
  const std::int32_t* records;  // [B, 2]
  T* output;                    // [B, width]
  index_t width;
  std::uint64_t seed;
  std::uint32_t threshold;
  Real factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* x = input + row * width;
    const std::uint32_t low = std::uint32_t(records[2 * row]), high = std::uint32_t(records[2 * row + 1]);
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack keep;
      constexpr int lanes = int(sizeof(keep) / sizeof(Real)), group = lanes < 4 ? lanes : 4;
      for (int k = 0; k < lanes; k += group) {
        const std::uint64_t element = std::uint64_t(at.offset + k);  // a multiple of group
        const PhiloxBlock block =
            philox4x32({{std::uint32_t(element / 4), low, high, 0}}, std::uint32_t(seed), std::uint32_t(seed >> 32));
        for (int j = 0; j < group; ++j)
          keep.v[k + j] = block.word[(element + std::uint64_t(j)) % 4] >= threshold ? factor : Real(0);
      }
      at.store(output + row * width, at.load(x) * keep);
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END

// SPDX-License-Identifier: Apache-2.0
// Every instruction set that this build has kernels for and this CPU can run.
#pragma once
#include <vector>

#include "dpmp/runtime/launch.hpp"

namespace test {
inline std::vector<dpmp::Isa> isas() {
  std::vector<dpmp::Isa> all;
  for (const dpmp::Isa isa : {dpmp::Isa::baseline, dpmp::Isa::avx2, dpmp::Isa::avx512})
    if (isa <= dpmp::best_isa()) all.push_back(isa);
  return all;
}

/// Runs an element-wise functor f(at) over [0, n) with one instruction set.
template <class F>
void run_elements(dpmp::index_t n, const F& f, dpmp::Isa isa) {
  using Flat = dpmp::detail::FlatRows<F>;
  dpmp::run_rows(0, (n + Flat::width - 1) / Flat::width, Flat{f, n}, isa);
}
}  // namespace test

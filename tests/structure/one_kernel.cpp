// SPDX-License-Identifier: Apache-2.0
// Compiled for several instruction sets by instruction_sets_are_apart.cmake, each time as DPMP_UNIT(): launches one functor
// and returns the unit's instruction set, or -1 where the result is wrong.
#include "dpmp/runtime/launch.hpp"

using namespace dpmp;

struct Twice {
  using Real = float;
  float* x;
  template <class Span>
  DPMP_HOST void operator()(Span at) const {
    at.store(x, at.load(x) * 2.0f);
  }
};

int DPMP_UNIT();
int DPMP_UNIT() {
  Context ctx(Device::cpu(), 1);
  const Buffer buffer = ctx.allocate(1000 * index_t(sizeof(float)));
  auto* x = static_cast<float*>(buffer.data());
  for (int k = 0; k < 1000; ++k) x[k] = float(k);
  launch_elements(ctx, 1000, Twice{x});
  for (int k = 0; k < 1000; ++k)
    if (x[k] != 2 * float(k)) return -1;
  return int(unit_isa);
}

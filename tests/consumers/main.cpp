// SPDX-License-Identifier: Apache-2.0
// The smallest use of the library: sum a vector on the threads of a context.
#include <dpmp/dpmp.hpp>
#include <iostream>

int main() {
  dpmp::Context context(dpmp::Device::cpu(), 2);
  const dpmp::Buffer buffer = context.allocate(1000 * 4);
  auto* values = static_cast<float*>(buffer.data());
  context.team().parallel_for(1000, [&](dpmp::index_t begin, dpmp::index_t end) {
    for (dpmp::index_t k = begin; k < end; ++k) values[k] = 0.5f;
  });
  double sum = 0;
  for (int k = 0; k < 1000; ++k) sum += double(values[k]);
  std::cout << "dpmp " << DPMP_VERSION_STRING << " on " << context.device() << ": " << sum << '\n';
  return sum == 500 ? 0 : 1;
}

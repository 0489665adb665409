// SPDX-License-Identifier: Apache-2.0
// What a Context says where another unit (instruction_sets_other.cpp) is compiled with other flags.
#include <cstdio>

#include "dpmp/runtime/context.hpp"

double other_unit(int n);

int main() {
  try {
    const dpmp::Context ctx(dpmp::Device::cpu(), 1);
    std::printf("accepted\n");
    return other_unit(1) == 1 ? 0 : 2;
  } catch (const dpmp::Error& e) {
    std::printf("%s\n", e.what());
    return 1;
  }
}

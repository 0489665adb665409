// SPDX-License-Identifier: Apache-2.0
// Linked by floating_point_is_probed.cmake: says what a Context says of the floating-point numbers of this program.
#include <iostream>

#include "dpmp/runtime/context.hpp"

int of_the_other_unit();

int main() {
  try {
    const dpmp::Context context(dpmp::Device::cpu(), 2);
  } catch (const dpmp::Error& error) {
    std::cout << error.what() << '\n';
    return 1;
  }
  return of_the_other_unit();
}

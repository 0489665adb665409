// SPDX-License-Identifier: Apache-2.0
// Compiled with DPMP_F16=0: dispatch knows f32, bf16 and, for what the library keeps, f64; f16 is refused, with the reason.
#include <string>

#include "dpmp/core/dtype.hpp"

using namespace dpmp;

int main() {
  for (const DType dtype : real_dtypes)
    if (dispatch_real(dtype, [](auto tag) { return sizeof(typename decltype(tag)::type); }) != std::size_t(size_of(dtype)))
      return 1;
  const auto refuses = [](auto&& dispatch) {
    try {
      dispatch();
    } catch (const Error& error) {
      return std::string(error.what()).find("DPMP_F16=0") != std::string::npos;
    }
    return false;
  };
  if (!refuses([] { dispatch_real(DType::f16, [](auto) {}); })) return 2;
  if (!refuses([] { dispatch_stored(DType::f16, [](auto) {}); })) return 3;
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
// One element-wise kernel of the library over whole tensors: what elementwise.hpp, arithmetic.hpp and rules are made of.
#pragma once
#include <string_view>

#include "dpmp/runtime/launch.hpp"
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// Launches K<T>{inputs .., output}, with T the type of the output's dtype; all of one shape and dtype.
template <template <class> class K, class... Inputs>
void map_to(Context& ctx, const Tensor& output, const Inputs&... inputs) {
  (check_device("an operand", inputs, ctx), ...);
  dispatch_real(output.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_elements(ctx, output.numel(), K<T>{inputs.template data<T>()..., output.data<T>()});
  });
}
/// The same into a new tensor like the first input.
template <template <class> class K, class... Inputs>
Tensor map(Context& ctx, const Tensor& x, const Inputs&... more) {
  const Tensor y = Tensor::empty(ctx, x.shape(), x.dtype());
  map_to<K>(ctx, y, x, more...);
  return y;
}
/// K<T>{x, output, c}, c the constant rounded to compute precision.
template <template <class> class K>
Tensor map_with(Context& ctx, const Tensor& x, double constant) {
  check_device("an operand", x, ctx);
  const Tensor y = Tensor::empty(ctx, x.shape(), x.dtype());
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_elements(ctx, y.numel(), K<T>{x.data<T>(), y.data<T>(), compute_t<T>(constant)});
  });
  return y;
}

/// Throws unless both have one shape and dtype. name: of the operation.
inline void check_alike(std::string_view name, const Tensor& x, const Tensor& y) {
  DPMP_CHECK(x.shape() == y.shape() && x.dtype() == y.dtype(), name, ": expected two values of one shape and dtype, got ",
             x.shape(), " ", x.dtype(), " and ", y.shape(), " ", y.dtype());
}
}  // namespace dpmp::inline DPMP_ABI::detail

// SPDX-License-Identifier: Apache-2.0
// One kernel of the library over whole tensors, element by element or row by row: what elementwise.hpp, arithmetic.hpp and
// rules are made of.
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

/// A field of a kernel that is yet to have its type: a tensor becomes a pointer to its elements (null where it is not
/// defined), a double is rounded to compute precision, anything else is what it is.
struct PointerField {
  const Tensor& tensor;
  template <class T>
  operator T*() const {
    return tensor.defined() ? tensor.data<std::remove_const_t<T>>() : nullptr;
  }
};
struct NumberField {
  double value;
  operator float() const { return float(value); }
  operator double() const { return value; }
};
inline PointerField field(const Tensor& x) { return {x}; }
inline NumberField field(double x) { return {x}; }
template <class X>
const X& field(const X& x) {
  return x;
}
/// Launches K<T>{fields ..} over `rows` rows of `row_work` elements, T the type of `dtype`.
template <template <class> class K, class... Fields>
void map_rows(Context& ctx, DType dtype, index_t rows, index_t row_work, const Fields&... fields) {
  dispatch_real(
      dtype, [&](auto tag) { launch_library_rows(ctx, rows, row_work, K<typename decltype(tag)::type>{field(fields)...}); });
}

/// Throws unless both have one shape and dtype. name: of the operation.
inline void check_alike(std::string_view name, const Tensor& x, const Tensor& y) {
  DPMP_CHECK(x.shape() == y.shape() && x.dtype() == y.dtype(), name, ": expected two values of one shape and dtype, got ",
             x.shape(), " ", x.dtype(), " and ", y.shape(), " ", y.dtype());
}
}  // namespace dpmp::inline DPMP_ABI::detail

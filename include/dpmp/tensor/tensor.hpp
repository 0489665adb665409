// SPDX-License-Identifier: Apache-2.0
// A dense row-major tensor: shared buffer + shape + dtype + device. Copying a Tensor shares its data; clone() copies it.
#pragma once
#include <cstring>
#include <span>
#include <vector>

#include "dpmp/core/dtype.hpp"
#include "dpmp/core/shape.hpp"
#include "dpmp/runtime/context.hpp"

namespace dpmp::inline DPMP_ABI {
class Tensor {
 public:
  /// No tensor: defined() is false.
  Tensor() = default;
  /// Uninitialised elements.
  static Tensor empty(Context& ctx, const Shape& shape, DType dtype) {
    Tensor t;
    index_t bytes = 0;
    DPMP_CHECK(!__builtin_mul_overflow(shape.numel(), size_of(dtype), &bytes), "expected a size below 2^63 bytes, got ",
               shape, " ", dtype);
    t.buffer_ = ctx.allocate(bytes);
    t.shape_ = shape;
    t.dtype_ = dtype;
    t.device_ = ctx.device();
    return t;
  }
  static Tensor zeros(Context& ctx, const Shape& shape, DType dtype) {
    Tensor t = empty(ctx, shape, dtype);
    t.set_zero();
    return t;
  }
  /// Every element = value, rounded to dtype.
  static Tensor full(Context& ctx, const Shape& shape, DType dtype, double value) {
    return from(ctx, shape, dtype, std::vector<double>(std::size_t(shape.numel()), value));
  }
  /// Elements from doubles, each rounded to dtype. Throws when the number of values is not the shape's.
  static Tensor from(Context& ctx, const Shape& shape, DType dtype, std::span<const double> values) {
    DPMP_CHECK(index_t(values.size()) == shape.numel(), "expected ", shape.numel(), " values for the shape ", shape,
               ", got ", values.size());
    Tensor t = empty(ctx, shape, dtype);
    if (dtype == DType::i32) {
      for (std::size_t k = 0; k < values.size(); ++k) t.data<std::int32_t>()[k] = std::int32_t(values[k]);
    } else {
      dispatch_real(dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        for (std::size_t k = 0; k < values.size(); ++k) t.data<T>()[k] = from_float<T>(compute_t<T>(values[k]));
      });
    }
    return t;
  }
  /// Token ids.
  static Tensor from(Context& ctx, const Shape& shape, std::span<const std::int32_t> values) {
    DPMP_CHECK(index_t(values.size()) == shape.numel(), "expected ", shape.numel(), " values for the shape ", shape,
               ", got ", values.size());
    Tensor t = empty(ctx, shape, DType::i32);
    std::copy(values.begin(), values.end(), t.data<std::int32_t>());
    return t;
  }

  bool defined() const { return buffer_.data() != nullptr; }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  index_t numel() const { return shape_.numel(); }
  index_t bytes() const { return numel() * size_of(dtype_); }
  /// Whether another tensor shares the data.
  bool shared() const { return buffer_.shared(); }

  /// First byte. Throws on a Tensor() that holds nothing.
  void* raw() const {
    DPMP_CHECK(defined(), "expected a tensor with data, got an empty Tensor()");
    return static_cast<char*>(buffer_.data()) + offset_bytes_;
  }
  /// Typed elements. Throws when T is not the dtype's type.
  template <class T>
  T* data() const {
    DPMP_CHECK(dtype_of<T> == dtype_, "expected a tensor of ", dtype_of<T>, ", got ", dtype_, " ", shape_);
    return static_cast<T*>(raw());
  }

  void set_zero() { std::memset(raw(), 0, std::size_t(bytes())); }

  /// The same data under another shape. Throws when the element counts differ.
  Tensor reshaped(const Shape& shape) const {
    DPMP_CHECK(shape.numel() == numel(), "expected a shape of ", numel(), " elements like ", shape_, ", got ", shape);
    Tensor t = *this;
    t.shape_ = shape;
    return t;
  }
  /// Rows [begin, end) of axis 0, sharing the data.
  Tensor rows(index_t begin, index_t end) const {
    DPMP_CHECK(0 <= begin && begin <= end && end <= shape_.front(), "expected rows within [0, ", shape_.front(), "), got [",
               begin, ", ", end, ")");
    Tensor t = *this;
    t.shape_ = shape_.with(0, end - begin);
    t.offset_bytes_ += begin * shape_.numel(1, shape_.rank()) * size_of(dtype_);
    return t;
  }
  Tensor clone(Context& ctx) const {
    Tensor t = empty(ctx, shape_, dtype_);
    std::memcpy(t.raw(), raw(), std::size_t(bytes()));
    return t;
  }
  /// Every element as a double, for tests, printing and files.
  std::vector<double> to_doubles() const {
    std::vector<double> values(static_cast<std::size_t>(numel()));
    if (dtype_ == DType::i32) {
      for (std::size_t k = 0; k < values.size(); ++k) values[k] = data<std::int32_t>()[k];
    } else {
      dispatch_real(dtype_, [&](auto tag) {
        using T = typename decltype(tag)::type;
        for (std::size_t k = 0; k < values.size(); ++k) values[k] = double(to_float(data<T>()[k]));
      });
    }
    return values;
  }
  /// The only element of a one-element tensor.
  double item() const {
    DPMP_CHECK(numel() == 1, "expected a tensor of one element, got ", shape_);
    return to_doubles()[0];
  }

 private:
  Buffer buffer_;
  Shape shape_;
  index_t offset_bytes_ = 0;
  DType dtype_ = DType::f32;
  Device device_;
};

/// Throws unless `t` has this shape; `what` names it in the message.
inline void check_shape(std::string_view what, const Tensor& t, const Shape& expected) {
  DPMP_CHECK(t.shape() == expected, "expected ", what, " of shape ", expected, ", got ", t.shape());
}
/// Throws unless `t` has this dtype.
inline void check_dtype(std::string_view what, const Tensor& t, DType expected) {
  DPMP_CHECK(t.dtype() == expected, "expected ", what, " in ", expected, ", got ", t.dtype(), " ", t.shape());
}
}  // namespace dpmp::inline DPMP_ABI

// SPDX-License-Identifier: Apache-2.0
// A dense row-major tensor: shared buffer + shape + dtype + device. Copying a Tensor shares its data; clone() copies it.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
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
  static Tensor empty(Context& ctx, const Shape& shape, DType dtype);
  static Tensor zeros(Context& ctx, const Shape& shape, DType dtype);
  /// Every element = value, rounded to dtype.
  static Tensor full(Context& ctx, const Shape& shape, DType dtype, double value);
  /// Elements from doubles, each rounded to dtype. Throws when the number of values is not the shape's.
  static Tensor from(Context& ctx, const Shape& shape, DType dtype, std::span<const double> values);
  /// The same from floats, without doubles in between for all dtypes but f64.
  static Tensor from(Context& ctx, const Shape& shape, DType dtype, std::span<const float> values);
  /// Pixels and the like: each scale * byte + offset, rounded to dtype as a double is; scale = 1. / 255 for [0, 1]. Throws
  /// on a scale or an offset that is not finite.
  static Tensor from(Context& ctx, const Shape& shape, DType dtype, std::span<const std::uint8_t> values, double scale = 1,
                     double offset = 0);
  /// Token ids.
  static Tensor from(Context& ctx, const Shape& shape, std::span<const std::int32_t> values);
  /// Token ids of other programs, stored as i32. Throws when one is outside of i32's range. Which one and its value are not
  /// said: they may be private. Whether it throws depends on them too, so convert where a data set is loaded, not in losses.
  static Tensor from(Context& ctx, const Shape& shape, std::span<const std::int64_t> values);
  /// A tensor over memory that is there already, of an arena of its own (interop/dlpack.hpp); the buffer has at least the
  /// bytes of that shape. Throws on an empty one.
  static Tensor on_buffer(const Buffer& buffer, const Shape& shape, DType dtype, Device device);

  bool defined() const { return buffer_.data() != nullptr; }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  index_t numel() const { return shape_.numel(); }
  index_t bytes() const { return numel() * size_of(dtype_); }
  /// Whether another tensor shares the data.
  bool shared() const { return buffer_.shared(); }
  /// Counts the memory of the data under this name (Context::memory_uses) unless somebody named it already.
  void label_memory(std::string_view name) const { buffer_.label_unless_named(name); }

  /// First byte, in the memory of the device. Throws on a Tensor() that holds nothing.
  void* raw() const {
    if (!defined()) [[unlikely]]
      refuse_empty();
    return static_cast<char*>(buffer_.data()) + offset_bytes_;
  }
  /// Typed elements, in the memory of the device. Throws when T is not the dtype's type.
  template <class T>
  T* data() const {
    if (dtype_of<T> != dtype_) [[unlikely]]
      refuse_dtype(dtype_of<T>);
    return static_cast<T*>(raw());
  }
  /// The same to read and write in a program of a user's own: throws on a GPU's tensor, whose address means nothing here.
  template <class T>
  T* host_data() const {
    DPMP_CHECK(device_ == Device::cpu(), "expected a tensor on the CPU, got one on ", device_,
               ": copy it with copy_to_host, to_doubles or Tensor::to");
    return data<T>();
  }

  void set_zero() { backend().set_zero(raw(), bytes()); }

  /// The same data under another shape. Throws when the element counts differ.
  Tensor reshaped(const Shape& shape) const;
  /// Rows [begin, end) of axis 0, sharing the data.
  Tensor rows(index_t begin, index_t end) const;
  Tensor clone(Context& ctx) const;
  /// Overwrites the elements with those of a tensor of the same shape, dtype and device.
  void copy_from(const Tensor& other);
  /// Overwrites the elements with bytes() bytes of the host's memory, and the reverse.
  void copy_from_host(const void* elements) { backend().copy_in(raw(), elements, bytes()); }
  void copy_to_host(void* elements) const { backend().copy_out(elements, raw(), bytes()); }
  /// The same elements on the device of another context.
  Tensor to(Context& ctx) const;
  /// Every element as a double, for tests, printing and files. Waits for the device.
  std::vector<double> to_doubles() const;
  /// The only element of a one-element tensor.
  double item() const {
    DPMP_CHECK(numel() == 1, "expected a tensor of one element, got ", shape_);
    return to_doubles()[0];
  }

 private:
  Backend& backend() const {
    if (!defined()) [[unlikely]]
      refuse_empty();
    return buffer_.backend();
  }
  // Asked for in most functions: what a refusal takes is not repeated in them.
  [[noreturn, gnu::cold, gnu::noinline]] void refuse_dtype(DType wanted) const {
    throw Error(detail::concat("expected a tensor of ", wanted, ", got ", dtype_, " ", shape_));
  }
  [[noreturn, gnu::cold, gnu::noinline]] static void refuse_empty() {
    throw Error("expected a tensor with data, got an empty Tensor()");
  }
  static void check_count(const Shape& shape, std::size_t values);
  /// Element k = element(k), computed on the host.
  template <class T, class F>
  static Tensor of_elements(Context& ctx, const Shape& shape, F&& element) {
    Tensor t = empty(ctx, shape, dtype_of<T>);
    std::vector<T> staged(ctx.on_cuda() ? std::size_t(shape.numel()) : 0);
    T* elements = ctx.on_cuda() ? staged.data() : t.data<T>();
    for (std::size_t k = 0; k < std::size_t(shape.numel()); ++k) elements[k] = element(k);
    if (ctx.on_cuda()) t.copy_from_host(elements);
    return t;
  }
  template <class T>
  std::vector<T> host_elements() const {
    std::vector<T> elements(static_cast<std::size_t>(numel()));
    copy_to_host(elements.data());
    return elements;
  }
  Buffer buffer_;
  Shape shape_;
  index_t offset_bytes_ = 0;
  DType dtype_ = DType::f32;
  Device device_;
};

/// Throws unless `t` has this shape; `what` names it in the message.
void check_shape(std::string_view what, const Tensor& t, const Shape& expected);
/// Throws unless `t` has this dtype.
void check_dtype(std::string_view what, const Tensor& t, DType expected);
/// Throws unless `t` is on the device of `ctx`.
void check_device(std::string_view what, const Tensor& t, const Context& ctx);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline Tensor Tensor::empty(Context& ctx, const Shape& shape, DType dtype) {
  Tensor t;
  index_t bytes = 0;
  DPMP_CHECK(!__builtin_mul_overflow(shape.numel(), size_of(dtype), &bytes), "expected a size below 2^63 bytes, got ", shape,
             " ", dtype);
  t.buffer_ = ctx.allocate(bytes);
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.device_ = ctx.device();
  return t;
}

DPMP_KEPT_BODY inline Tensor Tensor::on_buffer(const Buffer& buffer, const Shape& shape, DType dtype, Device device) {
  DPMP_CHECK(buffer.data(), "expected memory for a tensor of ", shape, ", got none");
  Tensor t;
  t.buffer_ = buffer;
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.device_ = device;
  return t;
}

DPMP_KEPT_BODY inline Tensor Tensor::zeros(Context& ctx, const Shape& shape, DType dtype) {
  Tensor t = empty(ctx, shape, dtype);
  t.set_zero();
  return t;
}

DPMP_KEPT_BODY inline Tensor Tensor::full(Context& ctx, const Shape& shape, DType dtype, double value) {
  const Tensor t = empty(ctx, shape, dtype);
  const auto fill = [&](auto element) { t.backend().fill(t.raw(), &element, sizeof element, t.numel()); };
  if (dtype == DType::i32) {
    fill(std::int32_t(value));
  } else {
    dispatch_stored(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      fill(from_float<T>(compute_t<T>(value)));
    });
  }
  return t;
}

DPMP_KEPT_BODY inline void Tensor::check_count(const Shape& shape, std::size_t values) {
  DPMP_CHECK(index_t(values) == shape.numel(), "expected ", shape.numel(), " values for the shape ", shape, ", got ",
             values);
}

DPMP_KEPT_BODY inline Tensor Tensor::from(Context& ctx, const Shape& shape, DType dtype, std::span<const double> values) {
  check_count(shape, values.size());
  if (dtype == DType::i32)
    return of_elements<std::int32_t>(ctx, shape, [&](std::size_t k) { return std::int32_t(values[k]); });
  return dispatch_stored(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return of_elements<T>(ctx, shape, [&](std::size_t k) { return from_float<T>(compute_t<T>(values[k])); });
  });
}

DPMP_KEPT_BODY inline Tensor Tensor::from(Context& ctx, const Shape& shape, DType dtype, std::span<const float> values) {
  check_count(shape, values.size());
  return dispatch_stored(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return of_elements<T>(ctx, shape, [&](std::size_t k) { return from_float<T>(compute_t<T>(values[k])); });
  });
}

DPMP_KEPT_BODY inline Tensor Tensor::from(Context& ctx, const Shape& shape, DType dtype,
                                          std::span<const std::uint8_t> values, double scale, double offset) {
  check_count(shape, values.size());
  DPMP_CHECK(std::isfinite(scale) && std::isfinite(offset), "expected a finite scale and offset, got ", scale, " and ",
             offset);
  return dispatch_stored(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    std::array<T, 256> element;  // of each byte, rounded once
    for (std::size_t k = 0; k < element.size(); ++k) element[k] = from_float<T>(compute_t<T>(scale * double(k) + offset));
    return of_elements<T>(ctx, shape, [&](std::size_t k) { return element[values[k]]; });
  });
}

DPMP_KEPT_BODY inline Tensor Tensor::from(Context& ctx, const Shape& shape, std::span<const std::int32_t> values) {
  check_count(shape, values.size());
  return of_elements<std::int32_t>(ctx, shape, [&](std::size_t k) { return values[k]; });
}

DPMP_KEPT_BODY inline Tensor Tensor::from(Context& ctx, const Shape& shape, std::span<const std::int64_t> values) {
  check_count(shape, values.size());
  std::int64_t changed = 0;
  const Tensor t = of_elements<std::int32_t>(ctx, shape, [&](std::size_t k) {
    const std::int32_t narrow = std::int32_t(values[k]);
    changed |= values[k] ^ narrow;
    return narrow;
  });
  DPMP_CHECK(changed == 0, "expected values within the range of i32, got at least one outside of it");
  return t;
}

DPMP_KEPT_BODY inline Tensor Tensor::reshaped(const Shape& shape) const {
  DPMP_CHECK(shape.numel() == numel(), "expected a shape of ", numel(), " elements like ", shape_, ", got ", shape);
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

DPMP_KEPT_BODY inline Tensor Tensor::rows(index_t begin, index_t end) const {
  DPMP_CHECK(0 <= begin && begin <= end && end <= shape_.front(), "expected rows within [0, ", shape_.front(), "), got [",
             begin, ", ", end, ")");
  Tensor t = *this;
  t.shape_ = shape_.with(0, end - begin);
  t.offset_bytes_ += begin * shape_.numel(1, shape_.rank()) * size_of(dtype_);
  return t;
}

DPMP_KEPT_BODY inline Tensor Tensor::clone(Context& ctx) const {
  Tensor t = empty(ctx, shape_, dtype_);
  t.copy_from(*this);
  return t;
}

DPMP_KEPT_BODY inline void Tensor::copy_from(const Tensor& other) {
  DPMP_CHECK(other.shape_ == shape_ && other.dtype_ == dtype_ && other.device_ == device_, "expected a tensor to copy of ",
             shape_, " ", dtype_, " on ", device_, ", got ", other.shape_, " ", other.dtype_, " on ", other.device_);
  backend().copy(raw(), other.raw(), bytes());
}

DPMP_KEPT_BODY inline Tensor Tensor::to(Context& ctx) const {
  std::vector<char> elements(static_cast<std::size_t>(bytes()));
  copy_to_host(elements.data());
  Tensor t = empty(ctx, shape_, dtype_);
  t.copy_from_host(elements.data());
  return t;
}

DPMP_KEPT_BODY inline std::vector<double> Tensor::to_doubles() const {
  std::vector<double> values(static_cast<std::size_t>(numel()));
  if (dtype_ == DType::i32) {
    const std::vector<std::int32_t> elements = host_elements<std::int32_t>();
    std::copy(elements.begin(), elements.end(), values.begin());
  } else {
    dispatch_stored(dtype_, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const std::vector<T> elements = host_elements<T>();
      std::transform(elements.begin(), elements.end(), values.begin(), [](T x) { return double(to_float(x)); });
    });
  }
  return values;
}

[[gnu::noinline]] DPMP_KEPT_BODY inline void check_shape(std::string_view what, const Tensor& t, const Shape& expected) {
  DPMP_CHECK(t.shape() == expected, "expected ", what, " of shape ", expected, ", got ", t.shape());
}

[[gnu::noinline]] DPMP_KEPT_BODY inline void check_dtype(std::string_view what, const Tensor& t, DType expected) {
  DPMP_CHECK(t.dtype() == expected, "expected ", what, " in ", expected, ", got ", t.dtype(), " ", t.shape());
}

[[gnu::noinline]] DPMP_KEPT_BODY inline void check_device(std::string_view what, const Tensor& t, const Context& ctx) {
  DPMP_CHECK(t.device() == ctx.device(), "expected ", what, " on ", ctx.device(), ", got ", t.device(), ": use Tensor::to");
}
}  // namespace dpmp::inline DPMP_ABI
#endif

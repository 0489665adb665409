// SPDX-License-Identifier: Apache-2.0
// Element types and shapes as a file has them: more than dpmp computes with.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dpmp/core/dtype.hpp"
#include "dpmp/core/shape.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// An element type by the name that safetensors files have for it: "F32", "I64", "F8_E4M3". Any name is a StoredType.
class StoredType {
 public:
  StoredType(DType dtype);
  explicit StoredType(std::string name) : name_(std::move(name)) {}
  const std::string& name() const { return name_; }
  /// Bits of one element; nothing for names that the format does not define (as of safetensors 0.8).
  std::optional<index_t> bits() const;
  /// The DType with the same elements, where there is one.
  std::optional<DType> native() const;
  friend bool operator==(const StoredType&, const StoredType&) = default;
  friend std::ostream& operator<<(std::ostream& out, const StoredType& type) {
    if (const auto dtype = type.native()) return out << *dtype;
    return out << type.name_;
  }

 private:
  std::string name_;
};

/// The extents of a stored tensor: any number of axes, each 0 .. 2^63 - 1.
class StoredShape {
 public:
  StoredShape() = default;
  StoredShape(const Shape& shape);
  explicit StoredShape(std::vector<index_t> extents) : extents_(std::move(extents)) {}
  const std::vector<index_t>& extents() const { return extents_; }
  /// Number of elements; nothing where the product of the extents, from the first to the last, exceeds 2^63 - 1 on the way.
  std::optional<index_t> numel() const;
  /// Throws on more axes than a Shape has.
  explicit operator Shape() const;
  friend bool operator==(const StoredShape&, const StoredShape&) = default;
  friend std::ostream& operator<<(std::ostream& out, const StoredShape& shape) {
    out << '[';
    for (std::size_t k = 0; k < shape.extents_.size() && k < most_printed; ++k) out << (k ? ", " : "") << shape.extents_[k];
    return out << (shape.extents_.size() > most_printed ? ", ..]" : "]");
  }

 private:
  static constexpr std::size_t most_printed = 16;
  std::vector<index_t> extents_;
};
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::interop {
DPMP_KEPT_BODY inline StoredType::StoredType(DType dtype) {
  switch (dtype) {
    case DType::f32: name_ = "F32"; return;
    case DType::bf16: name_ = "BF16"; return;
    case DType::f16: name_ = "F16"; return;
    case DType::f64: name_ = "F64"; return;
    case DType::i32: name_ = "I32"; return;
  }
  throw Error(dpmp::detail::concat("expected a DType, got the value ", int(dtype)));
}

DPMP_KEPT_BODY inline std::optional<index_t> StoredType::bits() const {
  static constexpr std::pair<const char*, index_t> of_name[] = {
      {"F4", 4},          {"F6_E2M3", 6},     {"F6_E3M2", 6}, {"BOOL", 8}, {"U8", 8},   {"I8", 8},
      {"F8_E5M2", 8},     {"F8_E4M3", 8},     {"F8_E8M0", 8}, {"I16", 16}, {"U16", 16}, {"F16", 16},
      {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"BF16", 16},   {"I32", 32}, {"U32", 32}, {"F32", 32},
      {"C64", 64},        {"F64", 64},        {"I64", 64},    {"U64", 64}};
  for (const auto& [name, bits] : of_name)
    if (name_ == name) return bits;
  return {};
}

DPMP_KEPT_BODY inline std::optional<DType> StoredType::native() const {
  for (DType d : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32})
    if (*this == StoredType(d)) return d;
  return {};
}

DPMP_KEPT_BODY inline StoredShape::StoredShape(const Shape& shape) {
  for (int axis = 0; axis < shape.rank(); ++axis) extents_.push_back(shape[axis]);
}

DPMP_KEPT_BODY inline std::optional<index_t> StoredShape::numel() const {
  index_t n = 1;
  for (const index_t extent : extents_)
    if (__builtin_mul_overflow(n, extent, &n)) return {};
  return n;
}

DPMP_KEPT_BODY inline StoredShape::operator Shape() const {
  Shape shape;
  DPMP_CHECK(extents_.size() <= std::size_t(Shape::max_rank), "expected at most ", Shape::max_rank, " axes, got ", *this);
  for (const index_t extent : extents_) shape.push_back(extent);
  return shape;
}
}  // namespace dpmp::inline DPMP_ABI::interop
#endif

// SPDX-License-Identifier: Apache-2.0
// Shapes: up to five 64-bit extents, row-major, with overflow-checked sizes. No heap.
#pragma once
#include <array>
#include <initializer_list>
#include <ostream>
#include <string>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI {
/// Extents of a row-major tensor. Axis 0 of an activation is the sample axis. Sizes 0 are legal.
class Shape {
 public:
  static constexpr int max_rank = 5;
  Shape() = default;
  /// Throws on more than five axes, a negative extent, or an element count beyond 2^63 - 1.
  [[gnu::noinline]] Shape(std::initializer_list<index_t> extents) {
    DPMP_CHECK(extents.size() <= std::size_t(max_rank), "expected at most ", max_rank, " axes, got ", extents.size());
    for (index_t e : extents) push_back(e);
  }
  void push_back(index_t extent) {
    DPMP_CHECK(rank_ < max_rank, "expected at most ", max_rank, " axes, got one more after ", *this);
    DPMP_CHECK(extent >= 0, "expected an extent >= 0, got ", extent, " for axis ", rank_);
    extents_[std::size_t(rank_++)] = extent;
    numel_ = checked_product(0, rank_);
  }
  int rank() const { return rank_; }
  /// Extent of an axis; negative axes count from the back. Throws when there is no such axis.
  index_t operator[](int axis) const { return extents_[std::size_t(checked_axis(axis))]; }
  index_t front() const { return (*this)[0]; }
  index_t back() const { return (*this)[-1]; }
  /// Number of elements (1 for rank 0).
  index_t numel() const { return numel_; }
  /// Product of the extents of axes [first, last).
  index_t numel(int first, int last) const { return checked_product(first, last); }
  /// The same shape with one extent replaced.
  Shape with(int axis, index_t extent) const {
    const int at = checked_axis(axis);
    Shape r;
    for (int k = 0; k < rank_; ++k) r.push_back(k == at ? extent : extents_[std::size_t(k)]);
    return r;
  }
  friend bool operator==(const Shape& x, const Shape& y) { return x.rank_ == y.rank_ && x.extents_ == y.extents_; }
  friend std::ostream& operator<<(std::ostream& out, const Shape& s) {
    out << '[';
    for (int k = 0; k < s.rank_; ++k) out << (k ? ", " : "") << s.extents_[std::size_t(k)];
    return out << ']';
  }

 private:
  int checked_axis(int axis) const {
    const int at = axis < 0 ? axis + rank_ : axis;
    if (at < 0 || at >= rank_) [[unlikely]]
      refuse_axis(axis);
    return at;
  }
  // Asked for in most functions: what a refusal takes is not repeated in them.
  [[noreturn, gnu::cold, gnu::noinline]] void refuse_axis(int axis) const {
    throw Error(detail::concat("expected an axis of shape ", *this, ", got ", axis));
  }
  [[gnu::noinline]] index_t checked_product(int first, int last) const {
    index_t n = 1;
    bool overflow = false, zero = false;
    for (int k = first; k < last; ++k) {
      zero = zero || extents_[std::size_t(k)] == 0;
      overflow = overflow || __builtin_mul_overflow(n, extents_[std::size_t(k)], &n);
    }
    if (zero) return 0;
    DPMP_CHECK(!overflow, "expected at most 2^63 - 1 elements, got the shape ", *this);
    return n;
  }
  std::array<index_t, max_rank> extents_{};
  index_t numel_ = 1;
  int rank_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI

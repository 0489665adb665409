// SPDX-License-Identifier: Apache-2.0
// What a tape says of the values that were recorded on it, and how two recordings are compared.
#pragma once
#include <string>
#include <string_view>

#include "dpmp/core/dtype.hpp"
#include "dpmp/core/error.hpp"
#include "dpmp/core/shape.hpp"

namespace dpmp::inline DPMP_ABI {
/// A value as it was recorded: by which operation ("input" for none), of which shape and dtype.
struct RecordedValue {
  std::string_view name;
  Shape shape;
  DType dtype = DType::f32;
};

/// What `now` has in the place of something in `wanted`: "another operation", "another dtype", ..; "" where they are alike.
/// Says no size: that of `now` may be private.
inline std::string difference(const RecordedValue& wanted, const RecordedValue& now) {
  if (now.name != wanted.name) return "another operation";
  if (now.dtype != wanted.dtype) return "another dtype";
  if (now.shape.rank() != wanted.shape.rank()) return "another number of axes";
  for (int axis = 0; axis < wanted.shape.rank(); ++axis)
    if (now.shape[axis] != wanted.shape[axis]) return detail::concat("another size of axis ", axis);
  return "";
}
}  // namespace dpmp::inline DPMP_ABI

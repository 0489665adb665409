// SPDX-License-Identifier: Apache-2.0
// A value on a tape, and the place where its gradient is gathered.
#pragma once
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI {
class Tape;

/// Where the gradient of a variable is gathered. What a rule keeps of an input whose value its backward does not need.
struct GradientSlot {
  index_t index = -1;
  Shape shape;
  DType dtype = DType::f32;
};

/// A value on a tape. Cheap to copy; the tensor lives as long as a Variable or a rule that saved it.
class Variable {
 public:
  Variable() = default;
  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  DType dtype() const { return value_.dtype(); }
  Tape& tape() const {
    DPMP_CHECK(tape_, "expected a recorded variable, got an empty one");
    return *tape_;
  }
  GradientSlot slot() const { return {slot_, shape(), dtype()}; }

 private:
  friend class Tape;
  Tape* tape_ = nullptr;
  index_t slot_ = -1;
  Tensor value_;
};
}  // namespace dpmp::inline DPMP_ABI

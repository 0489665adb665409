// SPDX-License-Identifier: Apache-2.0
// A trainable tensor: FP32 master values, and the copy in the compute dtype that kernels read.
#pragma once
#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI {
/// One parameter storage. Layers that share a weight hold the same Parameter; the per-sample norm is taken per Parameter.
/// Not copyable: its address is its identity.
class Parameter {
 public:
  /// master: initial values in f32 (f64 for an f64 model). dtype: what value() is stored in.
  Parameter(Context& ctx, std::string name, Tensor master, DType dtype);
  Parameter(const Parameter&) = delete;
  Parameter& operator=(const Parameter&) = delete;

  const std::string& name() const { return name_; }
  const Shape& shape() const { return master_.shape(); }
  index_t numel() const { return master_.numel(); }
  DType dtype() const { return value_.dtype(); }
  /// What value() was stored in at first.
  DType made_in() const { return made_in_; }
  /// What forward and backward read: the master rounded to the compute dtype.
  const Tensor& value() const { return value_; }
  /// What the optimiser updates. Call refresh() after writing to it.
  Tensor& master() { return master_; }
  const Tensor& master() const { return master_; }
  /// Rounds the master into value().
  void refresh(Context& ctx);
  /// Stores value() in another dtype from now on, rounded from the same master. Throws for i32, and between f64 and others.
  void store_in(Context& ctx, DType dtype);
  /// A frozen parameter emits no site, gets no noise and is not updated.
  bool trainable() const { return trainable_; }
  void set_trainable(bool trainable) { trainable_ = trainable; }

 private:
  std::string name_;
  Tensor master_, value_;
  DType made_in_;
  bool trainable_ = true;
};

/// Whether this is a matrix or has more axes: weights and tables are, biases and the gains of norms are not.
inline bool is_matrix(const Parameter& parameter) { return parameter.shape().rank() >= 2; }
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/tensor/elementwise.hpp"

namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline Parameter::Parameter(Context& ctx, std::string name, Tensor master, DType dtype)
    : name_(std::move(name)), master_(std::move(master)), made_in_(dtype) {
  store_in(ctx, dtype);
}

DPMP_KEPT_BODY inline void Parameter::store_in(Context& ctx, DType dtype) {
  if (std::find(std::begin(real_dtypes), std::end(real_dtypes), dtype) == std::end(real_dtypes)) detail::refuse_dtype(dtype);
  check_dtype("the master values of " + name_, master_, accumulate_dtype(dtype));
  value_ = dtype == master_.dtype() ? master_ : Tensor::empty(ctx, master_.shape(), dtype);
  refresh(ctx);
}

DPMP_KEPT_BODY inline void Parameter::refresh(Context& ctx) {
  if (value_.dtype() != master_.dtype()) cast_to(ctx, master_, value_);
}
}  // namespace dpmp::inline DPMP_ABI
#endif

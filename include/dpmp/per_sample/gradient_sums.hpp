// SPDX-License-Identifier: Apache-2.0
// One f64 sum per trainable parameter: where micro-batches meet before noise and the optimiser.
#pragma once
#include <span>
#include <vector>

#include "dpmp/autograd/parameter.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Sums over samples are kept in double: an FP32 sum's roundings change when one sample is removed, and that counts as
/// sensitivity (docs/numerics.md).
class GradientSums {
 public:
  GradientSums(Context& ctx, std::span<Parameter* const> parameters) {
    for (Parameter* p : parameters)
      if (p->trainable()) {
        parameters_.push_back(p);
        sums_.push_back(Tensor::zeros(ctx, p->shape(), DType::f64));
      }
  }
  const std::vector<Parameter*>& parameters() const { return parameters_; }
  const std::vector<Tensor>& tensors() const { return sums_; }
  /// The sum of one parameter. Throws when it is not among the trainable ones given to the constructor.
  const Tensor& of(const Parameter& p) const {
    for (std::size_t k = 0; k < parameters_.size(); ++k)
      if (parameters_[k] == &p) return sums_[k];
    throw Error("expected a trainable parameter of this model, got " + p.name());
  }
  void set_zero() {
    for (Tensor& t : sums_) t.set_zero();
  }

 private:
  std::vector<Parameter*> parameters_;
  std::vector<Tensor> sums_;
};
}  // namespace dpmp::inline DPMP_ABI::per_sample

// SPDX-License-Identifier: Apache-2.0
// One f64 sum per trainable parameter: where micro-batches meet before noise and the optimiser.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "dpmp/autograd/parameter.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Sums over samples are kept in double: an FP32 sum's roundings change when one sample is removed, and that counts as
/// sensitivity (docs/numerics.md).
class GradientSums {
 public:
  GradientSums(Context& ctx, std::span<Parameter* const> parameters) : all_(parameters.begin(), parameters.end()) {
    follow_trainable(ctx);
  }
  /// Takes up parameters that became trainable and lets go of frozen ones; the others keep their sums.
  void follow_trainable(Context& ctx) {
    std::vector<Tensor> sums;
    std::vector<Parameter*> parameters;
    std::vector<index_t> places;
    for (std::size_t k = 0; k < all_.size(); ++k) {
      if (!all_[k]->trainable()) continue;
      const auto at = std::find(parameters_.begin(), parameters_.end(), all_[k]);
      sums.push_back(at == parameters_.end() ? Tensor::zeros(ctx, all_[k]->shape(), DType::f64)
                                             : sums_[std::size_t(at - parameters_.begin())]);
      parameters.push_back(all_[k]);
      places.push_back(index_t(k));
    }
    sums_.swap(sums);
    parameters_.swap(parameters);
    places_.swap(places);
  }
  /// The trainable ones.
  const std::vector<Parameter*>& parameters() const { return parameters_; }
  const std::vector<Tensor>& tensors() const { return sums_; }
  /// Numbers of parameters() among all that the constructor was given: they do not change when others are frozen.
  const std::vector<index_t>& places() const { return places_; }
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
  std::vector<Parameter*> all_, parameters_;
  std::vector<Tensor> sums_;
  std::vector<index_t> places_;
};
}  // namespace dpmp::inline DPMP_ABI::per_sample

// SPDX-License-Identifier: Apache-2.0
// One f64 sum per trainable parameter: where micro-batches meet before noise and the optimiser.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "dpmp/autograd/parameter.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Sums over samples are kept in double: an FP32 sum's roundings change when one sample is removed, and that counts as
/// sensitivity (docs/numerics.md). All of them lie in one allocation, so that they are cleared in one launch.
class GradientSums {
 public:
  GradientSums(Context& ctx, std::span<Parameter* const> parameters) : all_(parameters.begin(), parameters.end()) {
    follow_trainable(ctx);
  }
  /// Takes up parameters that became trainable and lets go of frozen ones; the others keep the values of their sums. If any
  /// did, all sums move.
  void follow_trainable(Context& ctx) {
    std::vector<Parameter*> parameters;
    std::vector<index_t> places, begins{0};
    for (std::size_t k = 0; k < all_.size(); ++k) {
      if (!all_[k]->trainable()) continue;
      parameters.push_back(all_[k]);
      places.push_back(index_t(k));
      constexpr index_t aligned = 16;  // doubles: 128 bytes, whole lines of a GPU's cache
      begins.push_back(begins.back() + (all_[k]->numel() + aligned - 1) / aligned * aligned);
    }
    if (parameters == parameters_) return;
    const Tensor storage = Tensor::zeros(ctx, {begins.back()}, DType::f64);
    std::vector<Tensor> sums;
    for (std::size_t k = 0; k < parameters.size(); ++k) {
      const Parameter& p = *parameters[k];
      sums.push_back(storage.rows(begins[k], begins[k] + p.numel()).reshaped(p.shape()));
      const auto before = std::find(parameters_.begin(), parameters_.end(), &p);
      if (before != parameters_.end() && p.numel() > 0)
        ctx.backend().copy(sums[k].raw(), sums_[std::size_t(before - parameters_.begin())].raw(), sums[k].bytes());
    }
    storage_ = storage;
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
    if (!parameters_.empty()) storage_.set_zero();
  }

 private:
  std::vector<Parameter*> all_, parameters_;
  Tensor storage_;
  std::vector<Tensor> sums_;  // in storage_
  std::vector<index_t> places_;
};
}  // namespace dpmp::inline DPMP_ABI::per_sample

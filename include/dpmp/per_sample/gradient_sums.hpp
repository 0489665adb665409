// SPDX-License-Identifier: Apache-2.0
// One sum per trainable parameter: where micro-batches meet before noise and the optimiser.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "dpmp/autograd/parameter.hpp"
#include "dpmp/core/accumulation.hpp"
#include "dpmp/kernels/fold_sums.hpp"
#include "dpmp/runtime/launch.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Sums over samples are kept in double: an FP32 sum's roundings change when one sample is removed, and that counts as
/// sensitivity (docs/numerics.md). Chains of at most samples_per_chain additions are folded into a pair of double and float.
/// All sums are in one allocation, so that they are cleared in one launch.
class GradientSums {
 public:
  /// ctx: outlives the sums.
  GradientSums(Context& ctx, std::span<Parameter* const> parameters);
  /// Takes up parameters that became trainable and lets go of frozen ones; the others keep the values of their sums. If any
  /// did, all sums move.
  void follow_trainable(Context& ctx);
  /// Takes the memory now that more than samples_per_chain samples need: bytes_of_folds() for each trained value. Nothing
  /// for fewer.
  void prepare(index_t samples) {
    if (samples > samples_per_chain && !high_.defined() && !parameters_.empty()) reserve();
  }
  static constexpr index_t bytes_of_folds = 12;
  /// The trainable ones.
  const std::vector<Parameter*>& parameters() const { return parameters_; }
  /// The sums, f64, one for each of parameters().
  const std::vector<Tensor>& tensors() const;
  /// Numbers of parameters() among all that the constructor was given: they do not change when others are frozen.
  const std::vector<index_t>& places() const { return places_; }
  /// The sum of one parameter. Throws when it is not among the trainable ones given to the constructor.
  const Tensor& of(const Parameter& p) const;
  /// Where the contributions of `samples` more samples to one parameter are added, at most samples_per_chain of them. What
  /// is captured in a CUDA graph adds the same number at every launch, however often that is.
  const Tensor& chain(const Parameter& p, index_t samples);
  void set_zero();

 private:
  std::size_t index_of(const Parameter& p) const;
  void reserve();
  /// What is laid out like storage_, from parameter k on.
  template <class T>
  T* part_of(const Tensor& x, std::size_t k) const {
    return x.data<T>() + (sums_[k].data<double>() - storage_.data<double>());
  }
  /// Everything into the sums, before they are read.
  void unfold() const;

  Context* ctx_;
  std::vector<Parameter*> all_, parameters_;
  Tensor storage_, high_, low_;  // high_, low_: from the first fold on (on a GPU, from the first chain on)
  std::vector<Tensor> sums_;     // in storage_
  std::vector<index_t> places_;
  std::vector<index_t> added_;   // samples in each parameter's chain
  mutable bool folded_ = false;  // since the last reading
  bool replayed_ = false;        // a graph folds without telling
};
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::per_sample {
DPMP_KEPT_BODY inline GradientSums::GradientSums(Context& ctx, std::span<Parameter* const> parameters)
    : ctx_(&ctx), all_(parameters.begin(), parameters.end()) {
  follow_trainable(ctx);
}

DPMP_KEPT_BODY inline void GradientSums::follow_trainable(Context& ctx) {
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
  const MemoryLabel label(ctx.arena(), "gradient sums");
  unfold();
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
  high_ = low_ = Tensor();
  added_.assign(parameters.size(), 0);
  sums_.swap(sums);
  parameters_.swap(parameters);
  places_.swap(places);
}

DPMP_KEPT_BODY inline const std::vector<Tensor>& GradientSums::tensors() const {
  unfold();
  return sums_;
}

DPMP_KEPT_BODY inline const Tensor& GradientSums::of(const Parameter& p) const {
  unfold();
  return sums_[index_of(p)];
}

DPMP_KEPT_BODY inline const Tensor& GradientSums::chain(const Parameter& p, index_t samples) {
  DPMP_CHECK(samples >= 0 && samples <= samples_per_chain, "expected at most ", samples_per_chain,
             " samples to add to a chain, got ", samples);
  const std::size_t k = index_of(p);
  const bool capturing = ctx_->backend().capturing();
  if (ctx_->on_cuda() && !high_.defined() && !capturing) reserve();
  if (capturing || added_[k] + samples > samples_per_chain) {
    if (!high_.defined()) reserve();
    replayed_ = replayed_ || capturing;
    launch_library_elements(*ctx_, sums_[k].numel(),
                            kernels::FoldSums{sums_[k].data<double>(), part_of<double>(high_, k), part_of<float>(low_, k)});
    folded_ = true;
    added_[k] = 0;
  }
  added_[k] += samples;
  return sums_[k];
}

DPMP_KEPT_BODY inline void GradientSums::set_zero() {
  if (parameters_.empty()) return;
  storage_.set_zero();
  // What is captured clears what its replays fold, also where nothing has been folded yet.
  if (high_.defined() && (folded_ || replayed_ || ctx_->backend().capturing())) {
    high_.set_zero();
    low_.set_zero();
  }
  folded_ = false;
  std::fill(added_.begin(), added_.end(), 0);
}

DPMP_KEPT_BODY inline std::size_t GradientSums::index_of(const Parameter& p) const {
  for (std::size_t k = 0; k < parameters_.size(); ++k)
    if (parameters_[k] == &p) return k;
  throw Error("expected a trainable parameter of this model, got " + p.name());
}

DPMP_KEPT_BODY inline void GradientSums::reserve() {
  const MemoryLabel label(ctx_->arena(), "gradient sums");
  high_ = Tensor::zeros(*ctx_, storage_.shape(), DType::f64);
  low_ = Tensor::zeros(*ctx_, storage_.shape(), DType::f32);
}

DPMP_KEPT_BODY inline void GradientSums::unfold() const {
  if (!folded_ && !replayed_) return;
  launch_library_elements(*ctx_, storage_.numel(),
                          kernels::UnfoldSums{storage_.data<double>(), high_.data<double>(), low_.data<float>()});
  folded_ = false;
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif

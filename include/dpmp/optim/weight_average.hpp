// SPDX-License-Identifier: Apache-2.0
// An exponential moving average of the weights (Polyak, Juditsky 1992; in private training: De et al. 2022, arXiv
// 2204.13650). It is made of released weights alone, so it costs no privacy.
#pragma once
#include <span>
#include <vector>

#include "dpmp/autograd/parameter.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::optim {
namespace detail {
/// average = keep average + (1 - keep) weight.
template <class T>
struct FollowWeights {
  using Real = T;
  using Storage = T;
  const T* weight;
  T* average;
  T keep;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(average, at.load(average) * keep + at.load(weight) * (T(1) - keep));
  }
};
}  // namespace detail

class WeightAverage {
 public:
  /// Starts as the parameters are. decay in [0, 1): of the average in a step; in step k at most (k - 1) / (k + 9), so that
  /// the initial weights are forgotten.
  WeightAverage(Context& ctx, std::span<Parameter* const> parameters, double decay);
  /// After each step: moves towards the parameters' masters.
  void follow();
  /// Exchanges the averages and the parameters' values: once to evaluate or save the averages, once more to train on.
  void swap();

  double decay() const { return decay_; }
  /// Calls of follow().
  index_t steps() const { return steps_; }
  /// Whether the parameters have the averages' values: after an odd number of swap().
  bool is_swapped() const { return swapped_; }
  std::span<Parameter* const> parameters() const { return parameters_; }
  /// Of each parameter, in the dtype of its master; sharing memory with this.
  const std::vector<Tensor>& averages() const { return averages_; }
  /// Goes on after `steps` >= 0 calls of follow(), with these averages, which are copied: one for each parameter, in its
  /// shape and the dtype of its master. Throws where one does not fit, and while this is swapped; nothing is changed then.
  void restore(index_t steps, const std::vector<Tensor>& averages);

 private:
  Context& ctx_;
  std::vector<Parameter*> parameters_;
  std::vector<Tensor> averages_;
  double decay_;
  index_t steps_ = 0;
  bool swapped_ = false;
};
}  // namespace dpmp::inline DPMP_ABI::optim

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::optim {
DPMP_KEPT_BODY inline WeightAverage::WeightAverage(Context& ctx, std::span<Parameter* const> parameters, double decay)
    : ctx_(ctx), parameters_(parameters.begin(), parameters.end()), decay_(decay) {
  DPMP_CHECK(decay >= 0 && decay < 1, "expected the decay of a weight average in [0, 1), got ", decay);
  for (const Parameter* p : parameters_) averages_.push_back(p->master().clone(ctx));
}

DPMP_KEPT_BODY inline void WeightAverage::follow() {
  ++steps_;
  const double keep = std::min(decay_, double(steps_ - 1) / double(steps_ + 9));
  for (std::size_t k = 0; k < parameters_.size(); ++k) {
    const Tensor &weight = parameters_[k]->master(), &average = averages_[k];
    if (weight.dtype() == DType::f64)
      launch_library_elements(ctx_, weight.numel(),
                              detail::FollowWeights<double>{weight.data<double>(), average.data<double>(), keep});
    else
      launch_library_elements(ctx_, weight.numel(),
                              detail::FollowWeights<float>{weight.data<float>(), average.data<float>(), float(keep)});
  }
}

DPMP_KEPT_BODY inline void WeightAverage::swap() {
  for (std::size_t k = 0; k < parameters_.size(); ++k) {
    Tensor& weight = parameters_[k]->master();
    const Tensor before = weight.clone(ctx_);
    weight.copy_from(averages_[k]);
    averages_[k].copy_from(before);
    parameters_[k]->refresh(ctx_);
  }
  swapped_ = !swapped_;
}

DPMP_KEPT_BODY inline void WeightAverage::restore(index_t steps, const std::vector<Tensor>& averages) {
  DPMP_CHECK(!swapped_, "expected a weight average that is not swapped, got one whose averages the parameters have");
  DPMP_CHECK(steps >= 0 && averages.size() == averages_.size(), "expected ", averages_.size(),
             " averages after a number of steps >= 0, got ", averages.size(), " after ", steps);
  for (std::size_t k = 0; k < averages.size(); ++k)
    DPMP_CHECK(averages[k].shape() == averages_[k].shape() && averages[k].dtype() == averages_[k].dtype(),
               "expected the average of '", parameters_[k]->name(), "' as ", averages_[k].dtype(), averages_[k].shape(),
               ", got ", averages[k].dtype(), averages[k].shape());
  for (std::size_t k = 0; k < averages.size(); ++k) averages_[k].copy_from(averages[k]);
  steps_ = steps;
}
}  // namespace dpmp::inline DPMP_ABI::optim
#endif
DPMP_KERNELS_END

// SPDX-License-Identifier: Apache-2.0
// Learning rates as a function of the step: public, so that nothing private steers them.
#pragma once
#include <functional>
#include <string>
#include <type_traits>
#include <utility>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::optim {
/// The rate of step 0, 1, ..: `[](index_t step) { return 0.1 / double(step + 1); }` or one of the usual ones. warm_up: over
/// that many first steps a rate grows linearly from peak / warm_up to peak, or 0 for none.
class LearningRate {
 public:
  using Function = std::function<double(index_t step)>;
  /// Any function of the step that always says the same. name: what fingerprint() calls it.
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, LearningRate> && std::is_invocable_r_v<double, F&, index_t>)
      LearningRate(F&& function, std::string name = "a function")
      : LearningRate(Function(std::forward<F>(function)), std::move(name), Named{}) {}

  static LearningRate constant(double rate, index_t warm_up = 0);
  /// After the warm-up half a cosine down to final at step `total`, and final from there on.
  static LearningRate cosine(double peak, index_t warm_up, index_t total, double final = 0);
  /// The same along a line.
  static LearningRate linear(double peak, index_t warm_up, index_t total, double final = 0);
  /// After the warm-up peak * sqrt(warm_up / (step + 1)), without one peak / sqrt(step + 1) (Vaswani et al. 2017, arXiv
  /// 1706.03762).
  static LearningRate inverse_square_root(double peak, index_t warm_up);

  /// Throws where a function gives no finite rate >= 0.
  double at(index_t step) const;

  /// The name and a hash of the rates of steps 0 .. steps - 1: all of them, since a function can be told from another one by
  /// its values only, and two runs that differ in a single rate are not the same run. Takes a moment for each step.
  std::string fingerprint(index_t steps) const;

 private:
  struct Named {};  // tells the constructor of a function as it is from the one of anything callable
  LearningRate(Function rate, std::string name, Named);
  static LearningRate decay(const char* name, double peak, index_t warm_up, index_t total, double final,
                            double (*left)(double done));
  Function rate_;
  std::string name_;
};
}  // namespace dpmp::inline DPMP_ABI::optim

#if DPMP_BODIES
#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <vector>

#include "dpmp/core/siphash.hpp"

namespace dpmp::inline DPMP_ABI::optim {
DPMP_KEPT_BODY inline LearningRate::LearningRate(Function rate, std::string name, Named)
    : rate_(std::move(rate)), name_(std::move(name)) {
  DPMP_CHECK(rate_, "expected a learning rate as a function of the step, got an empty function");
}

DPMP_KEPT_BODY inline LearningRate LearningRate::constant(double rate, index_t warm_up) {
  return decay("constant", rate, warm_up, std::max<index_t>(1, warm_up), rate, [](double) { return 1.0; });
}

DPMP_KEPT_BODY inline LearningRate LearningRate::cosine(double peak, index_t warm_up, index_t total, double final) {
  return decay("cosine", peak, warm_up, total, final,
               [](double done) { return 0.5 * (1 + std::cos(std::numbers::pi * done)); });
}

DPMP_KEPT_BODY inline LearningRate LearningRate::linear(double peak, index_t warm_up, index_t total, double final) {
  return decay("linear", peak, warm_up, total, final, [](double done) { return 1 - done; });
}

DPMP_KEPT_BODY inline LearningRate LearningRate::inverse_square_root(double peak, index_t warm_up) {
  const LearningRate rising = constant(peak, warm_up);
  const double turn = double(std::max<index_t>(1, warm_up));
  const auto rate = [=](index_t step) {
    return step < warm_up ? rising.rate_(step) : peak * std::sqrt(turn / double(step + 1));
  };
  return LearningRate(rate, dpmp::detail::concat("inverse square root from ", peak, ", warm-up ", warm_up), Named{});
}

DPMP_KEPT_BODY inline LearningRate LearningRate::decay(const char* name, double peak, index_t warm_up, index_t total,
                                                       double final, double (*left)(double done)) {
  DPMP_CHECK(peak >= 0 && final >= 0 && std::isfinite(peak) && std::isfinite(final),
             "expected finite learning rates >= 0, got ", peak, " and ", final);
  DPMP_CHECK(warm_up >= 0 && total >= std::max<index_t>(1, warm_up), "expected 0 <= warm_up <= total and total >= 1, got ",
             warm_up, " and ", total);
  const auto rate = [=](index_t step) {
    if (step < warm_up) return peak * double(step + 1) / double(warm_up);
    const double done = std::min(1.0, double(step - warm_up) / double(std::max<index_t>(1, total - warm_up)));
    return final + (peak - final) * left(done);
  };
  return LearningRate(rate, dpmp::detail::concat(name, " ", peak, " to ", final, ", warm-up ", warm_up, ", total ", total),
                      Named{});
}

DPMP_KEPT_BODY inline double LearningRate::at(index_t step) const {
  const double rate = rate_(step);
  DPMP_CHECK(rate >= 0 && std::isfinite(rate), "expected a finite learning rate >= 0 at step ", step, ", got ", rate,
             " from ", name_);
  return rate;
}

DPMP_KEPT_BODY inline std::string LearningRate::fingerprint(index_t steps) const {
  std::uint64_t hash = 0;
  std::vector<double> rates;
  for (index_t step = 0; step < steps; ++step) {
    rates.push_back(rate_(step));
    if (rates.size() < 4096 && step + 1 < steps) continue;
    hash = siphash24(hash, 0, std::as_bytes(std::span(rates)));
    rates.clear();
  }
  return dpmp::detail::concat(name_, ", rates of ", steps, " steps ", hash);
}
}  // namespace dpmp::inline DPMP_ABI::optim
#endif

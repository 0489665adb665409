// SPDX-License-Identifier: Apache-2.0
// What a plan's table says of the counts that a step releases: of an adaptive threshold, and of overflows.
#pragma once
#include "dpmp/dp/plan_options.hpp"

#if DPMP_BODIES
#include "dpmp/dp/rounded_text.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// line(name, value, remark) for each number. first_multiplier: the gradient sum's noise multiplier in the first step.
template <class Line>
void describe_counts(const PlanOptions& options, double first_multiplier, Line&& line) {
  if (options.adaptive) {
    const AdaptiveOptions& a = *options.adaptive;
    line("adaptive quantile", a.quantile, "share of gradients that the threshold should leave alone");
    line("adaptive learning rate", a.learning_rate, "eta");
    line("adaptive count noise", a.count_noise, "standard deviation on the count, s_b");
    line("adaptive range", dpmp::detail::concat(a.lowest, " .. ", a.highest), " of the threshold");
  }
  if (options.overflow) {
    const OverflowOptions& o = *options.overflow;
    line("overflow count noise", digits_down(o.count_noise, 10), "standard deviation on the number of overflows, s_o");
    line("overflow share", o.share, "of the expected batch; above it the loss scale is halved");
    line("growth interval", o.growth_interval, "steps until the loss scale is doubled");
    line("loss scale range", dpmp::detail::concat(o.lowest, " .. ", o.highest), "");
    line("initial loss scale", o.initial_scale, "");
    line("alarm after", o.alarm_after, "steps in a row above the share");
  }
  if (options.adaptive || options.overflow)
    line("gradient noise multiplier", first_multiplier,
         options.adaptive && options.overflow ? "sigma_z of the first step, above sigma: both counts use the rest"
                                              : "sigma_z of the first step, above sigma: the count uses the rest");
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif

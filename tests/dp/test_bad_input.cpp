// SPDX-License-Identifier: Apache-2.0
// Every value out of range is refused with what was expected and what was got.
#include <doctest/doctest.h>
#include <limits>
#include <string>
#include <vector>

#include "dpmp/dp/batch_bound.hpp"
#include "dpmp/dp/plan.hpp"

using namespace dpmp;
using dp::Plan;
using dp::PlanOptions;

namespace {
const double infinity = std::numeric_limits<double>::infinity(), nan_value = std::numeric_limits<double>::quiet_NaN();

/// The message of the dpmp::Error that f throws: it must name what was expected and what was got.
template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    const std::string text = e.message();
    INFO(text);
    CHECK(text.find("expected ") == 0);
    CHECK(text.find(", got ") != std::string::npos);
    CHECK(std::string(e.what()).find("[dpmp/dp/") != std::string::npos);
    return text;
  }
  FAIL("nothing was refused");
  return "";
}
bool says(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }
PlanOptions good() {
  return {.epsilon = 3, .delta = 1e-5, .sampling_rate = 0.02, .steps = 10, .clip_threshold = 1, .dataset_size = 100};
}
template <class Change>
std::string plan_refusal(Change&& change) {
  PlanOptions o = good();
  change(o);
  const std::string text = refusal([&] { Plan::calibrate(o); });
  // What is wrong for calibration is wrong for a given noise multiplier too, but for the target epsilon.
  if (!says(text, "epsilon")) {
    o.epsilon = 0;
    CHECK(refusal([&] { Plan::with_noise_multiplier(o, 1); }) == text);
  }
  return text;
}
}  // namespace

TEST_CASE("bad input: plan options") {
  CHECK_NOTHROW(Plan::calibrate(good()));
  for (double v : {0.0, -1.0, infinity, nan_value})
    CHECK(says(plan_refusal([&](PlanOptions& o) { o.epsilon = v; }), "target epsilon > 0"));
  for (double v : {0.0, 1.0, -0.1, 2.0, infinity, nan_value})
    CHECK(says(plan_refusal([&](PlanOptions& o) { o.delta = v; }), "delta in (0, 1)"));
  for (double v : {0.0, 1.0000001, -0.1, infinity, nan_value})
    CHECK(says(plan_refusal([&](PlanOptions& o) { o.sampling_rate = v; }), "sampling rate in (0, 1]"));
  for (index_t v : {index_t(0), index_t(-3), dp::max_steps})
    CHECK(says(plan_refusal([&](PlanOptions& o) { o.steps = v; }), "number of steps"));
  for (double v : {0.0, -1.0, infinity, nan_value})
    CHECK(says(plan_refusal([&](PlanOptions& o) { o.clip_threshold = v; }), "finite clip threshold > 0"));
  for (index_t v : {index_t(0), index_t(-1), index_t(1) << 53})
    CHECK(says(plan_refusal([&](PlanOptions& o) { o.dataset_size = v; }), "public dataset size"));
  CHECK(says(plan_refusal([](PlanOptions& o) {
               o.relation = dp::NeighbouringRelation::replace_one;
               o.accountant = dp::Accountant::rdp;
             }),
             "expected the accountant pld for poisson and replace_one, got rdp"));
  CHECK(says(plan_refusal([](PlanOptions& o) { o.accountant = dp::Accountant(7); }), "an Accountant, got the value 7"));
  CHECK(says(plan_refusal([](PlanOptions& o) { o.dataset_size = index_t(1) << 40, o.sampling_rate = 0.5; }),
             "logical batches"));
  CHECK(
      says(plan_refusal([](PlanOptions& o) { o.epsilon = 1e-6, o.accountant = dp::Accountant::rdp; }), "stays at or above"));
}

TEST_CASE("bad input: noise multipliers, also with a target epsilon") {
  PlanOptions o = good();
  CHECK(says(refusal([&] { Plan::with_noise_multiplier(o, 1); }), "no target epsilon with a noise multiplier, got 3"));
  o.epsilon = 0;
  CHECK_NOTHROW(Plan::with_noise_multiplier(o, 1));
  for (double v : {0.0, -1.0, infinity, nan_value})
    CHECK(says(refusal([&] { Plan::with_noise_multiplier(o, v); }), "finite noise multiplier > 0"));
  CHECK(says(refusal([&] { Plan::with_noise_multiplier(o, 1).epsilon_after(-1); }), "number of steps >= 0, got -1"));
}

TEST_CASE("bad input: accountant") {
  dp::RdpAccountant a;
  for (double v : {-0.1, 1.1, nan_value})
    CHECK(says(refusal([&] { a.add_steps(v, 1, 1); }), "sampling probability in [0, 1]"));
  for (double v : {0.0, -1.0, infinity, nan_value})
    CHECK(says(refusal([&] { a.add_steps(0.1, v, 1); }), "noise multiplier > 0"));
  CHECK(says(refusal([&] { a.add_steps(0.1, 1, -1); }), "steps >= 0, got -1"));
  a.add_steps(0.1, 1, std::numeric_limits<index_t>::max());
  CHECK(says(refusal([&] { a.add_steps(0.1, 1, 1); }), "fewer than 2^63 steps"));
  for (double v : {0.0, 1.0, nan_value}) CHECK(says(refusal([&] { (void)a.epsilon(v); }), "delta in (0, 1)"));
  for (double v : {1.0, 0.5, infinity, nan_value}) {
    CHECK(says(refusal([&] { dp::RdpAccountant b({2, v}); }), "Renyi orders > 1"));
    CHECK(says(refusal([&] { (void)dp::subsampled_gaussian_rdp(0.1, 1, v); }), "Renyi order > 1"));
  }
  CHECK(says(refusal([] { dp::RdpAccountant b(std::vector<double>{}); }), "at least one Renyi order"));
  CHECK(says(refusal([] { (void)dp::rdp_to_epsilon({2, 3}, {1}, 0.1); }), "one divergence an order, got 1 for 2"));
}

TEST_CASE("bad input: calibration") {
  for (double v : {0.0, -1.0, infinity, nan_value})
    CHECK(says(refusal([&] { dp::calibrate_noise_multiplier(v, 1e-5, 0.1, 10); }), "target epsilon > 0"));
  for (double v : {0.0, 1.0, nan_value})
    CHECK(says(refusal([&] { dp::calibrate_noise_multiplier(1, v, 0.1, 10); }), "delta in (0, 1)"));
  for (double v : {0.0, 1.5, nan_value})
    CHECK(says(refusal([&] { dp::calibrate_noise_multiplier(1, 1e-5, v, 10); }), "sampling probability in (0, 1]"));
  CHECK(says(refusal([] { dp::calibrate_noise_multiplier(1, 1e-5, 0.1, 0); }), "at least one step, got 0"));
  CHECK(says(refusal([] { dp::calibrate_noise_multiplier(1e30, 1e-5, 0.1, 10); }), "target epsilon that needs noise"));
}

TEST_CASE("bad input: clipping") {
  for (double v : {0.0, -1.0, -infinity, nan_value})
    CHECK(says(refusal([&] { dp::FlatClipping rule(v); }), "clip threshold >= 2^-100"));
  const dp::FlatClipping rule(1);
  std::vector<double> norms(3, 1.0);
  std::vector<std::uint8_t> ok(2, 1);
  std::vector<float> c(3);
  CHECK(says(refusal([&] { rule.factors(norms, ok, c); }), "expected 3 ok flags and factors, one a norm, got 2 and 3"));
  ok.resize(3);
  c.resize(4);
  CHECK(says(refusal([&] { rule.factors(norms, ok, c); }), "got 3 and 4"));
  for (index_t v : {index_t(0), index_t(-1), dp::max_batch_bound + 1})
    CHECK(
        says(refusal([&] { (void)rule.sensitivity(dp::NeighbouringRelation::zero_out, v); }), "bound on the logical batch"));
  CHECK(says(refusal([&] { (void)rule.sensitivity(dp::NeighbouringRelation(9), 1); }),
             "NeighbouringRelation, got the value 9"));
}

TEST_CASE("bad input: clip rules and groups") {
  using dp::ClipRule;
  for (double v : {0.0, -1.0, infinity, nan_value}) {
    CHECK(says(refusal([&] { ClipRule::automatic(v); }), "finite gamma > 0"));
    CHECK(says(refusal([&] { ClipRule::global(v); }), "finite largest norm Z > 0"));
  }
  const auto one = [](double) { return 1.0; };
  for (const std::string& name : {std::string(), std::string(65, 'a'), std::string("new\nline"), std::string("\x7f")})
    CHECK(says(refusal([&] { ClipRule::custom(name, one); }), "1 to 64 printable ASCII"));
  CHECK_NOTHROW(ClipRule::custom(std::string(64, '~'), one));
  CHECK(says(refusal([&] { ClipRule::custom("none", nullptr); }), "function for the clip rule 'none'"));
  for (const ClipRule& rule :
       {ClipRule::automatic(), ClipRule::normalise(), ClipRule::global(1), ClipRule::custom("x", one)})
    for (double v : {infinity, 0x1p121}) CHECK(says(refusal([&] { dp::FlatClipping c(v, rule); }), "at most 2^120"));
  // A7: near the largest FP32 number a block of contributions of norm C would overflow, whatever the rule.
  for (double v : {0x1.000001p120, 0x1p127, 3e38, 1e300})
    CHECK(says(refusal([&] { dp::FlatClipping c(v); }), "at most 2^120"));
  CHECK_NOTHROW(dp::FlatClipping(0x1p120).sensitivity(dp::NeighbouringRelation::add_or_remove_one, 1));
  CHECK_NOTHROW(dp::FlatClipping{infinity});  // clips nothing; it has no sensitivity
  CHECK(says(refusal([] { dp::GroupClipping c(std::vector<double>{}); }), "1 to 2^24 groups, got 0"));
  for (double v : {0.0, -1.0, nan_value})
    CHECK(says(refusal([&] { dp::GroupClipping c({1, v}); }), "clip threshold >= 2^-100"));
  CHECK(says(refusal([] {
               dp::GroupClipping({1, infinity}).sensitivity(dp::NeighbouringRelation::zero_out, 1);
             }),
             "finite clip thresholds, got inf"));
  for (index_t v : {index_t(-1), index_t(2)})
    CHECK(says(refusal([&] { dp::GroupClipping({1, 2}).group(v); }), "group in [0, 2)"));
  for (index_t v : {index_t(0), dp::max_parameters + 1})
    CHECK(says(refusal([&] { dp::GroupClipping::uniform(1, v); }), "1 to 2^24 groups"));
}

TEST_CASE("bad input: schedules") {
  using dp::Schedule;
  CHECK(says(refusal([] { Schedule::piecewise({}); }), "1 to 65536 pieces of a schedule, got 0"));
  CHECK(says(refusal([] { Schedule::piecewise(std::vector<Schedule::Piece>(65537)); }), "got 65537"));
  CHECK(says(refusal([] { Schedule::piecewise({{1, 1.0}}); }), "from step 0 on, got one from step 1"));
  for (index_t v : {3, 2, -1})
    CHECK(says(refusal([&] { Schedule::piecewise({{0, 1.0}, {3, 2.0}, {v, 1.0}}); }), "ascending steps"));
  CHECK(says(refusal([] { Schedule::piecewise({{0, 1.0}, {dp::max_steps, 2.0}}); }), "steps below 2^40"));
  for (double v : {0.0, -1.0, infinity, nan_value}) {
    CHECK(says(refusal([&] { Schedule::piecewise({{0, 1.0}, {3, v}}); }), "finite values > 0 in a schedule"));
    CHECK(says(refusal([&] { Schedule::linear(v, 1, 10, 2); }), "finite values > 0"));
    CHECK(says(refusal([&] { Schedule::cosine(1, v, 10, 2); }), "finite values > 0"));
  }
  for (index_t v : {index_t(1), index_t(11), index_t(-1)})
    CHECK(says(refusal([&] { Schedule::linear(1, 2, 10, v); }), "expected 2 to 10 pieces for 10 steps"));
  for (index_t v : {index_t(1), index_t(-5), dp::max_steps})
    CHECK(says(refusal([&] { Schedule::cosine(1, 2, v, 2); }), "2 to 2^40 - 1 steps"));
  CHECK(says(refusal([] { (void)Schedule::constant().at(-1); }), "step >= 0, got -1"));
}

TEST_CASE("bad input: adaptive thresholds, and combinations that a plan has no meaning for") {
  const auto wrong = [](auto change) {
    dp::AdaptiveOptions a{.count_noise = 5};
    change(a);
    const std::string text = refusal([&] { dp::AdaptiveThreshold t(a, 10); });
    CHECK(plan_refusal([&](PlanOptions& o) { o.adaptive = a; }) == text);
    return text;
  };
  for (double v : {0.0, 1.0, -1.0, nan_value})
    CHECK(says(wrong([&](dp::AdaptiveOptions& a) { a.quantile = v; }), "quantile in (0, 1)"));
  for (double v : {0.0, -1.0, infinity, nan_value}) {
    CHECK(says(wrong([&](dp::AdaptiveOptions& a) { a.learning_rate = v; }), "learning rate > 0 of the clip threshold"));
    CHECK(says(wrong([&](dp::AdaptiveOptions& a) { a.count_noise = v; }), "deviation > 0 of the count's noise"));
    CHECK(says(wrong([&](dp::AdaptiveOptions& a) { a.initial_threshold = v; }), "lowest <= initial threshold <= highest"));
    CHECK(says(refusal([&] { dp::AdaptiveThreshold t({.count_noise = 5}, v); }), "expected batch > 0"));
  }
  CHECK(says(wrong([](dp::AdaptiveOptions& a) { a.lowest = 0; }), "0 < lowest"));
  CHECK(says(wrong([](dp::AdaptiveOptions& a) { a.lowest = 2; }), "lowest <= initial"));
  CHECK(says(wrong([](dp::AdaptiveOptions& a) { a.highest = infinity; }), "all finite"));
  CHECK(says(refusal([] { dp::quantile_count(std::vector<double>(2), std::vector<std::uint8_t>(3), 1); }), "2 ok flags"));
  CHECK(says(refusal([] { dp::gradient_noise_multiplier(-1, 5, dp::NeighbouringRelation::zero_out); }),
             "finite noise multiplier > 0, got -1"));

  const dp::AdaptiveOptions good_one{.count_noise = 5};
  CHECK(says(plan_refusal([&](PlanOptions& o) {
               o.adaptive = good_one, o.group_thresholds = {1, 2};
             }),
             "flat clipping with an adaptive threshold, got 2 groups"));
  CHECK(says(plan_refusal([&](PlanOptions& o) { o.adaptive = good_one, o.clip_threshold = 2; }),
             "no clip threshold in addition to an adaptive one, got 2"));
  CHECK(says(plan_refusal([&](PlanOptions& o) {
               o.group_thresholds = {1, 2}, o.clip_threshold = 2;
             }),
             "no clip threshold in addition to those of groups, got 2"));
  CHECK(says(plan_refusal([&](PlanOptions& o) {
               o.adaptive = good_one;
               o.clip_schedule = dp::Schedule::piecewise({{0, 2.0}});
             }),
             "no clip schedule with an adaptive threshold, got 2 from step 0"));
  // Thresholds that a schedule or an amplifying rule takes out of range, at any step.
  CHECK(says(plan_refusal([&](PlanOptions& o) {
               o.clip_threshold = 2;
               o.clip_schedule = dp::Schedule::piecewise({{0, 1.0}, {3, 1e300}});
             }),
             "2^120"));
  CHECK(says(plan_refusal([&](PlanOptions& o) {
               o.clip_rule = dp::ClipRule::normalise();
               o.clip_schedule = dp::Schedule::piecewise({{0, 1.0}, {3, 0x1p121}});
             }),
             "2^120"));
  CHECK(says(plan_refusal([&](PlanOptions& o) {
               o.clip_rule = dp::ClipRule::normalise();
               o.adaptive = good_one;
               o.adaptive->highest = 0x1p121;
             }),
             "2^120"));
  PlanOptions o = good();
  o.epsilon = 0;
  const Plan plan = Plan::with_noise_multiplier(o, 1);
  for (index_t v : {index_t(-1), dp::max_steps}) CHECK(says(refusal([&] { (void)plan.at(v); }), "step in [0, 2^40)"));
}

TEST_CASE("bad input: sampler") {
  for (index_t v : {index_t(0), index_t(-1)})
    CHECK(says(refusal([&] { dp::PoissonSampler({}, v, 0.5); }), "at least one record"));
  for (double v : {0.0, -0.5, 1.5, nan_value})
    CHECK(says(refusal([&] { dp::PoissonSampler({}, 10, v); }), "sampling probability in (0, 1]"));
  const dp::PoissonSampler sampler({}, 10, 0.5);
  std::vector<index_t> draw;
  for (index_t v : {index_t(-1), dp::max_steps}) CHECK(says(refusal([&] { sampler.draw(v, draw); }), "step in [0, 2^40)"));
}

TEST_CASE("bad input: noise, counter layout, ledger, batch bound, stored plans") {
  ThreadTeam team(1);
  std::vector<double> sum(4, 1.0);
  for (double v : {-1.0, infinity, nan_value})
    CHECK(says(refusal([&] { dp::add_gaussian_noise(team, sum, v, {}, 0); }), "noise standard deviation >= 0"));
  CHECK(says(refusal([&] { dp::add_gaussian_noise(team, sum, 0x1p901, {}, 0); }), "at most 2^900"));
  for (index_t v : {index_t(-1), dp::max_parameters})
    CHECK(says(refusal([&] { dp::add_gaussian_noise(team, sum, 1, {}, v); }), "parameter index in [0, 2^24)"));
  for (index_t v : {index_t(-1), dp::max_steps})
    CHECK(says(refusal([&] { dp::add_gaussian_noise(team, sum, 1, {{}, v}, 0); }), "step in [0, 2^40)"));
  CHECK(sum == std::vector<double>(4, 1.0));  // nothing half-done
  const dp::StreamKeys keys(dp::random_key());
  for (index_t v : {index_t(0), index_t(-1), dp::max_steps})
    CHECK(says(refusal([&] { dp::StepLedger l(v, keys); }), "planned steps"));
  for (index_t v : {index_t(-1), dp::max_steps}) CHECK(says(refusal([&] { dp::StepLedger l(5, keys, v); }), "steps taken"));
  CHECK(says(refusal([&] { dp::StepLedger(5, keys, 5).begin_step(); }), "at most 5 steps"));
  CHECK(says(refusal([&] { dp::StepLedger(5, keys, dp::max_steps - 1, dp::BeyondPlan::account).begin_step(); }),
             "fewer than 2^40 steps"));
  CHECK(says(refusal([] { dp::poisson_batch_bound(0, 0.5, 0.1); }), "at least one record"));
  for (double v : {0.0, 1.5, nan_value})
    CHECK(says(refusal([&] { dp::poisson_batch_bound(5, v, 0.1); }), "sampling probability"));
  for (double v : {0.0, 1.0, nan_value})
    CHECK(says(refusal([&] { dp::poisson_batch_bound(5, 0.5, v); }), "failure probability"));
  dp::PlanText text;
  CHECK(says(refusal([&] { Plan::from_text(text); }), "expected an entry 'relation' of a plan, got none"));
  PlanOptions o = good();
  o.epsilon = 0;
  text = Plan::with_noise_multiplier(o, 1).text();
  text["relation"] = "7";
  CHECK(says(refusal([&] { Plan::from_text(text); }), "expected a neighbouring relation in 'relation' of a plan, got '7'"));
}

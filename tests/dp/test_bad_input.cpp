// SPDX-License-Identifier: Apache-2.0
// Every value out of range is refused with what was expected and what was got.
#include <doctest/doctest.h>
#include <limits>
#include <string>
#include <vector>

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
  CHECK(says(plan_refusal([](PlanOptions& o) { o.relation = dp::NeighbouringRelation::replace_one; }), "replace_one"));
  CHECK(says(plan_refusal([](PlanOptions& o) { o.dataset_size = index_t(1) << 40, o.sampling_rate = 0.5; }),
             "logical batches"));
  CHECK(says(plan_refusal([](PlanOptions& o) { o.epsilon = 1e-6; }), "stays at or above"));
}

TEST_CASE("bad input: noise multipliers and a target epsilon beside one") {
  PlanOptions o = good();
  CHECK(says(refusal([&] { Plan::with_noise_multiplier(o, 1); }), "no target epsilon beside a noise multiplier, got 3"));
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
    CHECK(says(refusal([&] { dp::FlatClipping rule(v); }), "clip threshold > 0"));
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

TEST_CASE("bad input: sampler and physical batches") {
  for (index_t v : {index_t(0), index_t(-1)})
    CHECK(says(refusal([&] { dp::PoissonSampler({}, v, 0.5); }), "at least one record"));
  for (double v : {0.0, -0.5, 1.5, nan_value})
    CHECK(says(refusal([&] { dp::PoissonSampler({}, 10, v); }), "sampling probability in (0, 1]"));
  const dp::PoissonSampler sampler({}, 10, 0.5);
  std::vector<index_t> draw(5), slots(2);
  for (index_t v : {index_t(-1), dp::max_steps}) CHECK(says(refusal([&] { sampler.draw(v, draw); }), "step in [0, 2^40)"));
  CHECK(says(refusal([] { dp::physical_batches(5, 0); }), "at least one slot, got 0"));
  CHECK(says(refusal([] { dp::physical_batches(-1, 4); }), "records >= 0, got -1"));
  CHECK(says(refusal([&] { dp::fill_physical_batch(draw, 3, slots); }), "physical batch in [0, 3), got 3"));
  CHECK(says(refusal([&] { dp::fill_physical_batch(draw, -1, slots); }), "got -1"));
  CHECK(says(refusal([&] { dp::fill_physical_batch(draw, 0, {}); }), "at least one slot"));
}

TEST_CASE("bad input: noise, counter layout, ledger, batch bound, stored plans") {
  ThreadTeam team(1);
  std::vector<double> sum(4, 1.0);
  for (double v : {-1.0, infinity, nan_value})
    CHECK(says(refusal([&] { dp::add_gaussian_noise(team, sum, v, {}, 0); }), "noise standard deviation >= 0"));
  for (index_t v : {index_t(-1), dp::max_parameters})
    CHECK(says(refusal([&] { dp::add_gaussian_noise(team, sum, 1, {}, v); }), "parameter index in [0, 2^24)"));
  for (index_t v : {index_t(-1), dp::max_steps})
    CHECK(says(refusal([&] { dp::add_gaussian_noise(team, sum, 1, {{}, v}, 0); }), "step in [0, 2^40)"));
  CHECK(sum == std::vector<double>(4, 1.0));  // nothing half-done
  for (index_t v : {index_t(0), index_t(-1), dp::max_steps})
    CHECK(says(refusal([&] { dp::StepLedger l(v); }), "planned steps"));
  for (index_t v : {index_t(-1), dp::max_steps}) CHECK(says(refusal([&] { dp::StepLedger l(5, v); }), "steps taken"));
  CHECK(says(refusal([] { dp::StepLedger(5, 5).begin_step(); }), "at most 5 steps"));
  CHECK(says(refusal([] { dp::StepLedger(5, dp::max_steps - 1, dp::BeyondPlan::account).begin_step(); }),
             "fewer than 2^40 steps"));
  CHECK(says(refusal([] { dp::poisson_batch_bound(0, 0.5, 0.1); }), "at least one record"));
  for (double v : {0.0, 1.5, nan_value})
    CHECK(says(refusal([&] { dp::poisson_batch_bound(5, v, 0.1); }), "sampling probability"));
  for (double v : {0.0, 1.0, nan_value})
    CHECK(says(refusal([&] { dp::poisson_batch_bound(5, 0.5, v); }), "failure probability"));
  dp::PlanNumbers numbers;
  CHECK(says(refusal([&] { Plan::from_numbers(numbers); }), "delta in (0, 1)"));
  CHECK(says(refusal([&] {
               dp::for_each_number(numbers, [](const std::string& name, auto& value) {
                 if (name == "relation") value = 7;
               });
             }),
             "relation in [0, 2], got 7"));
}

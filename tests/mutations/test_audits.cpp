// SPDX-License-Identifier: Apache-2.0
// Audits in one run, of the real trainer and of planted bugs: lower bounds below the claim here, above it there.
#include <doctest/doctest.h>

#include "dpmp/dp/audit.hpp"
#include "dpmp/train/gradient_canaries.hpp"
#include "mutations/properties.hpp"
#include "support/errors.hpp"

namespace {
using namespace mutation;

/// What the adversary makes of the releases: the likelihood ratio of a step without mistakes, or what shows best where noise
/// comes again (how much the releases of one canary differ) or is missing (how close the last one is to 0 or 1).
enum class Score { likelihood, spread, closeness };
struct Setup {
  double q = 1, sigma = 2;
  index_t steps = 2, canaries = 2000;
  double C = 1;
  int uses = 2;
  std::vector<double> group_thresholds = {};
  bool thaw = false;  // u is frozen in the first step
  Score score = Score::likelihood;
  DType dtype = DType::f32;
  dp::NeighbouringRelation relation = dp::NeighbouringRelation::add_or_remove_one;
};

struct Audited {
  dp::OneRunResult result;
  bool refuted_surely = false;  // with confidence 1 - 1e-6
  double claimed = 0;
};

Audited audit(const MakeRun& make, const Setup& s, std::uint64_t stream) {
  constexpr index_t own = 16;
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), stream);
  Model m(ctx, 48, s.dtype);
  for (index_t i = 0; i < own; ++i) {
    Model::Record r;
    for (index_t k = 0; k < m.width; ++k)
      r.x.push_back(rng.normal()), r.y.push_back(rng.normal()),
          r.v.push_back(s.thaw ? 0 : rng.normal());  // or they blur what has no noise
    m.records.push_back(r);
  }
  dp::PlanOptions o = plan_options(own + s.canaries, s.steps, s.q, s.C);
  o.group_thresholds = s.group_thresholds;
  o.relation = s.relation;
  const dp::Plan plan = dp::Plan::with_noise_multiplier(o, s.sigma);
  train::TrainerOptions options{.physical_batch = 128};
  if (plan.groups() > 1) options.groups = per_sample::Groups::by_parameter(m.parameters.all());
  train::GradientCanaries canaries(ctx, m.parameters, plan, own, options,
                                   {.canaries = s.canaries, .uses = s.uses, .seed = rng.bits()});
  const Step step = make({ctx, m.parameters, plan, test::random_keys(rng), canaries.records(), canaries.trainer_options()});
  const auto own_losses = [&](const train::Batch& batch) { return m.loss(batch); };
  const auto losses = [&](const train::Batch& batch) { return canaries.losses(batch, own_losses); };
  for (index_t t = 0; t < s.steps; ++t) {
    m.u->set_trainable(!s.thaw || t > 0);
    step(losses);
    canaries.observe();
  }
  std::vector<double> scores = canaries.scores();
  for (std::size_t k = 0; k < scores.size(); ++k) {
    double low = HUGE_VAL, high = -HUGE_VAL;
    for (index_t t = 0; t < s.steps; ++t)
      low = std::min(low, canaries.released(t)[k]), high = std::max(high, canaries.released(t)[k]);
    const double last = canaries.released(s.steps - 1)[k];
    if (s.score == Score::spread) scores[k] = high - low;
    if (s.score == Score::closeness)
      scores[k] = (last > 0.5 ? 1 : -1) / (1e-4 + std::min(std::fabs(last), std::fabs(last - 1)));
  }
  const std::span<const std::vector<double>> rows(&scores, 1);
  return {canaries.result(rows, 0.95), canaries.result(rows, 1 - 1e-6).refuted, plan.epsilon()};
}
}  // namespace

TEST_CASE("P31: audits of the real trainer stay below the claim") {
  // The bound may be above the claim in one run of 20 by definition; none may be with a confidence of 1 - 1e-6.
  int runs = 0, above = 0, refuted = 0;
  double largest = 0;
  std::vector<Setup> setups(12);
  setups.resize(16, {.dtype = DType::bf16});
  setups.resize(18, {.group_thresholds = {0.3, 2}});
  setups.resize(20, {.q = 0.3, .sigma = 0.8, .steps = 4});
  setups.resize(22, {.relation = dp::NeighbouringRelation::zero_out});
  for (const Setup& s : setups) {
    const Audited a = audit(real_run, s, 300 + std::uint64_t(runs));
    ++runs;
    above += a.result.epsilon > a.claimed;
    refuted += a.result.refuted;
    largest = std::max(largest, a.result.epsilon / a.claimed);
    CHECK(!a.refuted_surely);
    CHECK(a.result.epsilon > 0);  // canaries are seen
  }
  std::printf(
      "%d audits of the real trainer: %d bounds above the claim, %d claims refuted at 95 %%, largest bound %.2f of the "
      "claim\n",
      runs, above, refuted, largest);
  // 12 or more of 22 have a probability below 1e-9.
  CHECK(above < 12);
  CHECK(refuted < 12);
}

TEST_CASE("P31: mutations: audits of planted bugs go above the claim") {
  const struct {
    std::string name;
    Bug bug;
    Setup setup;
  } bugs[] = {
      {"no clipping", Bug::no_clip, {}},
      {"tied weight: sum of the uses' squares", Bug::tied_sum_of_squares, {.uses = 16}},
      {"noise over the batch size", Bug::noise_over_batch, {}},
      {"a part of the noise for each micro-batch", Bug::noise_per_micro_batch, {.canaries = 4000}},
      {"noise that does not know C", Bug::unit_noise, {.C = 4}},
      {"a group missing in the sensitivity", Bug::noise_of_first_group, {.group_thresholds = {0.2, 2}}},
      {"no noise on a thawed parameter", Bug::no_noise_after_thaw, {.thaw = true, .score = Score::closeness}},
      {"one noise for all steps", Bug::reused_noise, {.q = 0.5, .sigma = 3, .steps = 6, .score = Score::spread}},
  };
  std::printf("| planted bug | claimed epsilon | lower bound at 95 %% | claim refuted |\n|---|---|---|---|\n");
  std::uint64_t stream = 400;
  for (const auto& b : bugs) {
    const Audited broken = audit(mutated(b.bug), b.setup, ++stream);
    std::printf("| %s | %.3f | %.3f | %s |\n", b.name.c_str(), broken.claimed, broken.result.epsilon,
                broken.result.refuted ? "yes" : "no");
    CAPTURE(b.name);
    CHECK(broken.result.epsilon > broken.claimed);
    CHECK(broken.result.refuted);
    // The same audit of the real trainer finds nothing.
    CHECK(!audit(real_run, b.setup, ++stream).refuted_surely);
  }
}

TEST_CASE("P11, P31: mutations: an audit of many runs sees a step that is skipped on overflow") {
  Context ctx(Device::cpu(), 1);
  const dp::Plan plan = dp::Plan::with_noise_multiplier(plan_options(2, 1, 1), 4);
  for (const bool broken : {true, false}) {
    dp::AuditScores scores;
    for (std::uint64_t run = 0; run < 400; ++run) {
      const bool with = run % 2;
      Model m(ctx);
      m.records = {m.one_element(0, 5), m.one_element(1, with ? double(INFINITY) : 0)};
      const double seen_by = test::norm(
          moved(m, broken ? mutated(Bug::skip_on_overflow) : MakeRun(real_run), plan, 1, descent(4), keys(1000 + run)));
      (with ? scores.with : scores.without).push_back(seen_by);
    }
    const dp::AuditResult r = dp::audit(scores, 1e-5, broken ? 0.95 : 1 - 1e-6);
    std::printf("step skipped on overflow%s, 200 + 200 runs: claimed epsilon %.3f, at least %.3f\n",
                broken ? "" : " (not: the real trainer)", plan.epsilon(), r.epsilon);
    CHECK((r.epsilon > plan.epsilon()) == broken);
  }
}

TEST_CASE("bad input: canaries that do not fit are refused") {
  Context ctx(Device::cpu(), 1);
  Model m(ctx);
  const auto make = [&](const dp::PlanOptions& o, index_t own, const train::CanaryOptions& c) {
    return test::refuses(
        [&] { train::GradientCanaries(ctx, m.parameters, dp::Plan::with_noise_multiplier(o, 1), own, {}, c); }, "expected");
  };
  CHECK(!make(plan_options(200, 1, 1), 100, {.canaries = 100}));
  CHECK(make(plan_options(200, 1, 1), 0, {.canaries = 100}));
  CHECK(make(plan_options(200, 1, 1), 100, {.canaries = 0}));
  CHECK(make(plan_options(200, 1, 1), 100, {.canaries = 100, .norm = 0}));
  CHECK(make(plan_options(2000, 1, 1), 100, {.canaries = 513}));  // weights: 2 * 256
  CHECK(make(plan_options(100, 1, 1), 99, {.canaries = 400}));    // more records than the plan has
  dp::PlanOptions grouped = plan_options(200, 1, 1);
  grouped.group_thresholds = {1, 1};
  CHECK(make(grouped, 100, {.canaries = 100}));  // groups of the plan, none of the options
  dp::PlanOptions adaptive = plan_options(200, 1, 1);
  adaptive.adaptive = dp::AdaptiveOptions{.count_noise = 4};
  CHECK(make(adaptive, 100, {.canaries = 100}));
  train::GradientCanaries unseen(ctx, m.parameters, dp::Plan::with_noise_multiplier(plan_options(200, 1, 1), 1), 100, {},
                                 {.canaries = 100});
  CHECK(test::refuses([&] { unseen.result(); }, "expected a step to have been observed"));
}

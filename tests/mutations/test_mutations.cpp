// SPDX-License-Identifier: Apache-2.0
// Planted privacy bugs: each breaks a property that the real step is held to by the same function. The printed table says
// what catches which; tests/mutations/run does it with bugs planted in the headers themselves.
#include <doctest/doctest.h>

#include "dpmp/dp/adaptive_clip.hpp"
#include "mutations/properties.hpp"

namespace {
using namespace mutation;

/// property_name: of the test case below that holds the real step to it.
struct Planted {
  const char* bug;
  const char* property_name;
  Property property;
  Bug mutant;
};
#define PROPERTY(id, function) id ": " #function, function
const Planted planted[] = {
    {"no clipping", PROPERTY("P1, P14, P24", contribution_is_bounded), Bug::no_clip},
    {"tied weight: sum of the uses' squares", PROPERTY("P1, P14, P24", contribution_is_bounded), Bug::tied_sum_of_squares},
    {"norm in bf16, negative squares set to 0", PROPERTY("P1, P14, P24", contribution_is_bounded), Bug::bf16_norm},
    {"clipping after the mean", PROPERTY("P2", neighbours_are_close), Bug::clip_after_mean},
    {"NaN removed after the sum", PROPERTY("P9, P11", non_finite_record_is_absent), Bug::non_finite_after_sum},
    {"step skipped on overflow", PROPERTY("P9, P11", non_finite_record_is_absent), Bug::skip_on_overflow},
    {"noise over the batch size", PROPERTY("P3, P12, P16", noise_has_its_deviation), Bug::noise_over_batch},
    {"a part of the noise for each micro-batch", PROPERTY("P3, P12, P16", noise_has_its_deviation),
     Bug::noise_per_micro_batch},
    {"noise that does not know C", PROPERTY("P3, P12, P16", noise_has_its_deviation), Bug::unit_noise},
    {"a group missing in the sensitivity", PROPERTY("P3, P12, P16", noise_has_its_deviation), Bug::noise_of_first_group},
    {"no noise on a thawed parameter", PROPERTY("P28", noise_after_thawing), Bug::no_noise_after_thaw},
    {"noise only where there is a gradient", PROPERTY("P22, P29", noise_is_fine_and_dense), Bug::sparse_noise},
    {"noise in bf16", PROPERTY("P22, P29", noise_is_fine_and_dense), Bug::bf16_noise},
    {"one noise for all steps", PROPERTY("P21, P36", noise_is_fresh), Bug::reused_noise},
    {"one noise for all parameters", PROPERTY("P21, P36", noise_is_fresh), Bug::noise_of_one_parameter},
    {"one noise for all runs of a key", PROPERTY("P21, P36", noise_is_fresh), Bug::repeated_run},
    {"divided by the size of the draw", PROPERTY("P4", divisor_is_public), Bug::batch_size_divisor},
    {"empty draw skipped", PROPERTY("P7", empty_draw_is_a_step), Bug::empty_batch_skipped},
    {"drawn with replacement", PROPERTY("P5, P6", draws_are_poisson), Bug::with_replacement},
    {"shuffled batches, accounted as Poisson", PROPERTY("P5, P6", draws_are_poisson), Bug::shuffled_batches},
    {"drawn twice as often as accounted", PROPERTY("P5, P6", draws_are_poisson), Bug::double_rate},
};
#undef PROPERTY

/// Of the real step, and of the step by hand without a mistake.
void holds(Property property) {
  CHECK(property(real_run) == "");
  CHECK(property(mutated(Bug::none)) == "");
}

void row(const char* bug, const char* by, const Violation& how) {
  std::printf("| %s | %s | %s |\n", bug, by, how.c_str());
  CAPTURE(bug);
  CHECK(how != "");
}

/// What a sensitivity for replacing a record must cover: the sum moves by 2 C where a record is replaced by its opposite.
Violation covers_replacement(double (*sensitivity)(const dp::FlatClipping&, index_t batch_bound)) {
  Context ctx(Device::cpu(), 1);
  const dp::Plan plan = dp::Plan::with_noise_multiplier(plan_options(1, 1, 1, 0.7), silent);
  std::vector<double> sums[2];
  for (const bool opposite : {false, true}) {
    Model m(ctx);
    m.records = {m.one_element(0, opposite ? -3 : 3)};
    sums[opposite] = moved(m, real_run, plan, 1, descent(1), keys(200));
  }
  const double change = test::norm(minus(sums[1], sums[0])), claimed = sensitivity(dp::FlatClipping(0.7), 1);
  return change > claimed * (1 + 0x1p-18) ? seen("another record moves the sum by %.3f, claimed %.3f", change, claimed)
                                          : Violation();
}

double library_sensitivity(const dp::FlatClipping& c, index_t batch_bound) {
  return c.sensitivity(dp::NeighbouringRelation::replace_one, batch_bound).bound;
}
double sensitivity_of_one(const dp::FlatClipping& c, index_t batch_bound) {
  return c.sensitivity(dp::NeighbouringRelation::add_or_remove_one, batch_bound).bound;
}

/// One of many contributions of norm 1 is removed. With the first one the sum stands at n / 2, without it one below, in the
/// lower binade; each of the rest is a little more than half a unit in the last place of n / 2 in FP32.
Violation sum_moves_by_one(double (*sum)(std::span<const float> contributions)) {
  constexpr index_t n = 4096;
  std::vector<float> x(n, float(n) * 0x1p-25f * (1 + 0x1p-20f));
  std::fill_n(x.begin(), n / 2, 1.0f);
  const double moved_by = sum(x) - sum(std::span(x).subspan(1));
  const double claimed = dp::FlatClipping(1).sensitivity(dp::NeighbouringRelation::add_or_remove_one, n).bound;
  return moved_by > claimed ? seen("one record less moves the sum by %.6f, claimed %.12f", moved_by, claimed) : Violation();
}
double library_sum(std::span<const float> x) {
  Context ctx(Device::cpu(), 1);
  Parameter w(ctx, "w", Tensor::zeros(ctx, {1, 1}, DType::f32), DType::f32);
  const index_t n = index_t(x.size());
  const per_sample::SiteList sites{ParameterSite::vector(w, Tensor::from(ctx, {n, 1, 1}, DType::f32, x))};
  Parameter* const all[] = {&w};
  per_sample::GradientSums sums(ctx, all);
  per_sample::add_weighted_sum(ctx, sites, std::vector<float>(x.size(), 1.0f), sums);
  return sums.of(w).item();
}

double fp32_sum(std::span<const float> x) {
  float sum = 0;
  for (const float v : x) sum += v;
  return double(sum);
}

/// A threshold follows a noisy count: one count, two keys, two thresholds.
Violation threshold_is_noisy(double (*update)(dp::AdaptiveThreshold&, double count, const dp::NoiseStream&)) {
  const dp::AdaptiveOptions o{.quantile = 0.5, .learning_rate = 0.5, .count_noise = 4, .initial_threshold = 1};
  dp::AdaptiveThreshold first(o, 20), second(o, 20);
  const double a = update(first, 5, {keys(210).key(dp::Stream::auxiliary_noise), 0}),
               b = update(second, 5, {keys(211).key(dp::Stream::auxiliary_noise), 0});
  return a == b ? seen("the count of 5 makes the threshold %.4f, whatever the noise", a) : Violation();
}
double library_update(dp::AdaptiveThreshold& c, double count, const dp::NoiseStream& noise) {
  c.update(count, noise);
  return c.threshold();
}
double update_without_noise(dp::AdaptiveThreshold& c, double count, const dp::NoiseStream&) {
  return c.threshold() * std::exp(-0.5 * (count / 20 - 0.5));
}
}  // namespace

TEST_CASE("P1, P14, P24: contribution_is_bounded") { holds(contribution_is_bounded); }
TEST_CASE("P2: neighbours_are_close") { holds(neighbours_are_close); }
TEST_CASE("P9, P11: non_finite_record_is_absent") { holds(non_finite_record_is_absent); }
TEST_CASE("P3, P12, P16: noise_has_its_deviation") { holds(noise_has_its_deviation); }
TEST_CASE("P28: noise_after_thawing") { holds(noise_after_thawing); }
TEST_CASE("P22, P29: noise_is_fine_and_dense") { holds(noise_is_fine_and_dense); }
TEST_CASE("P21, P36: noise_is_fresh") { holds(noise_is_fresh); }
TEST_CASE("P4: divisor_is_public") { holds(divisor_is_public); }
TEST_CASE("P7: empty_draw_is_a_step") { holds(empty_draw_is_a_step); }
TEST_CASE("P5, P6: draws_are_poisson") { holds(draws_are_poisson); }
TEST_CASE("P2: covers_replacement") { CHECK(covers_replacement(library_sensitivity) == ""); }
TEST_CASE("P2: sum_moves_by_one") { CHECK(sum_moves_by_one(library_sum) == ""); }
TEST_CASE("P18: threshold_is_noisy") { CHECK(threshold_is_noisy(library_update) == ""); }

TEST_CASE("the step by hand without a mistake is the real one") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 220);
  Model real(ctx), by_hand(ctx);
  for (index_t i = 0; i < 20; ++i) {
    Model::Record r;
    for (index_t k = 0; k < 2 * real.width; ++k) {
      r.x.push_back(rng.normal());
      r.y.push_back(rng.normal());
      r.v.push_back(rng.normal() / 4);
    }
    real.records.push_back(r);
  }
  by_hand.records = real.records;
  const dp::Plan plan = dp::Plan::with_noise_multiplier(plan_options(20, 3, 0.5), 0.5);
  const std::vector<double> right = moved(real, real_run, plan, 3, descent(4), keys(221));
  // Clip factors may differ by 2^-19, weights by roundings of FP32.
  CHECK(test::distance(moved(by_hand, mutated(Bug::none), plan, 3, descent(4), keys(221)), right) <=
        1e-4 * test::norm(right));
}

TEST_CASE("mutations: every planted bug is caught by a property that the real code has") {
  std::printf("\n| planted bug | caught by | what it saw |\n|---|---|---|\n");
  for (const Planted& p : planted) row(p.bug, p.property_name, p.property(mutated(p.mutant)));
  row("sensitivity C where a record is replaced", "P2: covers_replacement", covers_replacement(sensitivity_of_one));
  row("FP32 sums longer than stated", "P2: sum_moves_by_one", sum_moves_by_one(fp32_sum));
  row("adaptive threshold from the count itself", "P18: threshold_is_noisy", threshold_is_noisy(update_without_noise));
}

// SPDX-License-Identifier: Apache-2.0
// The clipped sums of one step on a GPU against those of the CPU: every strategy, every clip rule, groups, tied, frozen and
// adapted weights, one token a sample; empty slots and broken records, bit for bit.
#include <doctest/doctest.h>

#include "cuda/clipped_sums.hpp"
#include "cuda/device_gpt.hpp"
#include "cuda/device_mlp.hpp"
#include "dpmp/dpmp.cuh"
#include "support/difference.hpp"

namespace {
using namespace dpmp;
using test::SumCase;
constexpr index_t none = train::masked_slot;
constexpr double C = 0.4;

/// Those of one group, and two by layer.
const std::vector<SumCase>& strategies() {
  static const std::vector<SumCase> cases = [] {
    std::vector<SumCase> all = test::sum_cases();
    all.push_back({"automatic, a group a layer", {}, true});
    all.push_back({"two passes, a group a layer", {.strategy = per_sample::Strategy::two_pass}, true});
    return all;
  }();
  return cases;
}
std::vector<SumCase> clip_rules() {
  std::vector<SumCase> cases;
  for (const dp::ClipRule& rule : {dp::ClipRule::automatic(0.05), dp::ClipRule::normalise(), dp::ClipRule::global(1e3),
                                   dp::ClipRule::custom("square root", [](double n) { return C / std::sqrt(n); })})
    cases.push_back({rule.description(), {}, false, rule});
  return cases;
}

template <class Losses>
std::vector<double> clipped_sum(Context& ctx, const nn::Parameters& parameters, const Losses& losses,
                                std::span<const index_t> slots, const SumCase& c) {
  return test::clipped_sum(ctx, parameters.all(), losses, slots, c, C);
}

/// What the sums of two devices may differ by. A contribution has norm at most C in each group. Its direction differs by
/// what 40 roundings of stored values (docs/numerics.md, P12) make of it; they fall in different places, so their norms add
/// in squares, and a factor of 2 is allowed. Its length differs by what the certificates of the devices differ in: below
/// 0.5 % (tests/per_sample/test_models.cpp), in f32, where both are gammas of some 200 roundings, below 1e-4. Gradients kept
/// in bf16 are rounded once here and up to twice there. global(1000): the factor is C / 1000 here and there.
double limit_of(const SumCase& c, DType dtype, index_t records, index_t groups) {
  const double certificates = c.rule.kind() == dp::ClipRule::Kind::global ? 0 : dtype == DType::f32 ? 1e-4 : 5e-3;
  const double narrow =
      c.options.gradients == per_sample::GradientStorage::compute && dtype == DType::bf16 ? 3 * unit_roundoff(dtype) : 0;
  return double(records) * C * std::sqrt(double(c.by_layer ? groups : 1)) *
         (2 * std::sqrt(40.0) * unit_roundoff(dtype) + certificates + narrow);
}

void check_sums(DType dtype, const nn::TransformerConfig& config, const std::vector<SumCase>& cases,
                const std::string& model, const std::function<void(nn::Parameters&)>& change = {}) {
  Context gpu(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  test::DeviceGpt there(gpu, dtype, config), here(cpu, dtype, config);
  for (test::DeviceGpt* run : {&there, &here})
    if (change) change(const_cast<nn::Parameters&>(run->model.parameters()));
  const std::vector<index_t> slots{0, none, 1, 2};
  double worst = 0;
  for (const SumCase& c : cases) {
    const std::vector<double> expected = clipped_sum(cpu, here.model.parameters(), here.losses(), slots, c),
                              found = clipped_sum(gpu, there.model.parameters(), there.losses(), slots, c);
    double limit = limit_of(c, dtype, 3, per_sample::Groups::by_layer(here.model.parameters().all()).count());
    if (c.rule.kind() == dp::ClipRule::Kind::global) limit *= test::norm(expected) / C;  // contributions far below C
    const double share = test::distance(expected, found) / limit;
    CAPTURE(model);
    CAPTURE(c.name);
    CHECK(share <= 1);
    CHECK(test::norm(expected) > (c.rule.kind() == dp::ClipRule::Kind::global ? 0 : 0.1 * C));
    worst = std::max(worst, share);
  }
  MESSAGE(model << ", " << name_of(dtype) << ": at most " << worst << " of the bound");
}
std::vector<SumCase> first_of(std::vector<SumCase> cases, std::size_t count) {
  cases.erase(cases.begin() + std::ptrdiff_t(count), cases.end());
  return cases;
}
}  // namespace

TEST_CASE("clipped sums on CUDA are those of the CPU: strategies and rules") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check_sums(dtype, {}, strategies(), "GPT");
    check_sums(dtype, {}, clip_rules(), "GPT, clip rules");
  }
}
TEST_CASE("P14: clipped sums on CUDA are those of the CPU: tied weights") {
  for (const DType dtype : {DType::f32, DType::bf16}) check_sums(dtype, {.tied = true}, test::sum_cases(), "tied GPT");
}
TEST_CASE("clipped sums on CUDA are those of the CPU: frozen parameters, adapters, the LLaMA form") {
  check_sums(DType::bf16, {}, first_of(strategies(), 1), "biases alone",
             [](nn::Parameters& p) { p.set_trainable(nn::is_bias); });
  check_sums(DType::bf16, {.lora = {.rank = 3}}, first_of(strategies(), 5), "LoRA");
  check_sums(DType::bf16,
             {.norm = nn::Norm::rms_norm,
              .feed_forward = nn::FeedForward::swiglu,
              .positions = nn::Positions::rotary,
              .key_value_heads = 1},
             first_of(strategies(), 1), "LLaMA");
}

TEST_CASE("P7, P8, P9: empty slots and broken records contribute nothing on CUDA, and change no other bit") {
  Context ctx(Device::cuda(0), 1);
  for (const bool tied : {false, true})
    for (const SumCase& c : tied ? test::sum_cases() : strategies()) {
      CAPTURE(tied);
      CAPTURE(c.name);
      test::DeviceGpt run(ctx, DType::bf16, {.tied = tied});
      const auto sum = [&](std::span<const index_t> slots) {
        return clipped_sum(ctx, run.model.parameters(), run.losses(), slots, c);
      };
      const std::vector<index_t> whole{3, none, 4, 5}, broken{3, 6, 4, 5}, empty(4, none);
      const std::vector<double> expected = sum(whole);
      CHECK(test::norm(expected) > 0);
      run.ids[std::size_t(6 * run.tokens + 2)] = 999;  // no token: NaN from there on
      CHECK(test::difference(sum(broken), expected) == "");
      run.filler = 999;
      CHECK(test::difference(sum(whole), expected) == "");
      for (const double x : sum(empty)) CHECK(x == 0);
    }
}

TEST_CASE("P9, P15: one token a sample on CUDA: the CPU's sums, and broken records that change no other bit") {
  Context gpu(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  const std::vector<index_t> slots{0, 1, none, 2, 3};
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const SumCase& c : strategies()) {
      CAPTURE(c.name);
      CAPTURE(dtype);
      test::DeviceMlp there(gpu, dtype);
      const test::DeviceMlp here(cpu, dtype);
      const auto sum = [&](std::span<const index_t> of) {
        return clipped_sum(gpu, there.parameters, there.losses(), of, c);
      };
      const std::vector<double> expected = clipped_sum(cpu, here.parameters, here.losses(), slots, c), found = sum(slots);
      CHECK(test::distance(expected, found) <= limit_of(c, dtype, 4, 2));
      CHECK(test::norm(expected) > 0.1 * C);
      for (const double bad : {double(NAN), double(INFINITY)}) {
        there.rows.values[7 * 24 + 5] = bad;
        CHECK(test::difference(sum(std::vector<index_t>{0, 1, 7, 2, 3}), found) == "");
      }
    }
}

TEST_CASE("P1: every record's contribution to a step on CUDA has a norm of at most C") {
  Context ctx(Device::cuda(0), 1);
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const SumCase& c : test::sum_cases())
      for (const bool tied : {false, true}) {
        test::DeviceGpt run(ctx, dtype, {.tied = tied});
        for (index_t place = 0; place < 3; ++place) {
          std::vector<index_t> alone(3, none);
          alone[std::size_t(place)] = place;
          const double released = test::norm(clipped_sum(ctx, run.model.parameters(), run.losses(), alone, c));
          CAPTURE(c.name);
          CAPTURE(tied);
          CHECK(released <= C);
          CHECK(released > 0.98 * C);
        }
      }
}

// SPDX-License-Identifier: Apache-2.0
// Certified clipping of whole passes on hostile data: every operation with parameters and tiny transformers, by every
// strategy and grouping, second walks of the tape included. The counts are a share of the million of test_adversarial.cpp.
#include <doctest/doctest.h>

#include "autograd/ops.hpp"
#include "autograd/run_op.hpp"
#include "dpmp/per_sample/clipped_sum_sink.hpp"
#include "per_sample/adversarial_trial.hpp"
#include "per_sample/adversaries.hpp"
#include "support/gpt.hpp"
#include "support/mixed_precision.hpp"
#include "support/sites.hpp"

namespace {
using namespace dpmp;
using per_sample::GradientSums;
using per_sample::NormBounds;
using per_sample::SiteList;
using per_sample::StrategyOptions;
using test::any_dtype;
using test::any_options;
using test::exact_norms;
using test::Released;
using test::report;
using test::Tally;
using test::target;

/// One clipped pass over a tape a sample: what each group releases of it. pass(factors of the groups, sums).
struct Walk {
  std::vector<double> thresholds;
  dp::ClipRule rule = dp::ClipRule::abadi();
  per_sample::Groups groups;
  StrategyOptions options;
  LossScaling scaling = {};

  std::string text() const { return dpmp::detail::concat(test::text(options), ", loss scaling ", scaling.text()); }
};
/// None, or any scale: also those that make samples overflow or their gradients vanish.
LossScaling any_scaling(test::Rng& rng) {
  switch (rng.integer(0, 3)) {
    case 0: return LossScaling::fixed(std::ldexp(1.0, int(rng.integer(-24, 40))));
    case 1: return LossScaling::per_sample();
    case 2: return LossScaling::per_sample(int(rng.integer(0, 30)));
    default: return {};
  }
}
std::vector<double> exponents_of(const ScaledSeed& seed, index_t samples) {
  return seed.exponents.defined() ? seed.exponents.to_doubles() : std::vector<double>(std::size_t(samples), 0.0);
}
/// record(tape) -> losses. Returns a Released a group.
template <class Record>
std::vector<Released> release_walks(Context& ctx, const Walk& walk, index_t samples, const test::Parameters& parameters,
                                    Record&& record) {
  std::vector<Released> groups(walk.thresholds.size());
  for (index_t alone = 0; alone < samples; ++alone) {
    Tape tape(ctx, samples);
    const Variable losses = record(tape);
    const std::vector<double> exponents = exponents_of(scaled_seed(tape, losses, Tensor(), walk.scaling), samples);
    per_sample::ClippedSumSink sink(walk.groups, walk.options);
    GradientSums sums(ctx, parameters);
    per_sample::clipped_backward(
        tape, losses, Tensor(), sink,
        [&](index_t g, const NormBounds& norms) {
          Released& r = groups[std::size_t(g)];
          r.upper = norms.upper();
          r.ok = norms.finite();
          r.factors.resize(r.ok.size());
          dp::FlatClipping(walk.thresholds[std::size_t(g)], walk.rule).factors(r.upper, r.ok, r.factors);
          std::vector<float> c(r.factors.size(), 0.0f);
          c[std::size_t(alone)] = r.factors[std::size_t(alone)];
          return c;
        },
        sums, walk.scaling);
    for (Released& r : groups) r.exponents = exponents;
    for (Released& r : groups) r.alone.emplace_back();
    for (const Parameter* p : sums.parameters()) {
      const std::vector<double> part = sums.of(*p).to_doubles();
      auto& all = groups[std::size_t(walk.groups.of(*p))].alone.back();
      all.insert(all.end(), part.begin(), part.end());
    }
  }
  return groups;
}
/// The float64 norm of every sample over the parameters of each group, from the operands that one more walk stored, and
/// without their scale.
template <class Record>
std::vector<std::vector<double>> exact_walks(Context& ctx, const Walk& walk, index_t samples, Record&& record) {
  Tape tape(ctx, samples);
  per_sample::BookKeepingSink book;
  const Variable losses = record(tape);
  const ScaledSeed seed = scaled_seed(tape, losses, Tensor(), walk.scaling);
  tape.backward(losses, book, seed.weights);
  const std::vector<double> exponents = exponents_of(seed, samples);
  std::vector<std::vector<double>> exact(walk.thresholds.size(), std::vector<double>(std::size_t(samples), 0.0));
  for (const SiteList& sites : book.lists()) {
    SiteList stored;
    for (const ParameterSite& site : sites) stored.push_back(site.stored(ctx));
    const std::vector<double> norms = exact_norms(stored);
    for (std::size_t i = 0; i < norms.size(); ++i) {
      double& n = exact[std::size_t(walk.groups.of(*sites[0].parameter))][i];
      n = std::hypot(n, std::ldexp(norms[i], -int(exponents[i])));
    }
  }
  return exact;
}

Walk any_walk(test::Rng& rng, const test::Parameters& parameters) {
  Walk walk{{}, dp::ClipRule::abadi(), per_sample::Groups::flat(parameters), any_options(rng)};
  if (rng.integer(0, 2) == 0) walk.groups = per_sample::Groups::by_parameter(parameters);
  for (index_t g = 0; g < walk.groups.count(); ++g) walk.thresholds.push_back(test::random_threshold(rng, NAN));
  walk.rule = test::random_rule(rng, walk.thresholds[0]);
  walk.scaling = any_scaling(rng);
  return walk;
}

/// The problem's inputs, multiplied up or down sample by sample, tokens repeated.
test::Problem made_hostile(test::Rng& rng, test::Problem problem) {
  for (test::Values& v : problem.inputs) {
    const std::size_t per_sample = v.values.size() / std::size_t(problem.samples);
    for (index_t i = 0; i < problem.samples; ++i) {
      const double factor = rng.integer(0, 1) == 1 ? test::log_uniform(rng, -30, 30) : test::log_uniform(rng, -3, 3);
      const bool repeat = rng.integer(0, 3) == 0;
      const std::size_t width = std::size_t(std::max<index_t>(1, v.shape.back()));
      for (std::size_t k = 0; k < per_sample; ++k) {
        double& x = v.values[std::size_t(i) * per_sample + k];
        x = repeat && k >= width ? v.values[std::size_t(i) * per_sample + k - width] : x * factor;
      }
    }
  }
  return problem;
}
}  // namespace

TEST_CASE("P1, P9, P13, P16: every op with parameters, by every strategy and grouping, second walks of the tape included") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 2);
  Tally tally;
  std::vector<const test::Op*> ops;
  for (const test::Op& op : test::op_table()) {
    test::Draw draw(1);
    if (!op.make(draw).parameters.empty()) ops.push_back(&op);
  }
  REQUIRE(ops.size() > 4);
  test::Draw draw(3);
  for (long tries = 0; tally.contributions < target(0.1) && tries < target(1); ++tries) {
    const test::Op& op = *ops[std::size_t(rng.integer(0, std::ssize(ops) - 1))];
    test::Problem problem = op.make(draw);
    if (problem.samples == 0) continue;
    problem = made_hostile(rng, std::move(problem));
    const DType dtype = any_dtype(rng);
    const test::OwnedParameters parameters(ctx, problem, dtype);
    const Walk walk = any_walk(rng, parameters.pointers());
    const double scale = test::log_uniform(rng, -20, 20), pattern = rng.uniform(1, 1e4);
    const auto record_with = [&](const test::Problem& x) {
      return [&](Tape& tape) {
        test::Variables inputs;
        for (const test::Values& v : x.inputs)
          inputs.push_back(tape.input(test::stored(ctx, v.shape, dtype, v.values), true));
        const auto forward = [&](Tape& t, const test::Variables& in) { return x.forward(t, in, parameters.pointers()); };
        const auto weight = [&](std::size_t output, std::size_t element) {
          return scale * std::cos(pattern * double(element + 1) + double(output));
        };
        return dpmp::detail::gradient_check_losses(tape, inputs, forward, {.weight = weight});
      };
    };
    const auto walks = [&](const test::Problem& x, const char* adversary) {
      const auto record = record_with(x);
      const auto groups = release_walks(ctx, walk, x.samples, parameters.pointers(), record);
      const auto exact = exact_walks(ctx, walk, x.samples, record);
      for (std::size_t g = 0; g < groups.size(); ++g)
        judge(tally, groups[g], exact[g], walk.thresholds[g], walk.rule, adversary, op.name, walk.text());
      return groups;
    };
    const auto before = walks(problem, "ops");
    bool has_inputs = false;
    for (const test::Values& v : problem.inputs) has_inputs = has_inputs || !v.values.empty();
    if (!has_inputs || rng.integer(0, 1) == 0) continue;
    // One sample's inputs become partly Inf or NaN.
    test::Problem broken = problem;
    const index_t victim = rng.integer(0, problem.samples - 1);
    for (test::Values& v : broken.inputs) {
      const index_t size = index_t(v.values.size()) / problem.samples;
      if (size > 0)
        v.values[std::size_t(victim * size + rng.integer(0, size - 1))] = rng.integer(0, 1) == 1 ? INFINITY : NAN;
    }
    const auto after = walks(broken, "ops, Inf and NaN planted");
    std::vector<std::uint8_t> changed(std::size_t(problem.samples), 0);
    changed[std::size_t(victim)] = 1;
    for (std::size_t g = 0; g < before.size(); ++g)
      compare_neighbours(tally, before[g], after[g], changed, op.name, walk.text());
  }
  report(tally, "operations on a tape");
  CHECK(tally.contributions >= target(0.1));
  CHECK(tally.by_way.size() == ops.size());
}

TEST_CASE("P1, P14, P16: tiny transformers with weights of any size, by every strategy and grouping") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 4);
  Tally tally;
  while (tally.contributions < target(0.05)) {
    nn::Transformer model(ctx,
                          {.vocabulary = 7,
                           .width = 8,
                           .layers = 1,
                           .heads = 2,
                           .context = 5,
                           .tied = rng.integer(0, 1) == 1,
                           .seed = rng.bits()},
                          test::any_precision(rng));
    test::randomise(model.parameters(), rng, test::log_uniform(rng, -3, 3));
    test::Tokens data = test::random_tokens(ctx, rng, 4, 5, 7);
    if (rng.integer(0, 1) == 1) std::fill_n(data.ids.data<std::int32_t>(), 10, 3);  // two samples of equal tokens
    const test::Parameters parameters(model.parameters().all().begin(), model.parameters().all().end());
    const Walk walk = any_walk(rng, parameters);
    const double factor = test::log_uniform(rng, -12, 12);
    const auto record = [&](Tape& tape) { return scale(cross_entropy(model(tape, data.ids), data.targets), factor); };
    const auto groups = release_walks(ctx, walk, 4, parameters, record);
    const auto exact = exact_walks(ctx, walk, 4, record);
    for (std::size_t g = 0; g < groups.size(); ++g)
      judge(tally, groups[g], exact[g], walk.thresholds[g], walk.rule, "transformer", test::text(walk.options),
            walk.scaling.text());
  }
  report(tally, "transformers");
}

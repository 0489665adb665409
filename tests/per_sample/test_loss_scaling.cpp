// SPDX-License-Identifier: Apache-2.0
// Clipped sums of scaled backward passes: nothing changes where nothing underflows, f16 gradients that would be lost are
// right, and a sample that overflows is left out alone.
#include <doctest/doctest.h>

#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/nn/linear.hpp"
#include "per_sample/invariance.hpp"
#include "per_sample/slot_models.hpp"

namespace {
using namespace dpmp;
using per_sample::Groups;
using per_sample::NormBounds;

using Record = std::function<Variable(Tape&)>;
/// One clipped pass with abadi's rule: norms, factors, and the sums.
struct Pass {
  std::vector<double> norms, upper, sums;
  std::vector<std::uint8_t> finite;
  std::vector<float> factors;
};
/// alone: the sample whose factor counts; -1: all.
Pass clipped_pass(Context& ctx, index_t samples, std::span<Parameter* const> parameters, const Record& record, double C,
                  const test::SumWay& way, const LossScaling& scaling, index_t alone = -1) {
  Pass pass;
  per_sample::ClippedSumSink sink(way.grouped ? Groups::by_parameter(parameters) : Groups::flat(parameters), way.options);
  per_sample::GradientSums sums(ctx, parameters);
  Tape tape(ctx, samples);
  const Variable losses = record(tape);
  const auto factors = [&](index_t, const NormBounds& norms) {
    const std::vector<double> upper = norms.upper();
    std::vector<std::uint8_t> ok = norms.finite();
    for (index_t i = 0; i < samples; ++i) pass.norms.push_back(norms.norm(i));
    pass.upper.insert(pass.upper.end(), upper.begin(), upper.end());
    pass.finite.insert(pass.finite.end(), ok.begin(), ok.end());
    for (index_t i = 0; i < samples; ++i) ok[std::size_t(i)] = std::uint8_t(ok[std::size_t(i)] && (alone < 0 || i == alone));
    std::vector<float> c(ok.size());
    dp::FlatClipping(C).factors(upper, ok, c);
    pass.factors.insert(pass.factors.end(), c.begin(), c.end());
    return c;
  };
  per_sample::clipped_backward(tape, losses, Tensor(), sink, factors, sums, scaling);
  pass.sums = test::flat(sums);
  return pass;
}

/// Counts elements of the walk's output gradients that are 0.
struct CountZeros final : GradientSink {
  void accept(Context&, const ParameterSite& site) override {
    for (const double x : site.b.to_doubles()) zeros += x == 0, ++all;
  }
  index_t zeros = 0, all = 0;
  double share() const { return double(zeros) / double(all); }
};
double share_of_zeros(Context& ctx, index_t samples, const Record& record, const LossScaling& scaling) {
  Tape tape(ctx, samples);
  const Variable losses = record(tape);
  CountZeros sink;
  tape.backward(losses, sink, scaled_seed(tape, losses, Tensor(), scaling).weights);
  return sink.share();
}
/// softmax - one_hot(target) in double, the target's element as the sum of the others, which does not cancel.
std::vector<double> logits_gradient(std::span<const double> x, std::int32_t target) {
  const double top = *std::max_element(x.begin(), x.end());
  double others = 0;
  std::vector<double> g;
  for (std::size_t v = 0; v < x.size(); ++v) {
    g.push_back(std::exp(x[v] - top));
    if (v != std::size_t(target)) others += g.back();
  }
  const double sum = others + g[std::size_t(target)];
  for (double& p : g) p /= sum;
  g[std::size_t(target)] = -others / sum;
  return g;
}
const test::SumWay flat_way{"automatic", {}};
}  // namespace

TEST_CASE("P13: in f32, bf16 and f64 a loss scale changes no bit of a norm, a factor or a sum") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 7810);
  // All operations of a backward pass are linear in the gradient and round to nearest: multiplied by a power of two they
  // give the same digits unless something leaves the range of the dtype, which f32 and bf16 are far from here.
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64})
    for (const bool tied : {false, true}) {
      CAPTURE(name_of(dtype));
      CAPTURE(tied);
      const nn::Transformer model(
          ctx, {.vocabulary = 23, .width = 16, .layers = 2, .heads = 2, .context = 9, .tied = tied, .seed = rng.bits()},
          dtype);
      const test::Tokens data = test::random_tokens(ctx, rng, 5, 9, 23);
      const Record record = [&](Tape& tape) { return cross_entropy(model(tape, data.ids), data.targets, {.divisor = 9}); };
      const auto parameters = model.parameters().all();
      for (const test::SumWay& way : test::sum_ways()) {
        CAPTURE(way.name);
        const Pass plain = clipped_pass(ctx, 5, parameters, record, 0.3, way, {});
        for (const LossScaling& scaling :
             {LossScaling::per_sample(), LossScaling::fixed(0x1p-12), LossScaling::fixed(0x1p20)}) {
          CAPTURE(scaling.text());
          const Pass scaled = clipped_pass(ctx, 5, parameters, record, 0.3, way, scaling);
          CHECK(scaled.norms == plain.norms);
          CHECK(scaled.upper == plain.upper);
          CHECK(scaled.factors == plain.factors);
          CHECK(scaled.sums == plain.sums);
        }
        CHECK(test::norm(plain.sums) > 0.1);
      }
    }
}

TEST_CASE("an f16 head of a large vocabulary: lost without a scale, right to f16's rounding with one a sample") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 7811);
  const index_t samples = 2, tokens = 6, d = 8, classes = 50257;
  nn::Parameters parameters(ctx, DType::f16, rng.bits());
  nn::Linear head(parameters / "head", d, classes, nn::Linear::Options{.bias = false});
  // Targets whose logit is 24 above the others: 1 - p is of the order of 1e-6, divided by a text of 1024 tokens 1e-9, and
  // the other classes' share of it far below the smallest number of f16.
  const Tensor targets = test::id_tensor(ctx, rng, {samples, tokens}, 0, 40);
  const Tensor x = test::normal_tensor(ctx, rng, {samples, tokens, d}, DType::f16);
  const Tensor rise = Tensor::zeros(ctx, {samples, tokens, classes}, DType::f16);
  for (index_t r = 0; r < samples * tokens; ++r)
    rise.data<f16>()[r * classes + targets.data<std::int32_t>()[r]] = from_float<f16>(24);
  std::vector<double> logits;
  const Record record = [&](Tape& tape) {
    const Variable z = add(head(tape.input(x)), tape.input(rise));
    logits = z.value().to_doubles();
    return cross_entropy(z, targets, {.divisor = 1024});
  };
  const Pass plain = clipped_pass(ctx, samples, parameters.all(), record, 1, flat_way, {});
  const double lost = share_of_zeros(ctx, samples, record, {}),
               kept = share_of_zeros(ctx, samples, record, LossScaling::per_sample());
  CHECK(lost > 0.99);
  CHECK(kept < 1e-4);
  const std::vector<double> a = x.to_doubles();
  double worst = 0, worst_plain = 0;
  for (index_t i = 0; i < samples; ++i) {
    // G_i = sum_t b_t a_t^T of the stored operands but for b, which is exact here.
    std::vector<double> exact(std::size_t(classes * d), 0.0);
    double S = 0;
    for (index_t t = 0; t < tokens; ++t) {
      const index_t r = i * tokens + t;
      const std::vector<double> row =
          logits_gradient({logits.data() + r * classes, std::size_t(classes)}, targets.data<std::int32_t>()[r]);
      for (index_t v = 0; v < classes; ++v)
        for (index_t k = 0; k < d; ++k)
          exact[std::size_t(v * d + k)] += row[std::size_t(v)] / 1024 * a[std::size_t(r * d + k)];
      S += test::norm(row) / 1024 * test::norm({a.data() + r * d, std::size_t(d)});
    }
    // b's elements are rounded to f16 (2^-11) after FP32 operations of (20 + distance) 2^-24, or, where they are below its
    // normal numbers, to the next multiple of 2^-24: of the scaled ones, whose largest is above 2^8, at most 2^-25 sqrt(V)
    // / 2^8 of it. The sum over tokens is in FP32, and its tile is clipped by a factor of 1 here: (tokens + 2) 2^-24.
    const double bound = S * (0x1p-11 + 60 * 0x1p-24 + 0x1p-33 * std::sqrt(double(classes)) + 8 * 0x1p-24);
    const auto error = [&](const LossScaling& scaling) {
      const Pass alone = clipped_pass(ctx, samples, parameters.all(), record, 1, flat_way, scaling, i);
      CHECK(alone.factors[std::size_t(i)] > 0.999f);
      return test::distance(alone.sums, exact) / test::norm(exact);
    };
    const double scaled = error(LossScaling::per_sample());
    CHECK(scaled * test::norm(exact) <= bound);
    worst = std::max(worst, scaled);
    worst_plain = std::max(worst_plain, error({}));
  }
  CHECK(worst_plain > 0.9);
  MESSAGE("zeros among the head's gradients: " << lost << " without a scale, " << kept
                                               << " with; error of a contribution: " << worst_plain << " and " << worst);
}

TEST_CASE("f16 transformers whose gradients vanish: contributions of batches of one in double, in every way") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 7812);
  const nn::TransformerConfig config{
      .vocabulary = 23, .width = 16, .layers = 2, .heads = 2, .context = 9, .seed = rng.bits()};
  const nn::Transformer model(ctx, config, DType::f16);
  nn::Transformer exact(ctx, config, DType::f64);
  test::copy_weights(model, exact);
  const index_t samples = 3;
  const test::Tokens data = test::random_tokens(ctx, rng, samples, 9, 23);
  std::int32_t* targets = data.targets.data<std::int32_t>();
  std::replace(targets, targets + samples * 9, -1, 0);  // gradients of ignored tokens are 0 rightly
  const double divisor = 0x1p23;
  const Record record = [&](Tape& tape) { return cross_entropy(model(tape, data.ids), data.targets, {.divisor = divisor}); };
  std::vector<std::vector<double>> oracle;
  for (index_t i = 0; i < samples; ++i) {
    const test::Tokens one = data.rows(i, i + 1);
    per_sample::GradientSums sums(ctx, exact.parameters().all());
    per_sample::SumSink sink(sums);
    Tape tape(ctx, 1);
    tape.backward(cross_entropy(exact(tape, one.ids), one.targets, {.divisor = divisor}), sink);
    oracle.push_back(test::flat(sums));
  }
  const double lost = share_of_zeros(ctx, samples, record, {}),
               kept = share_of_zeros(ctx, samples, record, LossScaling::per_sample());
  double without = 1e9, with = 0;
  for (const test::SumWay& way : test::sum_ways()) {
    if (way.grouped) continue;
    CAPTURE(way.name);
    for (index_t i = 0; i < samples; ++i) {
      const auto error = [&](const LossScaling& scaling) {
        const Pass pass = clipped_pass(ctx, samples, model.parameters().all(), record, 1, way, scaling, i);
        return test::distance(pass.sums, oracle[std::size_t(i)]) / test::norm(oracle[std::size_t(i)]);
      };
      // P12 takes 40 roundings of 2^-11 between input and gradient of a GPT of two blocks (docs/numerics.md).
      for (const LossScaling& scaling : {LossScaling::per_sample(), LossScaling::fixed(0x1p30)}) {
        const double here = error(scaling);
        CHECK(here <= 40 * 0x1p-11);
        with = std::max(with, here);
      }
      without = std::min(without, error({}));
    }
  }
  CHECK(lost > 0.5);
  CHECK(kept < 0.05);
  CHECK(without > 0.3);
  MESSAGE("zeros: " << lost << " without a scale, " << kept << " with; error of a contribution: at least " << without
                    << " without, at most " << with << " with");
}

TEST_CASE("P9, P11, P15: a sample that overflows f16 contributes 0, and no bit of the others changes") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 7813);
  const index_t samples = 5, d = 7, hidden = 12;
  const int classes = 9;
  nn::Parameters parameters(ctx, DType::f16, rng.bits());
  nn::Linear first(parameters / "first", d, hidden), second(parameters / "second", hidden, classes);
  // One class has huge weights and a logit far below all: only a record with that target has a gradient there.
  float* weights = second.weight().master().data<float>();
  for (index_t k = 0; k < hidden; ++k) weights[(classes - 1) * hidden + k] = (k % 2 ? -1 : 1) * 900.0f;
  second.bias()->master().data<float>()[classes - 1] = -40000;
  for (Parameter* p : parameters.all()) p->refresh(ctx);
  Tensor x = test::normal_tensor(ctx, rng, {samples, 3, d}, DType::f16, 0.3);
  for (index_t k = 0; k < 3 * d; ++k) x.data<f16>()[3 * d + k] = x.data<f16>()[k];
  Tensor targets = test::id_tensor(ctx, rng, {samples, 3}, 0, classes - 2);
  const Record record = [&](Tape& tape) { return cross_entropy(second(gelu(first(tape.input(x)))), targets); };
  for (const LossScaling& scaling :
       {LossScaling::per_sample(0), LossScaling::per_sample(2), LossScaling::fixed(0x1p12), LossScaling()})
    for (const test::SumWay& way : test::sum_ways()) {
      if (scaling == LossScaling() && way.grouped) continue;
      CAPTURE(scaling.text());
      CAPTURE(way.name);
      const auto pass = [&](index_t alone) {
        return clipped_pass(ctx, samples, parameters.all(), record, 0.5, way, scaling, alone);
      };
      std::vector<Pass> before, after;
      for (index_t i = 0; i < samples; ++i) before.push_back(pass(i));
      const std::int32_t kept = std::exchange(targets.data<std::int32_t>()[2 * 3 + 1], classes - 1);
      for (index_t i = 0; i < samples; ++i) after.push_back(pass(i));
      targets.data<std::int32_t>()[2 * 3 + 1] = kept;
      const bool overflows = scaling != LossScaling();
      for (index_t i = 0; i < samples; ++i) {
        const std::vector<double>& sums = after[std::size_t(i)].sums;
        CAPTURE(i);
        if (i != 2) {
          CHECK(sums == before[std::size_t(i)].sums);
          CHECK(test::norm(sums) > 0);
        } else if (overflows && !way.grouped) {
          CHECK(test::norm(before[2].sums) > 0);
          CHECK(std::all_of(sums.begin(), sums.end(), [](double v) { return v == 0; }));
          CHECK(after[2].finite[2] == 0);
        }
        CHECK(test::norm(sums) <= 0.5 * (way.grouped ? 2 : 1));  // four groups: sqrt(4) C
      }
    }
}

TEST_CASE("P34: a scaled contribution has the same bits in every slot, next to anything else") {
  test::Rng rng(test::seed(), 7814);
  Context ctx(Device::cpu(), 2);
  index_t seen = 0;
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32})
    for (const bool tied : {false, true})
      for (const LossScaling& scaling : {LossScaling::per_sample(), LossScaling::fixed(0x1p10)}) {
        CAPTURE(name_of(dtype));
        CAPTURE(scaling.text());
        const nn::TransformerConfig config{
            .vocabulary = 23, .width = 24, .layers = 2, .heads = 3, .context = 12, .tied = tied, .seed = rng.bits()};
        CHECK(test::find_dependence(ctx, rng, test::GptInSlots(ctx, rng, config, 8, dtype), seen, 4, scaling) == "");
      }
  // Inputs that may be NaN or huge in the other slots, and cancel in a record's own.
  for (const test::LayerCase& layer : test::layer_cases()) {
    if (layer.images) continue;
    CAPTURE(layer.name);
    const test::LayerInSlots model(ctx, rng, layer, Shape{8, 3, 6}, DType::f16, rng.integer(0, 1) == 1);
    CHECK(test::find_dependence(ctx, rng, model, seen, 2, LossScaling::per_sample()) == "");
  }
  CHECK(seen > 0);
}

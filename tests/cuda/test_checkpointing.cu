// SPDX-License-Identifier: Apache-2.0
// Blocks that are recorded again in the walk, on a GPU: no bit of losses, norms, factors and sums depends on it.
#include <doctest/doctest.h>

#include "dpmp/dpmp.cuh"
#include "support/gpt.hpp"

namespace {
using namespace dpmp;
using per_sample::Groups;
using per_sample::Strategy;
constexpr index_t samples = 4, tokens = 16;
constexpr int vocabulary = 40;

/// Losses, certified norms and the sums of a pass: plain without a strategy.
std::vector<double> pass(Context& ctx, const nn::Transformer& model, const test::Tokens& data,
                         const std::optional<per_sample::StrategyOptions>& strategy, bool by_layer) {
  const auto parameters = model.parameters().all();
  per_sample::GradientSums sums(ctx, parameters);
  sums.set_zero();
  std::vector<RecordId> ids;
  for (index_t i = 0; i < samples; ++i) ids.push_back(stable_id(Key256{}, std::uint64_t(i)));
  Tape tape(ctx, samples);
  tape.key_randomness({Key256{}, 2, SampleIdentities(ctx, ids)});
  const Variable loss = cross_entropy(model(tape, data.ids), data.targets, {.divisor = double(tokens)});
  std::vector<double> all = loss.value().to_doubles();
  if (strategy) {
    per_sample::ClippedSumSink sink(by_layer ? Groups::by_layer(parameters) : Groups::flat(parameters), *strategy);
    const auto factors = [&](index_t, const per_sample::NormBounds& norms) {
      const std::vector<double> upper = norms.upper();
      all.insert(all.end(), upper.begin(), upper.end());
      std::vector<float> c;
      for (const double n : upper) c.push_back(float(std::min(1.0, 0.5 / n)));
      return per_sample::SampleFactors(std::move(c));
    };
    clipped_backward(tape, loss, Tensor(), sink, factors, sums);
  } else {
    per_sample::SumSink sink(sums);
    tape.backward(loss, sink);
  }
  const std::vector<double> flat = test::flat(sums);
  all.insert(all.end(), flat.begin(), flat.end());
  return all;
}
}  // namespace

TEST_CASE("P13, P34: checkpointed blocks change no bit of a pass on a GPU, plain or by any strategy") {
  Context ctx(Device::cuda(0), 1);
  struct Way {
    const char* name;
    std::optional<per_sample::StrategyOptions> strategy;
    bool by_layer = false;
  };
  const Way ways[] = {
      {"plain", {}},
      {"book-keeping, a group for each layer", per_sample::StrategyOptions{.strategy = Strategy::book_keeping}, true},
      {"two-pass", per_sample::StrategyOptions{.strategy = Strategy::two_pass}},
      {"materialised", per_sample::StrategyOptions{.strategy = Strategy::materialised}}};
  for (DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    const bool llama = dtype == DType::f16;
    nn::TransformerConfig config{.vocabulary = vocabulary,
                                 .width = 32,
                                 .layers = 2,
                                 .heads = 2,
                                 .context = tokens,
                                 .tied = llama,
                                 .dropout = 0.1,
                                 .seed = test::seed(),
                                 // GELU by tanh is the one that cuBLASLt takes on its way out of a product.
                                 .feed_forward = llama ? nn::FeedForward::swiglu : nn::FeedForward::gelu_tanh};
    if (llama) config.norm = nn::Norm::rms_norm, config.positions = nn::Positions::rotary;
    const nn::Transformer without(ctx, config, dtype);
    test::Rng rng;
    const test::Tokens data = test::random_tokens(ctx, rng, samples, tokens, vocabulary);
    for (const Way& way : ways) {
      CAPTURE(dtype);
      CAPTURE(llama);
      CAPTURE(way.name);
      const std::vector<double> expected = pass(ctx, without, data, way.strategy, way.by_layer);
      for (Checkpointing how : {Checkpointing::selective, Checkpointing::block}) {
        config.checkpointing = how;
        const nn::Transformer model(ctx, config, dtype);
        CHECK(pass(ctx, model, data, way.strategy, way.by_layer) == expected);
      }
    }
  }
}

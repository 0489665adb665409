// SPDX-License-Identifier: Apache-2.0
// Models of several dtypes: norms, certificates and clipped sums against float64, by every strategy; gradients through
// casts. Hostile inputs: test_adversarial_models.cpp.
#include <doctest/doctest.h>

#include "dpmp/dp/clipping.hpp"
#include "dpmp/per_sample/clipped_sum_sink.hpp"
#include "support/gpt.hpp"
#include "support/mixed_precision.hpp"

namespace {
using namespace dpmp;
using nn::Precision;
using per_sample::GradientSums;
using per_sample::NormBounds;
using per_sample::Strategy;

nn::TransformerConfig config(bool tied, nn::FeedForward feed_forward = nn::FeedForward::gelu) {
  return {.vocabulary = 23,
          .width = 24,
          .layers = 2,
          .heads = 3,
          .context = 12,
          .tied = tied,
          .seed = test::seed(),
          .feed_forward = feed_forward};
}
/// The gradient of each sample from the operands that a pass stored, [samples][all parameters].
std::vector<std::vector<double>> stored_oracle(const nn::Transformer& model, const per_sample::BookKeepingSink& sink,
                                               index_t samples) {
  std::vector<std::vector<double>> gradients(static_cast<std::size_t>(samples));
  for (index_t i = 0; i < samples; ++i)
    for (const Parameter* p : model.parameters().all())
      for (const auto& sites : sink.lists())
        if (sites[0].parameter == p) {
          const std::vector<double> g = test::oracle_gradient(sites, i);
          gradients[std::size_t(i)].insert(gradients[std::size_t(i)].end(), g.begin(), g.end());
        }
  return gradients;
}
std::vector<Precision> mixtures(bool tied) {
  const Precision mixed = test::mixed_precision();
  std::vector<Precision> all = {
      Precision::bf16().fp32_residual().fp32_logits(), Precision::f16().fp32_norms(),
      Precision::bf16().override("block1", DType::f16).override("tokens", DType::f32).override("*.up", DType::f32)};
  if (!tied) all.push_back(mixed);
  return all;
}
constexpr Strategy strategies[] = {Strategy::automatic, Strategy::book_keeping, Strategy::two_pass, Strategy::materialised};
}  // namespace

TEST_CASE("P13: casts are exact to their rounding: f32 layers in an f64 model equal float64 batches of one to 1e-5") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const Precision mixed =
      Precision::f64().override("block0", DType::f32).override("*.qkv", DType::f32).override("block1.mlp.down", DType::f32);
  for (const nn::FeedForward form : {nn::FeedForward::gelu, nn::FeedForward::swiglu}) {
    nn::Transformer model(ctx, config(false, form), mixed), exact(ctx, config(false, form), DType::f64);
    test::copy_weights(model, exact);
    const test::Tokens data = test::random_tokens(ctx, rng, 4, 12, 23);
    const auto oracle = test::batch_of_one(ctx, exact, data);
    const auto found = test::batch_of_one(ctx, model, data);
    per_sample::BookKeepingSink book;
    test::backward(ctx, model, data, book);
    const NormBounds bounds = book.norms(ctx, 4);
    for (index_t i = 0; i < 4; ++i) {
      const std::vector<double>& g = oracle[std::size_t(i)];
      CHECK(test::distance(found[std::size_t(i)], g) <= 1e-5 * test::norm(g));
      CHECK(test::distance(found[std::size_t(i)], g) > 1e-12 * test::norm(g));  // some of it is in f32
      CHECK(std::fabs(bounds.norm(i) - test::norm(g)) <= 1e-5 * test::norm(g));
    }
  }
}

TEST_CASE("P13: mixed models: norms to 1e-5 of the stored operands, near those of float64 batches of one") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const bool tied : {false, true})
    for (const Precision& precision : mixtures(tied)) {
      const std::string text = precision.text();
      CAPTURE(text);
      CAPTURE(tied);
      nn::Transformer model(ctx, config(tied), precision), exact(ctx, config(tied), DType::f64);
      test::copy_weights(model, exact);
      const test::Tokens data = test::random_tokens(ctx, rng, 4, 12, 23);
      per_sample::BookKeepingSink book;
      test::backward(ctx, model, data, book);
      const auto stored = stored_oracle(model, book, 4), truth = test::batch_of_one(ctx, exact, data);
      const NormBounds bounds = book.norms(ctx, 4);
      for (index_t i = 0; i < 4; ++i) {
        const double norm = test::norm(stored[std::size_t(i)]);
        CHECK(std::fabs(bounds.norm(i) - norm) <= 1e-5 * norm);
        CHECK(bounds.upper(i) >= norm * (1 - 1e-5));
        CHECK(bounds.upper(i) <= norm * 1.005);
        // About 40 roundings of 2 blocks between input and gradient, as in test_models.cpp, each to 2^-8 of its value.
        CHECK(test::distance(stored[std::size_t(i)], truth[std::size_t(i)]) <=
              40 * 0x1p-8 * test::norm(truth[std::size_t(i)]));
      }
    }
}

TEST_CASE("P1, P13: mixed models by every strategy: one clipped sum, none of the contributions above C") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const Precision& precision : mixtures(false)) {
    const std::string text = precision.text();
    CAPTURE(text);
    const nn::Transformer model(ctx, config(false), precision);
    const auto parameters = model.parameters().all();
    const test::Tokens data = test::random_tokens(ctx, rng, 4, 12, 23);
    per_sample::BookKeepingSink book;
    test::backward(ctx, model, data, book);
    const auto oracle = stored_oracle(model, book, 4);
    const double threshold = 0.4 * test::norm(oracle[0]);
    for (const Strategy strategy : strategies)
      for (index_t alone = -1; alone < 4; ++alone) {
        CAPTURE(int(strategy));
        Tape tape(ctx, 4);
        const Variable losses = cross_entropy(model(tape, data.ids), data.targets, {.divisor = 12});
        per_sample::ClippedSumSink sink(per_sample::Groups::flat(parameters), {.strategy = strategy});
        GradientSums sums(ctx, parameters);
        std::vector<float> factors(4);
        per_sample::clipped_backward(
            tape, losses, Tensor(), sink,
            [&](index_t, const NormBounds& norms) {
              dp::FlatClipping(threshold).factors(norms.upper(), norms.finite(), factors);
              for (index_t i = 0; i < 4; ++i)
                if (alone >= 0 && i != alone) factors[std::size_t(i)] = 0;
              return factors;
            },
            sums);
        const std::vector<double> released = test::flat(sums);
        std::vector<double> expected(released.size(), 0.0);
        double all = 0;
        for (std::size_t i = 0; i < 4; ++i) {
          all += double(factors[i]) * test::norm(oracle[i]);
          for (std::size_t j = 0; j < expected.size(); ++j) expected[j] += double(factors[i]) * oracle[i][j];
        }
        // A tile is an FP32 chain over 12 tokens.
        CHECK(test::distance(released, expected) <= 1e-5 * all);
        if (alone >= 0) {
          CHECK(test::norm(released) <= threshold);
          CHECK(test::norm(released) >= 0.99 * std::min(threshold, test::norm(oracle[std::size_t(alone)])));
        }
      }
  }
}

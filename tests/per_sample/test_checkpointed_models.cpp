// SPDX-License-Identifier: Apache-2.0
// Models whose blocks are checkpointed: every number of a pass has the bits that it has without, by every strategy, and the
// bytes that a pass keeps are those that can be predicted.
#include <doctest/doctest.h>

#include "dpmp/nn/transformer.hpp"
#include "dpmp/per_sample/clipped_sum_sink.hpp"
#include "dpmp/per_sample/pass_trace.hpp"
#include "support/gpt.hpp"

using namespace dpmp;
using per_sample::Groups;
using per_sample::Strategy;
using per_sample::StrategyOptions;

namespace {
constexpr Checkpointing checkpointed_choices[] = {Checkpointing::selective, Checkpointing::block};

struct Named {
  const char* name;
  nn::TransformerConfig config;
};
std::vector<Named> models() {
  const nn::TransformerConfig gpt{
      .vocabulary = 19, .width = 16, .layers = 3, .heads = 2, .context = 7, .seed = test::seed()};
  std::vector<Named> all{{"GPT", gpt}};
  const auto add = [&](const char* name, auto change) {
    all.push_back({name, gpt});
    change(all.back().config);
  };
  add("tied, dropout", [](nn::TransformerConfig& c) { c.tied = true, c.dropout = 0.2; });
  add("GELU by tanh, FP32 logits", [](nn::TransformerConfig& c) {
    c.feed_forward = nn::FeedForward::gelu_tanh;
    c.fp32_logits = true;
  });
  add("LLaMA, dropout", [](nn::TransformerConfig& c) {
    c.norm = nn::Norm::rms_norm;
    c.feed_forward = nn::FeedForward::swiglu;
    c.positions = nn::Positions::rotary;
    c.qkv_bias = c.projection_bias = false;
    c.key_value_heads = 1;
    c.dropout = 0.1;
  });
  add("LoRA, dropout", [](nn::TransformerConfig& c) {
    c.lora = {.rank = 2, .alpha = 4, .dropout = 0.3};
    c.dropout = 0.2;
  });
  return all;
}
nn::TransformerConfig with(nn::TransformerConfig config, Checkpointing how) {
  config.checkpointing = how;
  return config;
}
SampleRandomness randomness(Context& ctx, index_t samples) {
  std::vector<RecordId> ids;
  for (index_t i = 0; i < samples; ++i) ids.push_back(stable_id(Key256{}, std::uint64_t(i)));
  return {Key256{}, 5, SampleIdentities(ctx, ids)};
}
/// Adapters start at zero, which would hide half of their gradients.
void shake(nn::Parameters& parameters) {
  test::Rng rng(test::seed(), 5);
  for (Parameter* p : parameters.all()) {
    if (!nn::is_lora(*p)) continue;
    p->master().copy_from(test::normal_tensor(parameters.ctx(), rng, p->shape(), p->master().dtype(), 0.3));
    p->refresh(parameters.ctx());
  }
}
Variable losses(const nn::Transformer& model, Tape& tape, const test::Tokens& data) {
  tape.key_randomness(randomness(tape.ctx(), tape.samples()));
  return cross_entropy(model(tape, data.ids), data.targets, {.divisor = double(data.ids.shape()[1])});
}

/// What a clipped pass comes to: losses, of each group the norms, certificates and factors, and the sums.
std::vector<double> clipped(Context& ctx, const nn::Transformer& model, const test::Tokens& data, const Groups& groups,
                            const StrategyOptions& options) {
  per_sample::ClippedSumSink sink(groups, options);
  per_sample::GradientSums sums(ctx, model.parameters().all());
  Tape tape(ctx, data.samples());
  const Variable loss = losses(model, tape, data);
  std::vector<double> all = loss.value().to_doubles();
  const auto factors = [&](index_t, const per_sample::NormBounds& norms) {
    std::vector<float> c;
    for (index_t i = 0; i < data.samples(); ++i) {
      all.insert(all.end(), {norms.norm(i), norms.quadratic(i), norms.upper(i)});
      c.push_back(float(std::min(1.0, 0.5 / norms.upper(i))));
    }
    return c;
  };
  clipped_backward(tape, loss, Tensor(), sink, factors, sums);
  const std::vector<double> flat = test::flat(sums);
  all.insert(all.end(), flat.begin(), flat.end());
  return all;
}
std::vector<double> plain(Context& ctx, const nn::Transformer& model, const test::Tokens& data) {
  per_sample::GradientSums sums(ctx, model.parameters().all());
  per_sample::SumSink sink(sums);
  Tape tape(ctx, data.samples());
  tape.backward(losses(model, tape, data), sink);
  return test::flat(sums);
}
}  // namespace

TEST_CASE("P13, P34: checkpointed blocks change no bit of values, sites, norms, certificates or sums, by any strategy") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const Named& named : models())
    for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      CAPTURE(named.name);
      CAPTURE(dtype);
      nn::Transformer without(ctx, named.config, dtype);
      shake(without.parameters());
      const test::Tokens data = test::random_tokens(ctx, rng, 4, 7, 19);
      const std::vector<double> expected_plain = plain(ctx, without, data);
      CHECK(std::any_of(expected_plain.begin(), expected_plain.end(), [](double g) { return g != 0; }));
      const per_sample::PassTrace expected(ctx, 4, [&](Tape& tape) { return losses(without, tape, data); });
      for (Checkpointing how : checkpointed_choices) {
        CAPTURE(int(how));
        nn::Transformer model(ctx, with(named.config, how), dtype);
        shake(model.parameters());
        const per_sample::PassTrace found(ctx, 4, [&](Tape& tape) { return losses(model, tape, data); });
        for (index_t i = 0; i < 4; ++i) CHECK(found.first_difference(i, expected, i).value_or("") == "");
        CHECK(plain(ctx, model, data) == expected_plain);
        const StrategyOptions strategies[] = {{.strategy = Strategy::materialised},
                                              {.strategy = Strategy::book_keeping},
                                              {.strategy = Strategy::two_pass},
                                              {},
                                              {.byte_budget = 20000}};
        for (const StrategyOptions& options : strategies)
          for (auto* grouped : {&Groups::flat, &Groups::by_layer, &Groups::by_parameter}) {
            CAPTURE(per_sample::name_of(options.strategy));
            const auto pass = [&](const nn::Transformer& m) {
              return clipped(ctx, m, data, grouped(m.parameters().all()), options);
            };
            CHECK(pass(model) == pass(without));
          }
      }
    }
}

namespace {
struct Bytes {
  index_t after_forward, peak;
};
enum class Way { plain, two_pass, group_a_parameter, book_keeping };
/// Of a pass of a GPT with these blocks, without its parameters and their sums.
Bytes bytes_of(Context& ctx, index_t layers, Checkpointing how, DType dtype, Way way) {
  const index_t samples = 4, tokens = 16;
  const nn::Transformer model(
      ctx, with({.vocabulary = 8, .width = 64, .layers = layers, .heads = 4, .context = tokens, .seed = 1}, how), dtype);
  const auto parameters = model.parameters().all();
  test::Rng rng;
  const test::Tokens data = test::random_tokens(ctx, rng, samples, tokens, 8);
  per_sample::GradientSums sums(ctx, parameters);
  sums.set_zero();
  ctx.reset_peak_memory();
  const index_t before = ctx.memory().live_bytes;
  Tape tape(ctx, samples);
  const Variable loss = cross_entropy(model(tape, data.ids), data.targets);
  const index_t after_forward = ctx.memory().live_bytes - before;
  if (way == Way::plain) {
    per_sample::SumSink sink(sums);
    tape.backward(loss, sink);
  } else {
    per_sample::ClippedSumSink sink(
        way == Way::group_a_parameter ? Groups::by_parameter(parameters) : Groups::flat(parameters),
        {.strategy = way == Way::two_pass ? Strategy::two_pass : Strategy::book_keeping});
    const auto factors = [&](index_t, const per_sample::NormBounds&) { return std::vector<float>(std::size_t(samples), 1); };
    clipped_backward(tape, loss, Tensor(), sink, factors, sums);
  }
  return {after_forward, ctx.memory().peak_bytes - before};
}
}  // namespace

TEST_CASE(
    "memory of checkpointed blocks follows the curve: a block's input, or also its products, and one block as a whole") {
  Context ctx(Device::cpu(), 1);
  const index_t rows = 4 * 16, width = 64;
  // Of a block's saved values: its input and the input of its second norm, each also normalised; queries, keys and values;
  // what the heads give; before and after the activation. With a norm come a mean and a scale of each row.
  const index_t whole = 2 + 2 + 3 + 1 + 4 + 4, statistics = 4 * rows * index_t(sizeof(float));
  for (DType dtype : {DType::f32, DType::bf16})
    for (Checkpointing how : {Checkpointing::none, Checkpointing::selective, Checkpointing::block})
      for (Way way : {Way::plain, Way::two_pass, Way::group_a_parameter, Way::book_keeping}) {
        CAPTURE(dtype);
        CAPTURE(int(how));
        CAPTURE(int(way));
        const index_t value = rows * width * size_of(dtype);  // a size class of the arena
        // The results of products: queries, keys and values, the projection of the heads, what the activation is taken of.
        const index_t kept = how == Checkpointing::none        ? whole * value + statistics
                             : how == Checkpointing::selective ? (1 + 3 + 1 + 4) * value
                                                               : value;
        const Bytes one = bytes_of(ctx, 1, how, dtype, way), three = bytes_of(ctx, 3, how, dtype, way),
                    eight = bytes_of(ctx, 8, how, dtype, way);
        CHECK(three.after_forward - one.after_forward == 2 * kept);
        CHECK(eight.after_forward - one.after_forward == 7 * kept);
        const Bytes one_without = bytes_of(ctx, 1, Checkpointing::none, dtype, way);
        if (way == Way::book_keeping) {
          // Keeps all sites of all blocks until the clip factors are known, whatever the tape keeps.
          CHECK(eight.peak == bytes_of(ctx, 8, Checkpointing::none, dtype, way).peak);
        } else {
          CHECK(three.peak - one.peak == 2 * kept);
          CHECK(eight.peak - one.peak == 7 * kept);
          // What one block takes is not more, but for the product that a first walk leaves to a second one.
          CHECK(one.peak - one_without.peak <= (way == Way::two_pass && how == Checkpointing::selective ? value : 0));
        }
      }
}

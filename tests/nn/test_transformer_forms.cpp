// SPDX-License-Identifier: Apache-2.0
// Every form of the transformer: norms, feed-forward blocks, positions, shared key heads, adapters; and bias-only training.
#include <doctest/doctest.h>
#include <map>

#include "dpmp/autograd/rules/cross_entropy.hpp"
#include "dpmp/nn/transformer.hpp"
#include "support/errors.hpp"
#include "support/oracle.hpp"
#include "support/sites.hpp"

using namespace dpmp;
using test::CountingSink;
using test::randomise;
using test::refuses;

namespace {
using List = std::vector<double>;
}  // namespace

TEST_CASE("the transformer in every form: sizes, causality, gradients for every trainable parameter") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const nn::Norm norm : {nn::Norm::layer_norm, nn::Norm::rms_norm})
    for (const nn::FeedForward feed_forward : {nn::FeedForward::gelu, nn::FeedForward::gelu_tanh, nn::FeedForward::swiglu})
      for (const nn::Positions positions : {nn::Positions::learned, nn::Positions::rotary})
        for (const index_t key_heads : {0, 2, 1})
          for (const index_t rank : {0, 2}) {
            const nn::TransformerConfig config{.vocabulary = 11,
                                               .width = 16,
                                               .layers = 2,
                                               .heads = 4,
                                               .context = 6,
                                               .tied = key_heads == 2,
                                               .seed = test::seed(),
                                               .norm = norm,
                                               .feed_forward = feed_forward,
                                               .positions = positions,
                                               .key_value_heads = key_heads,
                                               .lora = {.rank = rank, .alpha = 4}};
            const DType dtype = rank == 0 ? DType::bf16 : DType::f32;
            nn::Transformer model(ctx, config, dtype);
            const index_t keys = key_heads == 0 ? 4 : key_heads;
            CHECK(model.parameters().find("block1.attention.qkv.weight").shape() == Shape{(4 + 2 * keys) * 4, 16});
            CHECK((feed_forward == nn::FeedForward::swiglu
                       ? model.parameters().find("block0.mlp.gate_up.weight").shape() == Shape{2 * 48, 16}
                       : model.parameters().find("block0.mlp.up.weight").shape() == Shape{64, 16}));
            const Tensor ids = test::id_tensor(ctx, rng, {2, 6}, 0, 10), targets = test::id_tensor(ctx, rng, {2, 6}, 0, 10);
            Tape tape(ctx, 2);
            const Variable logits = model(tape, ids);
            REQUIRE(logits.shape() == Shape{2, 6, 11});
            CountingSink sink;
            tape.backward(cross_entropy(logits, targets), sink);
            std::map<std::string, int> expected;
            for (const Parameter* p : model.parameters().all()) {
              CHECK(p->trainable() == (rank == 0 || nn::is_lora(*p)));
              if (p->trainable()) expected[p->name()] = p->name() == "tokens.weight" && config.tied ? 2 : 1;
            }
            CHECK(sink.sites == expected);
            CHECK(expected.count("positions.weight") == (rank == 0 && positions == nn::Positions::learned));
            if (rank > 0) CHECK(expected.size() == 2 * 4 * 2);  // two factors, four linear layers a block, two blocks
            // Token 4 changes no bit of the logits before it, and its own.
            Tensor other = Tensor::from(ctx, {2, 6}, std::vector<std::int32_t>(12, 0));
            std::memcpy(other.raw(), ids.raw(), 12 * 4);
            other.data<std::int32_t>()[4] = (ids.data<std::int32_t>()[4] + 1) % 11;
            Tape second(ctx, 2);
            const List was = logits.value().to_doubles(), is = model(second, other).value().to_doubles();
            for (std::size_t k = 0; k < 4 * 11; ++k) CHECK(was[k] == is[k]);
            CHECK(test::distance(std::span(was).subspan(44, 11), std::span(is).subspan(44, 11)) > 0);
          }
}

TEST_CASE("the transformer: gradients of the modern form equal differences, with and without adapters") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const index_t rank : {0, 2}) {
    nn::Transformer model(ctx,
                          {.vocabulary = 7,
                           .width = 8,
                           .layers = 1,
                           .heads = 4,
                           .context = 5,
                           .seed = test::seed(),
                           .norm = nn::Norm::rms_norm,
                           .feed_forward = nn::FeedForward::swiglu,
                           .positions = nn::Positions::rotary,
                           .key_value_heads = 2,
                           .lora = {.rank = rank, .alpha = 4}},
                          DType::f64);
    randomise(model.parameters(), rng, 0.4);
    const Tensor ids = test::id_tensor(ctx, rng, {2, 5}, 0, 6);
    std::vector<Parameter*> trained;
    for (Parameter* p : model.parameters().all())
      if (p->trainable()) trained.push_back(p);
    const auto forward = [&](Tape& tape, const std::vector<Variable>&) { return std::vector<Variable>{model(tape, ids)}; };
    const auto result = check_gradients(ctx, 2, {}, trained, forward, {.elements = 12, .weight = {}});
    CHECK_MESSAGE(result.error < 1e-7, result.where);
    CHECK(result.compared >= 80);
  }
}

TEST_CASE("lora in the transformer: names, the base's initial bits and values, dropout of its own") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::TransformerConfig config{.vocabulary = 11, .width = 8, .layers = 2, .heads = 2, .context = 6, .seed = test::seed()};
  nn::Transformer base(ctx, config, DType::f32);
  config.lora = {.rank = 2, .alpha = 8, .dropout = 0.25};
  nn::Transformer model(ctx, config, DType::f32);
  const auto all = base.parameters().all(), adapted = model.parameters().all();
  REQUIRE(adapted.size() == all.size() + 16);
  for (std::size_t k = 0; k < all.size(); ++k) {
    CHECK(adapted[k]->name() == all[k]->name());
    CHECK(adapted[k]->master().to_doubles() == all[k]->master().to_doubles());
  }
  CHECK(adapted[all.size()]->name() == "block0.attention.qkv.lora_a");
  for (const char* name : {"attention.qkv", "attention.projection", "mlp.up", "mlp.down"})
    CHECK(nn::is_lora(model.parameters().find("block1." + std::string(name) + ".lora_b")));
  const Tensor ids = test::id_tensor(ctx, rng, {3, 6}, 0, 10);
  const auto logits = [&](const nn::Transformer& m, TapeMode mode, const SampleRandomness* keyed = nullptr) {
    Tape tape(ctx, 3, mode);
    if (keyed) tape.key_randomness(*keyed);
    return m(tape, ids).value().to_doubles();
  };
  // The same formula, though without adapters the GELU is an epilogue of its product: a compiler may contract it
  // differently.
  const std::vector<double> fresh = logits(base, TapeMode::inference);
  CHECK(test::distance(logits(model, TapeMode::inference), fresh) <= 16 * unit_roundoff(DType::f32) * test::norm(fresh));
  CHECK(refuses([&] { logits(model, TapeMode::training); }, "identities (TrainerOptions::identity) for dropout 0.25"));
  for (Parameter* p : model.parameters().all())
    if (nn::is_lora(*p)) {
      for (index_t k = 0; k < p->numel(); ++k) p->master().data<float>()[k] = float(rng.normal(0.3));
      p->refresh(ctx);
    }
  const std::vector<RecordId> records{stable_id({}, 4), stable_id({}, 5), stable_id({}, 6)};
  const SampleRandomness run{{}, 0, SampleIdentities(ctx, records)};
  CHECK(logits(model, TapeMode::training, &run) == logits(model, TapeMode::training, &run));
  CHECK(logits(model, TapeMode::training, &run) != logits(model, TapeMode::inference));
  CHECK(logits(model, TapeMode::inference) != logits(base, TapeMode::inference));
}

TEST_CASE("bias-only training: the biases and nothing else") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::Transformer model(ctx, {.vocabulary = 11, .width = 8, .layers = 1, .heads = 2, .context = 6}, DType::f32);
  model.parameters().set_trainable(nn::is_bias);
  const Tensor ids = test::id_tensor(ctx, rng, {2, 6}, 0, 10);
  Tape tape(ctx, 2);
  CountingSink sink;
  tape.backward(cross_entropy(model(tape, ids), ids), sink);
  const std::map<std::string, int> expected{{"block0.attention_norm.bias", 1},
                                            {"block0.attention.qkv.bias", 1},
                                            {"block0.attention.projection.bias", 1},
                                            {"block0.mlp_norm.bias", 1},
                                            {"block0.mlp.up.bias", 1},
                                            {"block0.mlp.down.bias", 1},
                                            {"norm.bias", 1}};
  CHECK(sink.sites == expected);
  model.parameters().set_trainable([](const Parameter&) { return true; });
  for (const Parameter* p : model.parameters().all()) CHECK(p->trainable());
}

TEST_CASE("bad input: forms of the transformer that cannot be") {
  Context ctx(Device::cpu(), 1);
  const auto refused = [&](auto change, const char* part) {
    nn::TransformerConfig c{.vocabulary = 11, .width = 12, .layers = 1, .heads = 4, .context = 6};
    change(c);
    return refuses([&] { nn::Transformer(ctx, c, DType::f32); }, part);
  };
  CHECK(refused([](auto& c) { c.key_value_heads = 3; }, "divide the 4 heads (0: as many), got 3"));
  CHECK(refused([](auto& c) { c.key_value_heads = -1; }, "got -1"));
  CHECK(refused([](auto& c) { c.key_value_heads = 8; }, "got 8"));
  CHECK(
      refused([](auto& c) { c.positions = nn::Positions::rotary; }, "an even width of a head for rotary positions, got 3"));
  CHECK(refused([](auto& c) { c.lora.rank = -2; }, "a LoRA rank >= 0 (0: none), got -2"));
  CHECK(refused([](auto& c) { c.lora = {.rank = 1, .alpha = 0}; }, "alpha > 0"));
  CHECK(refused([](auto& c) { c.lora = {.rank = 1, .alpha = 1, .dropout = 2}; }, "dropout rate in [0, 1)"));
}

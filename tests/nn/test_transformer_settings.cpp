// SPDX-License-Identifier: Apache-2.0
// What published models set: the base of rotary angles, epsilon of norms, biases of attention, the hidden width, FP32
// logits; and a transformer whose parameters are among those of a user's own model.
#include <doctest/doctest.h>
#include <map>

#include "dpmp/autograd/rules/rope.hpp"
#include "support/errors.hpp"
#include "support/gpt.hpp"
#include "support/sites.hpp"

using namespace dpmp;
using List = std::vector<double>;
using test::refuses;

namespace {
/// LLaMA-3's form (Grattafiori et al. 2024, arXiv 2407.21783) at a small size.
nn::TransformerConfig llama() {
  return {.vocabulary = 50,
          .width = 32,
          .layers = 2,
          .heads = 8,
          .context = 16,
          .seed = test::seed(),
          .norm = nn::Norm::rms_norm,
          .norm_epsilon = 1e-5,
          .feed_forward = nn::FeedForward::swiglu,
          .hidden = 112,
          .positions = nn::Positions::rotary,
          .rope_base = 500000,
          .qkv_bias = false,
          .projection_bias = false,
          .key_value_heads = 2};
}
}  // namespace

TEST_CASE("the parameters of LLaMA-3's form, and of Qwen2's with biases of queries, keys and values alone") {
  Context ctx(Device::cpu(), 1);
  for (const bool qkv_bias : {false, true}) {
    nn::TransformerConfig config = llama();
    config.qkv_bias = qkv_bias;
    const nn::Transformer model(ctx, config, DType::bf16);
    std::map<std::string, Shape> expected{{"tokens.weight", {50, 32}}, {"norm.gain", {32}}, {"head.weight", {50, 32}}};
    for (const std::string block : {"block0.", "block1."}) {
      expected[block + "attention_norm.gain"] = Shape{32};
      expected[block + "attention.qkv.weight"] = Shape{(8 + 2 * 2) * 4, 32};
      if (qkv_bias) expected[block + "attention.qkv.bias"] = Shape{(8 + 2 * 2) * 4};
      expected[block + "attention.projection.weight"] = Shape{32, 32};
      expected[block + "mlp_norm.gain"] = Shape{32};
      expected[block + "mlp.gate_up.weight"] = Shape{2 * 112, 32};
      expected[block + "mlp.down.weight"] = Shape{32, 112};
    }
    std::map<std::string, Shape> found;
    for (const Parameter* p : model.parameters().all()) found.emplace(p->name(), p->shape());
    CHECK(found.size() == expected.size());
    for (const auto& [name, shape] : expected) {
      CAPTURE(name);
      REQUIRE(found.contains(name));
      CHECK(found.at(name) == shape);
    }
  }
}

TEST_CASE("attention with any base of its angles and with or without biases is its operations with these") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const double base : {10000.0, 500000.0, 25.0})
    for (const int biases : {0, 1, 2, 3}) {
      nn::Parameters parameters(ctx, DType::f64, test::seed());
      const nn::Attention attention(
          parameters, 12,
          {.heads = 3, .rotary = true, .rope_base = base, .qkv_bias = biases % 2 == 1, .projection_bias = biases >= 2});
      test::randomise(parameters, rng, 0.5);
      Parameter* qkv_bias = biases % 2 == 1 ? &parameters.find("qkv.bias") : nullptr;
      Parameter* projection_bias = biases >= 2 ? &parameters.find("projection.bias") : nullptr;
      CHECK(parameters.all().size() == std::size_t(2 + (qkv_bias != nullptr) + (projection_bias != nullptr)));
      Tape tape(ctx, 2);
      const Variable x = tape.input(test::normal_tensor(ctx, rng, {2, 5, 12}, DType::f64));
      const Variable qkv = rope(linear(x, parameters.find("qkv.weight"), qkv_bias), 6, 4, base);
      const Variable by_hand =
          linear(dpmp::attention(qkv, {.heads = 3}), parameters.find("projection.weight"), projection_bias);
      CHECK(attention(x).value().to_doubles() == by_hand.value().to_doubles());
    }
}

TEST_CASE("a model without blocks is head(norm(tokens + positions)) with the epsilon that was set, by loops in double") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const nn::Norm norm : {nn::Norm::layer_norm, nn::Norm::rms_norm})
    for (const double epsilon : {1e-5, 0.25, 3.0}) {
      nn::Transformer model(ctx,
                            {.vocabulary = 6,
                             .width = 5,
                             .layers = 0,
                             .heads = 1,
                             .context = 4,
                             .seed = test::seed(),
                             .norm = norm,
                             .norm_epsilon = epsilon},
                            DType::f64);
      test::randomise(model.parameters(), rng, 0.7);
      const auto weight = [&](const char* name) { return model.parameters().find(name).value().to_doubles(); };
      const List tokens = weight("tokens.weight"), positions = weight("positions.weight"), gain = weight("norm.gain"),
                 head = weight("head.weight");
      const List bias = norm == nn::Norm::layer_norm ? weight("norm.bias") : List(5, 0.0);
      const Tensor ids = test::id_tensor(ctx, rng, {1, 4}, 0, 5);
      Tape tape(ctx, 1);
      const List got = model(tape, ids).value().to_doubles();
      for (std::size_t t = 0; t < 4; ++t) {
        List x;
        double mean = 0, square = 0;
        for (std::size_t k = 0; k < 5; ++k)
          x.push_back(tokens[std::size_t(ids.data<std::int32_t>()[t]) * 5 + k] + positions[t * 5 + k]);
        if (norm == nn::Norm::layer_norm)
          for (const double v : x) mean += v / 5;
        for (const double v : x) square += (v - mean) * (v - mean) / 5;
        for (std::size_t v = 0; v < 6; ++v) {
          double logit = 0;
          for (std::size_t k = 0; k < 5; ++k)
            logit += head[v * 5 + k] * ((x[k] - mean) / std::sqrt(square + epsilon) * gain[k] + bias[k]);
          CHECK(std::abs(got[t * 6 + v] - logit) <= 1e-12);
        }
      }
    }
}

TEST_CASE("norms of blocks have the epsilon, too: a model that is told the default is the default, another one is not") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const Tensor ids = test::id_tensor(ctx, rng, {2, 6}, 0, 49);
  const auto logits = [&](auto change) {
    nn::TransformerConfig config = llama();
    config.qkv_bias = config.projection_bias = true;
    change(config);
    nn::Transformer model(ctx, config, DType::f64);
    test::Rng same(test::seed(), 31);
    test::randomise(model.parameters(), same, 0.3);
    Tape tape(ctx, 2);
    return model(tape, ids).value().to_doubles();
  };
  const List given = logits([](auto&) {});
  CHECK(logits([](auto& c) { c.norm_epsilon = nn::TransformerConfig().norm_epsilon; }) == given);
  CHECK(logits([](auto& c) { c.norm_epsilon = 1e-6; }) != given);
  CHECK(logits([](auto& c) { c.rope_base = 10000; }) != given);
  CHECK(nn::TransformerConfig().norm_epsilon == 1e-5);
  CHECK(nn::TransformerConfig().rope_base == 10000);
}

TEST_CASE("a block with an epsilon of its own is its pieces with that epsilon, one after the other") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const nn::Norm norm : {nn::Norm::layer_norm, nn::Norm::rms_norm})
    for (const double epsilon : {1e-5, 0.5}) {
      nn::Parameters parameters(ctx, DType::f64, 1), pieces(ctx, DType::f64, 2);
      const nn::Block block(parameters, {.width = 8, .heads = 2, .norm = norm, .norm_epsilon = epsilon});
      const nn::AnyNorm first = nn::make_norm(pieces / "attention_norm", 8, norm, epsilon);
      const nn::Attention attention(pieces / "attention", 8, {.heads = 2});
      const nn::AnyNorm second = nn::make_norm(pieces / "mlp_norm", 8, norm, epsilon);
      const nn::GeluFeedForward mlp(pieces / "mlp", 8, 32);
      test::randomise(parameters, rng, 0.5);
      for (Parameter* p : pieces.all()) {
        p->master().copy_from(parameters.find(p->name()).master());
        p->refresh(ctx);
      }
      Tape tape(ctx, 2);
      const Variable x = tape.input(test::normal_tensor(ctx, rng, {2, 3, 8}, DType::f64));
      const auto normed = [](const nn::AnyNorm& n, const Variable& v) {
        return nn::normalised(n, {v, std::nullopt}).normed;
      };
      const Variable y = add(x, attention(normed(first, x))), z = add(y, mlp(normed(second, y)));
      const List got = block(x).value().to_doubles(), want = z.value().to_doubles();
      CHECK(test::distance(got, want) <= 1e-12 * test::norm(want));
    }
}

TEST_CASE(
    "FP32 logits of a bf16 or f16 model are those of its dtype before they are rounded, and cost nothing in f32 and f64") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const bool tied : {false, true})
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32, DType::f64}) {
      CAPTURE(dtype);
      nn::TransformerConfig config{
          .vocabulary = 29, .width = 16, .layers = 1, .heads = 2, .context = 9, .tied = tied, .seed = test::seed()};
      const nn::Transformer narrow(ctx, config, dtype);
      config.fp32_logits = true;
      const nn::Transformer wide(ctx, config, dtype);
      const test::Tokens data = test::random_tokens(ctx, rng, 3, 9, 29);
      Tape tape(ctx, 3), other(ctx, 3);
      const Variable a = narrow(tape, data.ids), b = wide(other, data.ids);
      CHECK(b.dtype() == accumulate_dtype(dtype));
      const List rounded = a.value().to_doubles(), kept = b.value().to_doubles();
      if (dtype == accumulate_dtype(dtype)) {
        CHECK(rounded == kept);
        continue;
      }
      // Two orders of a sum of 16 products in FP32, of the order of 1, and the rounding that is left out.
      for (std::size_t k = 0; k < kept.size(); ++k)
        CHECK(std::abs(rounded[k] - kept[k]) <=
              unit_roundoff(dtype) * std::abs(kept[k]) + 16 * unit_roundoff(DType::f32) * 4);
      CHECK(rounded != kept);
    }
}

TEST_CASE("P13: a model with FP32 logits has the norms of float64 batches of one") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  nn::TransformerConfig config{
      .vocabulary = 29, .width = 16, .layers = 1, .heads = 2, .context = 9, .seed = test::seed(), .fp32_logits = true};
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const nn::Transformer model(ctx, config, dtype);
    nn::Transformer exact(ctx, config, DType::f64);
    test::copy_weights(model, exact);
    const test::Tokens data = test::random_tokens(ctx, rng, 4, 9, 29);
    per_sample::BookKeepingSink book;
    test::backward(ctx, model, data, book);
    const per_sample::NormBounds norms = book.norms(ctx, 4);
    const auto expected = test::batch_of_one(ctx, exact, data);
    // Some 40 roundings of stored values between a token and a gradient, whose norms add in squares, and a factor of 2.
    for (index_t i = 0; i < 4; ++i) {
      const double norm = test::norm(expected[std::size_t(i)]);
      CHECK(std::abs(norms.norm(i) - norm) <= 2 * std::sqrt(40.0) * unit_roundoff(dtype) * norm);
    }
  }
}

TEST_CASE("a transformer in a scope of the user's parameters: names, values, its own parameters, and the others untouched") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::TransformerConfig config{.vocabulary = 11, .width = 8, .layers = 2, .heads = 2, .context = 6, .seed = test::seed()};
  const nn::Transformer own(ctx, config, DType::f32);
  nn::Parameters parameters(ctx, DType::f32, test::seed());
  const nn::Transformer root(parameters, config);
  // At the root of parameters of the same seed it is the same model.
  REQUIRE(parameters.all().size() == own.parameters().all().size());
  for (std::size_t k = 0; k < parameters.all().size(); ++k) {
    CHECK(parameters.all()[k]->name() == own.parameters().all()[k]->name());
    CHECK(parameters.all()[k]->value().to_doubles() == own.parameters().all()[k]->value().to_doubles());
  }
  CHECK(&root.parameters() == &parameters);
  CHECK(own.own_parameters().size() == own.parameters().all().size());
  const Tensor ids = test::id_tensor(ctx, rng, {2, 6}, 0, 10);
  Tape tape(ctx, 2);
  CHECK(root(tape, ids).value().to_doubles() == own(tape, ids).value().to_doubles());

  // Two of them and a layer in one model; adapters of the second freeze its own base alone.
  nn::Parameters all(ctx, DType::bf16, 3);
  const nn::Linear before(all / "before", 4, 8);
  const nn::Transformer first(all / "first", config);
  config.lora.rank = 2;
  const nn::Transformer second((all / "second").in(DType::f32), config);
  const nn::Linear after(all / "after", 8, 4);
  CHECK(first.own_parameters().size() == own.parameters().all().size());
  CHECK(second.own_parameters().size() == own.parameters().all().size() + 16);
  for (const Parameter* p : all.all()) {
    const bool of_second = p->name().starts_with("second.");
    CHECK(p->trainable() == (!of_second || nn::is_lora(*p)));
    CHECK(p->dtype() == (of_second ? DType::f32 : DType::bf16));
  }
  for (const Parameter* p : first.own_parameters()) CHECK(p->name().starts_with("first."));
  for (const Parameter* p : second.own_parameters()) CHECK(p->name().starts_with("second."));
  CHECK(all.find("second.block1.mlp.down.lora_b").trainable());
  CHECK(refuses([&] { nn::Transformer(all / "first", config); }, "'first.tokens.weight' twice"));
}

TEST_CASE("a part of a model on a user's parameters trains with the rest: one loss of two transformers, sites of both") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::Parameters all(ctx, DType::f32, test::seed());
  nn::TransformerConfig config{.vocabulary = 7, .width = 8, .layers = 1, .heads = 2, .context = 5};
  const nn::Transformer a(all / "a", config), b(all / "b", config);
  const Tensor ids = test::id_tensor(ctx, rng, {2, 5}, 0, 6);
  Tape tape(ctx, 2);
  test::CountingSink sink;
  tape.backward(cross_entropy(add(a(tape, ids), b(tape, ids)), ids), sink);
  CHECK(sink.sites.size() == all.all().size());
}

TEST_CASE("dropouts of two parts of a model have masks of their own where their numbers differ") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::TransformerConfig config{
      .vocabulary = 11, .width = 8, .layers = 1, .heads = 2, .context = 6, .dropout = 0.5, .seed = 5};
  const nn::Transformer first(ctx, config, DType::f64);
  const nn::Transformer twin(ctx, config, DType::f64);
  config.first_dropout = 2;
  const nn::Transformer other(ctx, config, DType::f64);
  const Tensor ids = test::id_tensor(ctx, rng, {2, 6}, 0, 10);
  const std::vector<RecordId> records{stable_id({}, 4), stable_id({}, 5)};
  const auto logits = [&](const nn::Transformer& model) {
    Tape tape(ctx, 2);
    tape.key_randomness({{}, 0, SampleIdentities(ctx, records)});
    return model(tape, ids).value().to_doubles();
  };
  CHECK(logits(first) == logits(twin));
  CHECK(logits(first) != logits(other));
}

TEST_CASE("bad input: settings that no model can have") {
  Context ctx(Device::cpu(), 1);
  const auto refused = [&](auto change, const char* part) {
    nn::TransformerConfig c = llama();
    change(c);
    return refuses([&] { nn::Transformer(ctx, c, DType::f32); }, part);
  };
  for (const double bad : {0.0, -1.0, double(INFINITY), double(NAN)}) {
    CHECK(refused([&](auto& c) { c.norm_epsilon = bad; }, "expected a finite epsilon > 0 for a norm, got"));
    CHECK(refused([&](auto& c) { c.rope_base = bad; }, "block0.attention: expected a finite rope_base > 0, got"));
  }
  CHECK(refused([](auto& c) { c.hidden = -1; }, "a hidden width and a first dropout >= 0, got -1"));
  CHECK(refused([](auto& c) { c.first_dropout = -2; }, "a hidden width and a first dropout >= 0, got 112 and -2"));
  nn::Parameters parameters(ctx, DType::f32, 1);
  nn::TransformerConfig c = llama();
  c.heads = 5;
  CHECK(refuses([&] { nn::Transformer(parameters, c); }, "heads 5"));
  CHECK(parameters.all().empty());
}

// SPDX-License-Identifier: Apache-2.0
// The precision policy: which scope has which dtype, that layers cast to it by recorded operations and nobody else casts,
// and what is stored in f32 in the islands of a 16-bit model.
#include <doctest/doctest.h>

#include "dpmp/nn/recurrent.hpp"
#include "dpmp/nn/summed_embedding.hpp"
#include "dpmp/nn/vision.hpp"
#include "dpmp/train/trainer.hpp"
#include "support/errors.hpp"
#include "support/gpt.hpp"
#include "support/sites.hpp"
#include "support/tiny_training.hpp"

namespace {
using namespace dpmp;
using nn::Precision;

nn::TransformerConfig config(bool tied = false) {
  return {.vocabulary = 23, .width = 24, .layers = 2, .heads = 3, .context = 12, .tied = tied, .seed = test::seed()};
}
/// How many results of an operation a tape recorded in a dtype.
index_t count(const Tape& tape, std::string_view name, DType dtype) {
  return std::count_if(tape.recorded().begin(), tape.recorded().end(),
                       [&](const RecordedValue& v) { return v.name == name && v.dtype == dtype; });
}
index_t casts(const Tape& tape) {
  index_t n = 0;
  for (const DType d : {DType::f32, DType::bf16, DType::f16, DType::f64}) n += count(tape, "cast", d);
  return n;
}
}  // namespace

TEST_CASE("a scope's dtype and islands: presets, overrides by path, deeper ones first, then later ones") {
  Context ctx(Device::cpu(), 1);
  CHECK(Precision::f32().dtype() == DType::f32);
  CHECK(Precision::f16().dtype() == DType::f16);
  CHECK(Precision::f64().fp32_residual().residual() == DType::f64);
  const Precision islands = Precision::bf16().fp32_logits().fp32_residual();
  CHECK(islands.logits() == DType::f32);
  CHECK(islands.residual() == DType::f32);
  CHECK(islands.norms() == DType::f32);
  CHECK(Precision::bf16().norms() == DType::bf16);
  CHECK(Precision::bf16().fp32_norms().norms() == DType::f32);

  const Precision policy = islands.override("block1", DType::f16)
                               .override("block1.mlp.down", DType::f32)
                               .override("*.attention", Precision::f16())
                               .override("head", DType::bf16)
                               .override("head", DType::f32);
  nn::Parameters parameters(ctx, policy, 1);
  const auto of = [&](std::initializer_list<const char*> path) {
    nn::Scope scope = parameters;
    for (const char* name : path) scope = scope / name;
    return scope.precision();
  };
  CHECK(of({}).dtype() == DType::bf16);
  CHECK(of({"block10"}).dtype() == DType::bf16);
  CHECK(of({"block1"}).dtype() == DType::f16);
  CHECK(of({"block1"}).residual() == DType::f32);  // a dtype keeps the islands
  CHECK(of({"block1", "mlp", "up"}).dtype() == DType::f16);
  CHECK(of({"block1", "mlp", "down"}).dtype() == DType::f32);
  CHECK(of({"block1.mlp.down"}).dtype() == DType::f32);  // several parts at once
  CHECK(of({"block0", "attention", "qkv"}).dtype() == DType::f16);
  CHECK(of({"block0", "attention", "qkv"}).logits() == DType::f16);  // a precision has its own
  CHECK(of({"block0", "attention_norm"}).dtype() == DType::bf16);
  CHECK(of({"head"}).dtype() == DType::f32);
  CHECK(
      policy.text() ==
      "bf16, logits f32, residual stream f32; block1: f16; block1.mlp.down: f32; *.attention: f16, no islands; head: bf16; "
      "head: f32");

  // A scope's own replaces the one around it; a dtype alone keeps the islands.
  const nn::Scope own = (nn::Scope(parameters) / "block1").with(Precision::bf16().override("block1.mlp", DType::f32));
  CHECK(own.dtype() == DType::bf16);
  CHECK(own.precision().residual() == DType::bf16);
  CHECK((own / "mlp" / "up").dtype() == DType::f32);
  CHECK((nn::Scope(parameters) / "part").in(DType::f16).precision().residual() == DType::f32);

  CHECK(test::refuses([] { Precision p(DType::i32); }, "floating dtype"));
  CHECK(test::refuses([&] { policy.override("", DType::f32); }, "expected a pattern"));
  CHECK(test::refuses([&] { Precision::f32().override("head", policy); }, "without overrides of its own for 'head'"));
}

TEST_CASE("a layer casts what comes in to its scope's dtype by one recorded cast, and by none where it has the dtype") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::Parameters p(ctx, DType::bf16, rng.bits());
  nn::LoraLinear lora(p / "lora", 8, 6);
  lora.adapt({.rank = 2});
  const auto attention = nn::Attention(p / "attention", 8, {.heads = 2});
  const auto block = nn::Block(p / "block", {.width = 8, .heads = 2});
  const Convolution2dOptions grouped{.kernel = {1, 1}, .groups = 2};
  using Layer = std::function<Variable(const Variable&)>;
  struct Case {
    const char* name;
    bool image;
    Layer layer;
  };
  const Case cases[] = {
      {"linear", false, nn::Linear(p / "linear", 8, 5)},
      {"lora", false, lora},
      {"layer_norm", false, [n = nn::LayerNorm(p / "layer_norm", 8)](const Variable& x) { return n(x); }},
      {"rms_norm", false, [n = nn::RmsNorm(p / "rms_norm", 8)](const Variable& x) { return n(x); }},
      {"gelu", false, nn::GeluFeedForward(p / "gelu", 8, 16)},
      {"swiglu", false, nn::SwiGlu(p / "swiglu", 8, 16)},
      {"attention", false, [&](const Variable& x) { return attention(x); }},
      {"block", false, [&](const Variable& x) { return block(x); }},
      {"gru", false, nn::Gru(p / "gru", 8, 5)},
      {"lstm", false, nn::Lstm(p / "lstm", 8, 5)},
      {"conv1d", false, nn::Conv1d(p / "conv1d", 8, 4, {.kernel = 3})},
      {"conv2d", true, nn::Conv2d(p / "conv2d", 8, 4, {.kernel = {3, 3}})},
      {"grouped", true, nn::Conv2d(p / "grouped", 8, 4, grouped)},
      {"group_norm", true, nn::GroupNorm(p / "group_norm", 8, 2)},
      {"instance_norm", true, nn::InstanceNorm(p / "instance_norm", 8)},
  };
  for (const Case& c : cases) {
    CAPTURE(c.name);
    const Shape shape = c.image ? Shape{2, 4, 4, 8} : Shape{2, 5, 8};
    const Tensor wide = test::normal_tensor(ctx, rng, shape, DType::f32), narrow = cast(ctx, wide, DType::bf16);
    Tape with(ctx, 2), without(ctx, 2);
    const Variable x = with.input(wide, true), y = c.layer(x), same = c.layer(without.input(narrow, true));
    CHECK(casts(with) == 1);
    CHECK(casts(without) == 0);
    CHECK(y.dtype() == DType::bf16);
    CHECK(y.value().to_doubles() == same.value().to_doubles());
    // The gradient goes back through the cast, in the dtype that came in.
    test::CountingSink sink;
    with.backward(test::losses_of(with, y), sink);
    CHECK(with.gradient_of(x).dtype() == DType::f32);
    CHECK(test::norm(with.gradient_of(x).to_doubles()) > 0);
  }
  // Results of embeddings have the scope's dtype, whatever their tables have.
  nn::Parameters mixed(ctx, Precision::bf16().override("sum.types", DType::f32).override("sum.positions", DType::f16), 1);
  const nn::SummedEmbedding sum(mixed / "sum", 6, {.tables = {{"tokens", 9}, {"types", 2}}, .positions = 5});
  Tape tape(ctx, 2);
  const Tensor ids = Tensor::from(ctx, {2, 3}, std::vector<std::int32_t>{0, 1, 1, 0, 1, 0});
  CHECK(sum(tape, {ids, ids}).dtype() == DType::bf16);
  CHECK(casts(tape) == 3);  // the row of a type, and to and from the dtype of the positions
}

TEST_CASE("nobody else casts: free functions refuse what a layer would have cast") {
  Context ctx(Device::cpu(), 1);
  nn::Parameters p(ctx, DType::bf16, 1);
  const nn::Linear layer(p / "layer", 4, 4);
  const nn::LayerNorm norm(p / "norm", 4);
  Tape tape(ctx, 2);
  const Variable x = tape.input(Tensor::zeros(ctx, {2, 4}, DType::f32)), y = layer(x);
  CHECK(test::refuses([&] { add(x, y); }, "add: expected"));
  CHECK(
      test::refuses([&] { linear(x, layer.weight()); }, "linear: expected the weight layer.weight in f32 like x, got bf16"));
  CHECK(test::refuses([&] { norm(x, y); }, "add: expected"));
  CHECK(test::refuses([&] { norm(y, x); }, "expected two values of one shape and dtype"));
}

TEST_CASE("a model of one dtype records no cast, whatever its islands are called") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const test::Tokens data = test::random_tokens(ctx, rng, 2, 12, 23);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    CAPTURE(name_of(dtype));
    const bool wide = dtype == DType::f32 || dtype == DType::f64;
    const nn::Transformer plain(ctx, config(), dtype), islands(ctx, config(), Precision(dtype).fp32_residual().fp32_norms());
    Tape tape(ctx, 2), other(ctx, 2);
    const Variable y = plain(tape, data.ids), z = islands(other, data.ids);
    CHECK(casts(tape) == 0);
    CHECK((casts(other) == 0) == wide);
    if (wide) CHECK(y.value().to_doubles() == z.value().to_doubles());
  }
}

TEST_CASE("the islands of a bf16 transformer: what is in f32, and how many casts that takes") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const test::Tokens data = test::random_tokens(ctx, rng, 2, 12, 23);
  for (const bool tied : {false, true}) {
    CAPTURE(tied);
    {
      const nn::Transformer model(ctx, config(tied), Precision::bf16().fp32_residual().fp32_logits());
      Tape tape(ctx, 2);
      CHECK(model(tape, data.ids).dtype() == DType::f32);
      CHECK(count(tape, "add", DType::f32) == 4);  // every branch of two blocks
      CHECK(count(tape, "layer_norm", DType::f32) == 5);
      CHECK(count(tape, "linear", DType::bf16) == 4);
      CHECK(count(tape, "gelu_feed_forward", DType::bf16) == 2);
      CHECK(count(tape, "attention", DType::bf16) == 2);
      CHECK(count(tape, "wide_linear", DType::f32) == 1);
      // The stream, each branch down and up, and what the head reads.
      CHECK(count(tape, "cast", DType::f32) == 5);
      CHECK(count(tape, "cast", DType::bf16) == 5);
    }
    {
      const nn::Transformer model(ctx, config(tied), Precision::bf16().fp32_norms());
      Tape tape(ctx, 2);
      CHECK(model(tape, data.ids).dtype() == DType::bf16);
      CHECK(count(tape, "add", DType::bf16) == 4);
      CHECK(count(tape, "layer_norm", DType::f32) == 5);
      CHECK(count(tape, "cast", DType::f32) == 5);
      CHECK(count(tape, "cast", DType::bf16) == 5);
    }
  }
}

TEST_CASE("a residual stream in f32 keeps what a stream of 16 bits swallows") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const test::Tokens data = test::random_tokens(ctx, rng, 2, 12, 23);
  // The stream starts as +-1, and a branch adds its last bias. All four together are below 2^-9, half a unit in the last
  // place of bf16 under 1: there every sum is what it was.
  nn::Transformer exact(ctx, config(), DType::f64);
  const auto fill = [&](std::string_view name, const auto& value) {
    double* const x = exact.parameters().find(name).master().data<double>();
    for (index_t k = 0; k < exact.parameters().find(name).numel(); ++k) x[k] = value();
    exact.parameters().find(name).refresh(ctx);
  };
  fill("tokens.weight", [&] { return rng.uniform() < 0.5 ? -1.0 : 1.0; });
  fill("positions.weight", [] { return 0.0; });
  const auto set_branches = [&](double most) {
    for (const char* last :
         {"block0.attention.projection", "block0.mlp.down", "block1.attention.projection", "block1.mlp.down"}) {
      fill(last + std::string(".weight"), [] { return 0.0; });
      fill(last + std::string(".bias"), [&] { return rng.uniform(-most, most); });
    }
  };
  const auto logits = [&](const Precision& precision) {
    nn::Transformer model(ctx, config(), precision);
    test::copy_weights(exact, model);
    Tape tape(ctx, 2);
    return model(tape, data.ids).value().to_doubles();
  };
  const Precision narrow = Precision::bf16().override("head", DType::f32);
  const Precision wide = Precision::bf16().fp32_residual().override("head", DType::f32);
  set_branches(0x1p-11);
  const std::vector<double> truth = logits(DType::f64), kept = logits(wide), swallowed = logits(narrow);
  set_branches(0);
  const std::vector<double> none = logits(DType::f64);
  CHECK(swallowed == logits(narrow));
  // In f32 a branch has the error of its bias, which is rounded to bf16.
  const double branches = test::distance(truth, none);
  REQUIRE(branches > 0);
  CHECK(test::distance(kept, truth) < branches / 16);
  CHECK(test::distance(swallowed, truth) > branches / 2);
}

TEST_CASE("generation by a cache with blocks of several dtypes is the whole forward pass to rounding") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const nn::Transformer model(ctx, config(),
                              Precision::bf16().fp32_residual().override("block1", DType::f16).override("head", DType::f32));
  const test::Tokens data = test::random_tokens(ctx, rng, 2, 6, 23);
  Tape whole(ctx, 2, TapeMode::inference), pieces(ctx, 2, TapeMode::inference);
  const std::vector<double> expected = model(whole, data.ids).value().to_doubles();
  nn::KeyValueCache cache = model.make_cache(2);
  CHECK(cache.dtype() == DType::f32);
  const std::vector<double> found = model(pieces, data.ids, cache).value().to_doubles();
  // Two blocks of about 20 roundings to bf16 each, of numbers that are not larger than the logits' norm.
  CHECK(test::distance(found, expected) <= 40 * 0x1p-8 * test::norm(expected));
}

TEST_CASE("an override that no layer is in is refused by a trainer, not before its model is complete") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const auto trainer = [&](const Precision& precision) {
    const nn::Transformer model(ctx, config(), precision);
    train::Trainer(ctx, model.parameters(), train::NoPrivacy{0.5}, test::random_keys(rng), 12);
  };
  trainer(
      Precision::bf16().override("block0", DType::f32).override("*.mlp.down", DType::f16).override("positions", DType::f32));
  CHECK(test::refuses([&] { trainer(Precision::bf16().override("blok0", DType::f32)); }, "got none for 'blok0'"));
  CHECK(test::refuses([&] { trainer(Precision::bf16().override("block0.weight", DType::f32)); }, "'block0.weight'"));
}

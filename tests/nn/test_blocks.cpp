// SPDX-License-Identifier: Apache-2.0
// Attention, blocks and models that are built from public pieces: what padding hides, cross-attention, and per-sample norms
// against float64 in batches of one.
#include <doctest/doctest.h>

#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/per_sample/group_pass.hpp"
#include "dpmp/train/trainer.hpp"
#include "support/errors.hpp"
#include "support/pieces.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;

namespace {
/// The first n rows of each sample of [B, T, C], as one list.
std::vector<double> first_rows(const Tensor& x, index_t sample, index_t n) {
  const std::vector<double> all = x.to_doubles();
  const index_t tokens = x.shape()[1], width = x.shape()[2];
  const auto from = all.begin() + sample * tokens * width;
  return {from, from + n * width};
}

template <class Model>
void check_norms(DType dtype, double relative) {
  Context ctx(Device::cpu(), 2);
  const std::vector<index_t> records{0, 1, 2, 3, 4, 5, 11};
  const std::vector<double> expected = test::norms_of_one<Model>(ctx, records);
  test::Pieces<Model> run(ctx, dtype);
  for (const auto strategy :
       {per_sample::Strategy::automatic, per_sample::Strategy::book_keeping, per_sample::Strategy::materialised}) {
    CAPTURE(int(strategy));
    per_sample::GroupPass pass({.strategy = strategy});
    Tape tape(ctx, index_t(records.size()));
    tape.backward(run.losses()({tape, records}), pass);
    const per_sample::NormBounds norms = pass.norms(ctx, index_t(records.size()));
    for (std::size_t i = 0; i < records.size(); ++i) {
      CAPTURE(i);
      CHECK(expected[i] > 0.01);
      CHECK(std::abs(norms.norm(index_t(i)) - expected[i]) <= relative * expected[i]);
    }
  }
}
/// A private step moves every trained parameter, and only those.
template <class Model>
void check_training(DType dtype) {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  test::Pieces<Model> run(ctx, dtype);
  nn::Parameters& parameters = run.model.parameters();
  const auto plan = dp::Plan::with_noise_multiplier(
      {.delta = 1e-5, .sampling_rate = 0.5, .steps = 3, .clip_threshold = 1, .dataset_size = 12}, 1);
  train::Trainer trainer(ctx, parameters, plan, test::random_keys(rng), 12, {.physical_batch = 4});
  const std::vector<index_t> some{1, 4, 2, 7};
  const std::string report = trainer.validate(run.losses(), some).text();
  CHECK(report.size() > 100);
  std::vector<std::vector<double>> before;
  for (const Parameter* p : parameters.all()) before.push_back(p->master().to_doubles());
  while (trainer.steps() < plan.steps()) trainer.step(run.losses());
  for (std::size_t k = 0; k < before.size(); ++k)
    CHECK((parameters.all()[k]->master().to_doubles() != before[k]) == parameters.all()[k]->trainable());
}
}  // namespace

// float64: products and sums of at most 2^12 terms a chain, some 60 of them one after the other. float32: the 1e-5 of
// tests/per_sample/test_models.cpp for a model of two blocks.
TEST_CASE_TEMPLATE("P13: norms of models from public pieces equal float64 batches of one, and they train privately", Model,
                   examples::Encoder, examples::VisionTransformer, examples::ConditionalModel) {
  check_norms<Model>(DType::f64, 60 * 0x1p12 * 0x1p-53);
  check_norms<Model>(DType::f32, 1e-5);
  for (const DType dtype : {DType::f32, DType::bf16}) check_training<Model>(dtype);
}

TEST_CASE("padding: what a padded token holds changes no bit of the others, and without a mask it does") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const bool causal : {false, true}) {
    nn::Parameters parameters(ctx, DType::f32, test::seed());
    const nn::Blocks blocks(parameters, {.width = 12, .heads = 3, .layers = 2, .causal = causal});
    const index_t samples = 3, tokens = 7, lengths[] = {7, 4, 1};
    std::vector<std::int32_t> keep;
    std::vector<double> x, y;
    for (index_t i = 0; i < samples; ++i)
      for (index_t t = 0; t < tokens; ++t) {
        keep.push_back(t < lengths[i]);
        for (index_t k = 0; k < 12; ++k) {
          x.push_back(rng.normal());
          y.push_back(t < lengths[i] ? x.back() : 100 * rng.normal());
        }
      }
    const Tensor mask = Tensor::from(ctx, {samples, tokens}, keep);
    const auto out = [&](const std::vector<double>& values, const Tensor& seen) {
      Tape tape(ctx, samples, TapeMode::inference);
      return blocks(tape.input(Tensor::from(ctx, {samples, tokens, 12}, DType::f32, values)), seen).value();
    };
    const Tensor a = out(x, mask), b = out(y, mask), unmasked = out(y, Tensor());
    for (index_t i = 0; i < samples; ++i) CHECK(first_rows(a, i, lengths[i]) == first_rows(b, i, lengths[i]));
    if (!causal) CHECK(first_rows(unmasked, 1, 4) != first_rows(a, 1, 4));
  }
}

TEST_CASE("a block alone, and blocks with adapters, follow the transformer's own: y = x + attention(norm(x)), ..") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::Parameters parameters(ctx, DType::f64, test::seed());
  const nn::BlockOptions options{.width = 8, .heads = 2, .layers = 1};
  nn::Block block(parameters / "block0", options);
  const nn::LayerNorm norm(parameters / "norm", 8);
  nn::Parameters others(ctx, DType::f64, test::seed());
  nn::Blocks blocks(others, options);
  CHECK(blocks.size() == 1);
  for (Parameter* p : others.all()) p->master().copy_from_host(parameters.find(p->name()).master().raw()), p->refresh(ctx);
  Tape tape(ctx, 2);
  const Variable x = tape.input(test::normal_tensor(ctx, rng, {2, 5, 8}, DType::f64));
  const auto alone = norm(block(x)).value().to_doubles(), together = blocks(x).value().to_doubles();
  CHECK(test::distance(alone, together) <= 1e-12 * test::norm(alone));
  nn::adapt(blocks.linears(), {.rank = 2}, 2);
  CHECK(blocks(x).value().to_doubles().size() == together.size());
  index_t adapters = 0;
  for (const Parameter* p : others.all()) {
    adapters += nn::is_lora(*p);
    if (p->name().find("qkv.weight") != std::string::npos) CHECK(!p->trainable());
    if (p->name().find("norm") != std::string::npos) CHECK(p->trainable());
  }
  CHECK(adapters == 8);
}

TEST_CASE("cross-attention: its definition by loops, padding of the memory, gradients") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::Parameters parameters(ctx, DType::f64, test::seed());
  const index_t B = 2, T = 3, S = 4, width = 6, memory_width = 5, heads = 2, W = width / heads;
  const nn::CrossAttention attend(parameters, width, memory_width, heads);
  const Tensor x = test::normal_tensor(ctx, rng, {B, T, width}, DType::f64),
               memory = test::normal_tensor(ctx, rng, {B, S, memory_width}, DType::f64),
               keep = Tensor::from(ctx, {B, S}, std::vector<std::int32_t>{1, 1, 1, 1, 1, 0, 1, 0});
  Tape tape(ctx, B);
  const std::vector<double> got = attend(tape.input(x), tape.input(memory), keep).value().to_doubles();
  const auto at = [](const Tensor& t, index_t k) { return t.data<double>()[k]; };
  const auto projected = [&](const char* name, const Tensor& in, index_t row, index_t column) {
    const Tensor &w = parameters.find(std::string(name) + ".weight").master(),
                 &b = parameters.find(std::string(name) + ".bias").master();
    double y = at(b, column);
    for (index_t k = 0; k < in.shape()[2]; ++k) y += at(in, row * in.shape()[2] + k) * at(w, column * in.shape()[2] + k);
    return y;
  };
  std::vector<double> heads_out(std::size_t(B * T * width));
  for (index_t i = 0; i < B; ++i)
    for (index_t t = 0; t < T; ++t)
      for (index_t h = 0; h < heads; ++h) {
        double total = 0;
        std::vector<double> p(std::size_t(S), 0.0);
        for (index_t s = 0; s < S; ++s) {
          double score = 0;
          for (index_t k = 0; k < W; ++k)
            score += projected("query", x, i * T + t, h * W + k) * projected("key_value", memory, i * S + s, h * W + k);
          p[std::size_t(s)] = keep.data<std::int32_t>()[i * S + s] ? std::exp(score / std::sqrt(double(W))) : 0;
          total += p[std::size_t(s)];
        }
        for (index_t k = 0; k < W; ++k)
          for (index_t s = 0; s < S; ++s)
            heads_out[std::size_t((i * T + t) * width + h * W + k)] +=
                p[std::size_t(s)] / total * projected("key_value", memory, i * S + s, width + h * W + k);
      }
  const Tensor joined = Tensor::from(ctx, {B, T, width}, DType::f64, heads_out);
  for (index_t row = 0; row < B * T; ++row)
    for (index_t k = 0; k < width; ++k)
      CHECK(std::abs(got[std::size_t(row * width + k)] - projected("projection", joined, row, k)) <= 1e-12);
  CHECK(test::refuses(
      [&] {
        attend(tape.input(x), tape.input(memory), Tensor::zeros(ctx, {B, T}, DType::i32));
      },
      "padding mask"));
}

TEST_CASE("bad input: sizes of attention and blocks that do not fit are refused with their scope") {
  Context ctx(Device::cpu(), 1);
  nn::Parameters parameters(ctx, DType::f32, 1);
  CHECK(test::refuses([&] { nn::Attention(parameters / "a", 6, {.heads = 4}); }, "a: expected a width >= 1 and heads"));
  CHECK(
      test::refuses([&] { nn::Attention(parameters / "b", 8, {.heads = 4, .key_value_heads = 3}); }, "key and value heads"));
  CHECK(test::refuses([&] { nn::Attention(parameters / "c", 6, {.heads = 2, .rotary = true}); }, "an even width of a head"));
  CHECK(test::refuses([&] { nn::Blocks(parameters / "d", {.heads = 1}); }, "d: expected a width >= 1"));
  CHECK(test::refuses([&] { nn::Block(parameters / "e", {.width = 4, .dropout = 1}); }, "dropout rate in [0, 1)"));
  CHECK(test::refuses([&] { nn::CrossAttention(parameters / "f", 4, 4, 3); }, "heads that divide the width 4"));
}

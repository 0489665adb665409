// SPDX-License-Identifier: Apache-2.0
// The transformer: sizes, shapes, causality, tied weights, dropout, refusals.
#include <doctest/doctest.h>

#include "support/errors.hpp"
#include "support/gpt.hpp"

using namespace dpmp;
using nn::Transformer;
using nn::TransformerConfig;

namespace {
TransformerConfig config() {
  return {.vocabulary = 29, .width = 12, .layers = 2, .heads = 3, .context = 9, .seed = test::seed()};
}

std::vector<double> logits(Context& ctx, const Transformer& model, const Tensor& ids, const SampleRandomness* run = nullptr,
                           TapeMode mode = TapeMode::training) {
  Tape tape(ctx, ids.shape().front(), mode);
  if (run) tape.key_randomness(*run);
  return model(tape, ids).value().to_doubles();
}
SampleRandomness run_of(Context& ctx, index_t step, const std::vector<std::uint64_t>& names, std::uint32_t secret = 1) {
  Key256 key;
  key.words[0] = secret;
  std::vector<RecordId> ids;
  for (const std::uint64_t name : names) ids.push_back(stable_id(key, name));
  return {key, step, SampleIdentities(ctx, ids)};
}
}  // namespace

TEST_CASE("the number of parameters is the formula's: V d (untied: twice) + C d + 2 d + L (12 d^2 + 13 d)") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (int trial = 0; trial < 8; ++trial) {
    const index_t V = rng.integer(1, 40), heads = rng.integer(1, 4), d = heads * rng.integer(1, 5), L = rng.integer(0, 3),
                  C = rng.integer(1, 12);
    for (bool tied : {false, true}) {
      const Transformer model(ctx, {.vocabulary = V, .width = d, .layers = L, .heads = heads, .context = C, .tied = tied},
                              DType::f32);
      CHECK(model.parameters().numel() == V * d * (tied ? 1 : 2) + C * d + 2 * d + L * (12 * d * d + 13 * d));
    }
  }
}

TEST_CASE("logits are [B, T, vocabulary] in the model's dtype for every T up to the context, B = 0 too") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    const Transformer model(ctx, config(), dtype);
    for (index_t samples : {0, 1, 3})
      for (index_t tokens : {1, 4, 9}) {
        Tape tape(ctx, samples);
        const Variable y = model(tape, test::id_tensor(ctx, rng, {samples, tokens}, 0, 28));
        CHECK(y.shape() == Shape{samples, tokens, 29});
        CHECK(y.dtype() == dtype);
      }
  }
}

TEST_CASE("causality: a token changes its own and later logits, and no bit of an earlier one") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const index_t samples = 2, tokens = 9, V = 29;
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const Transformer model(ctx, config(), dtype);
    Tensor ids = test::id_tensor(ctx, rng, {samples, tokens}, 0, 28);
    const std::vector<double> before = logits(ctx, model, ids);
    for (index_t t = 0; t < tokens; ++t) {
      const Tensor changed = ids.clone(ctx);
      std::int32_t& id = changed.data<std::int32_t>()[tokens + t];  // of sample 1
      id = (id + 1 + std::int32_t(rng.integer(0, 27))) % 29;
      const std::vector<double> after = logits(ctx, model, changed);
      const auto row = [&](index_t sample, index_t token) { return (sample * tokens + token) * V; };
      CHECK(std::equal(before.begin(), before.begin() + row(1, t), after.begin()));
      CHECK_FALSE(std::equal(before.begin() + row(1, t), before.begin() + row(1, t) + V, after.begin() + row(1, t)));
      if (t + 1 < tokens)
        CHECK_FALSE(
            std::equal(before.begin() + row(1, t + 1), before.begin() + row(1, t + 1) + V, after.begin() + row(1, t + 1)));
    }
  }
}

TEST_CASE("a shorter sequence has the first logits of a longer one") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const Transformer model(ctx, config(), DType::f64);
  const Tensor ids = test::id_tensor(ctx, rng, {1, 9}, 0, 28);
  const std::vector<double> all = logits(ctx, model, ids);
  for (index_t tokens : {1, 5}) {
    const std::vector<double> few =
        logits(ctx, model, Tensor::from(ctx, {1, tokens}, {ids.data<std::int32_t>(), std::size_t(tokens)}));
    for (std::size_t k = 0; k < few.size(); ++k) CHECK(few[k] == doctest::Approx(all[k]).epsilon(1e-12));
  }
}

TEST_CASE("P14: a tied model has one table, used at two sites; an untied one a table and a head") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (bool tied : {false, true}) {
    TransformerConfig c = config();
    c.tied = tied;
    const Transformer model(ctx, c, DType::f32);
    per_sample::BookKeepingSink book;
    test::backward(ctx, model, test::random_tokens(ctx, rng, 2, 9, 29), book);
    CHECK(book.lists().size() == model.parameters().all().size());
    for (const per_sample::SiteList& sites : book.lists())
      CHECK(sites.size() == (tied && sites[0].parameter->name() == "tokens.weight" ? 2 : 1));
    CHECK(test::refuses([&] { model.parameters().find("head.weight"); }, "head.weight") == tied);
  }
}

TEST_CASE(
    "dropout is keyed by identity, step and secret: the same records in another order give the same rows in that order") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  TransformerConfig c = config();
  c.dropout = 0.4;
  const Transformer model(ctx, c, DType::f64);
  const index_t samples = 3, tokens = 9;
  const std::size_t row = std::size_t(tokens * 29);
  const Tensor ids = test::id_tensor(ctx, rng, {samples, tokens}, 0, 28), permuted = ids.clone(ctx);
  const std::int32_t order[] = {2, 0, 1};
  for (index_t i = 0; i < samples; ++i)
    std::copy_n(ids.data<std::int32_t>() + order[i] * tokens, tokens, permuted.data<std::int32_t>() + i * tokens);
  const SampleRandomness run = run_of(ctx, 7, {40, 41, 42}), permuted_run = run_of(ctx, 7, {42, 40, 41}),
                         next_step = run_of(ctx, 8, {40, 41, 42}), other_secret = run_of(ctx, 7, {40, 41, 42}, 2);
  const std::vector<double> plain = logits(ctx, model, ids, &run), other = logits(ctx, model, permuted, &permuted_run);
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t k = 0; k < row; ++k)
      CHECK(other[i * row + k] == doctest::Approx(plain[std::size_t(order[i]) * row + k]).epsilon(1e-12));
  CHECK(logits(ctx, model, ids, &run) == plain);
  CHECK(logits(ctx, model, ids, &permuted_run) != plain);
  CHECK(logits(ctx, model, ids, &next_step) != plain);
  CHECK(logits(ctx, model, ids, &other_secret) != plain);
}

TEST_CASE("dropout: equal records of different ids differ, an inference tape drops nothing and needs no ids") {
  Context ctx(Device::cpu(), 1);
  TransformerConfig c = config();
  const Transformer without(ctx, c, DType::f64);
  c.dropout = 0.4;
  const Transformer model(ctx, c, DType::f64);
  const Tensor ids = Tensor::from(ctx, {2, 3}, std::vector<std::int32_t>{1, 2, 3, 1, 2, 3});
  const SampleRandomness run = run_of(ctx, 0, {5, 6}), same = run_of(ctx, 0, {5, 5});
  const auto difference_of_rows = [&](const std::vector<double>& y) {
    return test::distance(std::span(y).first(y.size() / 2), std::span(y).last(y.size() / 2));
  };
  CHECK(difference_of_rows(logits(ctx, model, ids, &run)) > 1e-3);
  CHECK(difference_of_rows(logits(ctx, model, ids, &same)) < 1e-12);
  CHECK(logits(ctx, model, ids, nullptr, TapeMode::inference) == logits(ctx, without, ids));
  CHECK(test::refuses([&] { logits(ctx, model, ids); }, "identities (TrainerOptions::identity) for dropout 0.4"));
  const SampleRandomness too_few = run_of(ctx, 0, {5});
  CHECK(test::refuses([&] { logits(ctx, model, ids, &too_few); }, "identities of shape [2, 2], got [1, 2]"));
}

TEST_CASE("an inference tape gives the training tape's logits, keeps nothing, and cannot be walked back") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const Transformer model(ctx, config(), DType::f32);
  const test::Tokens data = test::random_tokens(ctx, rng, 3, 9, 29);
  CHECK(logits(ctx, model, data.ids, nullptr, TapeMode::inference) == logits(ctx, model, data.ids));
  const auto kept = [&](TapeMode mode) {
    Tape tape(ctx, 3, mode);
    const Variable y = model(tape, data.ids);
    return ctx.memory().live_bytes;
  };
  CHECK(kept(TapeMode::inference) < kept(TapeMode::training));
  Tape tape(ctx, 3, TapeMode::inference);
  const Variable loss = cross_entropy(model(tape, data.ids), data.targets);
  per_sample::BookKeepingSink book;
  CHECK(test::refuses([&] { tape.backward(loss, book); }, "training mode"));
}

TEST_CASE("bad input: configurations that no model can have, and ids that do not fit") {
  Context ctx(Device::cpu(), 1);
  const auto refused = [&](auto change, const char* part) {
    TransformerConfig c = config();
    change(c);
    return test::refuses([&] { Transformer(ctx, c, DType::f32); }, part);
  };
  CHECK(refused([](auto& c) { c.heads = 5; }, "heads 5"));
  CHECK(refused([](auto& c) { c.heads = 0; }, "heads 0"));
  CHECK(refused([](auto& c) { c.width = 0; }, "width 0"));
  CHECK(refused([](auto& c) { c.vocabulary = 0; }, "vocabulary 0"));
  CHECK(refused([](auto& c) { c.layers = -1; }, "layers -1"));
  CHECK(refused([](auto& c) { c.context = 0; }, "context 0"));
  for (double rate : {-0.1, 1.0, double(NAN)}) CHECK(refused([&](auto& c) { c.dropout = rate; }, "dropout rate in [0, 1)"));
  CHECK(test::refuses([&] { Transformer(ctx, config(), DType::i32); }, "floating dtype"));

  const Transformer model(ctx, config(), DType::f32);
  test::Rng rng;
  CHECK(test::refuses([&] { logits(ctx, model, test::id_tensor(ctx, rng, {2, 10}, 0, 28)); }, "T <= 9"));
  CHECK(test::refuses([&] { logits(ctx, model, test::id_tensor(ctx, rng, {6}, 0, 28)); }, "expected ids"));
  CHECK(test::refuses([&] { logits(ctx, model, Tensor::zeros(ctx, {2, 3}, DType::f32)); }, "f32"));
  for (std::int32_t bad : {-2, 29, 1 << 30}) {
    const Tensor ids = Tensor::from(ctx, {1, 2}, std::vector<std::int32_t>{1, bad});
    Tape open(ctx, 1, TapeMode::training, RecordsAre::open);
    CHECK(test::refuses([&] { model(open, ids); }, std::to_string(bad)));
    // What a record says is no error by itself: from that position on, this sample's logits are NaN.
    const std::vector<double> y = logits(ctx, model, ids);
    for (std::size_t k = y.size() / 2; k < y.size(); ++k) CHECK(std::isnan(y[k]));
  }
}

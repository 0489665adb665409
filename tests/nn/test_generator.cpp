// SPDX-License-Identifier: Apache-2.0
// Generation with a key and value cache: the logits of whole forward passes in float64, what a step costs, and what is
// drawn.
#include <doctest/doctest.h>

#include "dpmp/autograd/rules/shape_ops.hpp"
#include "support/errors.hpp"
#include "support/generation.hpp"

using namespace dpmp;
using nn::Generator;
using test::Sequence;

namespace {
std::vector<Sequence> random_sequences(test::Rng& rng, const nn::TransformerConfig& config) {
  std::vector<Sequence> all;
  for (index_t b = rng.integer(1, 4); b > 0; --b)
    all.push_back(test::random_sequence(rng, rng.integer(1, config.context), config.vocabulary));
  all[0] = test::random_sequence(rng, config.context, config.vocabulary);  // one that fills the cache
  return all;
}

/// Roundings of stored values between a token and its logits: eleven in a block (two norms, four products, turned keys,
/// probabilities, the gate, two sums), and those of the embedding, the last norm and the head. Each is relative to a value
/// of the order of the whole, and the norm of all logits is compared.
double roundings(const nn::TransformerConfig& config) { return double(4 + 11 * config.layers); }
}  // namespace

TEST_CASE("the cache gives the logits of a whole forward pass at every position: any form, lengths and pieces, in float64") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (int trial = 0; trial < 24; ++trial) {
    CAPTURE(trial);
    // Whole passes take their scale of scores in FP32: a head's width of 4 or 16 has one that is exact.
    const nn::TransformerConfig config = test::generating_config(rng, rng.integer(0, 1) ? 4 : 16);
    const nn::Transformer model(ctx, config, DType::f64);
    const std::vector<Sequence> all = random_sequences(rng, config);
    const auto logits = test::cached_logits(model, all, rng);
    // Every rounding is that of a sum of at most 2^8 terms.
    for (std::size_t b = 0; b < all.size(); ++b)
      CHECK(test::relative_distance(logits[b], test::whole_logits(model, all[b])) <=
            roundings(config) * 0x1p8 * unit_roundoff(DType::f64));
  }
}

TEST_CASE("the cache in f32, bf16 and f16, with adapters and FP32 logits, against float64 on the stored weights") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (int trial = 0; trial < 8; ++trial) {
      CAPTURE(dtype);
      CAPTURE(trial);
      nn::TransformerConfig config = test::generating_config(rng, 2 * rng.integer(1, 9));
      config.lora.rank = rng.integer(0, 1) * 2;
      config.fp32_logits = rng.integer(0, 1) == 1;
      nn::Transformer model(ctx, config, dtype), exact(ctx, config, DType::f64);
      test::copy_weights(model, exact);
      const std::vector<Sequence> all = random_sequences(rng, config);
      const auto logits = test::cached_logits(model, all, rng);
      // f32: a sum of up to 2^8 terms rounds as often. The other dtypes are summed in FP32 and rounded once.
      const double limit = roundings(config) * (dtype == DType::f32 ? 0x1p8 : 1) * unit_roundoff(dtype);
      for (std::size_t b = 0; b < all.size(); ++b)
        CHECK(test::relative_distance(logits[b], test::whole_logits(exact, all[b])) <= limit);
    }
}

TEST_CASE("next() has the logits of each sequence's last token, in f32 for every narrower dtype") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const nn::Transformer model(
        ctx, {.vocabulary = 11, .width = 8, .layers = 1, .heads = 2, .context = 20, .seed = test::seed()}, dtype);
    nn::KeyValueCache cache = model.make_cache(2), twin = model.make_cache(2);
    const Tensor ids = test::id_tensor(ctx, rng, {2, 5}, 0, 10);
    const std::vector<index_t> counts{3, 5};
    Tape tape(ctx, 2, TapeMode::inference);
    const Variable all = model(tape, ids, twin, counts), last = model.next(tape, ids, cache, counts);
    REQUIRE(last.shape() == Shape{2, 11});
    CHECK(last.dtype() == accumulate_dtype(dtype));
    CHECK(std::equal(cache.lengths().begin(), cache.lengths().end(), counts.begin()));
    const std::vector<double> every = all.value().to_doubles(), some = last.value().to_doubles();
    for (std::size_t b = 0; b < 2; ++b)
      for (std::size_t v = 0; v < 11; ++v) {
        const double of_all = every[(b * 5 + std::size_t(counts[b]) - 1) * 11 + v];
        CHECK(std::abs(some[b * 11 + v] - of_all) <=
              2 * unit_roundoff(dtype) * std::abs(of_all) + 16 * unit_roundoff(accumulate_dtype(dtype)));
      }
  }
}

TEST_CASE("a token's cost: what a step records does not depend on how many tokens there were") {
  Context ctx(Device::cpu(), 1);
  const index_t context = 4096, heads = 2;
  const nn::Transformer model(
      ctx, {.vocabulary = 7, .width = 8, .layers = 2, .heads = heads, .context = context, .seed = test::seed()}, DType::f32);
  nn::KeyValueCache cache = model.make_cache(1);
  const auto step = [&](index_t tokens) {
    Tape tape(ctx, 1, TapeMode::inference);
    model.next(tape, Tensor::zeros(ctx, {1, tokens}, DType::i32), cache);
    std::vector<Shape> shapes;
    for (const RecordedValue& value : tape.recorded()) shapes.push_back(value.shape);
    return shapes;
  };
  const std::vector<Shape> first = step(1);
  for (const Shape& shape : first) CHECK(shape.numel() <= 4 * 8);
  step(1000);
  CHECK(step(1) == first);
  CHECK(cache.lengths()[0] == 1002);
  step(context - 1003);
  step(1);
  CHECK(cache.lengths()[0] == context);
}

TEST_CASE("generation is drawing from whole forward passes, whatever the prompts of a batch are") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (int trial = 0; trial < 6; ++trial) {
    CAPTURE(trial);
    nn::TransformerConfig config = test::generating_config(rng, 4);
    config.context = rng.integer(5, 40);
    const nn::Transformer model(ctx, config, DType::f64);
    nn::GeneratorOptions options{.sampling = {.temperature = double(trial % 3) * 0.8,
                                              .top_k = trial % 2 ? rng.integer(1, config.vocabulary) : 0,
                                              .seed = rng.bits(),
                                              .first_sequence = rng.bits() >> 1}};
    if (trial % 2) options.stop = 3;
    options.capacity = rng.integer(0, 1) * rng.integer(4, config.context);
    const index_t capacity = options.capacity == 0 ? config.context : options.capacity;
    std::vector<Sequence> prompts;
    for (index_t b = rng.integer(1, 4); b > 0; --b)
      prompts.push_back(test::random_sequence(rng, rng.integer(1, capacity), config.vocabulary));
    const index_t most = rng.integer(0, capacity + 3);
    Generator generator(model, options);
    const auto drawn = generator(prompts, most);
    REQUIRE(drawn.size() == prompts.size());
    for (std::size_t b = 0; b < prompts.size(); ++b) {
      Sequence by_hand = prompts[b], expected;
      while (index_t(expected.size()) < most && index_t(by_hand.size()) <= capacity) {
        const std::vector<double> logits = test::whole_logits(model, by_hand);
        const std::int32_t token = nn::sample(std::span(logits).last(std::size_t(config.vocabulary)), options.sampling,
                                              options.sampling.first_sequence + b, by_hand.size());
        if (options.stop && token == *options.stop) break;
        by_hand.push_back(token);
        expected.push_back(token);
      }
      CHECK(drawn[b] == expected);
    }
    CHECK(generator(prompts, most) == drawn);  // the same once more
  }
}

TEST_CASE("token by token: a sequence goes on until its stop token or a full cache, and the others are not changed by it") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const nn::Transformer model(
      ctx, {.vocabulary = 4, .width = 8, .layers = 1, .heads = 2, .context = 12, .seed = test::seed()}, DType::f64);
  Generator generator(model, {.sampling = {.seed = rng.bits()}, .stop = 2});
  const std::vector<Sequence> prompts{{2, 2}, {1, 3, 0, 2, 1, 1, 0}, {0}};
  generator.start(prompts);
  index_t rounds = 0;
  std::vector<std::size_t> before;
  do {
    before.clear();
    for (const Sequence& s : generator.sequences())
      before.push_back(generator.goes_on(index_t(before.size())) ? s.size() : 0);
    for (std::size_t b = 0; b < 3; ++b)
      if (before[b] == 0) before[b] = generator.sequences()[b].size() - 1;  // stays as it is
    ++rounds;
    if (!generator.next()) break;
    for (std::size_t b = 0; b < 3; ++b) CHECK(generator.sequences()[b].size() == before[b] + 1);
  } while (rounds < 20);
  CHECK(rounds < 20);
  const std::vector<Sequence> ended(generator.sequences().begin(), generator.sequences().end());
  CHECK_FALSE(generator.next());
  for (std::size_t b = 0; b < 3; ++b) {
    const Sequence& s = generator.sequences()[b];
    CHECK(s == ended[b]);
    CHECK(std::equal(prompts[b].begin(), prompts[b].end(), s.begin()));
    const auto stop = std::find(s.begin() + std::ptrdiff_t(prompts[b].size()), s.end(), 2);
    CHECK((stop == s.end() ? s.size() == 13 : stop == s.end() - 1));
  }
}

TEST_CASE("blocks of a user's own with a cache, one attention alone too") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::Parameters parameters(ctx, DType::f64, test::seed());
  const nn::Blocks blocks(parameters, {.width = 8, .heads = 2, .layers = 2, .rotary = true});
  const nn::Attention attention(parameters / "alone", 8, {.heads = 2, .key_value_heads = 1});
  const Tensor x = test::normal_tensor(ctx, rng, {2, 7, 8}, DType::f64);
  Tape tape(ctx, 2, TapeMode::inference);
  const auto tokens = [&](index_t from, index_t count) { return slice(tape.input(x), 1, from, from + count); };
  nn::KeyValueCache cache = blocks.make_cache(ctx, 2, 7), one(ctx, attention.cache_options(), 2, 7);
  const std::vector<double> whole = blocks(tape.input(x)).value().to_doubles(),
                            whole_attention = attention(tape.input(x)).value().to_doubles();
  for (const auto& [from, count] : {std::pair<index_t, index_t>{0, 3}, {3, 1}, {4, 1}, {5, 2}}) {
    const std::vector<double> y = blocks(tokens(from, count), cache).value().to_doubles();
    one.begin(count);
    const std::vector<double> z = attention(tokens(from, count), one, 0).value().to_doubles();
    one.end();
    const auto check = [&](const std::vector<double>& got, const std::vector<double>& want) {
      for (index_t b = 0; b < 2; ++b)
        for (index_t k = 0; k < count * 8; ++k)
          CHECK(std::abs(got[std::size_t(b * count * 8 + k)] - want[std::size_t((b * 7 + from) * 8 + k)]) <= 1e-12);
    };
    check(y, whole);
    check(z, whole_attention);
  }
}

TEST_CASE("bad input: a full cache, tokens that see later ones, a tape for training, prompts that no model has") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const nn::TransformerConfig config{.vocabulary = 9, .width = 8, .layers = 1, .heads = 2, .context = 6};
  const nn::Transformer model(ctx, config, DType::f32);
  nn::KeyValueCache cache = model.make_cache(2, 4);
  const auto feed = [&](index_t samples, index_t tokens, std::vector<index_t> counts = {},
                        TapeMode mode = TapeMode::inference) {
    Tape tape(ctx, samples, mode);
    model(tape, test::id_tensor(ctx, rng, {samples, tokens}, 0, 8), cache, counts);
  };
  CHECK(test::refuses([&] { feed(2, 5); },
                      "expected room for 5 more tokens of sequence 0 in the key and value cache, got 0 of 4"));
  feed(2, 3, {3, 1});
  CHECK(test::refuses([&] { feed(2, 2); }, "expected room for 2 more tokens of sequence 0"));
  feed(2, 3, {1, 3});
  CHECK(cache.lengths()[0] == 4);
  CHECK(cache.lengths()[1] == 4);
  CHECK(test::refuses([&] { feed(2, 1); }, "got 4 of 4 places taken"));
  cache.clear();
  CHECK(test::refuses([&] { feed(2, 2, {1}); }, "a count for each of 2 sequences, got 1"));
  CHECK(test::refuses([&] { feed(2, 2, {1, 3}); }, "counts in [0, 2] of new tokens, got 3 for sequence 1"));
  CHECK(test::refuses([&] { feed(2, 2, {-1, 1}); }, "got -1 for sequence 0"));
  CHECK(test::refuses([&] { feed(3, 1); }, "expected ids [2, T] for the sequences of the cache, got [3, 1]"));
  CHECK(test::refuses([&] { feed(2, 0); }, "at least one new token"));
  CHECK(test::refuses([&] { feed(2, 1, {}, TapeMode::training); }, "a tape for inference"));
  feed(2, 4);  // nothing of what was refused is in the cache
  CHECK(test::refuses([&] { model.make_cache(1, 7); }, "at most the context of 6 tokens (0: all), got 7"));
  CHECK(test::refuses([&] { model.make_cache(0); }, "at least one sequence and one token, got 0 and 6"));

  nn::Parameters parameters(ctx, DType::f32, 1);
  const nn::Blocks encoder(parameters, {.width = 8, .heads = 2, .layers = 1, .causal = false});
  CHECK(test::refuses([&] { encoder.make_cache(ctx, 1, 4); }, "expected causal blocks"));
  Tape tape(ctx, 2, TapeMode::inference);
  CHECK(test::refuses(
      [&] {
        encoder(tape.input(Tensor::zeros(ctx, {2, 1, 8}, DType::f32)), cache);
      },
      "expected causal blocks"));
  const nn::Attention attention(parameters / "a", 8, {.heads = 2, .causal = false}),
      wider(parameters / "w", 16, {.heads = 2});
  cache.clear();
  cache.begin(1);
  CHECK(test::refuses(
      [&] {
        attention(tape.input(Tensor::zeros(ctx, {2, 1, 8}, DType::f32)), cache, 0);
      },
      "causal attention"));
  CHECK(test::refuses(
      [&] {
        wider(tape.input(Tensor::zeros(ctx, {2, 1, 16}, DType::f32)), cache, 0);
      },
      "the projections of new tokens"));
  const nn::Transformer half(ctx, config, DType::f16);
  CHECK(test::refuses([&] { half(tape, Tensor::zeros(ctx, {2, 1}, DType::i32), cache); }, "in f32, got f16"));
  cache.clear();
  CHECK(test::refuses([&] { cache.end(); }, "an open step"));

  Generator generator(model, {.capacity = 4});
  CHECK(test::refuses([&] { generator.next(); }, "call start"));
  CHECK(test::refuses([&] { generator.start({}); }, "at least one prompt"));
  CHECK(test::refuses([&] { generator.start({{1}, {}}); }, "1 to 4 tokens in prompt 1, got 0"));
  CHECK(test::refuses([&] { generator.start({{1, 2, 3, 4, 5}}); }, "1 to 4 tokens in prompt 0, got 5"));
  CHECK(test::refuses([&] { generator.start({{1}, {1, 9}}); }, "token ids in [0, 9) in prompt 1, got 9 at position 1"));
  CHECK(test::refuses([&] { generator.start({{-1}}); }, "got -1"));
  CHECK(test::refuses([&] { generator({{1}}, -1); }, "a number of tokens >= 0, got -1"));
  CHECK(test::refuses([&] { Generator(model, {.capacity = 7}); }, "a capacity in [0, 6]"));
  CHECK(test::refuses([&] { Generator(model, {.sampling = {.top_k = 10}}); }, "a top_k in [0, 9]"));
  CHECK(test::refuses([&] { Generator(model, {.sampling = {.temperature = -1}}); }, "a finite temperature >= 0, got -1"));
  CHECK(test::refuses([&] { Generator(model, {.sampling = {.temperature = NAN}}); }, "a finite temperature"));
}

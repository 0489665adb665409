// SPDX-License-Identifier: Apache-2.0
// An output layer in chunks (linear_cross_entropy): everything that a private pass makes of it has the bits that it has with
// all logits stored, whatever a chunk is.
#include <doctest/doctest.h>

#include <numeric>

#include "dpmp/dp/clipping.hpp"
#include "dpmp/per_sample/sum_sink.hpp"
#include "support/chunked_head.hpp"
#include "support/errors.hpp"
#include "support/oracle.hpp"

namespace {
using namespace dpmp;
using per_sample::GradientSums;
using per_sample::NormChoice;
using per_sample::Strategy;
using per_sample::StrategyOptions;
using test::different_bits;
using test::head_outcome;
using test::HeadKind;
using test::HeadModel;
using test::HeadOutcome;
using test::refuses;
using test::Tokens;
using test::with_target;

std::vector<float> random_factors(test::Rng& rng, index_t samples) {
  std::vector<float> c;
  for (index_t i = 0; i < samples; ++i) c.push_back(i == 2 ? 0.0f : float(rng.uniform(0.1, 1)));
  return c;
}
std::vector<StrategyOptions> every_strategy() {
  std::vector<StrategyOptions> options;
  for (Strategy s : {Strategy::book_keeping, Strategy::two_pass, Strategy::materialised})
    for (NormChoice n : {NormChoice::automatic, NormChoice::gram, NormChoice::instantiate})
      options.push_back({.strategy = s, .norms = n});
  options.push_back({.strategy = Strategy::materialised, .gradients = per_sample::GradientStorage::compute});
  options.push_back({.byte_budget = 0});
  return options;
}
std::vector<HeadKind> every_kind() {
  return {{9, 16, 40},
          {9, 16, 40, true},
          {5, 24, 33, false, true},
          {6, 16, 40, true, true},
          {4, 8, 11, false, true, true},
          {4, 8, 11, true, false, true},
          {6, 8, 11, false, true, false, true},
          {1, 16, 40, true},
          {300, 8, 16, true}};
}
/// The slots of these samples, one after the other.
Tokens in_slots(Context& ctx, const Tokens& data, const std::vector<index_t>& samples) {
  const auto take = [&](const Tensor& x) {
    std::vector<Tensor> rows;
    for (const index_t i : samples) rows.push_back(x.rows(i, i + 1));
    return concat(ctx, rows, 0);
  };
  return {take(data.ids), take(data.targets)};
}
/// Contribution of one slot, all other factors 0.
std::vector<double> contribution(Context& ctx, const HeadModel& model, const Tokens& data, index_t slot, index_t bytes,
                                 const StrategyOptions& options = {}) {
  std::vector<float> factors(std::size_t(data.samples()), 0.0f);
  factors[std::size_t(slot)] = 0.37f;
  return head_outcome(ctx, model, data, bytes, options, factors).sums;
}
}  // namespace

TEST_CASE("P13, P15: norms, certificates, clipped sums and input gradients of a head in chunks are those of stored logits") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
    for (const HeadKind& kind : every_kind()) {
      const HeadModel model(ctx, kind, dtype);
      const index_t samples = kind.tokens > 100 ? 2 : 6;
      const Tokens data = test::random_tokens(ctx, rng, samples, kind.tokens, int(kind.classes));
      const std::vector<float> factors = random_factors(rng, samples);
      std::vector<double> weights;  // an empty slot, and others apart
      for (index_t i = 0; i < samples; ++i) weights.push_back(i == 1 ? 0 : rng.uniform(0.5, 1));
      CAPTURE(name_of(dtype));
      CAPTURE(kind.tokens);
      CAPTURE(kind.tied);
      CAPTURE(kind.bias);
      CAPTURE(kind.twice);
      for (const StrategyOptions& options : every_strategy())
        for (const bool grouped : {false, true}) {
          CAPTURE(per_sample::name_of(options.strategy));
          CAPTURE(int(options.norms));
          const HeadOutcome whole = head_outcome(ctx, model, data, 0, options, factors, grouped, weights);
          for (const index_t bytes : model.chunks()) {
            CAPTURE(bytes);
            const HeadOutcome chunked = head_outcome(ctx, model, data, bytes, options, factors, grouped, weights);
            CHECK(different_bits(chunked.losses, whole.losses) == 0);
            CHECK(different_bits(chunked.norms, whole.norms) == 0);
            CHECK(different_bits(chunked.sums, whole.sums) == 0);
            CHECK(chunked.kept == whole.kept);
          }
        }
    }
}

TEST_CASE("one token a sample: contributions have the bits of stored logits, their sum is off by roundings in double") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const HeadModel model(ctx, {1, 16, 40}, dtype);
    const index_t samples = 6;
    const Tokens data = test::random_tokens(ctx, rng, samples, 1, 40);
    const std::vector<float> factors = random_factors(rng, samples);
    for (const StrategyOptions& options : every_strategy()) {
      const HeadOutcome whole = head_outcome(ctx, model, data, 0, options, factors);
      for (const index_t bytes : model.chunks()) {
        const HeadOutcome chunked = head_outcome(ctx, model, data, bytes, options, factors);
        CHECK(different_bits(chunked.norms, whole.norms) == 0);
        // Each of the samples is rounded as it is added.
        double scale = 0;
        for (index_t i = 0; i < samples; ++i) scale += whole.norms[std::size_t(4 * i)];
        CHECK(test::distance(chunked.sums, whole.sums) <= 2 * double(samples) * 0x1p-53 * scale);
        for (index_t i = 0; i < samples; ++i)
          CHECK(different_bits(contribution(ctx, model, data, i, bytes, options),
                               contribution(ctx, model, data, i, 0, options)) == 0);
      }
    }
  }
}

TEST_CASE("more samples than a chain of additions takes: the same bits in equal chunks") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const index_t samples : {index_t(513), index_t(700), index_t(1024)}) {
    const HeadModel model(ctx, {2, 4, 5, true}, DType::f32);
    const Tokens data = test::random_tokens(ctx, rng, samples, 2, 5);
    const std::vector<float> factors = random_factors(rng, samples);
    for (const StrategyOptions& options :
         {StrategyOptions{.strategy = Strategy::book_keeping}, StrategyOptions{.byte_budget = 0}}) {
      const HeadOutcome whole = head_outcome(ctx, model, data, 0, options, factors);
      for (const index_t bytes : {index_t(1), index_t(1000), index_t(1) << 24})
        CHECK(different_bits(head_outcome(ctx, model, data, bytes, options, factors).sums, whole.sums) == 0);
    }
  }
}

TEST_CASE("P34, P9: a contribution has the same bits in every slot, next to any records, NaN ones and bad targets too") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const HeadKind& kind : every_kind()) {
      const HeadModel model(ctx, kind, dtype);
      const index_t samples = 4;
      // A target of record 0 is none that is ignored.
      const Tokens data = with_target(ctx, test::random_tokens(ctx, rng, samples, kind.tokens, int(kind.classes)), 0, 2);
      const Tokens moved = in_slots(ctx, data, {3, 3, 1, 0}),
                   faulty = with_target(ctx, with_target(ctx, in_slots(ctx, data, {1, 0, 2, 2}), 2 * kind.tokens, 1000),
                                        3 * kind.tokens, -7);
      for (const index_t bytes : model.chunks()) {
        CAPTURE(bytes);
        const std::vector<double> at_first = contribution(ctx, model, data, 0, bytes);
        CHECK(test::norm(at_first) > 0);
        CHECK(different_bits(contribution(ctx, model, moved, 3, bytes), at_first) == 0);
        CHECK(different_bits(contribution(ctx, model, faulty, 1, bytes), at_first) == 0);
        const HeadOutcome all = head_outcome(ctx, model, faulty, bytes, {}, {0, 0.37f, 1, 1});
        CHECK(different_bits(all.sums, at_first) == 0);
        CHECK((all.norms[4 * 2 + 3] == 0 && all.norms[4 * 3 + 3] == 0));
      }
    }
}

TEST_CASE("P1: the clipped contribution of a head in chunks is never above C") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const double threshold = 0.01;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const HeadKind& kind : every_kind())
      for (const double size : {1e-3, 0.4, 30.0}) {
        const HeadModel model(ctx, kind, dtype, size);
        // All tokens alike, and a random record.
        const std::vector<std::int32_t> same(std::size_t(2 * kind.tokens), 3);
        const Tensor alike = Tensor::from(ctx, {2, kind.tokens}, same);
        const Tokens random = test::random_tokens(ctx, rng, 2, kind.tokens, int(kind.classes));
        const Tokens data{concat(ctx, std::vector<Tensor>{alike, random.ids}, 0),
                          concat(ctx, std::vector<Tensor>{alike, random.targets}, 0)};
        for (const StrategyOptions& options : {StrategyOptions{}, StrategyOptions{.byte_budget = 0}})
          for (const index_t bytes : {index_t(1), index_t(1) << 24})
            for (index_t alone = 0; alone < data.samples(); ++alone) {
              const auto all = model.parameters.all();
              GradientSums sums(ctx, all);
              per_sample::ClippedSumSink sink(per_sample::Groups::flat(all), options);
              Tape tape(ctx, data.samples());
              const auto rule = [&](index_t, const per_sample::NormBounds& norms) {
                std::vector<float> c(std::size_t(data.samples()));
                dp::FlatClipping(threshold).factors(norms.upper(), norms.finite(), c);
                for (index_t i = 0; i < data.samples(); ++i)
                  if (i != alone) c[std::size_t(i)] = 0;
                return c;
              };
              per_sample::clipped_backward(tape, model.losses(tape, data, bytes), Tensor(), sink, rule, sums);
              CHECK(test::norm(test::flat(sums)) <= threshold);
            }
      }
}

TEST_CASE("plain sums come in parts, of the same gradient; frozen parameters and unwanted gradients are left out") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const HeadKind& kind : every_kind()) {
      HeadModel model(ctx, kind, dtype);
      const Tokens data = test::random_tokens(ctx, rng, 6, kind.tokens, int(kind.classes));
      for (const int frozen : {0, 1, 2, 3}) {  // nothing, the weight, the bias, both
        model.weight().set_trainable(frozen % 2 == 0);
        if (model.bias()) model.bias()->set_trainable(frozen / 2 == 0);
        const auto plain = [&](index_t bytes) {
          GradientSums sums(ctx, model.parameters.all());
          per_sample::SumSink sink(sums);
          Tape tape(ctx, data.samples());
          tape.backward(model.losses(tape, data, bytes), sink);
          return test::flat(sums);
        };
        const std::vector<double> whole = plain(0);
        double scale = 0;
        for (index_t i = 0; i < data.samples(); ++i) {
          HeadOutcome one = head_outcome(ctx, model, data.rows(i, i + 1), 0, {}, {1});
          scale += one.norms[0];
        }
        const std::vector<float> ones(std::size_t(data.samples()), 1.0f);
        for (const index_t bytes : model.chunks()) {
          // The same rows b; FP32 sums over tokens and samples in another order.
          CHECK(test::distance(plain(bytes), whole) <= 2 * double(data.samples() * kind.tokens + 8) * 0x1p-24 * scale);
          CHECK(different_bits(head_outcome(ctx, model, data, bytes, {.strategy = Strategy::book_keeping}, ones).sums,
                               head_outcome(ctx, model, data, 0, {.strategy = Strategy::book_keeping}, ones).sums) == 0);
        }
      }
    }
}

TEST_CASE("no tensor of all logits: the peak follows the chunk, not the batch, private, plain and in inference") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const HeadKind kind{16, 8, 2000};
  const index_t one = kind.tokens * kind.classes * 4;  // bytes of a sample's logits
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const HeadModel model(ctx, kind, dtype);
    const auto peak = [&](index_t samples, const StrategyOptions& options) {
      const Tokens data = test::random_tokens(ctx, rng, samples, kind.tokens, int(kind.classes));
      const HeadOutcome found = head_outcome(ctx, model, data, one, options, std::vector<float>(std::size_t(samples), 1.0f));
      CHECK(found.largest <= 32 * one / 8);
      return found.peak;
    };
    for (const StrategyOptions& options :
         {StrategyOptions{.strategy = Strategy::book_keeping}, StrategyOptions{.byte_budget = 0}}) {
      // A sample more is one of the rest of the model: 16 rows of 8, a dozen times, and norms.
      const index_t few = peak(4, options), many = peak(32, options);
      CAPTURE(few);
      CAPTURE(many);
      CHECK(many - few <= 28 * one / 8);
      CHECK(many <= 32 * one / 4);  // of which the weight, its panels and its sums are
    }
    for (const bool plain : {false, true}) {
      const Tokens data = test::random_tokens(ctx, rng, 32, kind.tokens, int(kind.classes));
      GradientSums sums(ctx, model.parameters.all());
      per_sample::SumSink sink(sums);
      const index_t before = ctx.memory().live_bytes;
      ctx.reset_peak_memory();
      {
        Tape tape(ctx, 32, plain ? TapeMode::training : TapeMode::inference);
        const Variable losses = model.losses(tape, data, one / 4);
        if (plain) tape.backward(losses, sink);
      }
      CHECK(ctx.memory().peak_bytes - before <= 32 * one / 8);
    }
  }
}

TEST_CASE(
    "P11: the largest gradient of a head in chunks, and what a pass with loss scales makes of it, are those of stored "
    "logits") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::f16, DType::f64})
    for (const HeadKind& kind : every_kind()) {
      const HeadModel model(ctx, kind, dtype);
      const index_t samples = 4;
      const Tokens data = with_target(ctx, test::random_tokens(ctx, rng, samples, kind.tokens, int(kind.classes)), 0, 2);
      const std::vector<double> weights{1, 0, -1e-4, 1e-3};
      const auto largest = [&](const Tokens& tokens, index_t bytes) {
        Tape tape(ctx, samples);
        const Variable losses = model.losses(tape, tokens, bytes);
        return largest_loss_gradients(tape, losses, Tensor::from(ctx, {samples}, losses.dtype(), weights)).to_doubles();
      };
      const Tokens faulty = with_target(ctx, data, 3 * kind.tokens, 1000);
      for (const index_t bytes : model.chunks()) {
        CHECK(largest(data, bytes) == largest(data, 0));
        const std::vector<double> found = largest(faulty, bytes);
        CHECK((found[0] > 0 && found[1] == 0 && std::isinf(found[3])));
        const auto scaled = [&](index_t n) {
          return head_outcome(ctx, model, data, n, {.strategy = Strategy::book_keeping}, {1, 0.5f, 0.25f, 1}, false, weights,
                              LossScaling::per_sample());
        };
        const HeadOutcome chunked = scaled(bytes), whole = scaled(0);
        CHECK(different_bits(chunked.norms, whole.norms) == 0);
        CHECK(different_bits(chunked.sums, whole.sums) == 0);
      }
    }
}

TEST_CASE("a transformer with a head in chunks trains as one with FP32 logits") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const bool tied : {false, true}) {
      const auto pass = [&](bool chunked, const Tokens& data, double* loss) {
        const nn::Transformer model(ctx,
                                    {.vocabulary = 23,
                                     .width = 16,
                                     .layers = 1,
                                     .heads = 2,
                                     .context = 12,
                                     .tied = tied,
                                     .seed = test::seed(),
                                     .fp32_logits = !chunked,
                                     .chunked_head = chunked},
                                    dtype);
        Tape tape(ctx, data.samples(), TapeMode::inference);
        *loss = model.losses(tape, data.ids, data.targets).value().to_doubles()[0];
        per_sample::GroupPass sink({.strategy = Strategy::book_keeping});
        test::backward(ctx, model, data, sink);
        std::vector<double> found = sink.norms(ctx, data.samples()).upper();
        const std::vector<double> sums = test::weighted(ctx, model, sink, std::vector<float>{1, 0.5f, 0, 0.25f});
        found.insert(found.end(), sums.begin(), sums.end());
        return found;
      };
      const Tokens data = test::random_tokens(ctx, rng, 4, 12, 23);
      double losses[2];
      CHECK(pass(true, data, &losses[0]) == pass(false, data, &losses[1]));
      CHECK(losses[0] == losses[1]);
    }
}

TEST_CASE("empty batches, records without tokens, and what is refused") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const bool bias : {false, true})
      for (const auto& [samples, tokens] : {std::pair<index_t, index_t>{0, 3}, {3, 0}}) {
        const HeadModel model(ctx, {tokens, 8, 11, true, bias}, dtype);
        const Tokens data{Tensor::from(ctx, {samples, tokens}, std::vector<std::int32_t>{}),
                          Tensor::from(ctx, {samples, tokens}, std::vector<std::int32_t>{})};
        for (const StrategyOptions& options : every_strategy()) {
          const HeadOutcome found =
              head_outcome(ctx, model, data, 8, options, std::vector<float>(std::size_t(samples), 1.0f));
          CHECK(found.losses == std::vector<double>(std::size_t(samples), 0.0));
          CHECK(test::norm(found.sums) == 0);
        }
      }
  const HeadModel model(ctx, {3, 8, 11}, DType::bf16), other(ctx, {3, 8, 11}, DType::f32);
  const Tokens data = test::random_tokens(ctx, rng, 2, 3, 11);
  const Tensor x = test::normal_tensor(ctx, rng, {2, 3, 8}, DType::bf16);
  const auto loss = [&](const HeadModel& m, const Tensor& targets, CrossEntropyOptions options = {}, index_t bytes = 100,
                        RecordsAre records = RecordsAre::confidential) {
    Tape tape(ctx, 2, TapeMode::training, records);
    return linear_cross_entropy(tape.input(x), m.weight(), nullptr, targets, options, bytes).value().to_doubles();
  };
  CHECK(refuses([&] { loss(other, data.targets); }, "linear_cross_entropy: expected the weight head.weight in bf16"));
  CHECK(refuses([&] { loss(model, data.targets.rows(0, 1)); }, "linear_cross_entropy: expected logits [B, .., classes]"));
  CHECK(refuses([&] { loss(model, data.targets, {.divisor = 0}); }, "linear_cross_entropy: expected a divisor > 0"));
  CHECK(refuses([&] { loss(model, data.targets, {}, 0); }, "expected at least a byte of logits at a time, got 0"));
  const Tokens bad = with_target(ctx, data, 4, 11);
  CHECK(std::isnan(loss(model, bad.targets)[1]));
  CHECK(refuses([&] { loss(model, bad.targets, {}, 100, RecordsAre::open); },
                "linear_cross_entropy: expected targets in [0, 11) or -1 (ignored), got 11 at sample 1, position 1"));
}

// SPDX-License-Identifier: Apache-2.0
// The diffusion transformer of examples/train_dit: its model, the noise of its records and how it draws, against what they
// are made of.
#include <doctest/doctest.h>

#include "../../examples/draw_pictures.hpp"
#include "dpmp/train/trainer.hpp"
#include "support/pieces.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;

namespace {
using examples::DiffusionData;
using examples::DiffusionTransformer;

constexpr examples::DiffusionConfig tiny{
    .side = 8, .patch = 4, .width = 16, .layers = 2, .heads = 2, .classes = 3, .margin = 1};

examples::FashionMnist random_images(index_t records) {
  test::Rng rng(test::seed(), 9200);
  examples::FashionMnist data;
  for (index_t k = 0; k < records; ++k) {
    data.labels.push_back(std::int32_t(k % tiny.classes));
    for (index_t p = 0; p < tiny.side * tiny.side; ++p) data.pixels.push_back(std::uint8_t(rng.integer(0, 255)));
  }
  return data;
}
examples::FashionMnist without(examples::FashionMnist data, index_t record) {
  const auto pixels = tiny.side * tiny.side;
  data.labels.erase(data.labels.begin() + record);
  data.pixels.erase(data.pixels.begin() + record * pixels, data.pixels.begin() + (record + 1) * pixels);
  return data;
}

/// The model with made-up images, two draws of each.
class Model {
 public:
  Model(Context& ctx, const nn::Precision& precision, std::uint64_t seed, Checkpointing checkpointing = Checkpointing::none)
      : ctx_(ctx), data_(random_images(12), tiny), model_(ctx, tiny, precision, seed, checkpointing) {}
  nn::Parameters& parameters() { return model_.parameters(); }
  const nn::Parameters& parameters() const { return model_.parameters(); }
  const DiffusionData& data() const { return data_; }
  const DiffusionTransformer& transformer() const { return model_; }
  Variable losses(const train::Batch& batch) const {
    const auto* keyed = batch.tape.randomness();
    return data_.losses(model_, batch.tape, batch.records, keyed ? *keyed : data_.open_randomness(ctx_, batch.records),
                        {.draws = 2, .label_dropout = 0.3});
  }

 private:
  Context& ctx_;
  DiffusionData data_;
  DiffusionTransformer model_;
};

void check_norms(DType dtype, double relative) {
  Context ctx(Device::cpu(), 2);
  const std::vector<index_t> records{0, 1, 2, 3, 4, 5, 11};
  const std::vector<double> expected = test::norms_of_one<Model>(ctx, records);
  test::Pieces<Model> run(ctx, dtype);
  for (const auto strategy : {per_sample::Strategy::automatic, per_sample::Strategy::book_keeping,
                              per_sample::Strategy::two_pass, per_sample::Strategy::materialised}) {
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
}  // namespace

// Bounds: those of tests/nn/test_blocks.cpp for models of as many operations.
TEST_CASE("P13: per-sample norms of a diffusion transformer equal float64 batches of one, in every strategy") {
  check_norms(DType::f64, 60 * 0x1p12 * 0x1p-53);
  check_norms(DType::f32, 1e-5);
}

TEST_CASE("P34, P35: no number of a record depends on the others, whose records are exchanged, emptied and removed") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  test::Pieces<Model> run(ctx, DType::bf16);
  const auto plan = dp::Plan::with_noise_multiplier(
      {.delta = 1e-5, .sampling_rate = 0.5, .steps = 1, .clip_threshold = 1, .dataset_size = 12}, 1);
  train::Trainer trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), 12,
                         {.physical_batch = 4, .identity = [&](const Key256& secret, index_t record) {
                            return run.model.data().identity(secret, record);
                          }});
  const std::vector<index_t> some{1, 4, 2, 7, 9};
  CHECK(trainer.validate(run.losses(), some).text().size() > 100);
}

TEST_CASE("P35: a record's noise is the same in a data set from which another record was removed, and another each step") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  const examples::FashionMnist images = random_images(12);
  const DiffusionData all(images, tiny), fewer(without(images, 3), tiny);
  test::Pieces<Model> moved(ctx, DType::f32);
  const DiffusionTransformer& model = moved.model.transformer();
  const auto losses = [&](const DiffusionData& data, std::vector<index_t> records, index_t step) {
    const Key256 of_records = keys.key(dp::Stream::record_identity);
    std::vector<RecordId> ids;
    for (const index_t k : records) ids.push_back(data.identity(of_records, k));
    Tape tape(ctx, index_t(records.size()));
    return data.losses(model, tape, records, {keys.key(dp::Stream::dropout), step, SampleIdentities(ctx, ids)}, {.draws = 3})
        .value()
        .to_doubles();
  };
  const std::vector<double> before = losses(all, {2, 5, 11}, 7), after = losses(fewer, {10, 2, 4}, 7);
  CHECK(before[0] == after[1]);
  CHECK(before[1] == after[2]);
  CHECK(before[2] == after[0]);
  CHECK(losses(all, {2, 5, 11}, 8) != before);
  CHECK(before[0] != before[1]);
}

TEST_CASE("checkpointing: private steps with it and without end in the same bits, in every precision") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  const test::Pieces<Model> start(ctx, DType::f32);
  const nn::Precision bf16 = DType::bf16;
  std::vector<std::vector<double>> of_precisions;
  for (const nn::Precision& precision : {nn::Precision(DType::f32), bf16, bf16.fp32_norms(), bf16.fp32_logits(),
                                         bf16.fp32_residual(), bf16.fp32_residual().fp32_logits()}) {
    CAPTURE(precision.text());
    std::vector<double> expected;
    for (const Checkpointing how : {Checkpointing::none, Checkpointing::selective, Checkpointing::block}) {
      CAPTURE(int(how));
      Model model(ctx, precision, test::seed(), how);
      for (Parameter* p : model.parameters().all())
        test::Pieces<Model>::set(*p, start.model.parameters().find(p->name()).master().to_doubles(), ctx);
      const auto plan = dp::Plan::with_noise_multiplier(
          {.delta = 1e-5, .sampling_rate = 0.5, .steps = 2, .clip_threshold = 1, .dataset_size = 12}, 1);
      train::Trainer trainer(ctx, model.parameters(), plan, keys, 12,
                             {.physical_batch = 4, .identity = [&](const Key256& secret, index_t record) {
                                return model.data().identity(secret, record);
                              }});
      while (trainer.steps() < 2) trainer.step([&](const train::Batch& batch) { return model.losses(batch); });
      const std::vector<double> found = test::masters(model.parameters());
      if (how == Checkpointing::none) expected = found;
      CHECK(found == expected);
    }
    for (const std::vector<double>& other : of_precisions) CHECK(expected != other);
    of_precisions.push_back(expected);
  }
}

// The angle is told by the slowest wave of the time, sin(1000 t f) with 1000 f < 0.14 and so one solution; in f64 what is
// recovered has the rounding of float noise and times.
TEST_CASE("noising: z = cos x + sin e of normal e, the loss is that of x; the draws of a record divide the times") {
  Context ctx(Device::cpu(), 1);
  const examples::FashionMnist images = random_images(12);
  test::Pieces<Model> moved(ctx, DType::f64);
  const DiffusionData& data = moved.model.data();
  std::vector<index_t> records(12);
  for (index_t k = 0; k < 12; ++k) records[std::size_t(k)] = k;
  constexpr index_t draws = 4, pixels = tiny.side * tiny.side;
  std::vector<std::vector<double>> waves, shown, predicted;
  std::vector<double> last;
  Tape tape(ctx, 12);
  tape.observe([&](std::string_view operation, const Tensor& value) {
    if (operation == "mean_squared_error") predicted.push_back(last);
    last = value.to_doubles();
    if (operation == "input") (value.shape().rank() == 2 ? waves : shown).push_back(last);
  });
  const std::vector<double> losses =
      data.losses(moved.model.transformer(), tape, records, data.open_randomness(ctx, records), {.draws = draws})
          .value()
          .to_doubles();
  REQUIRE(waves.size() == draws);
  REQUIRE(shown.size() == draws);
  REQUIRE(predicted.size() == draws);
  const std::vector<index_t> order = examples::pixels_of_patches(tiny, tiny.margin),
                             own = examples::pixels_of_patches(tiny, 0);
  constexpr index_t half = examples::DiffusionCondition::time_values / 2;
  const double slowest = 1000 * std::pow(10000.0, -double(half - 1) / double(half));
  double sum = 0, squares = 0;
  for (index_t i = 0; i < 12; ++i) {
    double loss = 0;
    std::vector<double> places;
    const auto image = [&](index_t pixel) { return images.pixels[std::size_t(i * pixels + pixel)] / 127.5 - 1; };
    for (std::size_t draw = 0; draw < draws; ++draw) {
      const double time = std::asin(waves[draw][std::size_t(i * 2 * half + half - 1)]) / slowest;
      CHECK((time > 0 && time < 1));
      places.push_back(std::fmod(time * draws, 1));
      const double angle = time * std::numbers::pi / 2;
      for (std::size_t k = 0; k < order.size(); ++k) {
        const double z = shown[draw][std::size_t(i) * order.size() + k];
        if (order[k] < 0) {
          CHECK(z == 0);
          continue;
        }
        const double e = (z - std::cos(angle) * image(order[k])) / std::sin(angle);
        // Each pixel of the 8 x 8 image is shown once in its own patch, and again around others.
        const index_t patch = index_t(k) / tiny.seen_values(), row = order[k] / tiny.side, column = order[k] % tiny.side;
        if (row / tiny.patch == patch / 2 && column / tiny.patch == patch % 2) sum += e, squares += e * e;
      }
      for (std::size_t k = 0; k < own.size(); ++k)
        loss += std::pow(predicted[draw][std::size_t(i) * own.size() + k] - image(own[k]), 2) / double(pixels * draws);
    }
    CHECK(std::abs(losses[std::size_t(i)] - loss) <= 1e-5 * loss);  // the pixels that are learnt are FP32 numbers
    for (const double place : places) CHECK(std::abs(std::remainder(place - places[0], 1)) <= 1e-4);
  }
  // 3072 normals: six standard deviations of their mean and of their mean square.
  const double n = 12 * draws * pixels;
  CHECK(std::abs(sum / n) <= 6 / std::sqrt(n));
  CHECK(std::abs(squares / n - 1) <= 6 * std::sqrt(2 / n));
}

// Of two images that are equally likely, x is likelier than y in z by exp((|z - cos y|^2 - |z - cos x|^2) / (2 sin^2)). They
// differ in 64 random pixels, so that almost all of the way z tells which one it is.
TEST_CASE("drawing: from the best prediction of two images the one or the other comes out, with new noise and without") {
  const examples::FashionMnist images = random_images(2);
  constexpr std::size_t pixels = tiny.side * tiny.side;
  const auto value = [&](std::size_t image, std::size_t k) { return images.pixels[image * pixels + k] / 127.5 - 1; };
  const auto best = [&](std::span<const float> z, double time, std::span<const std::int32_t> labels) {
    std::vector<double> found(z.size());
    const double angle = time * std::numbers::pi / 2;
    for (std::size_t i = 0; i < labels.size(); ++i) {
      double nearer = 0;
      for (std::size_t k = 0; k < pixels; ++k)
        for (const std::size_t image : {0, 1})
          nearer += (image == 0 ? -1 : 1) * std::pow(double(z[i * pixels + k]) - std::cos(angle) * value(image, k), 2);
      const double first = 1 / (1 + std::exp(-nearer / (2 * std::pow(std::sin(angle), 2))));
      for (std::size_t k = 0; k < pixels; ++k) found[i * pixels + k] = first * value(0, k) + (1 - first) * value(1, k);
    }
    return found;
  };
  const std::vector<std::int32_t> labels(60, 0);
  for (const double noise : {0., 0.5, 1.}) {
    CAPTURE(noise);
    const auto drawn = examples::draw_pictures(
        tiny, labels, {.steps = 40, .guidance = 1, .noise = noise, .seed = test::seed(), .physical_batch = 7}, best);
    int count[2] = {};
    for (std::size_t i = 0; i < labels.size(); ++i)
      for (const std::size_t image : {0, 1})
        count[image] +=
            std::equal(drawn.begin() + std::ptrdiff_t(i * pixels), drawn.begin() + std::ptrdiff_t((i + 1) * pixels),
                       images.pixels.begin() + std::ptrdiff_t(image * pixels));
    CHECK(count[0] + count[1] == 60);
    CHECK(std::abs(count[0] - 30) <= 24);  // six standard deviations of 60 fair choices
  }
}

// The image is known, so that z - cos x is sin e in every step, of normal e: 3840 of them, six standard deviations of their
// mean square and of the mean product with those of the step before. The first step starts without any image, so that new
// noise takes the share `noise` of all that is left, in variance its square.
TEST_CASE("drawing: what is left of the noise has the variance that it should have, however much of it is new") {
  constexpr std::size_t pixels = tiny.side * tiny.side, values = 60 * pixels;
  for (const double noise : {0., 0.5, 1.}) {
    CAPTURE(noise);
    std::vector<double> before;
    examples::draw_pictures(
        tiny, std::vector<std::int32_t>(60, 0),
        {.steps = 10, .guidance = 1, .noise = noise, .seed = test::seed(), .physical_batch = 60},
        [&](std::span<const float> z, double time, std::span<const std::int32_t>) {
          const double angle = time * std::numbers::pi / 2, x = 0.25;
          double squares = 0, products = 0;
          std::vector<double> left;
          for (const float at : z) left.push_back((double(at) - std::cos(angle) * x) / std::sin(angle));
          for (std::size_t k = 0; k < values; ++k) {
            squares += left[k] * left[k] / double(values);
            if (!before.empty()) products += left[k] * before[k] / double(values);
          }
          CHECK(std::abs(squares - 1) <= 6 * std::sqrt(2 / double(values)));
          if (time == 0.9) CHECK(std::abs(products - std::sqrt(1 - noise * noise)) <= 6 * std::sqrt(2 / double(values)));
          before = left;
          return std::vector<double>(z.size(), x);
        });
  }
}

TEST_CASE("drawing: guidance moves away from what is told nothing, and a picture depends on no other") {
  Context ctx(Device::cpu(), 1);
  test::Pieces<Model> moved(ctx, DType::f32);
  const DiffusionTransformer& model = moved.model.transformer();
  constexpr std::ptrdiff_t pixels = tiny.side * tiny.side;
  const std::vector<std::int32_t> labels{2, 0, 1, 1, 2}, others{0, 0, 0, 1, 0};
  examples::SampleOptions o{.steps = 3, .noise = 0.5, .seed = 5, .physical_batch = 2};
  const std::vector<std::uint8_t> together = examples::draw_pictures(model, labels, o);
  o.physical_batch = 5;
  CHECK(examples::draw_pictures(model, labels, o) == together);
  const std::vector<std::uint8_t> changed = examples::draw_pictures(model, others, o);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const auto from = pixels * std::ptrdiff_t(i);
    CHECK(std::equal(changed.begin() + from, changed.begin() + from + pixels, together.begin() + from) ==
          (labels[i] == others[i]));
  }
  o.guidance = 0;  // of any class
  const std::vector<std::uint8_t> any = examples::draw_pictures(model, labels, o);
  CHECK(examples::draw_pictures(model, others, o) == any);
  o.seed = 6;
  CHECK(examples::draw_pictures(model, others, o) != any);
  // In one step the picture is the prediction, and guidance moves along the line through the two.
  for (const double guidance : {0., 1., 2., 3., 5.}) {
    const auto predict = [](std::span<const float> z, double, std::span<const std::int32_t> told) {
      return std::vector<double>(z.size(), told[0] == tiny.classes ? 0.25 : 0.5);
    };
    const auto expected = std::uint8_t(std::lround((std::min(1., 0.25 + 0.25 * guidance) + 1) * 127.5));
    CHECK(examples::draw_pictures(tiny, labels, {.steps = 1, .guidance = guidance}, predict) ==
          std::vector<std::uint8_t>(std::size_t(pixels) * labels.size(), expected));
  }
}

// SPDX-License-Identifier: Apache-2.0
// How a diffusion model learns images (Ho, Jain, Abbeel 2020, arXiv 2006.11239): noise is added to a record, the model tells
// the image. An angle runs from 0, the image x, to pi / 2, noise e: z = cos(angle) x + sin(angle) e, the cosine schedule of
// Nichol, Dhariwal 2021 (arXiv 2102.09672). The model predicts x itself, as Li, He 2025 (arXiv 2511.13720) do with a plain
// transformer: images are far simpler than noise, and in the few steps of a private run what came of a prediction of the
// velocity (Salimans, Ho 2022, arXiv 2202.00512) was patchy (docs/benchmarks.md).
#pragma once
#include <numbers>

#include "diffusion_transformer.hpp"
#include "fashion_mnist.hpp"

namespace examples {
/// Which pixels an image's patches are made of, one patch after the other, each with `margin` pixels around it; -1: outside
/// of the image.
inline std::vector<index_t> pixels_of_patches(const DiffusionConfig& c, index_t margin) {
  std::vector<index_t> pixels;
  for (index_t top = 0; top < c.side; top += c.patch)
    for (index_t left = 0; left < c.side; left += c.patch)
      for (index_t y = top - margin; y < top + c.patch + margin; ++y)
        for (index_t x = left - margin; x < left + c.patch + margin; ++x)
          pixels.push_back(y >= 0 && y < c.side && x >= 0 && x < c.side ? y * c.side + x : -1);
  return pixels;
}
/// Images [B, side, side] as a model takes them (pixels_of_patches with its margin) or gives them (without): [B, patches,
/// values of a patch].
inline Tensor show_patches(Context& ctx, const DiffusionConfig& c, index_t margin, DType dtype,
                           std::span<const float> images) {
  const std::vector<index_t> order = pixels_of_patches(c, margin);
  const index_t pixels = c.side * c.side, samples = index_t(images.size()) / pixels;
  std::vector<float> seen;
  seen.reserve(std::size_t(samples) * order.size());
  for (index_t i = 0; i < samples; ++i)
    for (const index_t at : order) seen.push_back(at < 0 ? 0 : images[std::size_t(i * pixels + at)]);
  return Tensor::from(ctx, {samples, c.patches(), index_t(order.size()) / c.patches()}, dtype, seen);
}

/// The random numbers of one record in one draw: a function of a secret of the run, the step, the draw and the record's
/// identity, as dropout's masks are (P35). Dropout's counter blocks end with a 0, these with a 1.
class RecordNoise {
 public:
  RecordNoise(const SampleRandomness& randomness, std::uint32_t draw)
      : seed_(DropoutKey{.secret = randomness.secret, .step = randomness.step, .layer = draw}.seed()) {}
  PhiloxBlock block(std::uint32_t low, std::uint32_t high, std::uint32_t number) const {
    return philox4x32({{number, low, high, 1}}, std::uint32_t(seed_), std::uint32_t(seed_ >> 32));
  }

 private:
  std::uint64_t seed_;
};

struct DiffusionOptions {
  /// Draws of time and noise of a record, whose losses are averaged before its gradient is clipped ("noise multiplicity":
  /// Dockhorn, Cao, Vahdat, Kreis 2023, arXiv 2210.09929; Ghalebikesabi et al. 2023, arXiv 2302.13861).
  index_t draws = 1;
  /// How often a record's class is not told: what guidance needs (Ho, Salimans 2022, arXiv 2207.12598).
  double label_dropout = 0.1;
};

/// Images as a diffusion model learns them, pixels scaled to [-1, 1]. The statistics of private images are private.
class DiffusionData {
 public:
  DiffusionData(FashionMnist data, const DiffusionConfig& config) : data_(std::move(data)), config_(config) {}
  index_t size() const { return data_.size(); }
  /// What a record's noise is keyed by: a hash of image and label under this secret.
  RecordId identity(const Key256& secret, index_t k) const {
    std::string content(1, char(data_.labels[std::size_t(k)]));
    content.append(reinterpret_cast<const char*>(image(k)), std::size_t(config_.side * config_.side));
    return content_id(secret, content);
  }
  /// That of held-out records, whose noise is the same whenever they are looked at: no secret is needed.
  SampleRandomness open_randomness(Context& ctx, std::span<const index_t> records) const {
    std::vector<RecordId> ids;
    for (const index_t k : records) ids.push_back(identity(Key256{}, k));
    return {SecretKey(), 0, SampleIdentities(ctx, ids)};
  }

  /// Per-sample losses [B]: the mean of the squared errors of a record's predicted pixels, over its draws.
  Variable losses(const DiffusionTransformer& model, Tape& tape, std::span<const index_t> records,
                  const SampleRandomness& randomness, const DiffusionOptions& options) const {
    DPMP_CHECK(options.draws >= 1, "expected draws >= 1, got ", options.draws);
    Variable total = loss_of_draw(model, tape, records, randomness, options, 0);
    for (index_t draw = 1; draw < options.draws; ++draw)
      total = total + loss_of_draw(model, tape, records, randomness, options, draw);
    return total / double(options.draws);
  }

 private:
  const std::uint8_t* image(index_t k) const { return data_.pixels.data() + k * config_.side * config_.side; }

  Variable loss_of_draw(const DiffusionTransformer& model, Tape& tape, std::span<const index_t> records,
                        const SampleRandomness& randomness, const DiffusionOptions& options, index_t draw) const {
    const RecordNoise first(randomness, 0), own(randomness, std::uint32_t(draw));
    const std::vector<double> ids = randomness.records.values().to_doubles();
    const std::size_t values = std::size_t(config_.side * config_.side);
    std::vector<double> times(records.size());
    std::vector<std::int32_t> labels(records.size());
    std::vector<float> noised(records.size() * values), wanted(noised.size());
    for (std::size_t i = 0; i < records.size(); ++i) {
      const auto half = [&](std::size_t k) { return std::uint32_t(std::int32_t(ids[2 * i + k])); };
      const std::uint32_t low = half(0), high = half(1);
      // The draws of a record divide the range of times evenly between them, each uniform in it (Kingma et al. 2021, arXiv
      // 2107.00630, do so with the records of a batch, which would touch each other).
      const double start = uniform_open(first.block(low, high, 0).word[0]) + double(draw) / double(options.draws);
      times[i] = start - std::floor(start);
      const bool told = uniform_open(own.block(low, high, 0).word[1]) >= options.label_dropout;
      const auto label = data_.labels[std::size_t(records[i])];
      labels[i] = told ? label : std::int32_t(config_.classes);
      const double angle = times[i] * std::numbers::pi / 2;
      const float of_image = float(std::cos(angle)), of_noise = float(std::sin(angle));
      const std::uint8_t* pixels = image(records[i]);
      for (std::size_t k = 0; k < values; k += 4) {
        const PhiloxBlock block = own.block(low, high, std::uint32_t(1 + k / 4));
        const NormalPair pairs[2] = {normal_pair(block.word[0], block.word[1]), normal_pair(block.word[2], block.word[3])};
        const float noise[4] = {pairs[0].first, pairs[0].second, pairs[1].first, pairs[1].second};
        for (std::size_t j = 0; j < 4 && k + j < values; ++j) {
          const float x = float(pixels[k + j]) * (2.f / 255) - 1;
          noised[i * values + k + j] = of_image * x + of_noise * noise[j];
          wanted[i * values + k + j] = x;
        }
      }
    }
    const Variable predicted = model(tape, show_patches(tape.ctx(), config_, config_.margin, model.dtype(), noised), times,
                                     Tensor::from(tape.ctx(), {tape.samples(), 1}, labels));
    return mean_squared_error(predicted, show_patches(tape.ctx(), config_, 0, accumulate_dtype(model.dtype()), wanted));
  }

  FashionMnist data_;
  DiffusionConfig config_;
};

}  // namespace examples

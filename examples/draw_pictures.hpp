// SPDX-License-Identifier: Apache-2.0
// How pictures are drawn from noise, a step after the other: z is taken apart into the image that the model predicts and the
// noise that is left, and put together with a little less of it (Song, Meng, Ermon 2021, arXiv 2010.02502). Guidance without
// a classifier: Ho, Salimans 2022 (arXiv 2207.12598).
#pragma once
#include "diffusion.hpp"

namespace examples {
struct SampleOptions {
  index_t steps = 50;
  /// How far the prediction moves from that of a picture of any class towards that of the wanted one; 1: no guidance.
  double guidance = 3;
  /// Noise that is put back in each step, as a share of what the forward process has. 0: DDIM, 1: DDPM. It lets later
  /// steps mend what earlier ones got wrong, which models with private weights need more than others (Dockhorn et al. 2023).
  double noise = 1;
  std::uint64_t seed = 1;
  index_t physical_batch = 64;
};
/// Throws unless pictures can be drawn with these.
inline void check(const SampleOptions& o) {
  DPMP_CHECK(o.steps >= 1 && o.physical_batch >= 1 && o.noise >= 0 && o.noise <= 1 && std::isfinite(o.guidance),
             "expected steps and a physical batch >= 1, noise in [0, 1] and a finite guidance, got ", o.steps, ", ",
             o.physical_batch, ", ", o.noise, " and ", o.guidance);
}

/// One picture of each label, [labels, side, side] bytes. predict(z [n, side, side], time, labels of n) -> the images
/// [n, side, side] that a model believes to be in z; it is called with at most physical_batch pictures, once a step with
/// their labels and, unless guidance is 1, once with `classes`, which tells it nothing. Picture k is a function of predict,
/// the options but for physical_batch, labels[k] and k. Throws on options of which no picture can be drawn.
template <class Predict>
std::vector<std::uint8_t> draw_pictures(const DiffusionConfig& config, std::span<const std::int32_t> labels,
                                        const SampleOptions& o, Predict&& predict) {
  check(o);
  const std::size_t pixels = std::size_t(config.side * config.side);
  const auto normal = [&](std::size_t picture, std::size_t k, index_t step) {
    const PhiloxBlock b = philox4x32({{std::uint32_t(k / 2), std::uint32_t(picture), std::uint32_t(step), 2}},
                                     std::uint32_t(o.seed), std::uint32_t(o.seed >> 32));
    const NormalPair pair = normal_pair(b.word[0], b.word[1]);
    return double(k % 2 == 0 ? pair.first : pair.second);
  };
  std::vector<std::uint8_t> pictures(labels.size() * pixels);
  for (std::size_t first = 0; first < labels.size(); first += std::size_t(o.physical_batch)) {
    const std::size_t count = std::min(std::size_t(o.physical_batch), labels.size() - first);
    const std::vector<std::int32_t> untold(count, std::int32_t(config.classes));
    std::vector<float> z(count * pixels);
    for (std::size_t k = 0; k < z.size(); ++k) z[k] = float(normal(first + k / pixels, k % pixels, o.steps));
    for (index_t step = o.steps; step > 0; --step) {
      const double time = double(step) / double(o.steps);
      std::vector<double> image = predict(std::span<const float>(z), time, labels.subspan(first, count));
      if (o.guidance != 1) {
        const std::vector<double> any = predict(std::span<const float>(z), time, std::span<const std::int32_t>(untold));
        for (std::size_t k = 0; k < z.size(); ++k) image[k] = any[k] + o.guidance * (image[k] - any[k]);
      }
      const double now = time * std::numbers::pi / 2, next = double(step - 1) / double(o.steps) * std::numbers::pi / 2;
      const double ratio = std::cos(now) / std::cos(next);
      const double fresh = o.noise * std::sin(next) / std::sin(now) * std::sqrt(std::max(0., 1 - ratio * ratio));
      const double kept = std::sqrt(std::max(0., std::sin(next) * std::sin(next) - fresh * fresh));
      for (std::size_t k = 0; k < z.size(); ++k) {
        // A picture stays within the range of pixels; NaN, of a model that has diverged, becomes white.
        const double x = std::fmax(-1, std::fmin(1, image[k]));
        const double e = (z[k] - std::cos(now) * x) / std::sin(now);
        z[k] = float(std::cos(next) * x + kept * e +
                     (fresh > 0 ? fresh * normal(first + k / pixels, k % pixels, step - 1) : 0));
      }
    }
    for (std::size_t k = 0; k < z.size(); ++k) pictures[first * pixels + k] = std::uint8_t(std::lround((z[k] + 1) * 127.5));
  }
  return pictures;
}

/// The same of a diffusion transformer.
inline std::vector<std::uint8_t> draw_pictures(const DiffusionTransformer& model, std::span<const std::int32_t> labels,
                                               const SampleOptions& o) {
  Context& ctx = model.ctx();
  const DiffusionConfig& config = model.config();
  const std::vector<index_t> order = pixels_of_patches(config, 0);
  return draw_pictures(config, labels, o, [&](std::span<const float> z, double time, std::span<const std::int32_t> told) {
    const index_t count = index_t(told.size());
    Tape tape(ctx, count, TapeMode::inference);
    const std::vector<double> patches = model(tape, show_patches(ctx, config, config.margin, model.dtype(), z),
                                              std::vector<double>(told.size(), time), Tensor::from(ctx, {count, 1}, told))
                                            .value()
                                            .to_doubles();
    std::vector<double> images(patches.size());
    for (std::size_t k = 0; k < patches.size(); ++k)
      images[k / order.size() * order.size() + std::size_t(order[k % order.size()])] = patches[k];
    return images;
  });
}
}  // namespace examples

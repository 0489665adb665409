// SPDX-License-Identifier: Apache-2.0
// A diffusion transformer (DiT: Peebles, Xie 2023, arXiv 2212.09748) from public pieces: an image is a sequence of patches,
// and time and class act on it through adaptive norms whose gates start at zero.
#pragma once
#include <cmath>
#include <dpmp/dpmp.hpp>
#include <vector>

#include "adaptive_norm.hpp"

namespace examples {
using namespace dpmp;

struct DiffusionConfig {
  index_t side = 28, patch = 4, width = 96, layers = 4, heads = 4, classes = 10;
  /// A token is shown its patch and so many pixels around it (0 outside of the image): without them each patch is drawn by
  /// itself, and its edges are seen.
  index_t margin = 2;
  index_t patches() const { return side / patch * (side / patch); }
  index_t patch_values() const { return patch * patch; }
  index_t seen_values() const { return (patch + 2 * margin) * (patch + 2 * margin); }
  /// What two models must agree in for one to use the weights of the other.
  std::string text() const {
    return dpmp::detail::concat(side, " x ", side, " pixels, patches of ", patch, " x ", patch, " with ", margin,
                                " around, width ", width, ", ", layers, " layers, ", heads, " heads, ", classes, " classes");
  }
};

/// Sines and cosines of `position` times `values` / 2 frequencies from 1 down to almost 1 / 10000 (Vaswani et al. 2017),
/// written to out[0 .. values).
inline void wave_features(double position, index_t values, double* out) {
  const index_t half = values / 2;
  for (index_t k = 0; k < half; ++k) {
    const double phase = position * std::pow(10000.0, -double(k) / double(half));
    out[k] = std::sin(phase);
    out[half + k] = std::cos(phase);
  }
}

/// What a noised image is told about: how much of it is noise, and its class.
class DiffusionCondition {
 public:
  static constexpr index_t time_values = 64;
  DiffusionCondition(const nn::Scope& scope, index_t width, index_t classes)
      : width_(width),
        time_in_(scope / "time_in", time_values, width),
        time_out_(scope / "time_out", width, width),
        classes_(scope / "class", classes + 1, width) {}
  /// times: one in [0, 1] for each sample; labels i32 [B, 1] -> [B, width].
  Variable operator()(Tape& tape, std::span<const double> times, const Tensor& labels) const {
    const index_t samples = tape.samples();
    std::vector<double> waves(times.size() * std::size_t(time_values));
    for (std::size_t i = 0; i < times.size(); ++i)
      wave_features(1000 * times[i], time_values, waves.data() + std::ptrdiff_t(i) * time_values);
    const DType dtype = classes_.table().dtype();
    const Variable time = tape.input(Tensor::from(tape.ctx(), {samples, time_values}, dtype, waves));
    return time_out_(silu(time_in_(time))) + reshape(classes_(tape, labels), {samples, width_});
  }

 private:
  index_t width_;
  nn::Linear time_in_, time_out_;
  nn::Embedding classes_;
};

class DiffusionTransformer {
 public:
  /// checkpointing: what is kept of each block for the backward pass. Throws where the patch does not divide the side, the
  /// heads not the width, or four not the width.
  DiffusionTransformer(Context& ctx, const DiffusionConfig& config, const nn::Precision& precision, std::uint64_t seed,
                       Checkpointing checkpointing = Checkpointing::none)
      : config_(checked(config)),
        checkpointing_(checkpointing),
        parameters_(ctx, precision, seed),
        in_(parameters_ / "in", config.seen_values(), config.width),
        positions_((nn::Scope(parameters_).frozen())
                       .add("positions", {config.patches(), config.width}, nn::init::from_values(grid_waves(config)))),
        condition_(parameters_ / "condition", config.width, config.classes),
        out_condition_(parameters_ / "out_condition", config.width, 2 * config.width, {.weight = nn::init::constant(0)}),
        out_norm_((parameters_ / "out_norm").frozen(), config.width),
        out_(parameters_ / "out", config.width, config.patch_values(), {.weight = nn::init::constant(0)}) {
    for (index_t k = 0; k < config.layers; ++k)
      blocks_.emplace_back(parameters_ / dpmp::detail::concat("block", k), config.width, config.heads);
  }
  nn::Parameters& parameters() { return parameters_; }
  const nn::Parameters& parameters() const { return parameters_; }
  const DiffusionConfig& config() const { return config_; }
  Context& ctx() const { return parameters_.ctx(); }
  DType dtype() const { return parameters_.dtype(); }

  /// seen [B, patches, seen_values] (show_patches), a time in [0, 1] for each sample, labels i32 [B, 1] (classes: not told)
  /// -> [B, patches, patch_values]. All zeros before the first step.
  Variable operator()(Tape& tape, const Tensor& seen, std::span<const double> times, const Tensor& labels) const {
    const Variable condition = condition_(tape, times, labels);
    Variable x = cast(position_embedding(in_(tape.input(seen)), positions_), parameters_.precision().residual());
    for (const AdaptiveNormBlock& block : blocks_)
      x = checkpointed(
          checkpointing_, tape, [&block](const Variable& tokens, const Variable& told) { return block(tokens, told); }, x,
          condition);
    const std::vector<Variable> c =
        split(reshape(out_condition_(silu(condition)), {tape.samples(), 1, 2 * config_.width}), 2, -1);
    return out_.logits(cast(out_norm_(x), c[0].dtype()) * (c[1] + 1.0) + c[0]);
  }

 private:
  static const DiffusionConfig& checked(const DiffusionConfig& c) {
    DPMP_CHECK(c.patch >= 1 && c.side >= 1 && c.side % c.patch == 0, "expected a patch that divides the side ", c.side,
               ", got ", c.patch);
    DPMP_CHECK(c.margin >= 0, "expected a margin >= 0, got ", c.margin);
    DPMP_CHECK(c.width >= 4 && c.width % 4 == 0, "expected a width that is a multiple of 4, got ", c.width);
    DPMP_CHECK(c.layers >= 1 && c.classes >= 1, "expected layers and classes >= 1, got ", c.layers, " and ", c.classes);
    return c;
  }
  /// Half of a row's values tell the patch's row, the others its column. They are fixed, as DiT's are: fewer parameters
  /// that get noise.
  static std::vector<double> grid_waves(const DiffusionConfig& c) {
    std::vector<double> values(std::size_t(c.patches() * c.width));
    for (index_t k = 0; k < c.patches(); ++k)
      for (const index_t axis : {0, 1})
        wave_features(double(axis == 0 ? k / (c.side / c.patch) : k % (c.side / c.patch)), c.width / 2,
                      values.data() + k * c.width + axis * (c.width / 2));
    return values;
  }
  DiffusionConfig config_;
  Checkpointing checkpointing_;
  nn::Parameters parameters_;
  nn::Linear in_;
  Parameter& positions_;
  DiffusionCondition condition_;
  nn::Linear out_condition_;
  nn::LayerNorm out_norm_;
  nn::Linear out_;
  std::vector<AdaptiveNormBlock> blocks_;
};
}  // namespace examples

// SPDX-License-Identifier: Apache-2.0
// Features of an image that depend on no data: local means, and the strength of waves of two lengths in eight directions
// (the moduli of Gabor filters, the first order of a scattering transform). Learning starts above them, so that noise falls
// on fewer weights: Tramer, Boneh 2021, "Differentially private learning needs better features", arXiv 2011.11660.
#pragma once
#include <cmath>
#include <dpmp/dpmp.hpp>
#include <numbers>
#include <vector>

namespace examples {
using namespace dpmp;

class FilterBank {
 public:
  static constexpr index_t directions = 8, waves = 2 * directions, channels = 1 + waves;

  explicit FilterBank(Context& ctx) : ctx_(ctx), parameters_(ctx, DType::f32, 0) {
    Parameter& p = parameters_.constant("filters", {1 + 2 * waves, width * width}, 0);
    weights_ = p.master().host_data<float>();
    filters_ = &p;
    p.set_trainable(false);
    for (const index_t row : {0, 1})
      for (const index_t column : {0, 1}) weights_[(radius + row) * width + radius + column] = 0.25f;
    for (index_t k = 0; k < waves; ++k)
      add_wave(k, k < directions ? 4 : 8, std::numbers::pi * double(k % directions) / double(directions));
  }
  /// images f32 [B, H, W, 1] -> [B, H / 2, W / 2, channels]; zeros outside of an image. About as large as a pixel each.
  std::vector<float> operator()(const Tensor& images) const {
    Tape tape(ctx_, images.shape()[0], TapeMode::inference);
    const Variable y = conv2d(tape.input(images), *filters_, nullptr,
                              {.kernel = {width, width}, .stride = {2, 2}, .padding = {radius, radius}});
    const Shape& shape = y.shape();
    std::vector<float> features(std::size_t(shape.numel(0, 3) * channels));
    constexpr float gain = 6;  // an edge answers with a sixth of its height
    for (index_t r = 0; r < shape.numel(0, 3); ++r) {
      const float* in = y.value().host_data<float>() + r * shape[3];
      float* out = features.data() + r * channels;
      out[0] = in[0];
      for (index_t k = 0; k < waves; ++k) out[1 + k] = gain * std::hypot(in[1 + 2 * k], in[2 + 2 * k]);
    }
    return features;
  }

 private:
  static constexpr index_t radius = 5, width = 2 * radius + 1;

  /// Real and imaginary part of a wave under a Gaussian, without a mean, of absolute sum 1.
  void add_wave(index_t number, double wavelength, double angle) {
    const std::size_t taps = std::size_t(width * width);
    std::vector<double> envelope(taps), real(taps), imaginary(taps);
    double envelope_sum = 0, real_sum = 0, absolute = 0;
    for (std::size_t i = 0; i < taps; ++i) {
      const double y = double(index_t(i) / width - radius), x = double(index_t(i) % width - radius), s = 0.4 * wavelength,
                   phase = 2 * std::numbers::pi / wavelength * (x * std::cos(angle) + y * std::sin(angle));
      envelope[i] = std::exp(-(x * x + y * y) / (2 * s * s));
      real[i] = envelope[i] * std::cos(phase);
      imaginary[i] = envelope[i] * std::sin(phase);
      envelope_sum += envelope[i];
      real_sum += real[i];
    }
    for (std::size_t i = 0; i < taps; ++i) {
      real[i] -= envelope[i] * real_sum / envelope_sum;
      absolute += std::hypot(real[i], imaginary[i]);
    }
    float* first = weights_ + (1 + 2 * number) * width * width;
    for (std::size_t i = 0; i < taps; ++i) {
      first[i] = float(real[i] / absolute);
      first[index_t(i) + width * width] = float(imaginary[i] / absolute);
    }
  }
  Context& ctx_;
  nn::Parameters parameters_;
  Parameter* filters_ = nullptr;
  float* weights_ = nullptr;
};
}  // namespace examples

// SPDX-License-Identifier: Apache-2.0
// rope: rotary position embedding of the first heads of packed projections. No parameters; the backward turns back.
#pragma once
#include <cmath>
#include <cstdint>

#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// How slower angles stretch positions to a longer context than a model was first trained with.
struct RopeScaling {
  /// linear: every frequency is divided by `factor` (Chen et al. 2023, arXiv 2306.15595). llama3: those that make at most
  /// `low_frequency` turns in `original_context` tokens are divided by `factor`, those that make at least `high_frequency`
  /// turns stay, and a frequency f of n turns between them becomes (1 - s) f / factor + s f with
  /// s = (n - low_frequency) / (high_frequency - low_frequency) (the LLaMA 3.1 release; Hugging Face's rope type "llama3").
  enum class Kind : std::uint8_t { none, linear, llama3 };
  Kind kind = Kind::none;
  double factor = 1;
  double low_frequency = 1;
  double high_frequency = 4;
  double original_context = 8192;
  /// Of what would be `frequency` radians a token.
  double scaled(double frequency) const;
  /// Throws on a factor, turns or a context that are not finite and > 0, and unless low_frequency < high_frequency.
  void check() const;
  friend bool operator==(const RopeScaling&, const RopeScaling&) = default;
};

/// x [B, T, at least heads * width] with its first `heads` heads of this even width turned by their positions 0..T-1 (Su et
/// al. 2021): columns k and k + width / 2 of a head by the angle t * base^(-2 k / width), whose factor of t is scaled
/// first. The columns after those heads pass unchanged: for packed queries, keys and values, heads = query heads + key
/// heads. Angles are formed in double, their cosines rounded to compute precision.
Variable rope(const Variable& x, index_t heads, index_t width, double base = 10000, const RopeScaling& scaling = {});
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include <algorithm>
#include <numbers>

#include "dpmp/kernels/rope.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline double RopeScaling::scaled(double frequency) const {
  if (kind == Kind::none) return frequency;
  if (kind == Kind::linear) return frequency / factor;
  const double turns = original_context * frequency / (2 * std::numbers::pi);
  const double share = std::clamp((turns - low_frequency) / (high_frequency - low_frequency), 0.0, 1.0);
  return (1 - share) * frequency / factor + share * frequency;
}

DPMP_KEPT_BODY inline void RopeScaling::check() const {
  const auto positive = [](double x) { return x > 0 && std::isfinite(x); };
  DPMP_CHECK(kind == Kind::none || positive(factor), "rope: expected a finite factor > 0 of a scaling, got ", factor);
  DPMP_CHECK(kind != Kind::llama3 || (positive(low_frequency) && positive(high_frequency) && positive(original_context) &&
                                      low_frequency < high_frequency),
             "rope: expected 0 < low_frequency < high_frequency and an original context > 0, all finite, got ",
             low_frequency, ", ", high_frequency, " and ", original_context);
}

namespace rules {
/// Cosines and sines of the angles of positions 0 .. tokens - 1.
struct RotaryTable {
  Tensor cosine, sine;  // [tokens, width / 2] in compute precision
  RotaryTable(Context& ctx, index_t tokens, index_t width, double base, const RopeScaling& scaling, DType dtype) {
    scaling.check();
    DPMP_CHECK(base > 0 && std::isfinite(base), "rope: expected a finite base > 0, got ", base);
    const index_t half = width / 2;
    std::vector<double> cosines(std::size_t(tokens * half)), sines(cosines.size());
    for (index_t k = 0; k < half; ++k) {
      const double frequency = scaling.scaled(std::pow(base, -2 * double(k) / double(width)));
      for (index_t t = 0; t < tokens; ++t) {
        cosines[std::size_t(t * half + k)] = std::cos(double(t) * frequency);
        sines[std::size_t(t * half + k)] = std::sin(double(t) * frequency);
      }
    }
    cosine = Tensor::from(ctx, {tokens, half}, accumulate_dtype(dtype), cosines);
    sine = Tensor::from(ctx, {tokens, half}, accumulate_dtype(dtype), sines);
  }
};

struct Rope {
  static constexpr std::string_view name = "rope";
  GradientSlot x;
  RotaryTable table;
  index_t heads;

  void backward(BackwardPass& pass, const Tensor& gradient) const { pass.accumulate(x, turned(pass.ctx, gradient, -1)); }

  Tensor turned(Context& ctx, const Tensor& input, int direction) const {
    const Tensor output = Tensor::empty(ctx, input.shape(), input.dtype());
    const index_t tokens = input.shape()[1], columns = input.shape()[2], half = table.cosine.shape()[1];
    dpmp::detail::map_rows<kernels::Rope>(ctx, input.dtype(), input.shape().front() * tokens, columns, input, output,
                                          table.cosine, table.sine, tokens, columns, heads, half, double(direction));
    return output;
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable rope(const Variable& x, index_t heads, index_t width, double base,
                                    const RopeScaling& scaling) {
  Tape& tape = x.tape();
  DPMP_CHECK(x.shape().rank() == 3 && heads >= 1 && width >= 2 && width % 2 == 0 && x.shape()[2] / width >= heads,
             "rope: expected x [B, T, at least heads * width] with heads >= 1 and an even width >= 2, got ", x.shape(), ", ",
             heads, " heads of width ", width);
  const rules::Rope rule{x.slot(), rules::RotaryTable(tape.ctx(), x.shape()[1], width, base, scaling, x.dtype()), heads};
  return tape.record(rule.turned(tape.ctx(), x.value(), 1), tape.needs_gradient(x), rule);
}
}  // namespace dpmp::inline DPMP_ABI
#endif

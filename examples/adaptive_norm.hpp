// SPDX-License-Identifier: Apache-2.0
// A block whose norms a condition scales and shifts (adaLN-Zero: Peebles, Xie 2023, arXiv 2212.09748) from public pieces:
// operators that broadcast over tokens, norms without trained gains, gates that start at zero.
#pragma once
#include <dpmp/dpmp.hpp>
#include <vector>

namespace examples {
using namespace dpmp;

class AdaptiveNormBlock {
 public:
  AdaptiveNormBlock(const nn::Scope& scope, index_t width, index_t heads)
      : width_(width),
        condition_(scope / "condition", width, 6 * width, {.weight = nn::init::constant(0)}),
        norm1_((scope / "norm1").frozen(), width),
        norm2_((scope / "norm2").frozen(), width),
        attention_(scope / "attention", width, {.heads = heads, .causal = false}),
        mlp_(scope / "mlp", width, 4 * width) {}
  /// x [B, T, width], condition [B, width] -> [B, T, width] in x's dtype, which may be wider than the block's
  /// (Precision::fp32_residual).
  Variable operator()(const Variable& x, const Variable& condition) const {
    const index_t samples = x.shape()[0];
    const std::vector<Variable> c = split(reshape(condition_(silu(condition)), {samples, 1, 6 * width_}), 6, -1);
    const auto normed = [&](const nn::LayerNorm& norm, const Variable& stream) { return cast(norm(stream), c[0].dtype()); };
    const Variable y = x + cast(c[2] * attention_(normed(norm1_, x) * (c[1] + 1.0) + c[0]), x.dtype());
    return y + cast(c[5] * mlp_(normed(norm2_, y) * (c[4] + 1.0) + c[3]), x.dtype());
  }

 private:
  index_t width_;
  nn::Linear condition_;
  nn::LayerNorm norm1_, norm2_;
  nn::Attention attention_;
  nn::GeluFeedForward mlp_;
};

/// Learns to undo a shift of a sequence that only its condition tells.
class ConditionalModel {
 public:
  static constexpr index_t tokens = 6, width = 16, conditions = 4;
  ConditionalModel(Context& ctx, DType dtype, std::uint64_t seed)
      : ctx_(ctx),
        parameters_(ctx, dtype, seed),
        in_(parameters_ / "in", 1, width),
        table_(parameters_ / "condition", conditions, width),
        block_(parameters_ / "block", width, 2),
        out_(parameters_ / "out", width, 1) {}
  nn::Parameters& parameters() { return parameters_; }

  Variable losses(const train::Batch& batch) const {
    std::vector<float> shifted;
    std::vector<double> wanted;
    std::vector<std::int32_t> conditions_of;
    for (const index_t r : batch.records) {
      conditions_of.push_back(std::int32_t(r % conditions));
      for (index_t t = 0; t < tokens; ++t) {
        const double value = uniform_open(philox_block(8, std::uint64_t(r), std::uint64_t(t)).word[0]) - 0.5;
        wanted.push_back(value);
        shifted.push_back(float(value + 0.5 * double(r % conditions)));
      }
    }
    const index_t n = batch.size();
    const Variable x = in_(batch.tape.input(Tensor::from(ctx_, {n, tokens, 1}, parameters_.dtype(), shifted)));
    const Variable condition = reshape(table_(batch.tape, Tensor::from(ctx_, {n, 1}, conditions_of)), {n, width});
    const Tensor targets = Tensor::from(ctx_, {n, tokens, 1}, accumulate_dtype(parameters_.dtype()), wanted);
    return mean_squared_error(out_(block_(x, condition)), targets);
  }

 private:
  Context& ctx_;
  nn::Parameters parameters_;
  nn::Linear in_;
  nn::Embedding table_;
  AdaptiveNormBlock block_;
  nn::Linear out_;
};
}  // namespace examples

// SPDX-License-Identifier: Apache-2.0
// A small model whose output layer and loss are in chunks, or with all logits stored, and what a private pass makes of it.
#pragma once
#include <vector>

#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/autograd/rules/arithmetic.hpp"
#include "dpmp/autograd/rules/linear_cross_entropy.hpp"
#include "dpmp/autograd/rules/stop_gradient.hpp"
#include "dpmp/autograd/rules/wide_linear.hpp"
#include "dpmp/nn/embedding.hpp"
#include "dpmp/nn/linear.hpp"
#include "dpmp/per_sample/clipped_sum_sink.hpp"
#include "dpmp/per_sample/pass_trace.hpp"
#include "support/gpt.hpp"
#include "support/sites.hpp"

namespace test {
using dpmp::index_t;
using dpmp::Variable;

/// What an output layer of `width` inputs and `classes` outputs is like. positions: its weight is a table of positions, too,
/// of which a use is a per-sample vector. twice: it is used for two losses.
struct HeadKind {
  index_t tokens, width, classes;
  bool tied = false, bias = false, twice = false, positions = false;
};

/// Looked-up rows, a layer whose gradients are made of the head's input gradient, and the head.
struct HeadModel {
  HeadModel(dpmp::Context& ctx, const HeadKind& k, dpmp::DType dtype, double standard_deviation = 0.4)
      : kind(k),
        parameters(ctx, dtype, seed()),
        table(parameters / "table", k.classes, k.width),
        middle(parameters / "middle", k.width, k.width),
        head(parameters / "head", k.width, k.classes, {.bias = k.bias}) {
    Rng rng(seed(), 5);
    randomise(parameters, rng, standard_deviation);
  }
  dpmp::Parameter& weight() const { return kind.tied || kind.positions ? table.table() : head.weight(); }
  dpmp::Parameter* bias() const { return kind.bias ? head.bias() : nullptr; }
  /// logit_bytes 0: all logits stored.
  Variable losses(dpmp::Tape& tape, const Tokens& data, index_t logit_bytes) const {
    Variable x = table(tape, data.ids);
    if (kind.positions) x = position_embedding(stop_gradient(x), table.table());
    const Variable h = gelu(middle(x));
    const Variable first = loss(h, data, logit_bytes);
    return kind.twice ? add(first, loss(middle(h), data, 2 * logit_bytes)) : first;
  }
  Variable loss(const Variable& x, const Tokens& data, index_t logit_bytes) const {
    const dpmp::CrossEntropyOptions options{.divisor = 3};
    return logit_bytes == 0 ? cross_entropy(wide_linear(x, weight(), bias()), data.targets, options)
                            : linear_cross_entropy(x, weight(), bias(), data.targets, options, logit_bytes);
  }
  /// A byte; two tokens of a sample; a sample; two of them; all.
  std::vector<index_t> chunks() const {
    const index_t row = kind.classes * size_of(accumulate_dtype(weight().dtype())), one = row * kind.tokens;
    return {1, 2 * row, one, 2 * one, 1 << 24};
  }

  HeadKind kind;
  dpmp::nn::Parameters parameters;
  dpmp::nn::Embedding table;
  dpmp::nn::Linear middle, head;
};

struct HeadOutcome {
  std::vector<double> losses, sums, norms;  // norms: the norm, the certificate and whether it is finite, of each sample
  std::vector<dpmp::per_sample::Keep> kept;
  index_t peak = 0;     // bytes of forward and backward pass
  index_t largest = 0;  // the largest block among them
};
/// factors: of finite samples; others count 0. weights: of the losses (none: 1).
inline HeadOutcome head_outcome(dpmp::Context& ctx, const HeadModel& model, const Tokens& data, index_t logit_bytes,
                                const dpmp::per_sample::StrategyOptions& options, const std::vector<float>& factors,
                                bool grouped = false, std::span<const double> weights = {},
                                const dpmp::LossScaling& scaling = {}) {
  using namespace dpmp::per_sample;
  HeadOutcome result;
  const auto all = model.parameters.all();
  GradientSums sums(ctx, all);
  ClippedSumSink sink(
      grouped ? Groups::by_parameter(all) : Groups::flat(all), options,
      [&](const dpmp::Parameter&, const SiteShape&, const NormPlan& plan) { result.kept.push_back(plan.keep); });
  const index_t before = ctx.memory().live_bytes;
  ctx.reset_peak_memory();
  dpmp::Tape tape(ctx, data.samples());
  const Variable losses = model.losses(tape, data, logit_bytes);
  result.losses = losses.value().to_doubles();
  const auto rule = [&](index_t, const NormBounds& norms) {
    const std::vector<double> upper = norms.upper();
    const std::vector<std::uint8_t> finite = norms.finite();
    std::vector<float> c = factors;
    for (index_t i = 0; i < norms.samples(); ++i) {
      const double ok = double(finite[std::size_t(i)]);
      result.norms.insert(result.norms.end(), {norms.norm(i), norms.quadratic(i), upper[std::size_t(i)], ok});
      c[std::size_t(i)] = ok == 1 ? c[std::size_t(i)] : 0;
    }
    return c;
  };
  clipped_backward(tape, losses,
                   weights.empty() ? dpmp::Tensor() : dpmp::Tensor::from(ctx, {data.samples()}, losses.dtype(), weights),
                   sink, rule, sums, scaling);
  result.peak = ctx.memory().peak_bytes - before;
  result.largest = ctx.memory().largest_block_bytes;
  result.sums = flat(sums);
  return result;
}

/// How many numbers of two lists have other bits; a NaN is like another.
inline index_t different_bits(const std::vector<double>& x, const std::vector<double>& y) {
  index_t count = x.size() == y.size() ? 0 : 1;
  for (std::size_t k = 0; k < std::min(x.size(), y.size()); ++k) count += !dpmp::per_sample::same_bits(x[k], y[k]);
  return count;
}

/// The tokens with another target at one place of B T.
inline Tokens with_target(dpmp::Context& ctx, const Tokens& data, index_t at, std::int32_t target) {
  std::vector<std::int32_t> targets(std::size_t(data.targets.numel()));
  data.targets.copy_to_host(targets.data());
  targets[std::size_t(at)] = target;
  return {data.ids, dpmp::Tensor::from(ctx, data.targets.shape(), targets)};
}
}  // namespace test

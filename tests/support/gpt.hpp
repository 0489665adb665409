// SPDX-License-Identifier: Apache-2.0
// Small GPTs on random tokens, and the batch-of-one oracle.
#pragma once
#include <functional>

#include "dpmp/autograd/rules/cross_entropy.hpp"
#include "dpmp/nn/transformer.hpp"
#include "dpmp/per_sample/group_pass.hpp"
#include "dpmp/per_sample/sum_sink.hpp"
#include "support/oracle.hpp"
#include "support/tensors.hpp"

namespace test {
/// Token data of a batch: ids and targets [B, T].
struct Tokens {
  dpmp::Tensor ids, targets;
  dpmp::index_t samples() const { return ids.shape().front(); }
  Tokens rows(dpmp::index_t begin, dpmp::index_t end) const { return {ids.rows(begin, end), targets.rows(begin, end)}; }
};
inline Tokens random_tokens(dpmp::Context& ctx, Rng& rng, dpmp::index_t samples, dpmp::index_t tokens, int vocabulary) {
  return {id_tensor(ctx, rng, {samples, tokens}, 0, vocabulary - 1),
          id_tensor(ctx, rng, {samples, tokens}, -1, vocabulary - 1)};
}

/// Records the model's loss of the tokens and walks it back into the sink.
inline void backward(dpmp::Context& ctx, const dpmp::nn::Transformer& model, const Tokens& data, dpmp::GradientSink& sink,
                     const dpmp::Tensor& weights = dpmp::Tensor()) {
  dpmp::Tape tape(ctx, data.samples());
  tape.backward(model.losses(tape, data.ids, data.targets, {.divisor = double(data.ids.shape()[1])}), sink, weights);
}

/// The same master weights, each in its own dtype.
inline void copy_weights(const dpmp::nn::Transformer& from, dpmp::nn::Transformer& to) {
  for (std::size_t k = 0; k < from.parameters().all().size(); ++k) {
    dpmp::Parameter& target = *to.parameters().all()[k];
    const std::vector<double> values = from.parameters().all()[k]->value().to_doubles();
    if (target.master().dtype() == dpmp::DType::f64)
      std::copy(values.begin(), values.end(), target.master().data<double>());
    else
      std::transform(values.begin(), values.end(), target.master().data<float>(), [](double v) { return float(v); });
    target.refresh(to.parameters().ctx());
  }
}

/// Concatenated gradient of all parameters, in the order of the model.
inline std::vector<double> flat(const dpmp::per_sample::GradientSums& sums) {
  std::vector<double> all;
  for (const dpmp::Tensor& t : sums.tensors()) {
    const std::vector<double> part = t.to_doubles();
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

/// One sample at a time through the plain sum: gradient [samples][all parameters].
inline std::vector<std::vector<double>> batch_of_one(dpmp::Context& ctx, const dpmp::nn::Transformer& model,
                                                     const Tokens& data) {
  std::vector<std::vector<double>> gradients;
  for (dpmp::index_t i = 0; i < data.samples(); ++i) {
    dpmp::per_sample::GradientSums sums(ctx, model.parameters().all());
    dpmp::per_sample::SumSink sink(sums);
    backward(ctx, model, data.rows(i, i + 1), sink);
    gradients.push_back(flat(sums));
  }
  return gradients;
}

/// sum_i factors_i G_i of a sink's pass.
inline std::vector<double> weighted(dpmp::Context& ctx, const dpmp::nn::Transformer& model,
                                    dpmp::per_sample::GroupPass& sink, std::span<const float> factors) {
  dpmp::per_sample::GradientSums sums(ctx, model.parameters().all());
  sink.weighted_sum(ctx, factors, sums);
  return flat(sums);
}
}  // namespace test

// SPDX-License-Identifier: Apache-2.0
// A tiny GPT with random records to learn, and a private run worked out by hand: per-sample gradients one at a time, the
// clip factor from its definition, the noise from its key.
#pragma once
#include "dpmp/train/trainer.hpp"
#include "support/gpt.hpp"

namespace test {
/// Keys that only this seed has; trainers made from them repeat each other.
inline dpmp::dp::StreamKeys random_keys(Rng& rng) {
  dpmp::Key256 root;
  for (auto& word : root.words) word = std::uint32_t(rng.bits());
  return dpmp::dp::StreamKeys::repeat(root, rng.bits());
}

/// Whether slot i of a batch that trains different records is an empty one: those repeat the first record.
inline bool repeats_first(std::span<const dpmp::index_t> records, std::size_t i) {
  return i > 0 && records[i] == records[0];
}

/// The masters of all parameters, one behind the other.
inline std::vector<double> masters(const dpmp::nn::Parameters& parameters) {
  std::vector<double> all;
  for (const dpmp::Parameter* p : parameters.all()) {
    const std::vector<double> part = p->master().to_doubles();
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

struct TinySizes {
  dpmp::index_t records = 30;
  int vocabulary = 17, used_ids = 17;  // ids 0 .. used_ids - 1 occur in the records
  dpmp::index_t width = 8, tokens = 6;
};

/// Record i is row i of the data. losses() is what a trainer's step takes; every call of it is noted in `calls`.
struct TinyTraining {
  TinyTraining(dpmp::Context& context, const dpmp::nn::Precision& precision, const TinySizes& sizes = {}, bool tied = false)
      : ctx(context),
        model(context,
              {.vocabulary = sizes.vocabulary,
               .width = sizes.width,
               .layers = 1,
               .heads = 2,
               .context = sizes.tokens,
               .tied = tied,
               .seed = seed()},
              precision) {
    Rng rng(seed(), 77);
    data = random_tokens(context, rng, sizes.records, sizes.tokens, sizes.used_ids);
  }
  dpmp::index_t records() const { return data.samples(); }
  /// The rows of these records; where `filler` is set, an empty slot gets that token everywhere.
  Tokens batch(std::span<const dpmp::index_t> slots) const {
    const dpmp::index_t tokens = data.ids.shape()[1];
    Tokens rows{dpmp::Tensor::empty(ctx, {dpmp::index_t(slots.size()), tokens}, dpmp::DType::i32),
                dpmp::Tensor::empty(ctx, {dpmp::index_t(slots.size()), tokens}, dpmp::DType::i32)};
    for (std::size_t i = 0; i < slots.size(); ++i)
      for (dpmp::index_t t = 0; t < tokens; ++t) {
        const dpmp::index_t from = slots[i] * tokens + t, to = dpmp::index_t(i) * tokens + t;
        const bool masked = filler != 0 && repeats_first(slots, i);
        rows.ids.data<std::int32_t>()[to] = masked ? filler : data.ids.data<std::int32_t>()[from];
        rows.targets.data<std::int32_t>()[to] = masked ? filler : data.targets.data<std::int32_t>()[from];
      }
    return rows;
  }
  dpmp::Variable loss(dpmp::Tape& tape, std::span<const dpmp::index_t> slots) const {
    const Tokens rows = batch(slots);
    return dpmp::cross_entropy(model(tape, rows.ids), rows.targets, {.divisor = double(data.ids.shape()[1])});
  }
  auto losses() {
    return [this](const dpmp::train::Batch& batch) {
      calls.emplace_back(batch.records.begin(), batch.records.end());
      return loss(batch.tape, batch.records);
    };
  }
  std::vector<double> masters() const { return test::masters(model.parameters()); }

  dpmp::Context& ctx;
  dpmp::nn::Transformer model;
  Tokens data;
  std::int32_t filler = 0;
  std::vector<std::vector<dpmp::index_t>> calls;
};

/// A plan of a few steps in which about `expected` records are drawn.
inline dpmp::dp::Plan tiny_plan(const TinyTraining& run, double expected, dpmp::index_t steps = 5, double clip = 0.3,
                                double noise_multiplier = 0.7) {
  return dpmp::dp::Plan::with_noise_multiplier({.delta = 1e-5,
                                                .sampling_rate = expected / double(run.records()),
                                                .steps = steps,
                                                .clip_threshold = clip,
                                                .dataset_size = run.records()},
                                               noise_multiplier);
}

/// The records of a step of this plan and these keys.
inline std::vector<dpmp::index_t> drawn(const dpmp::dp::Plan& plan, const dpmp::dp::StreamKeys& keys, dpmp::index_t records,
                                        dpmp::index_t step) {
  std::vector<dpmp::index_t> draw;
  plan.sampler(keys, records).draw(step, draw);
  return draw;
}

/// sum_i min(1, C / |G_i|) G_i over these records, each gradient from a batch of one of the model as it is.
inline std::vector<double> clipped_sum_by_hand(const TinyTraining& run, std::span<const dpmp::index_t> records,
                                               double threshold) {
  std::vector<double> sum(std::size_t(run.model.parameters().numel()), 0.0);
  for (const dpmp::index_t i : records) {
    const std::vector<double> gradient = batch_of_one(run.ctx, run.model, run.data.rows(i, i + 1))[0];
    const double factor = std::min(1.0, threshold / norm(gradient));
    for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += factor * gradient[j];
  }
  return sum;
}

/// The noise of a step on all parameters, one behind the other, each value rounded to the grid. A sum with its noise is
/// rounded once, so it is off by up to grid_slack() from the sum plus this.
inline std::vector<double> noise_by_hand(const TinyTraining& run, const dpmp::dp::Plan& plan,
                                         const dpmp::dp::StreamKeys& keys, dpmp::index_t step) {
  std::vector<double> all;
  const auto parameters = run.model.parameters().all();
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    std::vector<double> noise(std::size_t(parameters[k]->numel()), 0.0);
    dpmp::dp::add_gaussian_noise(run.ctx.team(), noise, plan.noise_multiplier() * plan.sensitivity().bound,
                                 {keys.key(dpmp::dp::Stream::noise), step}, dpmp::index_t(k));
    all.insert(all.end(), noise.begin(), noise.end());
  }
  return all;
}
/// Norm of what rounding to the grid does to n values.
inline double grid_slack(double standard_deviation, std::size_t n) {
  return dpmp::dp::noise_grid(standard_deviation) * std::sqrt(double(n));
}
}  // namespace test

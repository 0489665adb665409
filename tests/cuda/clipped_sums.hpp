// SPDX-License-Identifier: Apache-2.0
// Clipped sums of a few slots on any device, by every strategy.
#pragma once
#include "dpmp/train/trainer.hpp"
#include "support/gpt.hpp"

namespace test {
/// A way to take a clipped sum.
struct SumCase {
  std::string name;
  dpmp::per_sample::StrategyOptions options = {};
  bool by_layer = false;
  dpmp::dp::ClipRule rule = dpmp::dp::ClipRule::abadi();
};
/// Those of one group, and whether weights are tied or not.
inline const std::vector<SumCase>& sum_cases() {
  using enum dpmp::per_sample::Strategy;
  using dpmp::per_sample::GradientStorage;
  using dpmp::per_sample::NormChoice;
  static const std::vector<SumCase> cases{
      {"automatic"},
      {"automatic, nothing kept", {.byte_budget = 0}},
      {"book-keeping, Gram", {.strategy = book_keeping, .norms = NormChoice::gram}},
      {"book-keeping, instantiated", {.strategy = book_keeping, .norms = NormChoice::instantiate}},
      {"two passes", {.strategy = two_pass}},
      {"materialised", {.strategy = materialised}},
      {"materialised, narrow", {.strategy = materialised, .gradients = GradientStorage::compute}}};
  return cases;
}

/// Losses of these slots by `losses`, `batch` slots at a time (0: all), clipped to C in each group and summed.
/// scaling: where the backward passes begin.
template <class Losses>
std::vector<double> clipped_sum(dpmp::Context& ctx, std::span<dpmp::Parameter* const> parameters, const Losses& losses,
                                std::span<const dpmp::index_t> slots, const SumCase& c, double C, std::size_t batch = 0,
                                const dpmp::LossScaling& scaling = {}) {
  using namespace dpmp::per_sample;
  const Groups groups = c.by_layer ? Groups::by_layer(parameters) : Groups::flat(parameters);
  const std::vector<dpmp::dp::FlatClipping> clipping(std::size_t(groups.count()), dpmp::dp::FlatClipping(C, c.rule));
  GradientSums sums(ctx, parameters);
  ClippedSumSink sink(groups, c.options);
  if (batch == 0) batch = slots.size();
  for (std::size_t first = 0; first < slots.size(); first += batch)
    dpmp::train::accumulate_clipped(ctx, losses, {slots.subspan(first, batch)}, clipping, sink, sums,
                                    {.loss_scaling = scaling});
  return flat(sums);
}
}  // namespace test

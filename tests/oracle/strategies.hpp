// SPDX-License-Identifier: Apache-2.0
// Per-sample norms, clip factors and clipped sums of one recording by every strategy.
#pragma once
#include <functional>

#include "oracle/values.hpp"

namespace oracle {
struct StrategyCase {
  const char* name;
  dpmp::per_sample::StrategyOptions options;
  bool group_each_parameter = false;
};
inline const std::vector<StrategyCase>& strategy_cases() {
  using enum dpmp::per_sample::Strategy;
  using dpmp::per_sample::NormChoice;
  static const std::vector<StrategyCase> cases{
      {"automatic", {}},
      {"second walk", {.byte_budget = 0}},
      {"book-keeping", {.strategy = book_keeping}},
      {"book-keeping, Gram", {.strategy = book_keeping, .norms = NormChoice::gram}},
      {"book-keeping, instantiated", {.strategy = book_keeping, .norms = NormChoice::instantiate}},
      {"two-pass", {.strategy = two_pass}},
      {"materialised", {.strategy = materialised}},
      {"group for each parameter", {}, true},
  };
  return cases;
}

/// record: the per-sample losses. -> {strategy: {"groups": [{"parameters", "norms", "upper", "factors"}], "sums": {name:
/// [..]}}}
inline Json run_strategies(dpmp::Context& ctx, index_t samples, std::span<dpmp::Parameter* const> parameters,
                           double threshold, const std::function<Variable(dpmp::Tape&)>& record) {
  using namespace dpmp;
  Json all;
  for (const StrategyCase& c : strategy_cases()) {
    const auto groups =
        c.group_each_parameter ? per_sample::Groups::by_parameter(parameters) : per_sample::Groups::flat(parameters);
    Json said = Json::array();
    for (index_t g = 0; g < groups.count(); ++g) said.push_back({{"parameters", Json::array()}});
    const auto clip = [&](index_t g, const per_sample::NormBounds& norms) {
      std::vector<float> factors(static_cast<std::size_t>(samples));
      dp::FlatClipping(threshold).factors(norms.upper(), norms.finite(), factors);
      Json& group = said[std::size_t(g)];
      group["norms"] = Json::array();
      for (index_t i = 0; i < samples; ++i) group["norms"].push_back(norms.norm(i));
      group["upper"] = norms.upper();
      group["factors"] = factors;
      return factors;
    };
    per_sample::ClippedSumSink sink(groups, c.options);
    per_sample::GradientSums sums(ctx, parameters);
    Tape tape(ctx, samples);
    const Variable losses = record(tape);
    per_sample::clipped_backward(tape, losses, Tensor(), sink, clip, sums);
    Json values;
    for (const Parameter* p : sums.parameters()) {
      values[p->name()] = sums.of(*p).to_doubles();
      said[std::size_t(groups.of(*p))]["parameters"].push_back(p->name());
    }
    all[c.name] = {{"groups", said}, {"sums", values}};
  }
  return all;
}
}  // namespace oracle

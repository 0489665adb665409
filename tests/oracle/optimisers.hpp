// SPDX-License-Identifier: Apache-2.0
// Runs an optimiser over given gradients with given parameters frozen from step to step. The only place here that knows the
// interface of optim::.
#pragma once
#include <memory>

#include "oracle/values.hpp"

namespace oracle {
inline dpmp::optim::Optimiser optimiser_of(const Json& j) {
  const auto all = [](const dpmp::Parameter&) { return true; };
  if (j.at("type") == "sgd")
    return dpmp::optim::Sgd{
        .momentum = j.at("momentum").get<double>(), .weight_decay = j.at("weight_decay").get<double>(), .decays = all};
  return dpmp::optim::AdamW{.beta1 = j.at("beta1").get<double>(),
                            .beta2 = j.at("beta2").get<double>(),
                            .epsilon = j.at("epsilon").get<double>(),
                            .weight_decay = j.at("weight_decay").get<double>(),
                            .decays = all};
}

/// {"optimiser", "parameters": {name: array}, "steps": [{"rate", "factor", "frozen": [names], "gradients": {name: [..]}}]}
/// -> {"values": [{name: [..]} after each step]}, in f64.
inline Json run_optimiser(dpmp::Context& ctx, const Json& j) {
  using namespace dpmp;
  std::vector<std::unique_ptr<Parameter>> owned;
  std::vector<Parameter*> parameters;
  for (const auto& [name, array] : j.at("parameters").items()) {
    owned.push_back(std::make_unique<Parameter>(ctx, name, tensor_of(ctx, array, DType::f64), DType::f64));
    parameters.push_back(owned.back().get());
  }
  optim::OptimiserState state(ctx, parameters, optimiser_of(j.at("optimiser")));
  per_sample::GradientSums sums(ctx, parameters);
  Json after = Json::array();
  for (const Json& step : j.at("steps")) {
    const auto frozen = step.at("frozen").get<std::vector<std::string>>();
    for (Parameter* p : parameters) p->set_trainable(std::find(frozen.begin(), frozen.end(), p->name()) == frozen.end());
    sums.follow_trainable(ctx);
    for (const Parameter* p : sums.parameters()) {
      Tensor sum = sums.of(*p);
      sum.copy_from(
          Tensor::from(ctx, p->shape(), DType::f64, step.at("gradients").at(p->name()).get<std::vector<double>>()));
    }
    state.step(ctx, sums, step.at("factor").get<double>(), step.at("rate").get<double>());
    Json values;
    for (const Parameter* p : parameters) values[p->name()] = p->master().to_doubles();
    after.push_back(values);
  }
  return {{"values", after}};
}
}  // namespace oracle

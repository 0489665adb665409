// SPDX-License-Identifier: Apache-2.0
// Who emits sites, and losses to walk back from.
#pragma once
#include <map>
#include <string>

#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/nn/parameters.hpp"
#include "support/tensors.hpp"

namespace test {
/// Other values than the initial ones, zeros among those.
inline void randomise(dpmp::nn::Parameters& parameters, Rng& rng, double standard_deviation) {
  for (dpmp::Parameter* p : parameters.all()) {
    const dpmp::Tensor values = normal_tensor(parameters.ctx(), rng, p->shape(), p->master().dtype(), standard_deviation);
    p->master().copy_from(values);
    p->refresh(parameters.ctx());
  }
}

/// Counts the sites of each parameter.
struct CountingSink final : dpmp::GradientSink {
  std::map<std::string, int> sites;
  void accept(dpmp::Context&, const dpmp::ParameterSite& site) override { ++sites[site.parameter->name()]; }
};

/// Per-sample losses: a fixed weighting of y.
inline dpmp::Variable losses_of(dpmp::Tape& tape, const dpmp::Variable& y) {
  return dpmp::detail::gradient_check_losses(tape, {y}, [](dpmp::Tape&, const auto& v) { return v; }, {});
}
}  // namespace test

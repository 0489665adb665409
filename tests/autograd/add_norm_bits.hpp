// SPDX-License-Identifier: Apache-2.0
// An addition and the norm behind it, in one operation and apart, on the same numbers: for comparing bits on any device.
#pragma once
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "dpmp/autograd/rules/add_norm.hpp"
#include "support/random.hpp"

namespace test {
struct AddNormCase {
  dpmp::Shape shape;
  bool centred;  // layer norm, or RMS norm
  bool sum_used = true, normed_used = true;
  bool x_trained = true, branch_trained = true, parameters_trained = true;
  dpmp::TapeMode mode = dpmp::TapeMode::training;
  double spoil = 0;  // in place of the first element of x, unless 0
};
/// Values, gradients and per-sample vectors by name.
using AddNormOutcome = std::map<std::string, std::vector<double>>;

namespace detail {
struct VectorSink final : dpmp::GradientSink {
  AddNormOutcome* of;
  void accept(dpmp::Context&, const dpmp::ParameterSite& site) override {
    (*of)["vectors of " + site.parameter->name()] = site.b.to_doubles();
  }
};
/// Hands copies of given gradients to the results that are used.
struct GiveGradients {
  static constexpr std::string_view name = "give";
  dpmp::SumAndNorm results;
  dpmp::Tensor of_sum, of_normed;
  void backward(dpmp::BackwardPass& pass, const dpmp::Tensor&) const {
    if (of_normed.defined()) pass.accumulate(results.normed.slot(), of_normed.clone(pass.ctx));
    if (of_sum.defined()) pass.accumulate(results.sum.slot(), of_sum.clone(pass.ctx));
  }
};
}  // namespace detail

inline AddNormOutcome run_add_norm(dpmp::Context& ctx, dpmp::DType dtype, const AddNormCase& c, bool in_one) {
  using namespace dpmp;
  Rng rng(seed(), std::uint64_t(c.shape.numel()));
  const auto random = [&](const Shape& shape, DType type, double std, double mean) {
    std::vector<double> values(std::size_t(shape.numel()));
    for (double& v : values) v = mean + rng.normal(std);
    if (c.spoil != 0 && mean == 1 && shape.rank() == 3) values[0] = c.spoil;
    return Tensor::from(ctx, shape, type, values);
  };
  const Shape vector{c.shape.back()};
  Parameter gain(ctx, "gain", random(vector, accumulate_dtype(dtype), 0.3, 1), dtype),
      bias(ctx, "bias", random(vector, accumulate_dtype(dtype), 0.3, 0), dtype);
  gain.set_trainable(c.parameters_trained), bias.set_trainable(c.parameters_trained);
  AddNormOutcome outcome;
  Tape tape(ctx, c.shape.front(), c.mode);
  const Variable x = tape.input(random(c.shape, dtype, 2, 1), c.x_trained),
                 branch = tape.input(random(c.shape, dtype, 1, 0), c.branch_trained);
  const Tensor of_sum = random(c.shape, dtype, 0.1, 0), of_normed = random(c.shape, dtype, 0.1, 0.02);
  const SumAndNorm results = [&] {
    if (in_one) return c.centred ? add_layer_norm(x, branch, gain, bias) : add_rms_norm(x, branch, gain);
    const Variable sum = add(x, branch);
    return SumAndNorm{sum, c.centred ? layer_norm(sum, gain, bias) : rms_norm(sum, gain)};
  }();
  outcome["sum"] = results.sum.value().to_doubles();
  outcome["normed"] = results.normed.value().to_doubles();
  if (c.mode == TapeMode::inference) return outcome;
  const Variable losses =
      tape.record(Tensor::zeros(ctx, {c.shape.front()}, DType::f32), true,
                  detail::GiveGradients{results, c.sum_used ? of_sum : Tensor(), c.normed_used ? of_normed : Tensor()});
  detail::VectorSink sink;
  sink.of = &outcome;
  tape.backward(losses, sink);
  if (c.x_trained) outcome["gradient of x"] = tape.gradient_of(x).to_doubles();
  if (c.branch_trained) outcome["gradient of branch"] = tape.gradient_of(branch).to_doubles();
  if (c.x_trained && c.branch_trained && (c.sum_used || c.normed_used))
    outcome["one tensor"] = {double(tape.gradient_of(x).raw() == tape.gradient_of(branch).raw())};
  return outcome;
}

/// Names of what differs in some bit; empty where all is the same.
inline std::string differing(const AddNormOutcome& a, const AddNormOutcome& b) {
  std::string names;
  for (const auto& [name, values] : a) {
    const auto other = b.find(name);
    if (other == b.end() || other->second.size() != values.size() ||
        (!values.empty() && std::memcmp(values.data(), other->second.data(), values.size() * sizeof(double)) != 0))
      names += name + "; ";
  }
  return a.size() == b.size() ? names : names + "other results; ";
}
}  // namespace test

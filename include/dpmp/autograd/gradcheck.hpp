// SPDX-License-Identifier: Apache-2.0
// Gradient check: the f64 instance of a rule against 4-point central differences in double, for inputs and for parameters.
// For rules of the library and of its users alike. Plain loops on the CPU: it is meant to be obviously right.
#pragma once
#include <cmath>
#include <functional>
#include <map>
#include <string>

#include "dpmp/autograd/rules/elementwise.hpp"

namespace dpmp::inline DPMP_ABI {
/// Sums per-sample gradients over the batch, in double, straight from the definition of each site form.
class DefinitionSink : public GradientSink {
 public:
  void accept(Context&, const ParameterSite& site) override {
    auto& sum = sums_[site.parameter];
    sum.resize(std::size_t(site.parameter->numel()), 0.0);
    if (site.form == SiteForm::vector)
      add_vectors(site, sum);
    else
      add_outer_products(site, sum);
  }
  /// The summed gradient of a parameter; zeros when no site of it was emitted.
  std::vector<double> gradient_of(const Parameter& parameter) const {
    const auto found = sums_.find(&parameter);
    return found == sums_.end() ? std::vector<double>(std::size_t(parameter.numel()), 0.0) : found->second;
  }
  /// How many parameters emitted a site.
  std::size_t parameters() const { return sums_.size(); }

 private:
  static void add_vectors(const ParameterSite& site, std::vector<double>& sum) {
    const std::vector<double> gradients = site.b.to_doubles();
    const std::size_t n = std::size_t(site.b.shape().back());
    for (std::size_t k = 0; k < gradients.size(); ++k) sum[k % n] += gradients[k];
  }
  static void add_outer_products(const ParameterSite& site, std::vector<double>& sum) {
    const std::vector<double> a = site.a.to_doubles(), b = site.b.to_doubles();
    const index_t d = site.a.shape().back(), p = site.parameter->shape().front(), rows = site.samples() * site.a.shape()[1];
    for (index_t r = 0; r < rows; ++r)
      for (index_t j = 0; j < p; ++j) {
        const double bj = site.one_hot() ? double(index_t(b[std::size_t(r)]) == j) : b[std::size_t(r * p + j)];
        for (index_t k = 0; k < d; ++k) sum[std::size_t(j * d + k)] += bj * a[std::size_t(r * d + k)];
      }
  }
  std::map<const Parameter*, std::vector<double>> sums_;
};

namespace rules {
/// Per-sample losses [B] = sum_k weights[i, k] x[i, k], in the accumulate dtype.
struct WeightedSum {
  static constexpr std::string_view name = "weighted_sum";
  GradientSlot x;
  std::vector<double> weights;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const std::vector<double> g = gradient.to_doubles();
    const std::size_t width = std::size_t(x.shape.numel(1, x.shape.rank()));
    std::vector<double> values(weights.size());
    for (std::size_t k = 0; k < values.size(); ++k) values[k] = weights[k] * g[k / width];
    pass.accumulate(x, Tensor::from(pass.ctx, x.shape, x.dtype, values));
  }
};
}  // namespace rules

/// Turns any value into losses for a check. weights: as many as x has elements.
Variable weighted_sum(const Variable& x, std::span<const double> weights);

/// The function to differentiate. It is called many times and must record the same operations each time.
using GradientCheckForward = std::function<std::vector<Variable>(Tape&, const std::vector<Variable>& inputs)>;

struct GradientCheckOptions {
  double step = 0x1p-10;
  /// Elements tried of each input and parameter, evenly spread; 0: all.
  index_t elements = 0;
  /// Weight of element k of output number j in the sum that is differentiated; not given: cos(1 + k + 7 j).
  std::function<double(std::size_t output, std::size_t element)> weight;
};

struct GradientCheckResult {
  /// Largest |rule - difference| / (1 + |difference|), and where; 0 and "" when nothing was compared.
  double error = 0;
  std::string where;
  index_t compared = 0;
};

namespace detail {
/// Records forward(inputs) and the per-sample losses of its weighted outputs.
inline Variable gradient_check_losses(Tape& tape, const std::vector<Variable>& inputs, const GradientCheckForward& forward,
                                      const GradientCheckOptions& options) {
  const std::vector<Variable> outputs = forward(tape, inputs);
  Variable losses;
  for (std::size_t j = 0; j < outputs.size(); ++j) {
    std::vector<double> weights(std::size_t(outputs[j].value().numel()));
    for (std::size_t k = 0; k < weights.size(); ++k)
      weights[k] = options.weight ? options.weight(j, k) : std::cos(1.0 + double(k) + 7.0 * double(j));
    const Variable term = weighted_sum(outputs[j], weights);
    losses = j == 0 ? term : add(losses, term);
  }
  return losses;
}
}  // namespace detail

/// ctx: on the CPU. inputs: f64 values, axis 0 the samples; parameters: f64, those that forward uses and whose gradients are
/// checked. Their values are changed during the check and restored.
inline GradientCheckResult check_gradients(Context& ctx, index_t samples, const std::vector<Tensor>& inputs,
                                           const std::vector<Parameter*>& parameters, const GradientCheckForward& forward,
                                           const GradientCheckOptions& options = {}) {
  DPMP_CHECK(!ctx.on_cuda(), "expected a context on the CPU for a gradient check, got ", ctx.device());
  for (const Tensor& x : inputs) check_dtype("an input of a gradient check", x, DType::f64);
  for (const Parameter* p : parameters) check_dtype("a parameter of a gradient check", p->value(), DType::f64);
  const auto record = [&](Tape& tape, std::vector<Variable>& variables) {
    for (const Tensor& x : inputs) variables.push_back(tape.input(x, true));
    return detail::gradient_check_losses(tape, variables, forward, options);
  };
  const auto evaluate = [&] {
    Tape tape(ctx, samples);
    std::vector<Variable> variables;
    double total = 0;
    for (double loss : record(tape, variables).value().to_doubles()) total += loss;
    return total;
  };
  Tape tape(ctx, samples);
  std::vector<Variable> variables;
  const Variable losses = record(tape, variables);
  DefinitionSink sink;
  tape.backward(losses, sink);

  GradientCheckResult result;
  const auto compare = [&](const Tensor& values, const std::vector<double>& gradient, const std::string& what) {
    const index_t n = values.numel(), tried = options.elements > 0 ? std::min(n, options.elements) : n;
    for (index_t k = 0; k < tried; ++k) {
      double& x = values.data<double>()[k * n / tried];
      const double kept = x, h = options.step;
      const auto at = [&](double shift) {
        x = kept + shift;
        return evaluate();
      };
      const double difference = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
      x = kept;
      const double found = gradient[std::size_t(k * n / tried)],
                   error = std::fabs(found - difference) / (1 + std::fabs(difference));
      ++result.compared;
      if (error <= result.error || std::isnan(result.error)) continue;  // the first NaN stays
      result.error = error;
      result.where =
          detail::concat(what, ", element ", k * n / tried, ": the rule has ", found, ", the difference ", difference);
    }
  };
  for (std::size_t k = 0; k < inputs.size(); ++k)
    compare(inputs[k], tape.gradient_of(variables[k]).to_doubles(), "input " + std::to_string(k));
  for (Parameter* p : parameters) compare(p->master(), sink.gradient_of(*p), "parameter " + p->name());
  return result;
}
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline Variable weighted_sum(const Variable& x, std::span<const double> weights) {
  DPMP_CHECK(index_t(weights.size()) == x.value().numel(), "weighted_sum: expected ", x.value().numel(), " weights for ",
             x.shape(), ", got ", weights.size());
  Tape& tape = x.tape();
  const std::vector<double> values = x.value().to_doubles();
  const std::size_t width = std::size_t(x.shape().numel(1, x.shape().rank()));
  std::vector<double> losses(std::size_t(tape.samples()), 0.0);
  for (std::size_t k = 0; k < values.size(); ++k) losses[k / width] += weights[k] * values[k];
  return tape.record(Tensor::from(tape.ctx(), {tape.samples()}, accumulate_dtype(x.dtype()), losses), tape.needs_gradient(x),
                     rules::WeightedSum{x.slot(), {weights.begin(), weights.end()}});
}
}  // namespace dpmp::inline DPMP_ABI
#endif

// SPDX-License-Identifier: Apache-2.0
// Runs a problem of the op table forward and backward in any dtype.
#pragma once
#include <memory>

#include "autograd/op.hpp"
#include "dpmp/autograd/gradcheck.hpp"

namespace test {
/// Parameters made from a problem's values.
class OwnedParameters {
 public:
  OwnedParameters(dpmp::Context& ctx, const Problem& problem, dpmp::DType dtype, bool trainable = true) {
    for (const Values& v : problem.parameters) {
      const auto master = dpmp::Tensor::from(ctx, v.shape, accumulate_dtype(dtype), v.values);
      owned_.push_back(std::make_unique<dpmp::Parameter>(ctx, "p" + std::to_string(owned_.size()), master, dtype));
      owned_.back()->set_trainable(trainable);
      pointers_.push_back(owned_.back().get());
    }
  }
  const Parameters& pointers() const { return pointers_; }

 private:
  std::vector<std::unique_ptr<dpmp::Parameter>> owned_;
  Parameters pointers_;
};

/// Multiples of 2^-5 in [-1, 1]: exact in every dtype.
inline double output_weight(std::size_t output, std::size_t element) {
  return (double((element * 37 + output * 11 + 5) % 65) - 32) / 32;
}

struct Outcome {
  using Lists = std::vector<std::vector<double>>;
  Lists outputs, input_gradients, parameter_gradients;
  std::size_t parameters_with_sites = 0;
};
struct RunOptions {
  bool inputs_need_gradients = true, parameters_train = true;
};

/// The outputs, and the gradients of the sum over samples of the weighted outputs.
inline Outcome run_op(dpmp::Context& ctx, const Problem& problem, dpmp::DType dtype, RunOptions run = {}) {
  const OwnedParameters parameters(ctx, problem, dtype, run.parameters_train);
  dpmp::Tape tape(ctx, problem.samples);
  Variables inputs;
  for (const Values& v : problem.inputs)
    inputs.push_back(tape.input(dpmp::Tensor::from(ctx, v.shape, dtype, v.values), run.inputs_need_gradients));
  Outcome outcome;
  const auto forward = [&](dpmp::Tape& t, const Variables& x) {
    const Variables outputs = problem.forward(t, x, parameters.pointers());
    for (const Variable& y : outputs) outcome.outputs.push_back(y.value().to_doubles());
    return outputs;
  };
  const dpmp::GradientCheckOptions options{.weight = output_weight};
  const Variable losses = dpmp::detail::gradient_check_losses(tape, inputs, forward, options);
  dpmp::DefinitionSink sink;
  tape.backward(losses, sink);
  if (run.inputs_need_gradients)
    for (const Variable& x : inputs) outcome.input_gradients.push_back(tape.gradient_of(x).to_doubles());
  for (const dpmp::Parameter* p : parameters.pointers()) outcome.parameter_gradients.push_back(sink.gradient_of(*p));
  outcome.parameters_with_sites = sink.parameters();
  return outcome;
}
}  // namespace test

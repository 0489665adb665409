// SPDX-License-Identifier: Apache-2.0
// Private training of a model with a layer that the library does not have (linear_recurrence.hpp): running sums of random
// signs, which only a memory can follow.
#include "linear_recurrence.hpp"

#include <iostream>
using namespace dpmp;

int main() {
  Context ctx;
  nn::Parameters parameters(ctx, DType::bf16, 1);
  const index_t records = 2000, tokens = 16, width = 32;
  const nn::Linear in(parameters / "in", 1, width), out(parameters / "out", width, 1);
  const own::RecurrentLayer memory(parameters / "memory", width);
  const auto losses = [&](const train::Batch& batch) {
    std::vector<double> x, y;
    for (const index_t r : batch.records)
      for (index_t t = 0, sum = 0; t < tokens; ++t) {
        const index_t sign = philox_block(7, std::uint64_t(r), std::uint64_t(t)).word[0] % 2 ? 1 : -1;
        sum += sign;
        x.push_back(double(sign));
        y.push_back(double(sum));
      }
    const Shape shape{batch.size(), tokens, 1};
    const Variable predicted = out(memory(in(batch.tape.input(Tensor::from(ctx, shape, DType::bf16, x)))));
    return mean_squared_error(predicted, Tensor::from(ctx, shape, DType::f32, y));
  };
  const auto error = [&] { return train::evaluate(ctx, losses, records, 200); };
  const auto plan =
      dp::Plan::calibrate({.epsilon = 3, .delta = 1e-5, .sampling_rate = 0.1, .steps = 150, .dataset_size = records});
  train::Trainer trainer(ctx, parameters, plan, dp::StreamKeys(dp::random_key()), records,
                         {.learning_rate = optim::LearningRate::constant(3e-3)});
  std::cout << trainer.validate(losses).text() << "\nheld-out squared error before training: " << error() << '\n';
  while (trainer.steps() < plan.steps()) trainer.step(losses);
  std::cout << "after " << trainer.steps() << " steps at epsilon " << plan.epsilon() << ": " << error() << '\n';
}

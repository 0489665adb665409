// SPDX-License-Identifier: Apache-2.0
// Private training of a model with the layer of layer.hpp, on the best device that this program was built for.
#include "layer.hpp"

#include <iostream>
using namespace dpmp;

int main() {
  Context ctx;
  nn::Parameters parameters(ctx, DType::bf16, 1);
  const index_t records = 400, tokens = 3, width = 16;
  const skeleton::Gain gain(parameters / "gain", width);
  const nn::Linear head(parameters / "head", width, 2);
  // Record r: noise, and a mean that is its class.
  const auto losses = [&](const train::Batch& batch) {
    std::vector<float> x;
    std::vector<std::int32_t> labels;
    for (const index_t r : batch.records) {
      labels.push_back(std::int32_t(r % 2));
      for (index_t k = 0; k < tokens * width; ++k)
        x.push_back(uniform_open(philox_block(9, std::uint64_t(r), std::uint64_t(k)).word[0]) - (r % 2 ? 0.3f : 0.7f));
    }
    const Variable rows = batch.tape.input(Tensor::from(ctx, {batch.size(), tokens, width}, DType::bf16, x));
    return cross_entropy(head(mean(gain(rows), 1)), Tensor::from(ctx, {batch.size()}, labels));
  };
  const auto plan =
      dp::Plan::calibrate({.epsilon = 3, .delta = 1e-4, .sampling_rate = 0.2, .steps = 30, .dataset_size = records});
  train::Trainer trainer(ctx, parameters, plan, dp::StreamKeys(dp::random_key()), records,
                         {.learning_rate = optim::LearningRate::constant(1e-2)});
  const double before = train::evaluate(ctx, losses, records, 100);
  while (trainer.steps() < plan.steps()) trainer.step(losses);
  const double after = train::evaluate(ctx, losses, records, 100);
  std::cout << "device " << ctx.device() << ": held-out loss " << before << " -> " << after << " at epsilon "
            << plan.epsilon() << '\n';
  return after < before ? 0 : 1;
}

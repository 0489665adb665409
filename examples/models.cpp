// SPDX-License-Identifier: Apache-2.0
// Three models that are no GPT, built from public pieces and trained privately on made-up records: an encoder with padding,
// a vision transformer with a class token, a block with adaptive norms.
#include "adaptive_norm.hpp"
#include "encoder.hpp"
#include "vision_transformer.hpp"

#include <iostream>
using namespace dpmp;

template <class Model>
void train_privately(const char* name) {
  Context ctx;
  Model model(ctx, DType::bf16, 1);
  const index_t records = 600;
  const auto losses = [&](const train::Batch& batch) { return model.losses(batch); };
  const auto held_out = [&] { return train::evaluate(ctx, losses, records, 200); };
  const auto plan =
      dp::Plan::calibrate({.epsilon = 8, .delta = 1e-4, .sampling_rate = 0.2, .steps = 80, .dataset_size = records});
  train::Trainer trainer(ctx, model.parameters(), plan, dp::StreamKeys(dp::random_key()), records,
                         {.learning_rate = optim::LearningRate::constant(3e-3)});
  const double before = held_out();
  while (trainer.steps() < plan.steps()) trainer.step(losses);
  std::cout << name << ": " << model.parameters().numel() << " parameters, held-out loss " << before << " -> " << held_out()
            << " at epsilon " << plan.epsilon() << '\n';
}

int main() {
  train_privately<examples::Encoder>("encoder");
  train_privately<examples::VisionTransformer>("vision transformer");
  train_privately<examples::ConditionalModel>("adaptive norms");
}

// SPDX-License-Identifier: Apache-2.0
#include <dpmp/dpmp.hpp>
#include <iostream>
using namespace dpmp;

int main() {
  Context ctx;
  nn::Transformer model(ctx, {.vocabulary = 16, .width = 32, .layers = 1, .heads = 2, .context = 12}, DType::bf16);
  const index_t records = 4000;  // record r is the sequence r, r + 1, r + 2, .. modulo 16
  const auto losses = [&](const train::Batch& batch) {
    std::vector<std::int32_t> ids, targets;
    for (index_t r : batch.records)
      for (index_t t = 0; t < 12; ++t) ids.push_back(int(r + t) & 15), targets.push_back(int(r + t + 1) & 15);
    const Shape shape{batch.size(), 12};
    return cross_entropy(model(batch.tape, Tensor::from(ctx, shape, ids)), Tensor::from(ctx, shape, targets),
                         {.divisor = 12});
  };
  const auto plan =
      dp::Plan::calibrate({.epsilon = 3, .delta = 1e-5, .sampling_rate = 0.05, .steps = 100, .dataset_size = records});
  train::Trainer trainer(ctx, model.parameters(), plan, dp::StreamKeys(dp::random_key()), records);
  while (trainer.steps() < plan.steps()) trainer.step(losses);
  Tape tape(ctx, 1, TapeMode::inference);
  std::cout << "loss " << losses({tape, std::vector<index_t>{7}}).value().item() << " nats a token, " << std::log(16.0)
            << " before training\n"
            << trainer.privacy_statement() << '\n';
}

// SPDX-License-Identifier: Apache-2.0
// The same program on a CPU and a GPU: only the context is another one. Link dpmp::compiled_cuda, and no file of yours needs
// nvcc. Norms, factors and sums stay on the device; the host sees nothing of a record.
#include <dpmp/dpmp.hpp>
#include <iostream>
using namespace dpmp;

int main() {
  Context ctx(Device::best());  // Device::cuda() where there is one, else Device::cpu()
  std::cout << "device: " << ctx.device() << '\n';
  nn::Parameters parameters(ctx, DType::bf16, 1);
  const nn::Linear in(parameters / "in", 16, 32), out(parameters / "out", 32, 2);
  const index_t records = 256;
  // A batch is made on the host and copied; Tensor::from does both.
  const auto losses = [&](const train::Batch& batch) {
    std::vector<float> x;
    std::vector<std::int32_t> labels;
    for (const index_t r : batch.records) {
      float sum = 0;
      for (index_t k = 0; k < 16; ++k) {
        x.push_back(uniform_open(philox_block(4, std::uint64_t(r), std::uint64_t(k)).word[0]) - 0.5f);
        sum += x.back();
      }
      labels.push_back(sum > 0);
    }
    const Variable rows = batch.tape.input(Tensor::from(ctx, {batch.size(), 16}, DType::bf16, x));
    return cross_entropy(out(gelu(in(rows))), Tensor::from(ctx, {batch.size()}, labels));
  };
  const auto plan =
      dp::Plan::calibrate({.epsilon = 8, .delta = 1e-4, .sampling_rate = 0.25, .steps = 10, .dataset_size = records});
  train::Trainer trainer(ctx, parameters, plan, dp::StreamKeys(dp::random_key()), records, {.physical_batch = 64});
  while (trainer.steps() < plan.steps()) trainer.step(losses);
  // What is wanted on the host is asked for: to_doubles() copies.
  std::cout << "trained " << trainer.steps() << " steps; the first weight is " << in.weight().master().to_doubles().front()
            << '\n';
}

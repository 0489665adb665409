// SPDX-License-Identifier: Apache-2.0
// A kernel of one's own beside those of dpmp::compiled, and a private step whose kernels all come from there.
#include <dpmp/dpmp.hpp>
#include <iostream>
using namespace dpmp;

struct Halve {
  using Real = float;
  float* x;
  template <class Span>
  DPMP_HOST void operator()(Span at) const {
    at.store(x, at.load(x) * 0.5f);
  }
};

int main() {
  Context ctx(Device::cpu(), 2);
  const Tensor x = Tensor::full(ctx, {1000}, DType::f32, 3);
  launch_elements(ctx, x.numel(), Halve{x.data<float>()});

  nn::Parameters parameters(ctx, DType::bf16, 1);
  const nn::Linear layer(parameters / "layer", 8, 3);
  const auto losses = [&](const train::Batch& batch) {
    const index_t n = index_t(batch.records.size());
    return cross_entropy(gelu(layer(batch.tape.input(Tensor::full(ctx, {n, 8}, DType::bf16, 0.5)))),
                         Tensor::from(ctx, {n}, std::vector<std::int32_t>(batch.records.size(), 1)));
  };
  const auto plan = dp::Plan::with_noise_multiplier(
      {.delta = 1e-5, .sampling_rate = 0.5, .steps = 3, .clip_threshold = 1, .dataset_size = 16}, 1);
  train::Trainer trainer(ctx, parameters, plan, dp::StreamKeys(dp::random_key()), 16);
  while (trainer.steps() < plan.steps()) trainer.step(losses);

  double sum = 0;
  for (const double v : x.to_doubles()) sum += v;
  std::cout << gemm_backend_info(ctx) << ": " << sum << ", " << trainer.steps() << " steps\n";
  return sum == 1500 && trainer.steps() == 3 ? 0 : 1;
}

// SPDX-License-Identifier: Apache-2.0
// An MLP of 784-64-10 trained privately, in few lines: what compile_time.py compiles beside libtorch.cpp.
#if !defined(SINGLE_HEADERS)
#include <dpmp/dpmp.hpp>
#else
#include <dpmp/autograd/rules/activation.hpp>
#include <dpmp/autograd/rules/cross_entropy.hpp>
#include <dpmp/nn/linear.hpp>
#include <dpmp/train/trainer.hpp>
#endif
#if defined(__CUDACC__) && !defined(SINGLE_HEADERS)
#include <dpmp/dpmp.cuh>
#elif defined(__CUDACC__)
#include <dpmp/cuda.cuh>
#endif
#include <iostream>
using namespace dpmp;

int main() {
#if defined(__CUDACC__)
  Context ctx(Device::cuda());
#else
  Context ctx;
#endif
  nn::Parameters parameters(ctx, DType::bf16, 1);
  const nn::Linear hidden(parameters / "hidden", 784, 64), output(parameters / "output", 64, 10);
  const auto losses = [&](const train::Batch& batch) {
    const index_t n = batch.size();
    const Variable x = batch.tape.input(Tensor::full(ctx, {n, 784}, DType::bf16, 0.5));
    const Tensor labels = Tensor::from(ctx, {n}, std::vector<std::int32_t>(std::size_t(n), 1));
    return cross_entropy(output(relu(hidden(x))), labels);
  };
  const auto plan =
      dp::Plan::calibrate({.epsilon = 3, .delta = 1e-5, .sampling_rate = 0.05, .steps = 100, .dataset_size = 4000});
  train::Trainer trainer(ctx, parameters, plan, dp::StreamKeys(dp::random_key()), 4000);
  while (trainer.steps() < plan.steps()) trainer.step(losses);
  std::cout << trainer.privacy_statement() << '\n';
}

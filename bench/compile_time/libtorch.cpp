// SPDX-License-Identifier: Apache-2.0
// The MLP of dpmp.cpp with LibTorch, without privacy.
#include <torch/torch.h>

#include <iostream>

int main() {
  torch::nn::Sequential model(torch::nn::Linear(784, 64), torch::nn::ReLU(), torch::nn::Linear(64, 10));
  torch::optim::SGD optimiser(model->parameters(), 0.1);
  const torch::Tensor x = torch::full({200, 784}, 0.5), labels = torch::ones({200}, torch::kLong);
  for (int k = 0; k < 100; ++k) {
    optimiser.zero_grad();
    const torch::Tensor loss = torch::nn::functional::cross_entropy(model->forward(x), labels);
    loss.backward();
    optimiser.step();
    if (k % 10 == 0) std::cout << loss.item<float>() << '\n';
  }
}

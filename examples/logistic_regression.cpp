// SPDX-License-Identifier: Apache-2.0
// Logistic regression under several epsilons: what privacy costs in accuracy, on points that are made up here.
#include <cstdio>
#include <dpmp/dpmp.hpp>
using namespace dpmp;

namespace {
constexpr index_t features = 8, records = 2000, held_out = 1000;
double value(index_t r, index_t k) {
  return 2 * double(uniform_open(philox_block(2, std::uint64_t(r), std::uint64_t(k)).word[0])) - 1;
}
/// Whether record r lies above a fixed plane, with one label in twenty turned around.
std::int32_t label(index_t r) {
  double sum = 0;
  for (index_t k = 0; k < features; ++k) sum += value(r, k) * (k % 2 ? -1 : 1);
  const bool wrong = philox_block(3, std::uint64_t(r), 0).word[0] % 20 == 0;
  return (sum > 0) != wrong;
}
}  // namespace

int main() {
  Context ctx;
  const auto rows = [&](std::span<const index_t> of) {
    std::vector<float> x;
    for (const index_t r : of)
      for (index_t k = 0; k < features; ++k) x.push_back(float(value(r, k)));
    return Tensor::from(ctx, {index_t(of.size()), features}, DType::f32, x);
  };
  const auto train = [&](const train::Privacy& privacy) {
    nn::Parameters parameters(ctx, DType::f32, 1);
    const nn::Linear layer(parameters / "layer", features, 2);
    const auto losses = [&](const train::Batch& batch) {
      std::vector<std::int32_t> labels;
      for (const index_t r : batch.records) labels.push_back(label(r));
      return cross_entropy(layer(batch.tape.input(rows(batch.records))), Tensor::from(ctx, {batch.size()}, labels));
    };
    train::Trainer trainer(ctx, parameters, privacy, dp::StreamKeys(dp::random_key()), records,
                           {.optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(1)});
    while (trainer.steps() < 100) trainer.step(losses);
    std::vector<index_t> others(held_out);
    for (std::size_t k = 0; k < others.size(); ++k) others[k] = records + index_t(k);
    Tape tape(ctx, held_out, TapeMode::inference);
    const std::vector<double> scores = layer(tape.input(rows(others))).value().to_doubles();
    index_t right = 0;
    for (std::size_t k = 0; k < others.size(); ++k) right += (scores[2 * k + 1] > scores[2 * k]) == (label(others[k]) == 1);
    return 100.0 * double(right) / double(held_out);
  };
  std::printf("without privacy: %.1f %% right\n", train(train::NoPrivacy{.sampling_rate = 0.1}));
  for (const double epsilon : {0.1, 0.5, 2.0, 8.0}) {
    const auto plan = dp::Plan::calibrate(
        {.epsilon = epsilon, .delta = 1e-5, .sampling_rate = 0.1, .steps = 100, .dataset_size = records});
    std::printf("epsilon %4.1f: %.1f %% right, noise multiplier %.2f\n", epsilon, train(plan), plan.noise_multiplier());
  }
}

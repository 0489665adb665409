// SPDX-License-Identifier: Apache-2.0
// A two-layer network on images of 28 x 28, made up here: bytes go into bf16, a batch larger than the slots of a physical
// one, accuracy on images that nobody trained on. train_fashion_mnist.cpp does it with a convolutional network on real ones.
#include <dpmp/dpmp.hpp>
#include <iostream>
using namespace dpmp;

namespace {
constexpr index_t side = 28, pixels = side * side, classes = 10;
struct Images {
  std::vector<std::uint8_t> values, labels;
  index_t size() const { return index_t(labels.size()); }
};
/// A bright square whose place is the class, on noise.
Images made_up(index_t count, std::uint64_t seed) {
  Images images;
  for (index_t r = 0; r < count; ++r) {
    const index_t label = r % classes, top = 4 + 14 * (label / 5), left = 1 + 5 * (label % 5);
    images.labels.push_back(std::uint8_t(label));
    for (index_t k = 0; k < pixels; ++k) {
      const bool bright = k / side >= top && k / side < top + 6 && k % side >= left && k % side < left + 5;
      const auto noise = philox_block(seed, std::uint64_t(r), std::uint64_t(k)).word[0] % 128;
      images.values.push_back(std::uint8_t((bright ? 127 : 0) + noise));
    }
  }
  return images;
}
}  // namespace

int main() {
  const Images training = made_up(2000, 1), test = made_up(500, 2);
  Context ctx;
  nn::Parameters parameters(ctx, DType::bf16, 1);
  const nn::Linear hidden(parameters / "hidden", pixels, 64), output(parameters / "output", 64, classes);
  const auto logits = [&](Tape& tape, const Images& images, std::span<const index_t> records) {
    std::vector<std::uint8_t> bytes;
    for (const index_t r : records)
      bytes.insert(bytes.end(), images.values.begin() + r * pixels, images.values.begin() + (r + 1) * pixels);
    const Tensor x = Tensor::from(ctx, {index_t(records.size()), pixels}, DType::bf16, bytes, 1.0 / 255);
    return output(relu(hidden(tape.input(x))));
  };
  const auto losses = [&](const train::Batch& batch) {
    std::vector<std::int32_t> labels;
    for (const index_t r : batch.records) labels.push_back(training.labels[std::size_t(r)]);
    return cross_entropy(logits(batch.tape, training, batch.records), Tensor::from(ctx, {batch.size()}, labels));
  };
  const auto accuracy = [&] {
    index_t right = 0;
    for (index_t first = 0; first < test.size(); first += 100) {
      std::vector<index_t> records;
      for (index_t k = first; k < std::min(first + 100, test.size()); ++k) records.push_back(k);
      Tape tape(ctx, index_t(records.size()), TapeMode::inference);
      const std::vector<double> scores = logits(tape, test, records).value().to_doubles();
      for (std::size_t i = 0; i < records.size(); ++i) {
        const auto row = scores.begin() + std::ptrdiff_t(i) * classes;
        right += std::max_element(row, row + classes) - row == test.labels[std::size_t(records[i])];
      }
    }
    return 100.0 * double(right) / double(test.size());
  };
  const index_t batch = training.size() / 10;
  const auto plan = dp::Plan::calibrate({.epsilon = 3,
                                         .delta = 1e-5,
                                         .sampling_rate = double(batch) / double(training.size()),
                                         .steps = 60,
                                         .dataset_size = training.size()});
  train::Trainer trainer(ctx, parameters, plan, dp::StreamKeys(dp::random_key()), training.size(),
                         {.physical_batch = 64, .learning_rate = optim::LearningRate::constant(3e-3)});
  std::cout << "before training: " << accuracy() << " % of " << test.size() << " test images right\n";
  while (trainer.steps() < plan.steps()) trainer.step(losses);
  std::cout << "after " << trainer.steps() << " steps at epsilon " << plan.epsilon() << ": " << accuracy() << " %\n";
}

// SPDX-License-Identifier: Apache-2.0
// What the certificate costs on real training: how far the certified norm of a sample lies above the computed one, so by how
// much more it is clipped, for the GPT of bench_step (vocabulary 256, width 256, 4 layers, 4 heads, 128 tokens, untied)
// while it learns a text privately. Looks at the norms of private records: for measuring only, on data that may be seen.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <dpmp/interop/text_records.hpp>

#include "../examples/byte_text.hpp"

namespace {
using namespace dpmp;

constexpr index_t tokens = 128;

struct Extra {
  double sum = 0, largest = 0;
  index_t samples = 0;
  void add(const per_sample::NormBounds& norms) {
    for (index_t i = 0; i < norms.samples(); ++i) {
      const double share = norms.upper(i) / norms.norm(i) - 1;
      sum += share;
      largest = std::max(largest, share);
      ++samples;
    }
  }
};

void measure(const examples::ByteRecords& records, DType dtype, per_sample::StrategyOptions strategy, const char* name,
             index_t steps) {
  Context ctx(Device::best());
  const index_t slots = 32;
  const nn::Transformer model(ctx, {.vocabulary = 256, .width = 256, .layers = 4, .heads = 4, .context = tokens}, dtype);
  const auto losses = [&](const train::Batch& b) {
    const auto [ids, targets] = records.batch(ctx, b.records);
    return cross_entropy(model(b.tape, ids), targets, {.divisor = double(tokens)});
  };
  const auto plan = dp::Plan::with_noise_multiplier({.delta = 1e-5,
                                                     .sampling_rate = 64.0 / double(records.size()),
                                                     .steps = steps,
                                                     .dataset_size = index_t(records.size())},
                                                    0.8);
  train::Trainer trainer(
      ctx, model.parameters(), plan, dp::StreamKeys(dp::random_key()), index_t(records.size()),
      {.physical_batch = slots, .learning_rate = optim::LearningRate::constant(1e-3), .strategy = strategy});
  Extra extra;
  for (index_t step = 0; step < steps; ++step) {
    std::vector<index_t> batch;
    for (index_t k = 0; k < slots; ++k) batch.push_back((step * slots + k) * 37 % index_t(records.size()));
    per_sample::GroupPass sink(strategy);
    Tape tape(ctx, slots);
    tape.backward(losses({tape, batch}), sink);
    extra.add(sink.norms(ctx, slots));
    trainer.step(losses);
  }
  std::printf("| %s | %s | %lld | %.4f %% | %.4f %% |\n", std::string(name_of(dtype)).c_str(), name,
              static_cast<long long>(extra.samples), 100 * extra.sum / double(extra.samples), 100 * extra.largest);
  std::fflush(stdout);
}
}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(
        stderr,
        "usage: bench_certificate TEXT [steps]\nTEXT: one record a line, for example from: bible -f Gen1:1-Rev22:21\n");
    return 1;
  }
  try {
    const std::vector<std::string> lines = interop::read_text_records(argv[1]);
    const examples::ByteRecords records(lines, tokens, false);
    const index_t steps = argc > 2 ? std::atoi(argv[2]) : 20;
    std::printf("| dtype | norms | samples | extra clipping, mean | largest |\n|---|---|---|---|---|\n");
    using per_sample::NormChoice;
    using per_sample::Strategy;
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      measure(records, dtype, {}, "automatic", steps);
      measure(records, dtype, {.strategy = Strategy::book_keeping, .norms = NormChoice::gram}, "gram", steps);
      measure(records, dtype, {.strategy = Strategy::book_keeping, .norms = NormChoice::instantiate}, "instantiate", steps);
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_certificate: %s\n", e.what());
    return 1;
  }
}

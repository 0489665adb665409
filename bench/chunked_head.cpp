// SPDX-License-Identifier: Apache-2.0
// What an output layer in chunks costs and saves: time and peak memory of training steps of a GPT of one layer, with all
// logits stored (fp32_logits) and never (chunked_head), interleaved; plain, and private by default and by two passes.
// Prints a Markdown table; ratios are medians of the paired ratios of one run.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <dpmp/dpmp.hpp>
#include <memory>

namespace {
using namespace dpmp;

struct Sizes {
  index_t vocabulary, tokens, batch;
};
constexpr index_t width = 64;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// A model, its trainer, and steps on the same records.
struct Run {
  Run(const Sizes& s, DType dtype, bool chunked, const per_sample::StrategyOptions* strategy)
      : sizes(s),
        ctx(Device::cpu(), 0),
        model(ctx,
              {.vocabulary = s.vocabulary,
               .width = width,
               .layers = 1,
               .heads = 2,
               .context = s.tokens,
               .tied = true,
               .fp32_logits = true,
               .chunked_head = chunked},
              dtype) {
    const dp::StreamKeys keys(dp::random_key());
    train::TrainerOptions options{.physical_batch = s.batch, .optimiser = optim::Sgd{}};
    if (!strategy) {
      trainer = std::make_unique<train::Trainer>(ctx, model.parameters(), train::NoPrivacy{1}, keys, s.batch, options);
      return;
    }
    options.strategy = *strategy;
    const auto plan = dp::Plan::with_noise_multiplier(
        {.delta = 1e-5, .sampling_rate = 1, .steps = 1000, .clip_threshold = 1, .dataset_size = s.batch}, 1);
    trainer = std::make_unique<train::Trainer>(ctx, model.parameters(), plan, keys, s.batch, options);
  }
  double step() {
    const auto start = std::chrono::steady_clock::now();
    ctx.reset_peak_memory();
    trainer->step([&](const train::Batch& batch) {
      std::vector<std::int32_t> ids;
      for (const index_t r : batch.records)
        for (index_t t = 0; t < sizes.tokens; ++t) ids.push_back(std::int32_t((r * 37 + t * 11 + t * t) % sizes.vocabulary));
      const Tensor x = Tensor::from(ctx, {index_t(batch.records.size()), sizes.tokens}, ids);
      return model.losses(batch.tape, x, x, {.divisor = double(sizes.tokens)});
    });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  Sizes sizes;
  Context ctx;
  nn::Transformer model;
  std::unique_ptr<train::Trainer> trainer;
};

void measure(const Sizes& s, DType dtype, const char* mode, const per_sample::StrategyOptions* strategy, int repetitions) {
  Run whole(s, dtype, false, strategy), chunked(s, dtype, true, strategy);
  std::vector<double> stored, formed, ratios;
  for (int k = 0; k <= repetitions; ++k) {
    const double x = whole.step(), y = chunked.step();
    if (k == 0) continue;  // primitives are made and memory is taken from the system
    stored.push_back(x);
    formed.push_back(y);
    ratios.push_back(y / x);
  }
  const double mb = 1e-6, logits = mb * 4 * double(s.batch * s.tokens * s.vocabulary),
               before = mb * double(whole.ctx.memory().peak_bytes), after = mb * double(chunked.ctx.memory().peak_bytes);
  std::printf("| %lld | %lld | %lld | %s | %s | %.0f | %.0f | %.2f | %.0f | %.0f | %.0f | %.2f |\n",
              static_cast<long long>(s.vocabulary), static_cast<long long>(s.tokens), static_cast<long long>(s.batch),
              std::string(name_of(dtype)).c_str(), mode, 1e3 * median(stored), 1e3 * median(formed), median(ratios), logits,
              before, after, after / before);
  std::fflush(stdout);
}
}  // namespace

int main(int argc, char** argv) {
  const int repetitions = argc > 1 ? std::max(1, std::atoi(argv[1])) : 3;
  // bench_chunked_head 3 8192 256: these rows alone.
  const auto wanted = [&](index_t vocabulary, index_t tokens) {
    return (argc <= 2 || std::atoll(argv[2]) == vocabulary) && (argc <= 3 || std::atoll(argv[3]) == tokens);
  };
  Context ctx;
  std::printf("%s; width %lld, tied; median of %d\n\n", gemm_backend_info(ctx).c_str(), static_cast<long long>(width),
              repetitions);
  std::printf(
      "| V | T | B | dtype | step | stored ms | chunked ms | ratio | all logits MB | stored peak MB | chunked peak MB | "
      "ratio "
      "|\n|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  using per_sample::Strategy;
  const per_sample::StrategyOptions automatic{}, two_pass{.strategy = Strategy::two_pass};
  for (const Sizes& s : {Sizes{8192, 256, 16}, Sizes{8192, 1024, 4}, Sizes{50257, 256, 8}, Sizes{50257, 1024, 4}})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      if (!wanted(s.vocabulary, s.tokens)) continue;
      measure(s, dtype, "plain", nullptr, repetitions);
      measure(s, dtype, "private", &automatic, repetitions);
      measure(s, dtype, "private, two passes", &two_pass, repetitions);
    }
}

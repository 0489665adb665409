// SPDX-License-Identifier: Apache-2.0
// Time and memory of a training step by what blocks keep for the backward pass (Checkpointing), plain and private. A GPT of
// vocabulary 256, width 256, 4 heads, 128 tokens, 8 layers, untied, AdamW. Prints a Markdown table; the steps of the three
// choices are interleaved, ratios are medians of paired ratios. Arguments: repetitions, layers, slots of a batch, threads.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <dpmp/dpmp.hpp>

namespace {
using namespace dpmp;
using per_sample::Strategy;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Way {
  const char* name;
  bool is_private = true, by_layer = false;
  per_sample::StrategyOptions strategy = {};
};
struct Sizes {
  int repetitions = 5;
  index_t layers = 8, batch = 16;
  int threads = 2;
};

/// A model with one choice, its trainer and what was measured of it.
class Run {
 public:
  Run(const Sizes& sizes, const Way& way, DType dtype, Checkpointing how, const dp::StreamKeys& keys)
      : ctx_(Device::cpu(), sizes.threads),
        model_(ctx_,
               {.vocabulary = 256, .width = 256, .layers = sizes.layers, .heads = 4, .context = 128, .checkpointing = how},
               dtype),
        trainer_(made(sizes, way, keys)) {}
  Run(const Run&) = delete;

  void step(bool measured) {
    ctx_.reset_peak_memory();
    const auto start = std::chrono::steady_clock::now();
    trainer_.step([&](const train::Batch& batch) {
      const index_t before = ctx_.memory().live_bytes;
      std::vector<std::int32_t> ids;
      for (const index_t s : batch.records)
        for (index_t t = 0; t < 128; ++t) ids.push_back(std::int32_t((s * 37 + t * 11 + t * t) & 255));
      const Tensor x = Tensor::from(ctx_, {batch.size(), 128}, ids);
      const Variable losses = cross_entropy(model_(batch.tape, x), x, {.divisor = 128});
      after_forward_ = ctx_.memory().live_bytes - before;
      return losses;
    });
    if (measured) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  index_t after_forward() const { return after_forward_; }
  index_t peak() const { return ctx_.memory().peak_bytes; }
  std::vector<double> seconds;

 private:
  train::Trainer made(const Sizes& sizes, const Way& way, const dp::StreamKeys& keys) {
    train::TrainerOptions options{.physical_batch = sizes.batch, .strategy = way.strategy};
    const auto parameters = model_.parameters().all();
    if (!way.is_private) return train::Trainer(ctx_, model_.parameters(), train::NoPrivacy{1}, keys, sizes.batch, options);
    dp::PlanOptions plan{.delta = 1e-5, .sampling_rate = 1, .steps = 1000, .dataset_size = sizes.batch};
    if (way.by_layer) {
      options.groups = per_sample::Groups::by_layer(parameters);
      plan.group_thresholds = dp::GroupClipping::uniform_thresholds(1, options.groups->count());
    }
    return train::Trainer(ctx_, model_.parameters(), dp::Plan::with_noise_multiplier(plan, 1), keys, sizes.batch, options);
  }
  Context ctx_;
  nn::Transformer model_;
  train::Trainer trainer_;
  index_t after_forward_ = 0;
};

void measure(const Sizes& sizes, const Way& way, DType dtype) {
  const dp::StreamKeys keys(dp::random_key());
  Run runs[] = {{sizes, way, dtype, Checkpointing::none, keys},
                {sizes, way, dtype, Checkpointing::selective, keys},
                {sizes, way, dtype, Checkpointing::block, keys}};
  for (int k = 0; k <= sizes.repetitions; ++k)
    for (Run& run : runs) run.step(k > 0);  // the first one makes primitives and takes memory from the system
  const char* names[] = {"none", "selective", "block"};
  for (int r = 0; r < 3; ++r) {
    std::vector<double> ratios;
    for (std::size_t k = 0; k < runs[r].seconds.size(); ++k) ratios.push_back(runs[r].seconds[k] / runs[0].seconds[k]);
    std::printf("| %s | %s | %s | %.0f | %.2f | %.1f | %.1f | %.2f |\n", std::string(name_of(dtype)).c_str(), way.name,
                names[r], 1e3 * median(runs[r].seconds), median(ratios), double(runs[r].after_forward()) / 1e6,
                double(runs[r].peak()) / 1e6, double(runs[r].peak()) / double(runs[0].peak()));
  }
  std::fflush(stdout);
}
}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int k, index_t otherwise) {
    return argc > k ? std::max<index_t>(1, index_t(std::atoll(argv[k]))) : otherwise;
  };
  const Sizes sizes{.repetitions = int(argument(1, 5)),
                    .layers = argument(2, 8),
                    .batch = argument(3, 16),
                    .threads = int(argument(4, 2))};
  std::printf("%lld layers, %lld samples, %d threads; kernels: %s; median of %d\n\n", static_cast<long long>(sizes.layers),
              static_cast<long long>(sizes.batch), sizes.threads, std::string(name_of(best_isa())).c_str(),
              sizes.repetitions);
  std::printf(
      "| dtype | step | blocks keep | ms | / none | MB after forward | peak MB | / none |\n"
      "|---|---|---|---|---|---|---|---|\n");
  const Way ways[] = {{"plain", false},
                      {"a group for each layer", true, true},
                      {"two-pass", true, false, {.strategy = Strategy::two_pass}},
                      {"automatic", true},
                      {"book-keeping", true, false, {.strategy = Strategy::book_keeping}}};
  for (DType dtype : {DType::f32, DType::bf16})
    for (const Way& way : ways) measure(sizes, way, dtype);
}

// SPDX-License-Identifier: Apache-2.0
// Peak memory of a training step, and what a memory budget costs: a GPT of vocabulary 256, width 256, 4 heads, 128 tokens,
// untied, AdamW. Peaks are exact and independent of what else runs; times are medians of paired ratios of interleaved steps.
//   bench_memory peaks [layers] [slots]
//     plain and private, f32 and bf16, what blocks keep; predicted (train::plan_memory) and measured, and against goals
//   bench_memory budget [layers] [slots] [rounds] [threads]
//     private steps within 1.25 times the plain step's peak, next to what is chosen without a budget
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dpmp/dpmp.hpp>
#include <map>

namespace {
using namespace dpmp;
using per_sample::Strategy;

constexpr index_t tokens = 128;
constexpr Checkpointing every_choice[] = {Checkpointing::none, Checkpointing::selective, Checkpointing::block};

struct Way {
  const char* name;
  bool is_private = true, by_layer = false;
  Strategy strategy = Strategy::automatic;
  double goal = 0;  // most of the plain step's peak; 0: none
};
constexpr Way ways[] = {{"plain", false},
                        {"a group for each layer", true, true, Strategy::automatic, 1.05},
                        {"two-pass", true, false, Strategy::two_pass, 1.05},
                        {"book-keeping", true, false, Strategy::book_keeping, 1.25},
                        {"automatic", true, false, Strategy::automatic}};

/// A model, its trainer and its steps.
class Run {
 public:
  Run(index_t layers, index_t slots, int threads, DType dtype, const Way& way, std::optional<Checkpointing> kept,
      std::optional<index_t> budget = {})
      : ctx_(Device::cpu(), threads),
        model_(ctx_, {.vocabulary = 256, .width = 256, .layers = layers, .heads = 4, .context = tokens}, dtype),
        options_{
            .physical_batch = slots, .strategy = {.strategy = way.strategy}, .checkpointing = kept, .memory_budget = budget},
        trainer_(made(way, slots)) {}
  Run(const Run&) = delete;

  auto losses() {
    return [this](const train::Batch& batch) {
      const index_t before = ctx_.memory().live_bytes;
      std::vector<std::int32_t> ids;
      for (const index_t s : batch.records)
        for (index_t t = 0; t < tokens; ++t) ids.push_back(std::int32_t((s * 37 + t * 11 + t * t) & 255));
      const Tensor x = Tensor::from(ctx_, {batch.size(), tokens}, ids);
      const Variable loss = cross_entropy(model_(batch.tape, x), x, {.divisor = double(tokens)});
      after_forward_ = ctx_.memory().live_bytes - before;
      return loss;
    };
  }
  double step() {
    const auto start = std::chrono::steady_clock::now();
    trainer_.step(losses());
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  /// Of the second step: what the first one leaves is a part of it.
  index_t peak() {
    step();
    base_ = ctx_.memory().live_bytes;
    ctx_.reset_peak_memory();
    step();
    return ctx_.memory().peak_bytes;
  }
  /// In use between steps: weights, optimiser, sums.
  index_t base() const { return base_; }
  index_t after_forward() const { return after_forward_; }
  std::string largest(std::size_t n) const {
    std::string text;
    const std::vector<MemoryUse> uses = ctx_.memory_uses_at_peak();
    for (std::size_t k = 0; k < std::min(n, uses.size()); ++k)
      text += (k > 0 ? ", " : "") + uses[k].name + " " + std::to_string((uses[k].bytes + 50000) / 100000 / 10) + "." +
              std::to_string((uses[k].bytes + 50000) / 100000 % 10);
    return text;
  }
  train::Trainer& trainer() { return trainer_; }

 private:
  train::Trainer made(const Way& way, index_t slots) {
    const dp::StreamKeys keys(dp::random_key());
    if (!way.is_private) return train::Trainer(ctx_, model_.parameters(), train::NoPrivacy{1}, keys, slots, options_);
    dp::PlanOptions plan{.delta = 1e-5, .sampling_rate = 1, .steps = 10000, .dataset_size = slots};
    if (way.by_layer) {
      options_.groups = per_sample::Groups::by_layer(model_.parameters().all());
      plan.group_thresholds = dp::GroupClipping::uniform_thresholds(1, options_.groups->count());
    }
    return train::Trainer(ctx_, model_.parameters(), dp::Plan::with_noise_multiplier(plan, 1), keys, slots, options_);
  }
  Context ctx_;
  nn::Transformer model_;
  train::TrainerOptions options_;
  train::Trainer trainer_;
  index_t after_forward_ = 0, base_ = 0;
};

double megabytes(index_t bytes) { return double(bytes) / 1e6; }

/// Predictions for the model of a run, without its trainer.
train::MemoryPlan plan_of(index_t layers, DType dtype, bool by_layer) {
  Context ctx(Device::cpu(), 1);
  nn::Transformer model(ctx, {.vocabulary = 256, .width = 256, .layers = layers, .heads = 4, .context = tokens}, dtype);
  train::TrainerOptions options;
  if (by_layer) options.groups = per_sample::Groups::by_layer(model.parameters().all());
  return train::plan_memory(ctx, model.parameters(), options, [&](const train::Batch& batch) {
    const Tensor x = Tensor::zeros(ctx, {batch.size(), tokens}, DType::i32);
    return cross_entropy(model(batch.tape, x), x, {.divisor = double(tokens)});
  });
}

int peaks(index_t layers, index_t slots) {
  std::printf("%lld layers, %lld slots of %lld tokens; MB\n\n", static_cast<long long>(layers),
              static_cast<long long>(slots), static_cast<long long>(tokens));
  std::printf(
      "| dtype | step | blocks keep | predicted | peak | / plain | goal | above what is there between steps | / f32's | "
      "tape after the forward pass | / f32's | largest uses |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  std::map<std::pair<std::string, Checkpointing>, std::pair<index_t, index_t>> of_f32;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const train::MemoryPlan plans[] = {plan_of(layers, dtype, false), plan_of(layers, dtype, true)};
    std::map<Checkpointing, index_t> plain;
    for (const Way& way : ways)
      for (const Checkpointing kept : every_choice) {
        Run run(layers, slots, 1, dtype, way, kept);
        const index_t peak = run.peak(), above = peak - run.base();
        if (!way.is_private) plain[kept] = peak;
        auto& narrow = of_f32[{way.name, kept}];
        if (dtype == DType::f32) narrow = {above, run.after_forward()};
        char predicted[32] = "-", goal[32] = "-";
        if (way.is_private)
          std::snprintf(predicted, sizeof predicted, "%.1f",
                        megabytes(plans[way.by_layer].of(way.strategy, kept).peak_bytes(slots)));
        const double ratio = double(peak) / double(plain[kept]);
        if (way.goal > 0) std::snprintf(goal, sizeof goal, "%.2f%s", way.goal, ratio <= way.goal ? "" : " missed");
        std::printf("| %s | %s | %s | %s | %.1f | %.3f | %s | %.1f | %.2f | %.1f | %.2f | %s |\n",
                    std::string(name_of(dtype)).c_str(), way.name, std::string(train::kept_by(kept)).c_str(), predicted,
                    megabytes(peak), ratio, goal, megabytes(above), double(above) / double(narrow.first),
                    megabytes(run.after_forward()), double(run.after_forward()) / double(narrow.second),
                    run.largest(3).c_str());
        std::fflush(stdout);
      }
  }
  return 0;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int budget(index_t layers, index_t slots, int rounds, int threads) {
  std::printf("%lld layers, %lld slots, %d threads, %d rounds\n\n", static_cast<long long>(layers),
              static_cast<long long>(slots), threads, rounds);
  std::printf(
      "| dtype | plain peak MB | unbounded | peak MB | chosen within 1.25 x plain | peak MB | / plain | price / unbounded's "
      "| time / unbounded's, median (quartiles) |\n|---|---|---|---|---|---|---|---|---|\n");
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const index_t plain = Run(layers, slots, threads, dtype, ways[0], Checkpointing::none).peak();
    Run unbounded(layers, slots, threads, dtype, ways[4], Checkpointing::none, index_t(1) << 50);
    Run bounded(layers, slots, threads, dtype, ways[4], std::nullopt, plain + plain / 4);
    const index_t peaks[] = {unbounded.peak(), bounded.peak()};
    std::vector<double> ratios;
    for (int k = 0; k < rounds; ++k) {
      // The other one first in every second round.
      const double first = (k % 2 ? bounded : unbounded).step(), second = (k % 2 ? unbounded : bounded).step();
      ratios.push_back(k % 2 ? first / second : second / first);
    }
    std::sort(ratios.begin(), ratios.end());
    const train::TriedWay &free = unbounded.trainer().memory_choice()->chosen(),
                          &held = bounded.trainer().memory_choice()->chosen();
    std::printf("| %s | %.1f | %s | %.1f | %s | %.1f | %.3f | %.3f | %.3f (%.3f, %.3f) |\n",
                std::string(name_of(dtype)).c_str(), megabytes(plain), free.way.text().c_str(), megabytes(peaks[0]),
                held.way.text().c_str(), megabytes(peaks[1]), double(peaks[1]) / double(plain), held.cost / free.cost,
                median(ratios), ratios[ratios.size() / 4], ratios[ratios.size() * 3 / 4]);
    std::printf("\n%s\n", bounded.trainer().memory_choice()->text().c_str());
    std::fflush(stdout);
  }
  return 0;
}
}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int k, index_t otherwise) {
    return argc > k ? std::max<index_t>(1, index_t(std::atoll(argv[k]))) : otherwise;
  };
  try {
    if (argc > 1 && !std::strcmp(argv[1], "peaks")) return peaks(number(2, 4), number(3, 8));
    if (argc > 1 && !std::strcmp(argv[1], "budget"))
      return budget(number(2, 4), number(3, 8), int(number(4, 9)), int(number(5, 2)));
    std::fprintf(stderr, "usage: bench_memory peaks [layers] [slots] | budget [layers] [slots] [rounds] [threads]\n");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_memory: %s\n", e.what());
  }
  return 1;
}

// SPDX-License-Identifier: Apache-2.0
#include "step.hpp"

#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <dpmp/dpmp.cuh>

namespace bench {
namespace {
using namespace dpmp;
using per_sample::GradientStorage;
using per_sample::Groups;
using per_sample::Strategy;
using per_sample::StrategyOptions;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// A step from an idle GPU to an idle GPU, submission by the host included. The range is for profilers.
struct TimedStep {
  double milliseconds = 0, megabytes = 0;
  TimedStep(Context& ctx, const char* range, const auto& step) {
    ctx.backend().synchronize();
    ctx.reset_peak_memory();
    const index_t before = ctx.memory().live_bytes;
    nvtxRangePushA(range);
    const auto start = std::chrono::steady_clock::now();
    step();
    ctx.backend().synchronize();
    milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    nvtxRangePop();
    megabytes = double(ctx.memory().peak_bytes - before) / 1e6;
  }
};

StepRow measure(const StepOptions& o, const char* clipping, const char* strategy, bool by_layer,
                const StrategyOptions& how) {
  Context ctx(Device::cuda(0));
  const nn::Transformer model(ctx,
                              {.vocabulary = o.vocabulary,
                               .width = o.width,
                               .layers = o.layers,
                               .heads = o.heads,
                               .context = o.context,
                               .tied = true,
                               .feed_forward = nn::FeedForward::gelu_tanh},
                              parse_dtype(o.dtype));
  const auto parameters = model.parameters().all();
  // Sampling rate 1 of `batch` records: every step has exactly that many.
  train::TrainerOptions options{.physical_batch = o.batch, .strategy = how};
  const dp::StreamKeys keys(dp::random_key());
  train::PlainTrainer plain(ctx, model.parameters(), 1, keys, o.batch, options);
  options.groups = by_layer ? Groups::by_layer(parameters) : Groups::flat(parameters);
  dp::PlanOptions wanted{.delta = 1e-5, .sampling_rate = 1, .steps = 1000, .dataset_size = o.batch};
  if (by_layer) {
    const std::size_t groups = std::size_t(options.groups->count());
    wanted.group_thresholds.assign(groups, 1 / std::sqrt(double(groups)));
  }
  train::PrivateTrainer secret(ctx, model.parameters(), dp::Plan::with_noise_multiplier(wanted, 1), keys, o.batch, options);

  const auto losses = [&](Tape& tape, std::span<const index_t> slots) {
    std::vector<std::int32_t> ids;
    for (const index_t s : slots)
      for (index_t t = 0; t < o.context; ++t) ids.push_back(std::int32_t((s * 37 + t * 11 + t * t) % o.vocabulary));
    const Tensor x = Tensor::from(ctx, {index_t(slots.size()), o.context}, ids);
    return cross_entropy(model(tape, x), x, {.divisor = double(o.context)});
  };
  const auto plain_step = [&] { plain.step(losses); };
  const auto private_step = [&] { secret.step(losses); };

  StepRow row{clipping, strategy};
  std::vector<double> plain_ms, private_ms, ratios;
  // Algorithms are chosen and memory is taken from the system in the first steps.
  TimedStep(ctx, "warm-up", plain_step), TimedStep(ctx, "warm-up", private_step);
  for (int k = 0; k < o.repetitions; ++k) {
    const TimedStep p(ctx, "plain", plain_step), s(ctx, "private", private_step);
    plain_ms.push_back(p.milliseconds), private_ms.push_back(s.milliseconds);
    ratios.push_back(s.milliseconds / p.milliseconds);
    row.plain_mb = p.megabytes, row.private_mb = s.megabytes;
  }
  row.plain_ms = median(plain_ms), row.private_ms = median(private_ms), row.ratio = median(ratios);
  return row;
}
}  // namespace

std::vector<StepRow> measure_steps(const StepOptions& o) {
  const struct {
    const char *clipping, *strategy;
    bool by_layer;
    StrategyOptions options;
  } ways[] = {{"flat", "book-keeping", false, {.strategy = Strategy::book_keeping}},
              {"flat", "automatic", false, {}},
              {"flat", "automatic, narrow", false, {.gradients = GradientStorage::compute}},
              {"per layer", "book-keeping", true, {.strategy = Strategy::book_keeping}},
              {"per layer", "automatic", true, {}},
              {"per layer", "automatic, narrow", true, {.gradients = GradientStorage::compute}}};
  std::vector<StepRow> rows;
  for (const auto& way : ways) {
    const std::string range = std::string(way.clipping) + ", " + way.strategy;
    nvtxRangePushA(range.c_str());
    rows.push_back(measure(o, way.clipping, way.strategy, way.by_layer, way.options));
    nvtxRangePop();
  }
  return rows;
}
}  // namespace bench

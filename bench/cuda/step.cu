// SPDX-License-Identifier: Apache-2.0
#include "step.hpp"

#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <dpmp/dpmp.cuh>
#include <dpmp/per_sample/sum_sink.hpp>
#include <vector>

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

struct Way {
  const char *clipping, *strategy;
  bool by_layer;
  StrategyOptions options;
  std::string name() const { return std::string(clipping) + ", " + strategy; }
};

/// A GPT on the GPU, and what its trainers share.
class StepBench {
 public:
  StepBench(const StepOptions& options, const Way& way)
      : o_(options),
        way_(way),
        ctx_(Device::cuda(0)),
        model_(ctx_,
               {.vocabulary = o_.vocabulary,
                .width = o_.width,
                .layers = o_.layers,
                .heads = o_.heads,
                .context = o_.context,
                .tied = true,
                .feed_forward = nn::FeedForward::gelu_tanh},
               parse_dtype(o_.dtype)),
        parameters_(model_.parameters().all().begin(), model_.parameters().all().end()),
        groups_(way.by_layer ? Groups::by_layer(parameters_) : Groups::flat(parameters_)),
        plan_(plan()) {}

  StepRow measure() {
    StepRow row{way_.clipping, way_.strategy, o_.batch};
    trained(row);
    if (o_.graphs) {
      row.plain_graph_ms = replayed("plain graph", [&](auto& sums, const Batch& batch) {
        per_sample::SumSink sink(sums);
        Tape tape(ctx_, o_.batch, TapeMode::training, RecordsAre::open);
        tape.backward(loss(tape, batch), sink, batch.weights);
      });
      per_sample::ClippedSumSink sink(groups_, way_.options);
      const dp::StepPlan numbers = plan_.first_step();
      row.private_graph_ms = replayed(
          "private graph",
          [&](auto& sums, const Batch& batch) {
            train::accumulate_clipped(
                ctx_, [&](const train::Batch& b) { return loss(b.tape, batch); },
                {.slots = batch.slots, .weights = batch.weights}, numbers.groups, sink, sums);
          },
          &numbers);
    }
    return row;
  }

 private:
  /// The records of a step where a graph finds them.
  struct Batch {
    std::vector<index_t> slots;
    Tensor ids, weights;
  };

  /// Sampling rate 1 of `batch` records: every step has exactly that many.
  dp::Plan plan() const {
    dp::PlanOptions wanted{.delta = 1e-5, .sampling_rate = 1, .steps = 1000, .dataset_size = o_.batch};
    if (way_.by_layer) {
      const std::size_t groups = std::size_t(groups_.count());
      wanted.group_thresholds.assign(groups, 1 / std::sqrt(double(groups)));
    }
    return dp::Plan::with_noise_multiplier(wanted, 1);
  }
  Tensor ids(std::span<const index_t> slots) {
    std::vector<std::int32_t> values;
    for (const index_t s : slots)
      for (index_t t = 0; t < o_.context; ++t) values.push_back(std::int32_t((s * 37 + t * 11 + t * t) % o_.vocabulary));
    return Tensor::from(ctx_, {index_t(slots.size()), o_.context}, values);
  }
  Variable loss(Tape& tape, const Batch& batch) {
    return cross_entropy(model_(tape, batch.ids), batch.ids, {.divisor = double(o_.context)});
  }

  /// Steps of the two trainers, in turns.
  void trained(StepRow& row) {
    const train::TrainerOptions options{.physical_batch = o_.batch, .strategy = way_.options, .groups = groups_};
    const dp::StreamKeys keys(dp::random_key());
    train::Trainer plain(ctx_, model_.parameters(), train::NoPrivacy{1}, keys, o_.batch, options);
    train::Trainer secret(ctx_, model_.parameters(), plan_, keys, o_.batch, options);
    const auto losses = [&](const train::Batch& b) { return loss(b.tape, {{}, ids(b.records), {}}); };
    const auto plain_step = [&] { plain.step(losses); };
    const auto private_step = [&] { secret.step(losses); };

    std::vector<double> plain_ms, private_ms, ratios;
    // Algorithms are chosen and memory is taken from the system in the first steps.
    TimedStep(ctx_, "warm-up", plain_step), TimedStep(ctx_, "warm-up", private_step);
    for (int k = 0; k < o_.repetitions; ++k) {
      const TimedStep p(ctx_, "plain", plain_step), s(ctx_, "private", private_step);
      plain_ms.push_back(p.milliseconds), private_ms.push_back(s.milliseconds);
      ratios.push_back(s.milliseconds / p.milliseconds);
      row.plain_mb = p.megabytes, row.private_mb = s.megabytes;
    }
    row.plain_ms = median(plain_ms), row.private_ms = median(private_ms), row.ratio = median(ratios);
  }

  /// Median of steps whose pass and update, add(sums, batch) and the optimiser's, are one graph. numbers: with noise.
  double replayed(const char* range, const auto& add, const dp::StepPlan* numbers = nullptr) {
    Batch batch;
    for (index_t k = 0; k < o_.batch; ++k) batch.slots.push_back(k);
    batch.ids = ids(batch.slots);
    batch.weights = train::slot_weights(ctx_, batch.slots, DType::f32);
    per_sample::GradientSums sums(ctx_, parameters_);
    optim::OptimiserState optimiser(ctx_, parameters_, optim::AdamW{});
    const Key256 key = dp::StreamKeys(dp::random_key()).key(dp::Stream::noise);
    const auto work = [&] {
      sums.set_zero();
      add(sums, batch);
      optimiser.update(ctx_, sums, numbers ? &key : nullptr);
    };
    index_t steps = 0;
    const auto begin = [&] {
      const optim::StepNoise noise{{key, steps++}, numbers ? numbers->noise_standard_deviation : 0};
      optimiser.begin_step(ctx_, sums, 1 / double(o_.batch), 1e-3, numbers ? &noise : nullptr);
    };
    begin(), work();
    CudaGraph graph = CudaGraph::capture(ctx_, work);
    const auto step = [&] { begin(), graph.launch(); };
    TimedStep(ctx_, "warm-up", step);
    std::vector<double> times;
    for (int k = 0; k < o_.repetitions; ++k) times.push_back(TimedStep(ctx_, range, step).milliseconds);
    return median(times);
  }

  StepOptions o_;
  Way way_;
  Context ctx_;
  nn::Transformer model_;
  std::vector<Parameter*> parameters_;
  Groups groups_;
  dp::Plan plan_;
};

/// With the first of these batches that the GPU has room for.
StepRow measure(StepOptions o, const Way& way, std::span<const std::int64_t> batches) {
  for (std::size_t k = 0;; ++k) {
    o.batch = batches[k];
    try {
      return StepBench(o, way).measure();
    } catch (const Error& e) {
      if (k + 1 == batches.size()) throw;
      std::fprintf(stderr, "%s: B = %lld: %s\n", way.name().c_str(), static_cast<long long>(o.batch), e.what());
    }
  }
}
}  // namespace

void measure_steps(const StepOptions& o, const std::function<void(const StepRow&)>& take) {
  const Way ways[] = {{"flat", "automatic", false, {}},
                      {"flat", "automatic, narrow", false, {.gradients = GradientStorage::compute}},
                      {"flat", "book-keeping", false, {.strategy = Strategy::book_keeping}},
                      {"per layer", "automatic, narrow", true, {.gradients = GradientStorage::compute}},
                      {"per layer", "automatic", true, {}},
                      {"per layer", "book-keeping", true, {.strategy = Strategy::book_keeping}}};
  static constexpr std::int64_t sizes[] = {32, 16, 8, 4, 2};
  for (const Way& way : ways) {
    if (way.name().find(o.only) == std::string::npos) continue;
    nvtxRangePushA(way.name().c_str());
    take(measure(o, way, o.batch > 0 ? std::span(&o.batch, 1) : std::span(sizes)));
    nvtxRangePop();
  }
}
}  // namespace bench

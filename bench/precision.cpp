// SPDX-License-Identifier: Apache-2.0
// What 16 bits, and each way of loss scaling, do to private training, on data that may be looked at:
//   bench_precision numbers TEXT [steps]
//     single records of a small GPT that has learnt the text for some steps, next to a float64 model of the same weights
//   bench_precision noise
//     the noise as it arrives in the weights
//   bench_precision runs TEXT [seeds] [steps] [only]
//     the main job (examples/train_gpt), private, to its end; only: a part of the names of what is to run
//   bench_precision deep [steps] [expected batch] [only]
//     1,024 tokens and 50,257 classes, whose gradients f16 loses
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <dpmp/interop/text_records.hpp>

#include "../examples/byte_text.hpp"
#include "lost_gradient.hpp"

namespace {
using namespace dpmp;
using examples::ByteRecords;

constexpr index_t tokens = 128;

struct Mode {
  const char* name;
  DType dtype;
  LossScaling scaling = {};
};
const Mode modes[] = {{"f32", DType::f32, LossScaling()},
                      {"bf16", DType::bf16, LossScaling()},
                      {"f16, no scaling", DType::f16, LossScaling()},
                      {"f16, one public scale 2^10", DType::f16, LossScaling::fixed(1024)},
                      {"f16, noisy scale", DType::f16, LossScaling::noisy()},
                      {"f16, per sample", DType::f16, LossScaling::per_sample()}};
constexpr double first_scale = 1024;  // of the noisy one

/// Options with what the mode needs: for the noisy scale a count whose noise is a quarter of what may overflow.
dp::PlanOptions with_counts(dp::PlanOptions options, const Mode& mode) {
  if (mode.scaling.kind() != LossScaling::Kind::noisy) return options;
  const double batch = options.sampling_rate * double(options.dataset_size), noise = std::max(1.0, batch / 100);
  options.overflow = dp::OverflowOptions{
      .count_noise = noise, .share = 4 * noise / batch, .growth_interval = 20, .initial_scale = first_scale};
  return options;
}

nn::TransformerConfig small_gpt(std::uint64_t seed) {
  return {.vocabulary = 256, .width = 96, .layers = 2, .heads = 4, .context = tokens, .seed = seed};
}

/// to's weights = what from computes with (values), or what its optimiser sees (masters).
void copy_weights(const nn::Transformer& from, const nn::Transformer& to, bool values) {
  Context& ctx = to.parameters().ctx();
  for (const Parameter* p : from.parameters().all()) {
    Parameter& target = to.parameters().find(p->name());
    cast_to(ctx, values ? p->value() : p->master(), target.master());
    target.refresh(ctx);
  }
}

/// Counts output-gradient rows' elements that are 0.
class ZeroCount final : public GradientSink {
 public:
  void accept(Context&, const ParameterSite& site) override {
    if (site.form != SiteForm::outer_product || site.one_hot()) return;
    for (const double x : site.b.to_doubles()) ++all_, zeros_ += x == 0;
  }
  double share() const { return double(zeros_) / double(all_); }

 private:
  index_t all_ = 0, zeros_ = 0;
};

double mean(const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += v;
  return sum / double(x.size());
}
double norm(const per_sample::GradientSums& sums) {
  double square = 0;
  for (const Tensor& t : sums.tensors())
    for (const double x : t.to_doubles()) square += x * x;
  return std::sqrt(square);
}

int numbers(const char* path, index_t steps) {
  Context ctx;
  const std::vector<std::string> lines = interop::read_text_records(path);
  const ByteRecords training(lines, tokens, false), open(lines, tokens, true);
  const nn::Transformer learnt(ctx, small_gpt(1), DType::f32);
  train::Trainer trainer(ctx, learnt.parameters(), train::NoPrivacy{64.0 / double(training.size())},
                         dp::StreamKeys(dp::random_key()), training.size(),
                         {.learning_rate = optim::LearningRate::constant(2e-3)});
  const auto losses_of = [&](const nn::Transformer& model, Tape& tape, const ByteRecords& records,
                             std::span<const index_t> slots) {
    const auto [ids, targets] = records.batch(ctx, slots);
    return cross_entropy(model(tape, ids), targets, {.divisor = double(tokens)});
  };
  for (index_t k = 0; k < steps; ++k)
    trainer.step([&](const train::Batch& b) { return losses_of(learnt, b.tape, training, b.records); });

  std::vector<index_t> slots(32);
  for (index_t k = 0; k < 32; ++k) slots[std::size_t(k)] = k;
  const index_t samples = index_t(slots.size());
  std::printf("%lld held-out records of a GPT of width 96 after %lld plain steps, losses divided by %lld tokens\n\n",
              static_cast<long long>(samples), static_cast<long long>(steps), static_cast<long long>(tokens));
  std::printf(
      "| arithmetic | norm / float64's - 1, mean of the absolute value | largest | clipped | in float64 | output "
      "gradients lost to 0 | largest released norm / C |\n|---|---|---|---|---|---|---|\n");
  double clip = 0;  // the median norm of the first mode
  for (const Mode& mode : modes) {
    const nn::Transformer model(ctx, small_gpt(1), mode.dtype), exact(ctx, small_gpt(1), DType::f64);
    copy_weights(learnt, model, false);
    copy_weights(model, exact, true);
    std::vector<double> norms64, upper, norms;
    ZeroCount zeros64, zeros;
    {
      Tape tape(ctx, samples);
      per_sample::GroupPass sink;
      tape.backward(losses_of(exact, tape, open, slots), sink);
      const per_sample::NormBounds bounds = sink.norms(ctx, samples);
      for (index_t i = 0; i < samples; ++i) norms64.push_back(bounds.norm(i));
      Tape again(ctx, samples);
      again.backward(losses_of(exact, again, open, slots), zeros64);
    }
    if (clip == 0) {
      std::vector<double> sorted = norms64;
      std::nth_element(sorted.begin(), sorted.begin() + 16, sorted.end());
      clip = sorted[16];
    }
    {
      Tape tape(ctx, samples);
      const Variable loss = losses_of(model, tape, open, slots);
      tape.backward(loss, zeros, scaled_seed(tape, loss, Tensor(), mode.scaling.of_step(first_scale)).weights);
    }
    // One pass a record in which that record alone is released, all others being there.
    per_sample::ClippedSumSink sink(per_sample::Groups::flat(model.parameters().all()), {});
    per_sample::GradientSums sums(ctx, model.parameters().all());
    double largest = 0;
    for (index_t alone = 0; alone < samples; ++alone) {
      Tape tape(ctx, samples);
      const Variable loss = losses_of(model, tape, open, slots);
      sums.set_zero();
      const auto factors = [&](index_t, const per_sample::NormBounds& bounds) {
        upper = bounds.upper();
        norms.clear();
        for (index_t i = 0; i < samples; ++i) norms.push_back(bounds.norm(i));
        std::vector<float> c(static_cast<std::size_t>(samples), 0.0f), all(c);
        dp::FlatClipping(clip, dp::ClipRule::abadi()).factors(upper, bounds.finite(), all);
        c[std::size_t(alone)] = all[std::size_t(alone)];
        return c;
      };
      per_sample::clipped_backward(tape, loss, Tensor(), sink, factors, sums, mode.scaling.of_step(first_scale));
      largest = std::max(largest, norm(sums) / clip);
    }
    std::vector<double> error;
    index_t clipped = 0, clipped64 = 0;
    for (std::size_t i = 0; i < norms.size(); ++i) {
      error.push_back(std::fabs(norms[i] / norms64[i] - 1));
      clipped += upper[i] > clip;
      clipped64 += norms64[i] > clip;
    }
    std::printf("| %s | %.2e | %.2e | %.1f %% | %.1f %% | %.3f %% | %.9f |\n", mode.name, mean(error),
                *std::max_element(error.begin(), error.end()), 100 * double(clipped) / double(samples),
                100 * double(clipped64) / double(samples), 100 * (zeros.share() - zeros64.share()), largest);
    std::fflush(stdout);
  }
  return 0;
}

/// An empty draw's step is noise alone: its moments and tails in the masters, which are what is released.
int noise() {
  Context ctx;
  const index_t side = 2048;
  std::printf("One step without records: %lld values of (weight after - before) / (rate * sigma * C / batch)\n\n",
              static_cast<long long>(side * side));
  std::printf(
      "| arithmetic | mean * sqrt(n) | variance | kurtosis - 3 | beyond 3, / expected | beyond 4 | beyond 5 | values "
      "that did not move |\n|---|---|---|---|---|---|---|---|\n");
  for (const Mode& mode : modes) {
    nn::Parameters parameters(ctx, mode.dtype, 1);
    const nn::Linear layer(parameters / "layer", side, side);
    const auto losses = [&](const train::Batch& b) {
      return mean_squared_error(layer(b.tape.input(Tensor::zeros(ctx, {b.size(), side}, mode.dtype))),
                                Tensor::zeros(ctx, {b.size(), side}, DType::f32));
    };
    const dp::PlanOptions options{
        .delta = 1e-5, .sampling_rate = 1e-9, .steps = 1, .clip_threshold = 1, .dataset_size = 256'000'000'000};
    const auto plan = dp::Plan::with_noise_multiplier(with_counts(options, mode), 1.0);
    train::Trainer trainer(ctx, parameters, plan, dp::StreamKeys(dp::random_key()), 1000,
                           {.physical_batch = 1,
                            .optimiser = optim::Sgd{},
                            .learning_rate = optim::LearningRate::constant(0.1),
                            .loss_scaling = mode.scaling});
    const std::vector<double> before = parameters.find("layer.weight").master().to_doubles();
    trainer.step(losses);
    const std::vector<double> after = parameters.find("layer.weight").master().to_doubles();
    const double unit = 0.1 * plan.at(0).noise_multiplier / plan.expected_batch(), n = double(before.size());
    double sums[3] = {}, beyond[3] = {}, still = 0;
    for (std::size_t k = 0; k < before.size(); ++k) {
      const double z = (after[k] - before[k]) / unit;
      sums[0] += z, sums[1] += z * z, sums[2] += z * z * z * z;
      for (int j = 0; j < 3; ++j) beyond[j] += std::fabs(z) > 3 + j;
      still += z == 0;
    }
    const double variance = sums[1] / n;
    std::printf("| %s | %.2f | %.5f | %.4f |", mode.name, sums[0] / std::sqrt(n), variance,
                sums[2] / n / (variance * variance) - 3);
    for (int j = 0; j < 3; ++j) std::printf(" %.3f |", beyond[j] / (n * std::erfc((3 + j) / std::sqrt(2.0))));
    std::printf(" %.0f |\n", still);
    std::fflush(stdout);
  }
  return 0;
}

/// The main job's settings (examples/train_gpt), but for the learning curve.
double run(Context& ctx, const ByteRecords& training, const ByteRecords& held_out, const Mode& mode, std::uint64_t seed,
           index_t steps) {
  const nn::Transformer model(ctx, small_gpt(seed), mode.dtype);
  const dp::PlanOptions options{.epsilon = 8,
                                .delta = 1e-5,
                                .sampling_rate = 512.0 / double(training.size()),
                                .steps = steps,
                                .clip_threshold = 1,
                                .dataset_size = training.size()};
  const auto plan = dp::Plan::calibrate(with_counts(options, mode));
  train::Trainer trainer(ctx, model.parameters(), plan, dp::StreamKeys(dp::random_key()), training.size(),
                         {.physical_batch = 64,
                          .optimiser = optim::AdamW{.weight_decay = 0},
                          .learning_rate = optim::LearningRate::cosine(4e-3, std::min<index_t>(10, steps), steps, 4e-4),
                          .loss_scaling = mode.scaling});
  for (index_t k = 0; k < steps; ++k)
    trainer.step([&](const train::Batch& b) {
      const auto [ids, targets] = training.batch(ctx, b.records);
      return cross_entropy(model(b.tape, ids), targets, {.divisor = double(tokens)});
    });
  return examples::bits_per_byte(ctx, model, held_out, held_out.size(), 64);
}

int runs(const char* path, index_t seeds, index_t steps, const std::string& only) {
  Context ctx;
  const std::vector<std::string> lines = interop::read_text_records(path);
  const ByteRecords training(lines, tokens, false), held_out(lines, tokens, true);
  std::printf(
      "Held-out bits/byte after %lld private steps (epsilon 8), a run a seed\n\n| arithmetic | mean | runs |\n|---|---|"
      "---|\n",
      static_cast<long long>(steps));
  for (const Mode& mode : modes) {
    if (std::string(mode.name).find(only) == std::string::npos) continue;
    std::vector<double> bits;
    for (index_t seed = 1; seed <= seeds; ++seed)
      bits.push_back(run(ctx, training, held_out, mode, std::uint64_t(seed), steps));
    std::printf("| %s | %.4f |", mode.name, mean(bits));
    for (const double b : bits) std::printf(" %.4f", b);
    std::printf(" |\n");
    std::fflush(stdout);
  }
  return 0;
}

/// Sequences of a small Markov chain over few of very many classes: quickly learnt by a model whose gradients arrive.
std::pair<Tensor, Tensor> chain_batch(Context& ctx, std::span<const index_t> records, index_t length, index_t classes) {
  constexpr index_t used = 256;
  std::vector<std::int32_t> ids(records.size() * std::size_t(length)), targets(ids.size());
  for (std::size_t i = 0; i < records.size(); ++i) {
    std::uint64_t state = std::uint64_t(records[i]) % used;
    for (index_t t = 0; t < length; ++t) {
      const auto class_of = [&](std::uint64_t s) { return std::int32_t(s * std::uint64_t(classes / used)); };
      ids[i * std::size_t(length) + std::size_t(t)] = class_of(state);
      const std::uint32_t draw = philox_block(5, std::uint64_t(records[i]), std::uint64_t(t)).word[0];
      state = draw % 8 == 0 ? draw / 8 % used : (state * 5 + 17) % used;
      targets[i * std::size_t(length) + std::size_t(t)] = class_of(state);
    }
  }
  const Shape shape{index_t(records.size()), length};
  return {Tensor::from(ctx, shape, ids), Tensor::from(ctx, shape, targets)};
}

int deep(index_t steps, index_t expected, const std::string& only) {
  Context ctx;
  const nn::TransformerConfig config{.vocabulary = 50257,
                                     .width = 64,
                                     .layers = 12,
                                     .heads = 4,
                                     .context = 1024,
                                     .tied = true,
                                     .seed = 1,
                                     .chunked_head = true};
  const index_t records = 4096, physical = 2;
  const double noise_multiplier = 0.01;
  std::printf(
      "%lld layers of width %lld, %lld tokens, %lld classes, logits in chunks; losses divided by the tokens; %lld private "
      "steps of about %lld records, noise multiplier %g\n\n",
      static_cast<long long>(config.layers), static_cast<long long>(config.width), static_cast<long long>(config.context),
      static_cast<long long>(config.vocabulary), static_cast<long long>(steps), static_cast<long long>(expected),
      noise_multiplier);
  std::printf(
      "| arithmetic | norm of a record's gradient less that in f32 / the latter's | of the worst parameter | values that "
      "are 0 and are not in f32 | nats a token at the start | after the steps | seconds | peak MB |\n"
      "|---|---|---|---|---|---|---|---|\n");
  const auto losses_of = [&](const nn::Transformer& model) {
    return [&](const train::Batch& b) {
      const auto [ids, targets] = chain_batch(ctx, b.records, config.context, config.vocabulary);
      return model.losses(b.tape, ids, targets, {.divisor = double(config.context)});
    };
  };
  for (const Mode& mode : modes) {
    if (std::string(mode.name).find(only) == std::string::npos) continue;
    const nn::Transformer model(ctx, config, mode.dtype);
    const auto losses = losses_of(model);
    bench::LostGradient lost;
    {
      const nn::Transformer wide(ctx, config, DType::f32);
      copy_weights(model, wide, true);
      const auto exact = bench::gradient_of(ctx, wide, losses_of(wide), 0, LossScaling()),
                 here = bench::gradient_of(ctx, model, losses, 0, mode.scaling.of_step(first_scale));
      for (std::size_t k = 0; k < exact.size(); ++k) lost.add(model.parameters().all()[k]->name(), exact[k], here[k]);
    }
    const auto open_loss = [&] {
      const index_t open[] = {5000, 5001};
      Tape tape(ctx, 2, TapeMode::inference);
      return mean(losses({tape, open}).value().to_doubles());
    };
    const dp::PlanOptions options{.delta = 1e-5,
                                  .sampling_rate = double(expected) / double(records),
                                  .steps = steps,
                                  .clip_threshold = 1,
                                  .dataset_size = records};
    const auto plan = dp::Plan::with_noise_multiplier(with_counts(options, mode), noise_multiplier);
    train::Trainer trainer(ctx, model.parameters(), plan, dp::StreamKeys(dp::random_key()), records,
                           {.physical_batch = physical,
                            .optimiser = optim::AdamW{.weight_decay = 0},
                            .learning_rate = optim::LearningRate::constant(3e-3),
                            .loss_scaling = mode.scaling});
    const double before = open_loss();
    ctx.reset_peak_memory();
    const auto start = std::chrono::steady_clock::now();
    for (index_t k = 0; k < steps; ++k) {
      trainer.step(losses);
      std::fprintf(stderr, "%s, step %lld: %.4f\n", mode.name, static_cast<long long>(k + 1), open_loss());
    }
    std::printf("| %s |", mode.name);
    lost.print();
    std::printf(" %.4f | %.4f | %.0f | %.0f |\n", before, open_loss(),
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
                double(ctx.memory().peak_bytes) / 1e6);
    std::fflush(stdout);
  }
  return 0;
}
}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const auto number = [&](int k, index_t otherwise) { return argc > k ? index_t(std::atoll(argv[k])) : otherwise; };
  try {
    if (what == "numbers" && argc > 2) return numbers(argv[2], number(3, 60));
    if (what == "noise") return noise();
    if (what == "runs" && argc > 2) return runs(argv[2], number(3, 3), number(4, 160), argc > 5 ? argv[5] : "");
    if (what == "deep") return deep(number(2, 20), number(3, 8), argc > 4 ? argv[4] : "");
    std::fprintf(
        stderr,
        "usage: bench_precision numbers TEXT [steps] | noise | runs TEXT [seeds] [steps] [only] | deep [steps] [expected]\n"
        "TEXT: one record a line, for example from: bible -f Gen1:1-Rev22:21\n");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_precision: %s\n", e.what());
  }
  return 1;
}

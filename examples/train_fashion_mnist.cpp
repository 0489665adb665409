// SPDX-License-Identifier: Apache-2.0
// Images under differential privacy: a small convolutional network learns Fashion-MNIST (Xiao, Rasul, Vollgraf 2017) by
// DP-SGD, on features that depend on no data. One image is one record and one unit of privacy; the 10000 test images are
// treated as public.
#include <unistd.h>
#include <zlib.h>  // read_fashion_mnist.hpp needs it

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <dpmp/dpmp.hpp>
#include <dpmp/train/report.hpp>
#include <iostream>
#include <optional>

#include "filter_bank.hpp"
#include "read_fashion_mnist.hpp"

namespace {
using namespace dpmp;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string data = "/usr/share/datasets/fashion-mnist", dtype = "f32", report;
  bool is_private = true, info = false;
  double epsilon = 2.7, delta = 1e-5, clip = 0.1, learning_rate = 32, momentum = 0.9, average = 0.95;
  index_t steps = 146, batch = 4096, physical_batch = 128, warm_up = 0, evaluate_every = 25;
  std::optional<index_t> limit_records;
  int threads = 0;
  std::uint64_t seed = 1;
};

Options parse(int argc, char** argv, CLI::App& app) {
  Options o;
  app.add_option("--data", o.data, "folder of the four idx files, gzip-compressed or not")->capture_default_str();
  app.add_option("--dtype", o.dtype, "activations and compute weights: f32, bf16 or f16")->capture_default_str();
  std::string privacy = "on";
  app.add_option("--private", privacy, "on: DP-SGD; off: plain training on the same batches")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str();
  app.add_option("--epsilon", o.epsilon, "target epsilon; the noise is calibrated to it")->capture_default_str();
  app.add_option("--delta", o.delta)->capture_default_str();
  app.add_option("--clip", o.clip, "clip threshold C of per-sample gradients")->capture_default_str();
  app.add_option("--steps", o.steps)->capture_default_str();
  app.add_option("--batch", o.batch, "expected records a step (Poisson)")->capture_default_str();
  app.add_option("--physical-batch", o.physical_batch, "records at once: memory and speed only")->capture_default_str();
  app.add_option("--learning-rate", o.learning_rate, "peak of the cosine schedule of SGD")->capture_default_str();
  app.add_option("--warm-up", o.warm_up, "steps")->capture_default_str();
  app.add_option("--momentum", o.momentum)->capture_default_str();
  app.add_option("--average", o.average, "decay of the running average of the weights that is evaluated; 0: none")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--limit-records", o.limit_records, "learn from the first records only");
  app.add_option("--threads", o.threads, "0: all cores")->capture_default_str();
  app.add_option("--seed", o.seed, "of the initial weights; noise and batches are keyed by the operating system")
      ->capture_default_str();
  app.add_option("--evaluate-every", o.evaluate_every, "steps between progress lines")->capture_default_str();
  app.add_option(
      "--report", o.report,
      "also write a page about the run, its guarantee and its plots to this file: .html, or .json for the guarantee "
      "alone");
  app.add_flag("--info", o.info, "print which matrix product and instruction set run");
  app.parse(argc, argv);
  o.is_private = privacy == "on";
  DPMP_CHECK(o.steps >= 1 && o.batch >= 1 && o.evaluate_every >= 1 && o.limit_records.value_or(1) >= 1,
             "expected steps, batch, evaluate-every and limit-records >= 1, got ", o.steps, ", ", o.batch, ", ",
             o.evaluate_every, ", ", o.limit_records.value_or(1));
  return o;
}

class Images {
 public:
  static constexpr index_t side = examples::FashionMnist::side, grid = side / 2, classes = examples::FashionMnist::classes,
                           channels = examples::FilterBank::channels;

  /// The first `limit` records of "train" or "t10k" in `folder`.
  Images(Context& ctx, const std::string& folder, const std::string& part, index_t limit) {
    const examples::FashionMnist data = examples::read_fashion_mnist(folder, part, limit);
    const index_t kept = data.size();
    labels_ = data.labels;
    features_.resize(std::size_t(kept * record_size));
    const examples::FilterBank filters(ctx);
    constexpr index_t block = 256;
    for (index_t first = 0; first < kept; first += block) {
      const index_t count = std::min(block, kept - first);
      const auto bytes = std::span(data.pixels).subspan(std::size_t(first * side * side), std::size_t(count * side * side));
      const std::vector<float> features = filters(Tensor::from(ctx, {count, side, side, 1}, DType::f32, bytes, 1. / 255));
      std::transform(features.begin(), features.end(), features_.begin() + first * record_size,
                     [](float v) { return from_float<f16>(v); });
    }
  }
  index_t size() const { return index_t(labels_.size()); }

  /// Features [records, grid, grid, channels] and labels [records].
  std::pair<Tensor, Tensor> batch(Context& ctx, std::span<const index_t> records, DType dtype) const {
    const index_t n = index_t(records.size());
    std::vector<float> x(records.size() * std::size_t(record_size));
    std::vector<std::int32_t> y(records.size());
    for (std::size_t i = 0; i < records.size(); ++i) {
      const f16* from = features_.data() + records[i] * record_size;
      std::transform(from, from + record_size, x.begin() + index_t(i) * record_size, [](f16 v) { return to_float(v); });
      y[i] = labels_[std::size_t(records[i])];
    }
    return {Tensor::from(ctx, {n, grid, grid, channels}, dtype, x), Tensor::from(ctx, {n}, y)};
  }
  std::int32_t label(index_t record) const { return labels_[std::size_t(record)]; }

 private:
  static constexpr index_t record_size = grid * grid * channels;
  std::vector<f16> features_;
  std::vector<std::int32_t> labels_;
};

/// Features, one convolution, one linear layer. tanh bounds the activations, and so the gradients (Papernot et al. 2021,
/// "Tempered sigmoid activations for deep learning with differential privacy", arXiv 2007.14191); group normalisation has
/// the statistics of one image only.
class Network {
 public:
  Network(Context& ctx, DType dtype, std::uint64_t seed)
      : parameters_(ctx, dtype, seed),
        feature_norm_(parameters_ / "feature_norm", Images::channels, 1),
        convolution_(parameters_ / "convolution", Images::channels, filters,
                     {.kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}}),
        norm_(parameters_ / "norm", filters, 8),
        head_(parameters_ / "head", pooled * pooled * filters, Images::classes) {}
  nn::Parameters& parameters() { return parameters_; }
  DType dtype() const { return parameters_.dtype(); }
  /// Features [B, grid, grid, channels] -> logits [B, 10].
  Variable operator()(const Variable& features) const {
    const Variable x = max_pool2d(convolution_(feature_norm_(features)), {.kernel = {2, 2}, .stride = {2, 2}});
    return head_(reshape(tanh(norm_(x)), {x.shape()[0], pooled * pooled * filters}));
  }

 private:
  static constexpr index_t filters = 16, pooled = Images::grid / 2;
  nn::Parameters parameters_;
  nn::GroupNorm feature_norm_;
  nn::Conv2d convolution_;
  nn::GroupNorm norm_;
  nn::Linear head_;
};

/// Share of images whose largest logit is that of their label.
double accuracy(Context& ctx, const Network& network, const Images& images, index_t physical_batch) {
  index_t right = 0;
  for (index_t first = 0; first < images.size(); first += physical_batch) {
    std::vector<index_t> records;
    for (index_t k = first; k < std::min(first + physical_batch, images.size()); ++k) records.push_back(k);
    Tape tape(ctx, index_t(records.size()), TapeMode::inference);
    const std::vector<double> logits =
        network(tape.input(images.batch(ctx, records, network.dtype()).first)).value().to_doubles();
    for (std::size_t i = 0; i < records.size(); ++i) {
      const auto row = logits.begin() + std::ptrdiff_t(i) * Images::classes;
      right += std::max_element(row, row + Images::classes) - row == images.label(records[i]);
    }
  }
  return double(right) / double(images.size());
}

std::string clock_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%d:%02d", int(seconds) / 60, int(seconds) % 60);
  return text;
}

int run(const Options& o) {
  Context ctx(Device::best(), o.threads);
  const DType dtype = parse_dtype(o.dtype);
  const Images training(ctx, o.data, "train", o.limit_records.value_or(std::numeric_limits<index_t>::max())),
      test(ctx, o.data, "t10k", std::numeric_limits<index_t>::max());
  std::cout << "data: " << training.size() << " images to learn, " << test.size() << " to test\n";
  Network network(ctx, dtype, o.seed);
  std::cout << "model: " << network.parameters().numel() << " parameters in " << o.dtype << ", " << ctx.threads()
            << " threads\n";
  if (o.info) std::cout << "products: " << gemm_backend_info(ctx) << "\nkernels: " << name_of(best_isa()) << '\n';
  DPMP_CHECK(o.batch <= training.size(), "expected a batch of at most the ", training.size(), " images to learn, got ",
             o.batch);
  const double rate = double(o.batch) / double(training.size());
  const train::TrainerOptions trainer_options{
      .physical_batch = o.physical_batch,
      .optimiser = optim::Sgd{.momentum = o.momentum},
      .learning_rate = optim::LearningRate::cosine(o.learning_rate, std::min(o.warm_up, o.steps), o.steps, 0)};
  const dp::StreamKeys keys(dp::random_key());
  std::optional<dp::Plan> plan;
  if (o.is_private)
    plan = dp::Plan::calibrate({.epsilon = o.epsilon,
                                .delta = o.delta,
                                .sampling_rate = rate,
                                .steps = o.steps,
                                .clip_threshold = o.clip,
                                .dataset_size = training.size()});
  std::cout << (plan ? "plan:\n" + plan->describe() : "plan: none, training without privacy\n");
  train::Trainer trainer(ctx, network.parameters(), plan ? train::Privacy(*plan) : train::NoPrivacy{rate}, keys,
                         training.size(), trainer_options);
  optim::WeightAverage average(ctx, network.parameters().all(), o.average);  // which the test images are shown
  const auto losses = [&](const train::Batch& batch) {
    const auto [images, labels] = training.batch(ctx, batch.records, dtype);
    return cross_entropy(network(batch.tape.input(images)), labels);
  };
  if (o.info && plan) std::cout << trainer.validate(losses).text();
  if (!o.report.empty()) train::check_report_path(o.report, trainer);
  std::vector<train::Progress> history;
  const auto start = Clock::now();
  double share = 0;
  for (index_t done = 1; done <= o.steps; ++done) {
    trainer.step(losses);
    average.follow();
    if (done % o.evaluate_every != 0 && done != o.steps) continue;
    average.swap();
    share = accuracy(ctx, network, test, o.physical_batch);
    average.swap();
    // How long private steps take tells how many physical batches their draws needed: no times of them (docs/pitfalls.md).
    std::string speed;
    history.push_back(train::progress_of(trainer, trainer_options.learning_rate));
    history.back().more = {{"test accuracy", share}, {train::peak_bytes_name, double(ctx.memory().peak_bytes)}};
    if (!plan) {
      const double a_step = std::chrono::duration<double>(Clock::now() - start).count() / double(done);
      history.back().more.emplace_back(train::records_per_second_name, double(o.batch) / a_step);
      speed = dpmp::detail::concat("  ", std::lround(double(o.batch) / a_step), " samples/s  ETA ",
                                   clock_text(a_step * double(o.steps - done)));
    }
    std::printf("step %4lld/%lld  test accuracy %.2f %%  epsilon %s  peak %.0f MB%s\n", static_cast<long long>(done),
                static_cast<long long>(o.steps), 100 * share,
                plan ? dp::rounded_up(plan->epsilon_after(done), 3).c_str() : "none", double(ctx.memory().peak_bytes) / 1e6,
                speed.c_str());
    std::fflush(stdout);
  }
  std::printf("trained %lld steps; all %lld test images: %.2f %% right\n", static_cast<long long>(o.steps),
              static_cast<long long>(test.size()), 100 * share);
  if (!o.report.empty())
    train::write_report(
        o.report, trainer, history,
        {.title = "Fashion-MNIST, a small convolutional network",
         .about = {{"data", dpmp::detail::concat(training.size(), " images to learn, ", test.size(), " to test")},
                   {"model", dpmp::detail::concat(network.parameters().numel(), " parameters in ", o.dtype)},
                   {"products", gemm_backend_info(ctx)}}});
  if (plan) std::cout << '\n' << trainer.privacy_statement() << '\n';
  return 0;
}
}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains a small convolutional network on Fashion-MNIST under differential privacy.");
  try {
    return run(parse(argc, argv, app));
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  } catch (const std::exception& e) {
    std::cout.flush();
    std::cerr << "train_fashion_mnist: " << e.what() << '\n';
    return 1;
  }
}

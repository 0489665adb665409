// SPDX-License-Identifier: Apache-2.0
// A diffusion transformer learns to draw the clothes of Fashion-MNIST under differential privacy, in mixed precision; at the
// end a grid of what it draws, a row for each class. One image is one record and one unit of privacy; the 10000 test images
// are treated as public. Large batches, an average of the weights and several draws of noise a record: Dockhorn, Cao,
// Vahdat, Kreis 2023 (arXiv 2210.09929).
#include <png.h>
#include <zlib.h>  // read_fashion_mnist.hpp needs it

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <optional>

#include "draw_pictures.hpp"
#include "read_fashion_mnist.hpp"

namespace {
using namespace dpmp;
using examples::DiffusionConfig;
using examples::DiffusionData;
using examples::DiffusionOptions;
using examples::DiffusionTransformer;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string data = "/usr/share/datasets/fashion-mnist", output = "train_dit_output", generate, dtype = "bf16";
  bool is_private = true, info = false, table = false, fp32_residual = false, fp32_norms = false, fp32_logits = false;
  double epsilon = 10, delta = 1e-5, clip = 0.1, learning_rate = 4e-3, average = 0.95;
  index_t steps = 200, batch = 2048, physical_batch = 64, warm_up = 10, evaluate_every = 25, evaluate_records = 500;
  index_t columns = 10;
  std::optional<index_t> limit_records;
  DiffusionConfig model;
  Checkpointing checkpointing = Checkpointing::none;
  per_sample::Strategy strategy = per_sample::Strategy::automatic;
  DiffusionOptions diffusion;
  examples::SampleOptions sampling;
  int threads = 0;
  std::string device = "cpu";
  std::uint64_t seed = 1;
};

using per_sample::Strategy;
constexpr Strategy all_strategies[] = {Strategy::automatic, Strategy::book_keeping, Strategy::two_pass,
                                       Strategy::materialised};
constexpr Checkpointing all_checkpointing[] = {Checkpointing::none, Checkpointing::selective, Checkpointing::block};

Options parse(int argc, char** argv, CLI::App& app) {
  Options o;
  app.add_option("--data", o.data, "folder of the four idx files, gzip-compressed or not")->capture_default_str();
  app.add_option("--output,--out", o.output, "folder for weights.safetensors and samples.png")->capture_default_str();
  const auto generate =
      app.add_option("--generate", o.generate, "only draw, with these weights of a model of the same options");
  app.add_flag("--table", o.table,
               "only measure: time and memory of a private step by dtype, batch up to the physical one, and checkpointing")
      ->excludes(generate);
  app.add_option("--dtype", o.dtype, "precision of activations and compute weights: f32, bf16 or f16")
      ->capture_default_str();
  app.add_flag("--fp32-residual", o.fp32_residual, "of a bf16 or f16 model: residual stream and norms in f32");
  app.add_flag("--fp32-norms", o.fp32_norms, "norms in f32");
  app.add_flag("--fp32-logits", o.fp32_logits, "predicted pixels in f32");
  std::string privacy = "on", checkpointing = "none", strategy = "automatic";
  app.add_option("--private", privacy, "on: DP-SGD; off: plain training on the same batches")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str();
  app.add_option("--epsilon", o.epsilon, "target epsilon; the noise is calibrated to it")->capture_default_str();
  app.add_option("--delta", o.delta)->capture_default_str();
  app.add_option("--clip", o.clip, "clip threshold C of per-sample gradients")->capture_default_str();
  app.add_option("--steps", o.steps)->capture_default_str();
  app.add_option("--batch", o.batch, "expected records a step (Poisson)")->capture_default_str();
  app.add_option("--physical-batch,--physical", o.physical_batch, "records at once: memory and speed only")
      ->capture_default_str();
  app.add_option("--draws", o.diffusion.draws, "draws of time and noise of a record, averaged before clipping")
      ->capture_default_str();
  app.add_option("--label-dropout", o.diffusion.label_dropout, "share of draws that are not told the class")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--learning-rate", o.learning_rate, "peak of the cosine schedule of AdamW")->capture_default_str();
  app.add_option("--warm-up", o.warm_up, "steps")->capture_default_str();
  app.add_option("--average", o.average, "decay of the running average of the weights that draws; 0: none")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--width", o.model.width)->capture_default_str();
  app.add_option("--layers", o.model.layers)->capture_default_str();
  app.add_option("--heads", o.model.heads)->capture_default_str();
  app.add_option("--patch", o.model.patch, "side of a patch in pixels, a divisor of 28")->capture_default_str();
  app.add_option("--margin", o.model.margin, "pixels around a patch that its token is shown")->capture_default_str();
  app.add_option("--checkpointing", checkpointing,
                 "what is kept of a block: none (all of it), selective or block (its input)")
      ->check(CLI::IsMember({"none", "selective", "block"}))
      ->capture_default_str();
  app.add_option("--strategy", strategy, "what is kept between norms and clipped sums: memory and speed only")
      ->check(CLI::IsMember({"automatic", "book-keeping", "two-pass", "materialised"}))
      ->capture_default_str();
  app.add_option("--limit-records", o.limit_records, "learn from the first records only");
  app.add_option("--columns", o.columns, "pictures of each class; 0: none")->capture_default_str();
  app.add_option("--sampling-steps", o.sampling.steps)->capture_default_str();
  app.add_option("--guidance", o.sampling.guidance, "1: none")->capture_default_str();
  app.add_option("--sampling-noise", o.sampling.noise, "0: DDIM, 1: DDPM")->capture_default_str();
  app.add_option("--device", o.device, "cpu, or cuda where the program was built with CUDA")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--threads", o.threads, "0: all cores")->capture_default_str();
  app.add_option("--seed", o.seed, "of initial weights and pictures; noise and batches are keyed by the operating system")
      ->capture_default_str();
  app.add_option("--evaluate-every", o.evaluate_every, "steps between progress lines")->capture_default_str();
  app.add_option("--evaluate-records", o.evaluate_records, "test images of a progress line")->capture_default_str();
  app.add_flag("--info", o.info, "print which matrix product and instruction set run");
  app.parse(argc, argv);
  o.is_private = privacy == "on";
  for (const Checkpointing how : all_checkpointing)
    if (checkpointing == name_of(how)) o.checkpointing = how;
  for (const Strategy s : all_strategies)
    if (strategy == per_sample::name_of(s)) o.strategy = s;
  o.sampling.seed = o.seed;
  o.sampling.physical_batch = o.physical_batch;
  DPMP_CHECK(o.steps >= 1 && o.batch >= 1 && o.evaluate_every >= 1 && o.evaluate_records >= 1 && o.columns >= 0 &&
                 o.limit_records.value_or(1) >= 1,
             "expected steps, batch, evaluate-every, evaluate-records and limit-records >= 1 and columns >= 0, got ",
             o.steps, ", ", o.batch, ", ", o.evaluate_every, ", ", o.evaluate_records, ", ", o.limit_records.value_or(1),
             " and ", o.columns);
  DPMP_CHECK(o.diffusion.draws >= 1, "expected draws >= 1, got ", o.diffusion.draws);
  examples::check(o.sampling);
  return o;
}

/// Writes grey pixels [height, width] as PNG; nothing is half-written.
void write_png(const std::filesystem::path& path, index_t width, index_t height, const std::vector<std::uint8_t>& pixels) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = png_uint_32(width);
  image.height = png_uint_32(height);
  image.format = PNG_FORMAT_GRAY;
  std::vector<std::uint8_t> file(PNG_IMAGE_PNG_SIZE_MAX(image));
  png_alloc_size_t bytes = file.size();
  const int written = png_image_write_to_memory(&image, file.data(), &bytes, 0, pixels.data(), 0, nullptr);
  DPMP_CHECK(written != 0, "expected a picture that libpng can write, got: ", image.message);
  AtomicFile out(path);
  out.write(file.data(), bytes);
  out.commit();
}

/// A row of pictures for each class, each twice as large as it was drawn.
void save_pictures(const Options& o, const DiffusionTransformer& model, const std::filesystem::path& path) {
  const index_t side = o.model.side, rows = o.model.classes, cell = 2 * side + 4;
  std::vector<std::int32_t> labels;
  for (index_t k = 0; k < rows * o.columns; ++k) labels.push_back(std::int32_t(k / o.columns));
  const std::vector<std::uint8_t> drawn = examples::draw_pictures(model, labels, o.sampling);
  std::vector<std::uint8_t> grid(std::size_t(rows * cell * o.columns * cell), 64);
  for (index_t k = 0; k < rows * o.columns; ++k)
    for (index_t y = 0; y < 2 * side; ++y)
      for (index_t x = 0; x < 2 * side; ++x)
        grid[std::size_t((k / o.columns * cell + y + 2) * o.columns * cell + k % o.columns * cell + x + 2)] =
            drawn[std::size_t((k * side + y / 2) * side + x / 2)];
  write_png(path, o.columns * cell, rows * cell, grid);
  std::cout << "pictures: " << path.string() << ", a row for each class\n";
}

std::string clock_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%d:%02d", int(seconds) / 60, int(seconds) % 60);
  return text;
}

nn::Precision precision_of(const Options& o, DType dtype) {
  return nn::Precision(dtype).fp32_residual(o.fp32_residual).fp32_norms(o.fp32_norms).fp32_logits(o.fp32_logits);
}

/// Images that are nobody's: times and memory of passes over them tell nothing of a record.
DiffusionData made_up_images(const Options& o, index_t records) {
  examples::FashionMnist data;
  for (index_t k = 0; k < records; ++k) {
    data.labels.push_back(std::int32_t(k % o.model.classes));
    for (index_t p = 0; p < o.model.side * o.model.side; ++p)
      data.pixels.push_back(std::uint8_t(philox_block(o.seed, std::uint64_t(k), std::uint64_t(p)).word[0]));
  }
  return {std::move(data), o.model};
}

/// Private steps of one physical batch with one choice of checkpointing, in a context of their own.
class TableRun {
 public:
  TableRun(const Options& o, const DiffusionData& data, DType dtype, Checkpointing how)
      : options_(o),
        data_(data),
        ctx_(o.device == "cuda" ? Device::cuda() : Device::cpu(), o.threads),
        model_(ctx_, o.model, precision_of(o, dtype), o.seed, how),
        trainer_(
            ctx_, model_.parameters(),
            dp::Plan::with_noise_multiplier(
                {.delta = o.delta, .sampling_rate = 1, .steps = 1000, .clip_threshold = o.clip, .dataset_size = data.size()},
                1),
            dp::StreamKeys(dp::random_key()), data.size(),
            {.physical_batch = data.size(),
             .strategy = {.strategy = o.strategy},
             .identity = [&](const Key256& secret, index_t record) { return data_.identity(secret, record); }}) {}
  TableRun(const TableRun&) = delete;
  double step() {
    ctx_.backend().synchronize();
    const auto start = Clock::now();
    trainer_.step([&](const train::Batch& b) {
      return data_.losses(model_, b.tape, b.records, *b.tape.randomness(), options_.diffusion);
    });
    ctx_.backend().synchronize();
    return std::chrono::duration<double>(Clock::now() - start).count();
  }
  void restart_peak() { ctx_.reset_peak_memory(); }
  double peak_megabytes() const { return double(ctx_.memory().peak_bytes) / 1e6; }
  std::vector<double> seconds = {};

 private:
  const Options& options_;
  const DiffusionData& data_;
  Context ctx_;
  DiffusionTransformer model_;
  train::Trainer trainer_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// The choices take turns: medians, and of each the median of its ratios to the step without checkpointing next to it.
void print_rows(const Options& o, DType dtype, index_t batch) {
  constexpr int rounds = 5;
  const DiffusionData data = made_up_images(o, batch);
  TableRun runs[] = {{o, data, dtype, Checkpointing::none},
                     {o, data, dtype, Checkpointing::selective},
                     {o, data, dtype, Checkpointing::block}};
  for (TableRun& run : runs) run.step(), run.restart_peak();
  for (int k = 0; k < rounds; ++k)
    for (TableRun& run : runs) run.seconds.push_back(run.step());
  for (int r = 0; r < 3; ++r) {
    std::vector<double> ratios;
    for (std::size_t k = 0; k < runs[r].seconds.size(); ++k) ratios.push_back(runs[r].seconds[k] / runs[0].seconds[k]);
    std::printf("%-6s %6lld %14s %12.3f %8.2f %10.1f %8.2f\n", std::string(dpmp::name_of(dtype)).c_str(),
                static_cast<long long>(batch), std::string(name_of(all_checkpointing[r])).c_str(),
                1e3 * median(runs[r].seconds) / double(batch), median(ratios), runs[r].peak_megabytes(),
                runs[r].peak_megabytes() / runs[0].peak_megabytes());
  }
  std::fflush(stdout);
}
void print_table(const Options& o, int threads) {
  std::cout << "private steps of one physical batch of made-up images, strategy " << per_sample::name_of(o.strategy) << "; "
            << o.model.text() << ", " << threads << " threads\n";
  std::printf("%-6s %6s %14s %12s %8s %10s %8s\n", "dtype", "batch", "checkpointing", "ms a record", "/ none", "peak MB",
              "/ none");
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (index_t batch = std::min<index_t>(16, o.physical_batch); batch <= o.physical_batch; batch *= 2)
      print_rows(o, dtype, batch);
}

int run(const Options& o) {
  Context ctx(o.device == "cuda" ? Device::cuda() : Device::cpu(), o.threads);
  if (o.table) {
    print_table(o, ctx.threads());
    return 0;
  }
  const nn::Precision precision = precision_of(o, parse_dtype(o.dtype));
  DiffusionTransformer model(ctx, o.model, precision, o.seed, o.checkpointing);
  std::cout << "model: " << model.parameters().numel() << " parameters in " << precision << ", " << o.model.text() << ", "
            << ctx.threads() << " threads\n";
  if (o.info) std::cout << "products: " << gemm_backend_info(ctx) << "\nkernels: " << name_of(best_isa()) << '\n';
  const std::filesystem::path folder = o.output;
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  DPMP_CHECK(!failed, "expected a folder that can be made for --output, got '", o.output, "': ", failed.message());
  for (const char* name : {"weights.safetensors", "samples.png"}) AtomicFile(folder / name);
  if (!o.generate.empty()) {
    const interop::SafetensorsFile file(o.generate);
    const auto at = file.metadata().find("model");
    const std::string theirs = at == file.metadata().end() ? "nothing about it" : at->second;
    DPMP_CHECK(theirs == o.model.text(), "expected '", o.generate, "' to have the weights of a model of ", o.model.text(),
               ", got ", theirs);
    train::load_weights(o.generate, model.parameters());
    save_pictures(o, model, folder / "samples.png");
    return 0;
  }
  const auto read = [&](const char* part, index_t limit) {
    return DiffusionData(examples::read_fashion_mnist(o.data, part, limit), o.model);
  };
  const DiffusionData training = read("train", o.limit_records.value_or(std::numeric_limits<index_t>::max())),
                      test = read("t10k", o.evaluate_records);
  std::cout << "data: " << training.size() << " images to learn, " << test.size() << " to test\n";
  DPMP_CHECK(o.batch <= training.size(), "expected a batch of at most the ", training.size(), " images to learn, got ",
             o.batch);
  const double rate = double(o.batch) / double(training.size());
  const train::TrainerOptions trainer_options{
      .physical_batch = o.physical_batch,
      .optimiser = optim::AdamW{.weight_decay = 0},
      .learning_rate =
          optim::LearningRate::cosine(o.learning_rate, std::min(o.warm_up, o.steps), o.steps, 0.1 * o.learning_rate),
      .strategy = {.strategy = o.strategy},
      .identity = [&](const Key256& secret, index_t record) { return training.identity(secret, record); }};
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
  train::Trainer trainer(ctx, model.parameters(), plan ? train::Privacy(*plan) : train::NoPrivacy{rate}, keys,
                         training.size(), trainer_options);
  optim::WeightAverage average(ctx, model.parameters().all(), o.average);
  const auto losses = [&](const train::Batch& batch) {
    return training.losses(model, batch.tape, batch.records, *batch.tape.randomness(), o.diffusion);
  };
  const auto test_losses = [&](const train::Batch& batch) {
    return test.losses(model, batch.tape, batch.records, test.open_randomness(ctx, batch.records), {.label_dropout = 0});
  };
  if (o.info && plan) std::cout << trainer.validate(losses).text();
  const auto start = Clock::now();
  train::ProgressLine line;
  while (trainer.steps() < o.steps) {
    trainer.step(losses);
    average.follow();
    const index_t done = trainer.steps();
    if (done % o.evaluate_every != 0 && done != o.steps) continue;
    average.swap();
    train::Progress progress = train::progress_of(trainer, trainer_options.learning_rate,
                                                  train::evaluate(ctx, test_losses, 0, test.size(), o.physical_batch));
    average.swap();
    progress.steps = o.steps;
    // How long private steps take tells how many physical batches their draws needed: no times of them (docs/pitfalls.md).
    std::string speed;
    if (!plan) {
      const double a_step = std::chrono::duration<double>(Clock::now() - start).count() / double(done);
      speed = dpmp::detail::concat("  ", std::lround(double(o.batch) / a_step), " samples/s  ETA ",
                                   clock_text(a_step * double(o.steps - done)));
    }
    line.keep(dpmp::detail::concat(train::progress_text(progress), "  peak ",
                                   std::lround(double(ctx.memory().peak_bytes) / 1e6), " MB", speed));
  }
  average.swap();
  train::save_weights(folder / "weights.safetensors", model.parameters(),
                      {{"steps", std::to_string(trainer.steps())}, {"model", o.model.text()}});
  std::cout << "weights: " << (folder / "weights.safetensors").string() << '\n';
  if (o.columns > 0) save_pictures(o, model, folder / "samples.png");
  if (plan) std::cout << '\n' << trainer.privacy_statement() << '\n';
  return 0;
}
}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains a small diffusion transformer on Fashion-MNIST under differential privacy.");
  try {
    return run(parse(argc, argv, app));
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  } catch (const std::exception& e) {
    std::cout.flush();
    std::cerr << "train_dit: " << e.what() << '\n';
    return 1;
  }
}

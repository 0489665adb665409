// SPDX-License-Identifier: Apache-2.0
// Time and memory of a private training step against a plain one, interleaved; forward, backward, clipping, noise, update.
// A GPT of 3.3 M parameters (vocabulary 256, width 256, 4 layers, 4 heads, 128 tokens, untied, AdamW), and layers of one
// token: an MLP 784-1024-1024-10 (SGD). Prints a Markdown table; ratios are medians of the paired ratios of one run.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <dpmp/dpmp.hpp>

namespace {
using namespace dpmp;

double seconds_of(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// GFLOP/s of a square product of this dtype: what the machine gave in this run.
double product_rate(Context& ctx, DType dtype) {
  const index_t n = 1024;
  const Tensor a = Tensor::full(ctx, {n, n}, dtype, 0.5), b = Tensor::full(ctx, {n, n}, dtype, 0.25),
               c = Tensor::empty(ctx, {n, n}, dtype);
  const GemmSpec spec{.m = n,
                      .n = n,
                      .k = n,
                      .a = {.data = a.raw(), .dtype = dtype, .row_stride = n},
                      .b = {.data = b.raw(), .dtype = dtype, .row_stride = n},
                      .out = {.data = c.raw(), .dtype = dtype, .row_stride = n}};
  double best = 1e9;
  for (int k = 0; k < 10; ++k) best = std::min(best, seconds_of([&] { gemm(ctx, spec); }));
  return 2e-9 * double(n * n * n) / best;
}

struct Gpt {
  static constexpr const char* name = "GPT";
  Context ctx;
  nn::Transformer model;
  Gpt(int threads, DType dtype)
      : ctx(Device::cpu(), threads),
        model(ctx, {.vocabulary = 256, .width = 256, .layers = 4, .heads = 4, .context = 128}, dtype) {}
  static optim::Optimiser optimiser() { return optim::AdamW{}; }
  const nn::Parameters& parameters() const { return model.parameters(); }
  Variable losses(Tape& tape, std::span<const index_t> slots) {
    std::vector<std::int32_t> ids;
    for (const index_t s : slots)
      for (index_t t = 0; t < 128; ++t) ids.push_back(std::int32_t((s * 37 + t * 11 + t * t) & 255));
    const Tensor x = Tensor::from(ctx, {index_t(slots.size()), 128}, ids);
    return cross_entropy(model(tape, x), x, {.divisor = 128});
  }
};

struct Mlp {
  static constexpr const char* name = "MLP";
  Context ctx;
  nn::Parameters all;
  nn::Linear first, second, third;
  Tensor images, labels;  // of all records, which every step draws
  Mlp(int threads, DType dtype)
      : ctx(Device::cpu(), threads),
        all(ctx, dtype, 1),
        first(all / "first", 784, 1024),
        second(all / "second", 1024, 1024),
        third(all / "third", 1024, 10) {}
  static optim::Optimiser optimiser() { return optim::Sgd{}; }
  const nn::Parameters& parameters() const { return all; }
  Variable losses(Tape& tape, std::span<const index_t> slots) {
    const index_t n = index_t(slots.size());
    if (!images.defined()) {
      std::vector<double> pixels;
      std::vector<std::int32_t> digits;
      for (const index_t s : slots) {
        for (index_t j = 0; j < 784; ++j) pixels.push_back(double((s * 31 + j * 17 + j * j) & 255) / 255);
        digits.push_back(std::int32_t(s % 10));
      }
      images = Tensor::from(ctx, {n, 784}, first.weight().dtype(), pixels);
      labels = Tensor::from(ctx, {n}, digits);
    }
    return cross_entropy(third(relu(second(relu(first(tape.input(images)))))), labels);
  }
};

template <class Model>
void measure(DType dtype, int threads, index_t batch, int repetitions) {
  struct Run : Model {
    using Model::Model;
    std::vector<double> seconds;
  };
  Run plain(threads, dtype), secret(threads, dtype);
  // Sampling rate 1 of `batch` records: every step has exactly that many.
  const train::TrainerOptions options{.physical_batch = batch, .optimiser = Model::optimiser()};
  const dp::StreamKeys keys(dp::random_key());
  train::Trainer plain_trainer(plain.ctx, plain.parameters(), train::NoPrivacy{1}, keys, batch, options);
  const auto plan = dp::Plan::with_noise_multiplier(
      {.delta = 1e-5, .sampling_rate = 1, .steps = 1000, .clip_threshold = 1, .dataset_size = batch}, 1);
  train::Trainer private_trainer(secret.ctx, secret.parameters(), plan, keys, batch, options);
  const auto losses = [](Run& run) { return [&run](const train::Batch& b) { return run.losses(b.tape, b.records); }; };
  std::vector<double> ratios;
  for (int k = 0; k <= repetitions; ++k) {
    plain.ctx.reset_peak_memory();
    secret.ctx.reset_peak_memory();
    const double p = seconds_of([&] { plain_trainer.step(losses(plain)); }),
                 s = seconds_of([&] { private_trainer.step(losses(secret)); });
    if (k == 0) continue;  // primitives are made and memory is taken from the system
    plain.seconds.push_back(p);
    secret.seconds.push_back(s);
    ratios.push_back(s / p);
  }
  std::printf("| %s | %s | %d | %lld | %.1f | %.1f | %.2f | %.1f | %.1f | %.0f |\n", Model::name,
              std::string(name_of(dtype)).c_str(), threads, static_cast<long long>(batch), 1e3 * median(plain.seconds),
              1e3 * median(secret.seconds), median(ratios), double(plain.ctx.memory().peak_bytes) / 1e6,
              double(secret.ctx.memory().peak_bytes) / 1e6, product_rate(plain.ctx, dtype));
  std::fflush(stdout);
}
}  // namespace

int main(int argc, char** argv) {
  const int repetitions = argc > 1 ? std::max(1, std::atoi(argv[1])) : 7;
  // Rows whose first words these are: bench_step 5 GPT f32 1
  const auto wanted = [&](const char* model, DType dtype, int threads, index_t batch) {
    const std::string words[] = {model, std::string(name_of(dtype)), std::to_string(threads), std::to_string(batch)};
    for (int k = 2; k < std::min(argc, 6); ++k)
      if (words[k - 2] != argv[k]) return false;
    return true;
  };
  Context ctx;
  std::printf("%s; kernels: %s; median of %d\n\n", gemm_backend_info(ctx).c_str(), std::string(name_of(best_isa())).c_str(),
              repetitions);
  std::printf(
      "| model | dtype | threads | B | plain ms | private ms | private / plain | plain peak MB | private peak MB | product "
      "GFLOP/s "
      "|\n|---|---|---|---|---|---|---|---|---|---|\n");
  for (DType dtype : {DType::f32, DType::bf16})
    for (int threads : {1, 2}) {
      for (index_t batch : {8, 32})
        if (wanted(Gpt::name, dtype, threads, batch)) measure<Gpt>(dtype, threads, batch, repetitions);
      if (wanted(Mlp::name, dtype, threads, 256)) measure<Mlp>(dtype, threads, 256, repetitions);
    }
}

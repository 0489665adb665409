// SPDX-License-Identifier: Apache-2.0
// Time and peak memory of a clipped backward pass by every strategy, interleaved: a two-layer perceptron, width to 4 width
// and back, on sequences of T tokens. Prints a Markdown table with the median time of each strategy over that of the best
// one in the same rounds: how good the choice of per_sample/cost.hpp is.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <dpmp/dpmp.hpp>

namespace {
using namespace dpmp;
using per_sample::NormChoice;
using per_sample::Strategy;

struct Candidate {
  const char* name;
  per_sample::StrategyOptions options;
  std::vector<double> seconds;
  index_t peak = 0;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Whether the medians of two interleaved series are further apart than their noise: the middle half of the paired ratios
/// lies on one side of 1.
bool separated(const std::vector<double>& x, const std::vector<double>& y) {
  std::vector<double> ratio;
  for (std::size_t k = 0; k < x.size(); ++k) ratio.push_back(x[k] / y[k]);
  std::sort(ratio.begin(), ratio.end());
  return ratio[ratio.size() / 4] > 1 || ratio[ratio.size() * 3 / 4] < 1;
}

void measure(DType dtype, int threads, index_t width, index_t tokens, int rounds) {
  Context ctx(Device::cpu(), threads);
  // About the same number of rows for all lengths, but no more samples than can be materialised.
  const index_t samples = std::clamp<index_t>(2048 / tokens, 2 * threads, 64);
  nn::Parameters parameters(ctx, dtype, 1);
  const nn::Linear up(parameters / "up", width, 4 * width), down(parameters / "down", 4 * width, width);
  std::vector<float> values(std::size_t(samples * tokens * width));
  for (std::size_t k = 0; k < values.size(); ++k) values[k] = float(int(k * 2654435761u % 255u) - 127) / 128;
  std::vector<double> wide(values.begin(), values.end());
  const Tensor x = Tensor::from(ctx, {samples, tokens, width}, dtype, wide),
               y = Tensor::zeros(ctx, {samples, tokens, width}, DType::f32);
  std::vector<Candidate> candidates{
      {"automatic", {}, {}},
      {"book-keeping, gram", {.strategy = Strategy::book_keeping, .norms = NormChoice::gram}, {}},
      {"book-keeping, instantiate", {.strategy = Strategy::book_keeping, .norms = NormChoice::instantiate}, {}},
      {"book-keeping, mixed", {.strategy = Strategy::book_keeping}, {}},
      {"two-pass, mixed", {.strategy = Strategy::two_pass}, {}},
      {"materialised", {.strategy = Strategy::materialised}, {}},
      {"materialised, narrow", {.strategy = Strategy::materialised, .gradients = per_sample::GradientStorage::compute}, {}}};
  per_sample::GradientSums sums(ctx, parameters.all());
  for (int round = -1; round < rounds; ++round)  // one to warm up
    for (std::size_t turn = 0; turn < candidates.size(); ++turn) {
      // Another one first in each round: what ran before leaves its traces in the caches.
      Candidate& c = candidates[(turn + std::size_t(round + 1)) % candidates.size()];
      per_sample::ClippedSumSink sink(per_sample::Groups::flat(parameters.all()), c.options);
      sums.set_zero();
      ctx.reset_peak_memory();
      const auto start = std::chrono::steady_clock::now();
      Tape tape(ctx, samples);
      const Variable losses = mean_squared_error(down(gelu(up(tape.input(x)))), y);
      const auto rule = [](index_t, const per_sample::NormBounds& norms) {
        std::vector<float> factors(std::size_t(norms.samples()));
        dp::FlatClipping(1).factors(norms.upper(), norms.finite(), factors);
        return factors;
      };
      per_sample::clipped_backward(tape, losses, Tensor(), sink, rule, sums);
      if (round < 0) continue;
      c.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      c.peak = ctx.memory().peak_bytes;
    }
  const Candidate& best =
      *std::min_element(candidates.begin(), candidates.end(),
                        [](const Candidate& a, const Candidate& b) { return median(a.seconds) < median(b.seconds); });
  std::printf("| %s | %lld | %lld | %lld |", std::string(name_of(dtype)).c_str(), static_cast<long long>(width),
              static_cast<long long>(tokens), static_cast<long long>(samples));
  for (const Candidate& c : candidates) {
    const bool apart = &c != &best && separated(c.seconds, best.seconds);
    std::printf(" %.1f (%.2f%s, %.0f MB) |", 1e3 * median(c.seconds), median(c.seconds) / median(best.seconds),
                apart ? "" : "=", double(c.peak) / 1e6);
  }
  std::printf("\n");
  std::fflush(stdout);
}
}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7, threads = argc > 2 ? std::atoi(argv[2]) : 2;
  if (rounds < 1 || threads < 1) {
    std::fprintf(stderr, "usage: bench_strategies [rounds >= 1] [threads >= 1]\n");
    return 1;
  }
  {
    Context ctx(Device::cpu(), threads);
    std::printf("%s; %d threads; %d rounds\nmedian ms (over the best; =: not separated from it by its noise; peak)\n\n",
                gemm_backend_info(ctx).c_str(), threads, rounds);
  }
  std::printf(
      "| dtype | width | T | B | automatic | book-keeping, gram | book-keeping, instantiate | book-keeping, mixed | "
      "two-pass, mixed | materialised | materialised, narrow |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const index_t width : {256, 768})
      for (const index_t tokens : {1, 32, 128, 512, 1024}) measure(dtype, threads, width, tokens, rounds);
}

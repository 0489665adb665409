// SPDX-License-Identifier: Apache-2.0
// Time and memory of a private training step of a GPT on a GPU against a plain one, interleaved, by clipping and strategy;
// forward, backward, clipping with certificate, noise, AdamW. A Markdown table, and the same rows as JSON. Steps lie in
// NVTX ranges named "CLIPPING, STRATEGY/plain" and ".../private", which profilers show.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "report.hpp"
#include "step.hpp"

namespace {
using namespace bench;

/// Samples of GPT-2 small that fit together with their kept per-sample gradients.
std::int64_t batch_for(std::int64_t memory_bytes) {
  const std::int64_t gibibytes = memory_bytes >> 30;
  return gibibytes >= 60 ? 32 : gibibytes >= 30 ? 16 : gibibytes >= 20 ? 8 : 2;
}

int run(StepOptions o, const std::string& json) {
  const Gpu gpu = gpu_at_hand();
  if (o.batch == 0) o.batch = batch_for(gpu.memory_bytes);
  std::printf(
      "%s; GPT with vocabulary %lld (tied), width %lld, %lld layers, %lld heads, %lld tokens; B = %lld, %s; median of "
      "%d\n\n",
      describe(gpu).c_str(), static_cast<long long>(o.vocabulary), static_cast<long long>(o.width),
      static_cast<long long>(o.layers), static_cast<long long>(o.heads), static_cast<long long>(o.context),
      static_cast<long long>(o.batch), o.dtype.c_str(), o.repetitions);
  std::printf(
      "| clipping | strategy | plain ms | private ms | private / plain | plain MB | private MB "
      "|\n|---|---|---|---|---|---|---|\n");
  nlohmann::json rows = nlohmann::json::array();
  for (const StepRow& r : measure_steps(o)) {
    std::printf("| %s | %s | %.2f | %.2f | %.3f | %.0f | %.0f |\n", r.clipping.c_str(), r.strategy.c_str(), r.plain_ms,
                r.private_ms, r.ratio, r.plain_mb, r.private_mb);
    rows.push_back({{"clipping", r.clipping},
                    {"strategy", r.strategy},
                    {"plain_ms", r.plain_ms},
                    {"private_ms", r.private_ms},
                    {"ratio", r.ratio},
                    {"plain_mb", r.plain_mb},
                    {"private_mb", r.private_mb}});
  }
  if (!json.empty())
    write_json(json, {{"program", "step"},
                      {"implementation", "dpmp"},
                      {"device", to_json(gpu)},
                      {"batch", o.batch},
                      {"dtype", o.dtype},
                      {"rows", rows}});
  return 0;
}
}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Private against plain training step of a GPT on the first GPU, as a Markdown table");
  StepOptions o;
  std::string json;
  bool tiny = false;
  const auto tiny_flag =
      app.add_flag("--tiny", tiny, "a tiny model, one repetition: for an emulated device, where times mean nothing");
  for (const auto& [name, value] : {std::pair{"--vocabulary", &o.vocabulary},
                                    {"--width", &o.width},
                                    {"--layers", &o.layers},
                                    {"--heads", &o.heads},
                                    {"--context", &o.context}})
    app.add_option(name, *value)->check(CLI::PositiveNumber)->capture_default_str()->excludes(tiny_flag);
  o.batch = 0;
  app.add_option("--batch", o.batch, "samples of a step; 0: 32, or what GPT-2 small leaves room for on a small GPU")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->excludes(tiny_flag);
  app.add_option("--dtype", o.dtype, "activations and compute weights: f32, bf16 or f16")->capture_default_str();
  app.add_option("--repetitions", o.repetitions, "a time is the median of so many")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->excludes(tiny_flag);
  app.add_option("--json", json, "also write the rows to this file");
  CLI11_PARSE(app, argc, argv);
  if (tiny) {
    o.vocabulary = 64, o.width = 64, o.layers = 1, o.heads = 1, o.context = 64, o.batch = 2;
    o.repetitions = 1;
  }
  try {
    return run(o, json);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_cuda_step: %s\n", e.what());
    return 1;
  }
}

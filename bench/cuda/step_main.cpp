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

std::string model_text(const StepOptions& o) {
  std::string text = "GPT";
  for (const auto& [what, value] : {std::pair{"vocabulary", o.vocabulary},
                                    {"width", o.width},
                                    {"layers", o.layers},
                                    {"heads", o.heads},
                                    {"tokens", o.context}})
    text += std::string(", ") + what + " " + std::to_string(value);
  return text;
}
/// "-" for what was not measured.
std::string milliseconds_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  return value > 0 ? text : "-";
}
nlohmann::json to_json(const StepRow& r, std::int64_t context) {
  const double tokens = double(r.batch * context);
  nlohmann::json row = {{"clipping", r.clipping},
                        {"strategy", r.strategy},
                        {"batch", r.batch},
                        {"plain_ms", r.plain_ms},
                        {"private_ms", r.private_ms},
                        {"ratio", r.ratio},
                        {"plain_tokens_per_s", 1e3 * tokens / r.plain_ms},
                        {"private_tokens_per_s", 1e3 * tokens / r.private_ms},
                        {"plain_mb", r.plain_mb},
                        {"private_mb", r.private_mb}};
  if (r.private_graph_ms > 0) row["plain_graph_ms"] = r.plain_graph_ms, row["private_graph_ms"] = r.private_graph_ms;
  return row;
}

int run(const StepOptions& o, const std::string& json) {
  const Gpu gpu = gpu_at_hand();
  std::printf("%s; %s; tied, %s; median of %d\n\n", describe(gpu).c_str(), model_text(o).c_str(), o.dtype.c_str(),
              o.repetitions);
  std::printf(
      "| clipping | strategy | B | plain ms | private ms | private / plain | private tokens/s | plain MB | private MB | "
      "plain "
      "ms, graph | private ms, graph |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
  nlohmann::json report = {
      {"program", "step"},
      {"implementation", "dpmp"},
      {"device", to_json(gpu)},
      {"dtype", o.dtype},
      {"model",
       {{"vocabulary", o.vocabulary}, {"width", o.width}, {"layers", o.layers}, {"heads", o.heads}, {"tokens", o.context}}},
      {"rows", nlohmann::json::array()}};
  measure_steps(o, [&](const StepRow& r) {
    const nlohmann::json row = to_json(r, o.context);
    std::printf("| %s | %s | %lld | %.2f | %.2f | %.3f | %.0f | %.0f | %.0f | %s | %s |\n", r.clipping.c_str(),
                r.strategy.c_str(), static_cast<long long>(r.batch), r.plain_ms, r.private_ms, r.ratio,
                row["private_tokens_per_s"].get<double>(), r.plain_mb, r.private_mb,
                milliseconds_text(r.plain_graph_ms).c_str(), milliseconds_text(r.private_graph_ms).c_str());
    std::fflush(stdout);
    report["rows"].push_back(row);
    if (!json.empty()) write_json(json, report);
  });
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
  app.add_option("--batch", o.batch,
                 "samples of a step; 0: for each way the largest of 32, 16, 8, 4, 2 that the GPU has room for")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->excludes(tiny_flag);
  app.add_option("--dtype", o.dtype, "activations and compute weights: f32, bf16 or f16")->capture_default_str();
  app.add_option("--repetitions", o.repetitions, "a time is the median of so many")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->excludes(tiny_flag);
  app.add_flag("--graphs", o.graphs, "each step as a CUDA graph, too");
  app.add_option("--only", o.only, "ways whose \"CLIPPING, STRATEGY\" contains this text");
  app.add_option("--json", json, "also write the rows to this file, which is complete after each of them");
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

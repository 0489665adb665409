// SPDX-License-Identifier: Apache-2.0
// Every hand-written kernel and cuBLASLt's products, at the shapes of GPT-2 small: time, part of the GPU's peak, error. A
// Markdown table, and the same rows as JSON.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "kernels.hpp"
#include "report.hpp"

namespace {
using namespace bench;

/// "61 % tensor", or "-" on a GPU without known peaks.
std::string share_text(const std::optional<Peaks>& peaks, const Work& work, double microseconds) {
  if (!peaks) return "-";
  const Roof roof = roof_of(work, *peaks, 1e-6 * microseconds);
  char text[64];
  std::snprintf(text, sizeof text, "%.0f %% %s", 100 * roof.share, roof.name);
  return text;
}
std::string error_text(const KernelRow& r) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2g", 100 * r.error.value_or(0));
  return r.error ? text : "-";
}
nlohmann::json to_json(const KernelRow& r, const std::optional<Peaks>& peaks) {
  nlohmann::json row = {{"kernel", r.kernel},    {"shape", r.shape},
                        {"dtype", r.dtype},      {"cold_us", r.cold_us},
                        {"hot_us", r.hot_us},    {"flops", r.work.tensor + r.work.fp32 + r.work.fp64},
                        {"bytes", r.work.bytes}, {"tensor_flops", r.work.tensor}};
  if (r.error) row["error_percent"] = 100 * *r.error;
  if (peaks) {
    const Roof cold = roof_of(r.work, *peaks, 1e-6 * r.cold_us), hot = roof_of(r.work, *peaks, 1e-6 * r.hot_us);
    row["roof"] = cold.name;
    row["cold_share_of_peak"] = cold.share, row["hot_share_of_peak"] = hot.share;
  }
  return row;
}

int run(const KernelOptions& options, const std::string& json) {
  const Gpu gpu = gpu_at_hand();
  const std::optional<Peaks> peaks = peaks_of(gpu.name);
  std::printf("%s; median of %d\n", describe(gpu).c_str(), options.repetitions);
  if (!peaks) std::printf("unknown GPU: no part of its peak\n");
  std::printf(
      "\n| kernel | shape | dtype | cold us | hot us | GFLOP | MB | of peak, cold | of peak, hot | error %% "
      "|\n|---|---|---|---|---|---|---|---|---|---|\n");
  nlohmann::json rows = nlohmann::json::array();
  int wrong = 0;
  measure_kernels(options, gpu, [&](const KernelRow& r) {
    std::printf("| %s | %s | %s | %.1f | %.1f | %.3g | %.3g | %s | %s | %s |\n", r.kernel.c_str(), r.shape.c_str(),
                r.dtype.c_str(), r.cold_us, r.hot_us, 1e-9 * (r.work.tensor + r.work.fp32 + r.work.fp64),
                1e-6 * r.work.bytes, share_text(peaks, r.work, r.cold_us).c_str(),
                share_text(peaks, r.work, r.hot_us).c_str(), error_text(r).c_str());
    std::fflush(stdout);
    rows.push_back(to_json(r, peaks));
    if (!json.empty())
      write_json(json,
                 {{"program", "kernels"}, {"implementation", "dpmp"}, {"device", bench::to_json(gpu)}, {"rows", rows}});
    // What is stored in bf16 is off by up to 0.4 % of itself; a wrong result is off by much more than one percent.
    wrong += r.error && !(*r.error < 0.01);
  });
  if (wrong > 0) std::fprintf(stderr, "bench_cuda_kernels: expected errors below 1 %%, got %d rows beyond\n", wrong);
  return wrong > 0 ? 1 : 0;
}
}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Times of dpmp's kernels on the first GPU, as a Markdown table");
  KernelOptions options;
  std::string json;
  app.add_flag("--tiny", options.tiny, "tiny shapes, one repetition: for an emulated device, where times mean nothing");
  const auto repetitions = app.add_option("--repetitions", options.repetitions, "a time is the median of so many")
                               ->check(CLI::PositiveNumber)
                               ->capture_default_str();
  app.add_option("--only", options.only, "kernels whose name contains this text");
  bool skip_checks = false;
  app.add_flag("--skip-checks", skip_checks, "times alone: no result is compared");
  app.add_option("--json", json, "also write the rows to this file, which is complete after each of them");
  CLI11_PARSE(app, argc, argv);
  options.check = !skip_checks;
  if (options.tiny && repetitions->count() == 0) options.repetitions = 1;
  try {
    return run(options, json);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_cuda_kernels: %s\n", e.what());
    return 1;
  }
}

// SPDX-License-Identifier: Apache-2.0
// What a plan's accounting costs: CPU seconds for one epsilon and for one calibration of the noise, by the default
// accountant. Arguments: words that the names of settings have to contain.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "dpmp/dp/plan.hpp"

namespace {
using namespace dpmp;
using dp::SamplingKind;

struct Setting {
  const char* name;
  dp::PlanOptions options;
};

std::vector<Setting> settings() {
  const dp::PlanOptions plain{.epsilon = 3, .delta = 1e-6, .sampling_rate = 0.01, .steps = 2000, .dataset_size = 50000};
  std::vector<Setting> all;
  const auto add = [&](const char* name, auto&& change) {
    Setting s{name, plain};
    change(s.options);
    all.push_back(s);
  };
  using Options = dp::PlanOptions&;
  add("poisson q 0.01, 2000 steps", [](Options) {});
  add("poisson q 0.01, 100,000 steps", [](Options o) { o.steps = 100000; });
  add("poisson q 0.0001, 1,000,000 steps",
      [](Options o) { o.sampling_rate = 1e-4, o.steps = 1000000, o.dataset_size = 10000000; });
  add("poisson q 0.0001, 1,000,000 steps, delta 1e-15",
      [](Options o) { o.sampling_rate = 1e-4, o.steps = 1000000, o.dataset_size = 10000000, o.delta = 1e-15; });
  add("delta 1e-15, 2000 steps", [](Options o) { o.delta = 1e-15; });
  add("epsilon 0.1", [](Options o) { o.epsilon = 0.1; });
  add("replace_one", [](Options o) { o.relation = dp::NeighbouringRelation::replace_one; });
  add("zero_out", [](Options o) { o.relation = dp::NeighbouringRelation::zero_out; });
  add("zero_out, adaptive threshold", [](Options o) {
    o.relation = dp::NeighbouringRelation::zero_out;
    o.adaptive = dp::AdaptiveOptions{.count_noise = 20};
  });
  add("schedule of 500 values, 10,000 steps", [](Options o) {
    o.steps = 10000;
    o.noise_schedule = dp::Schedule::cosine(1, 0.5, 10000, 500);
  });
  add("schedule of 10,000 values, 10,000 steps", [](Options o) {
    o.steps = 10000;
    o.noise_schedule = dp::Schedule::linear(1, 0.5, 10000, 10000);
  });
  add("schedule of 10,000 values, 100,000 steps", [](Options o) {
    o.steps = 100000;
    o.noise_schedule = dp::Schedule::cosine(1, 0.2, 100000, 10000);
  });
  add("truncated_poisson", [](Options o) { o.sampling.kind = SamplingKind::truncated_poisson; });
  add("without_replacement", [](Options o) {
    o.sampling = {.kind = SamplingKind::without_replacement, .batch_size = 500};
    o.sampling_rate = 0, o.relation = dp::NeighbouringRelation::replace_one;
  });
  add("cyclic_poisson, period 4", [](Options o) {
    o.sampling = {.kind = SamplingKind::cyclic_poisson, .period = 4};
    o.sampling_rate = 0.04;
  });
  for (const index_t period : {100, 10000, 1 << 20}) {
    static std::vector<std::string> names(3);
    std::string& name = names[period == 100 ? 0 : period == 10000 ? 1 : 2];
    name = "balls_in_bins, 20 epochs of " + std::to_string(period) + " steps";
    add(name.c_str(), [&](Options o) {
      o.sampling = {.kind = SamplingKind::balls_in_bins, .period = period};
      o.sampling_rate = 0, o.steps = 20 * period, o.dataset_size = 4 << 20;
    });
  }
  add("banded, 64 bands, period 64, 1,000,000 steps", [](Options o) {
    o.sampling = {.kind = SamplingKind::cyclic_poisson, .period = 64};
    o.noise_source = {.kind = dp::NoiseSourceKind::banded, .bands = 64};
    o.steps = 1000000;
  });
  add("banded, 1000 bands, period 64, 1,000,000 steps", [](Options o) {
    o.sampling = {.kind = SamplingKind::cyclic_poisson, .period = 64};
    o.noise_source = {.kind = dp::NoiseSourceKind::banded, .bands = 1000};
    o.steps = 1000000, o.sampling_rate = 1;
  });
  add("tree, period 1000, 1,000,000 steps", [](Options o) {
    o.sampling = {.kind = SamplingKind::cyclic_poisson, .period = 1000};
    o.noise_source = {.kind = dp::NoiseSourceKind::tree};
    o.steps = 1000000, o.sampling_rate = 1;
  });
  return all;
}

template <class F>
double seconds(F&& f) {
  const std::clock_t begin = std::clock();
  f();
  return double(std::clock() - begin) / CLOCKS_PER_SEC;
}
}  // namespace

int main(int argc, char** argv) try {
  std::printf("| setting | CPU s: one epsilon | CPU s: calibration | noise multiplier | epsilon |\n|---|---|---|---|---|\n");
  for (const Setting& s : settings()) {
    bool wanted = true;
    for (int k = 1; k < argc; ++k) wanted = wanted && std::strstr(s.name, argv[k]);
    if (!wanted) continue;
    double sigma = 0, epsilon = 0;
    const double calibrated = seconds([&] { sigma = dp::Plan::calibrate(s.options).noise_multiplier(); });
    dp::PlanOptions given = s.options;
    given.epsilon = 0;
    const double once = seconds([&] { epsilon = dp::Plan::with_noise_multiplier(given, sigma).epsilon(); });
    std::printf("| %s | %.3f | %.3f | %.8g | %.8g |\n", s.name, once, calibrated, sigma, epsilon);
    std::fflush(stdout);
  }
} catch (const std::exception& e) {
  std::fprintf(stderr, "bench_accounting: %s\n", e.what());
  return EXIT_FAILURE;
}

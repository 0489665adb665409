// SPDX-License-Identifier: Apache-2.0
// Plans as one build writes and another one reads them (plans_cross_builds.cmake):
//
//     plan_text write SEED > FILE      plan_text read FILE...
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "dpmp/dp/plan.hpp"
#include "support/random.hpp"

namespace {
using namespace dpmp;
using dp::Plan;

constexpr int kinds = 12;

dp::PlanOptions random_options(test::Rng& rng, int kind) {
  dp::PlanOptions o{.epsilon = std::exp(rng.uniform(-0.7, 2.1)),
                    .delta = std::exp(rng.uniform(-18, -8)),
                    .sampling_rate = std::exp(rng.uniform(-6, -1)),
                    .steps = rng.integer(20, 400),
                    .dataset_size = rng.integer(1000, 1000000)};
  const auto sampled = [&](dp::SamplingKind how, index_t batch_size, index_t period) {
    o.sampling = {.kind = how, .batch_size = batch_size, .period = period, .records_per_user = rng.integer(0, 3)};
    if (how != dp::SamplingKind::truncated_poisson && how != dp::SamplingKind::cyclic_poisson) o.sampling_rate = 0;
  };
  switch (kind) {
    case 0:
      o.sampling_rate = rng.uniform(0.1, 0.5);
      o.dataset_size = 1000000;
      o.overflow = dp::OverflowOptions{.count_noise = 5000, .share = 0.5};
      break;
    case 1:
      for (auto g = rng.integer(2, 40); g > 0; --g) o.group_thresholds.push_back(std::exp(rng.uniform(-3, 3)));
      break;
    case 2: o.adaptive = dp::AdaptiveOptions{.count_noise = 5000}; break;
    case 3: o.noise_schedule = o.clip_schedule = dp::Schedule::piecewise({{0, 1.0}, {10, 1.25}}); break;
    case 4: sampled(dp::SamplingKind::truncated_poisson, 0, 0); break;
    case 5:
      sampled(dp::SamplingKind::without_replacement, rng.integer(1, 500), 0);
      o.relation = dp::NeighbouringRelation::replace_one;
      break;
    case 6: sampled(dp::SamplingKind::balls_in_bins, 0, rng.integer(2, 30)); break;
    case 7: sampled(dp::SamplingKind::cyclic_poisson, 0, rng.integer(2, 9)); break;
    case 8: sampled(dp::SamplingKind::full_batch, 0, 0); break;
    case 9:
      o.noise_source = {.kind = dp::NoiseSourceKind::tree};
      o.sampling = {.kind = dp::SamplingKind::full_batch};
      o.sampling_rate = 0;
      break;
    case 10:
      o.noise_source = {.kind = dp::NoiseSourceKind::banded, .bands = rng.integer(2, 12)};
      o.sampling = {.kind = dp::SamplingKind::cyclic_poisson, .period = rng.integer(2, 12)};
      break;
    default:
      o.clip_threshold = std::exp(rng.uniform(-3, 3));
      o.noise_source = {
          .kind = dp::NoiseSourceKind::discrete_gaussian, .grid_bits = 20, .dimensions = rng.integer(1, 100000)};
  }
  return o;
}
int write(std::uint64_t seed) {
  test::Rng rng(seed);
  for (int kind = 0; kind < kinds; ++kind) {
    const Plan plan = Plan::calibrate(random_options(rng, kind));
    for (const auto& [name, value] : plan.text()) std::printf("%s=%s\n", name.c_str(), value.c_str());
    std::printf("epsilon=%a\n\n", plan.epsilon());
  }
  return 0;
}
struct Counts {
  int plans = 0, facts = 0, epsilons = 0;  // read; computed otherwise here
};
void read(const std::string& file, Counts& counts) {
  std::ifstream in(file);
  dp::PlanText text;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) {
      text[line.substr(0, line.find('='))] = line.substr(line.find('=') + 1);
      continue;
    }
    const double epsilon = std::strtod(text.at("epsilon").c_str(), nullptr);
    text.erase("epsilon");
    const Plan plan = Plan::from_text(text);
    if (plan.text() != text) throw Error("expected the numbers that are stored, got others");
    if (plan.epsilon() > plan.options().epsilon) throw Error("expected at most the target epsilon, got more");
    dp::PlanOptions o = plan.options();
    o.epsilon = 0;
    dp::PlanText here = Plan::with_noise_multiplier(o, plan.noise_multiplier()).text();
    here["target epsilon"] = text["target epsilon"];
    counts.facts += here != text;
    counts.epsilons += plan.epsilon() != epsilon;
    ++counts.plans;
    text.clear();
  }
}
}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "write" && argc == 3) return write(std::strtoull(argv[2], nullptr, 10));
  if (mode != "read" || argc < 3) return std::fprintf(stderr, "expected: write SEED, or read FILE...\n"), 2;
  Counts counts;
  try {
    for (int k = 2; k < argc; ++k) read(argv[k], counts);
  } catch (const Error& e) {
    return std::fprintf(stderr, "%s\n", e.what()), 1;
  }
  std::printf("%d plans; computed otherwise here: facts of %d, epsilon of %d\n", counts.plans, counts.facts,
              counts.epsilons);
  return counts.plans > 0 ? 0 : 1;
}

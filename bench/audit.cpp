// SPDX-License-Identifier: Apache-2.0
// A black-box audit: trains many times on neighbouring data sets, looks only at what is released (the weights, and the
// threshold or loss scale of a plan that has one), and states lower bounds of epsilon and mu beside what the plan claims.
// Beside each variant its power: the same run with half of the noise that the claim is about must be found. Prints a
// Markdown table, and JSON with --json FILE.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "audit_attacks.hpp"
#include "audit_variants.hpp"

namespace {
using namespace audit;

std::vector<Experiment> all_experiments(bool planted) {
  std::vector<Experiment> all = variants();
  if (planted) all.push_back(adaptive_experiment(dp::NeighbouringRelation::zero_out, 0.5));
  for (const auto relation : {dp::NeighbouringRelation::add_or_remove_one, dp::NeighbouringRelation::zero_out}) {
    all.push_back(adaptive_experiment(relation));
    all.push_back(overflow_experiment(relation));
  }
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const int threads : {1, 2})
      if (threads == 1 || dtype == DType::f32) all.push_back(slot_experiment(dtype, threads));
  for (const double rate : {0.1, 0.3}) all.push_back(dropout_experiment(rate));
  if (auto lattice = lattice_experiment())
    all.push_back(std::move(*lattice));
  else
    std::printf("float64 lattice: such a run is refused\n\n");
  return all;
}

int usage() {
  std::fprintf(
      stderr,
      "usage: bench_audit [--runs N] [--variant NAME] [--confidence P] [--seed S] [--json FILE] [--planted] [--list]\n"
      "--runs: of each data set and noise (default 4000)   --confidence: of each line (default 0.9999)\n"
      "--planted: also a mechanism that breaks its claim\n");
  return 1;
}
}  // namespace

int main(int argc, char** argv) {
  index_t runs = 4000;
  double confidence = 0.9999;
  std::uint64_t seed = std::random_device{}();
  std::string only, json;
  bool list = false, planted = false;
  for (int k = 1; k < argc; ++k) {
    const bool value = k + 1 < argc;
    if (!std::strcmp(argv[k], "--list"))
      list = true;
    else if (!std::strcmp(argv[k], "--planted"))
      planted = true;
    else if (!value)
      return usage();
    else if (!std::strcmp(argv[k], "--runs"))
      runs = std::atoll(argv[++k]);
    else if (!std::strcmp(argv[k], "--variant"))
      only = argv[++k];
    else if (!std::strcmp(argv[k], "--confidence"))
      confidence = std::atof(argv[++k]);
    else if (!std::strcmp(argv[k], "--seed"))
      seed = std::strtoull(argv[++k], nullptr, 10);
    else if (!std::strcmp(argv[k], "--json"))
      json = argv[++k];
    else
      return usage();
  }
  try {
    DPMP_CHECK(runs >= 100 && confidence > 0.5 && confidence < 1,
               "expected at least 100 runs and a confidence in (0.5, 1), got ", runs, " and ", confidence);
    const std::vector<Experiment> experiments = all_experiments(planted);
    if (list) {
      for (const Experiment& e : experiments) std::printf("%s\n", e.name.c_str());
      return 0;
    }
    std::printf(
        "seed %llu, %lld runs with and %lld without the record, half of them to choose the threshold; delta 1e-5; bounds of "
        "Clopper and Pearson, both of a line with confidence %g\n\n"
        "| variant | claimed epsilon | bound | claimed mu | bound | within the claim | with half of the noise: epsilon | mu "
        "| "
        "found |\n|---|---|---|---|---|---|---|---|---|\n",
        (unsigned long long)seed, (long long)runs, (long long)runs, confidence);
    std::ofstream out;
    if (!json.empty()) out.open(json);
    out << "{\"seed\": " << seed << ", \"runs\": " << runs << ", \"confidence\": " << confidence << ", \"variants\": [";
    bool broken = false, first = true;
    for (const Experiment& e : experiments) {
      if (!only.empty() && e.name.find(only) == std::string::npos) continue;
      std::mt19937_64 random(seed);
      const Outcome whole = run(e, runs, 1, confidence, random), half = run(e, runs, 0.5, confidence, random);
      std::printf("| %s | %.4f | %.4f | %.4f | %.4f | %s | %.4f | %.4f | %s |\n", e.name.c_str(), e.claimed_epsilon,
                  whole.result.epsilon, whole.claimed_mu, whole.result.mu, whole.above ? "**no**" : "yes",
                  half.result.epsilon, half.result.mu, half.above ? "yes" : "**no**");
      std::fflush(stdout);
      out << (first ? "" : ",") << "\n  {\"variant\": \"" << e.name << "\", \"claimed_epsilon\": " << e.claimed_epsilon
          << ", \"epsilon\": " << whole.result.epsilon << ", \"claimed_mu\": " << whole.claimed_mu
          << ", \"mu\": " << whole.result.mu << ", \"within_claim\": " << (whole.above ? "false" : "true")
          << ", \"half_noise_epsilon\": " << half.result.epsilon << ", \"half_noise_mu\": " << half.result.mu
          << ", \"half_noise_found\": " << (half.above ? "true" : "false") << "}";
      first = false;
      broken = broken || whole.above || !half.above;
    }
    out << "\n]}\n";
    return broken ? 2 : 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

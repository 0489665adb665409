// SPDX-License-Identifier: Apache-2.0
// For compare_accountants.py: reads lines "relation q sigma steps delta" and writes for each the least and the largest
// epsilon by privacy-loss distributions, that by Renyi divergences (-1 where they do not hold), the CPU time in
// milliseconds, and a batch size. "truncated_poisson q sigma steps delta units lowered" is a plan's epsilon, without a least
// one, where the chosen batch size is nearer to the mean by this share; the batch size is 0 where the plan refuses it, else
// 1 of no meaning.
#include <cstdio>
#include <ctime>
#include <iostream>
#include <string>

#include "dpmp/dp/plan.hpp"

using namespace dpmp;

namespace {
void truncated(dp::PlanOptions o, double sigma, double lowered) {
  o.sampling.kind = dp::SamplingKind::truncated_poisson;
  const double chosen = double(dp::completed_options(o).sampling.batch_size),
               mean = o.sampling_rate * double(o.dataset_size);
  o.sampling.batch_size = index_t(chosen - lowered * (chosen - mean));
  try {
    const std::clock_t begin = std::clock();
    const double above = dp::Plan::with_noise_multiplier(o, sigma).epsilon();
    const double spent = double(std::clock() - begin) * 1e3 / CLOCKS_PER_SEC;
    std::printf("0 %.17g -1 %.3f %lld\n", above, spent, (long long)o.sampling.batch_size);
  } catch (const Error&) {
    std::printf("0 0 -1 0 0\n");
  }
}
}  // namespace

int main() {
  std::string relation;
  double q = 0, sigma = 0, delta = 0;
  index_t steps = 0;
  while (std::cin >> relation >> q >> sigma >> steps >> delta) {
    if (relation == "truncated_poisson") {
      index_t units = 0;
      double lowered = 0;
      std::cin >> units >> lowered;
      truncated({.delta = delta, .sampling_rate = q, .steps = steps, .dataset_size = units}, sigma, lowered);
      continue;
    }
    dp::StepMechanism step{.sampling_rate = q, .noise_multiplier = sigma};
    const bool replaced = relation == "replace_one";
    if (replaced) step.relation = dp::NeighbouringRelation::replace_one;
    if (relation == "without_replacement") step.kind = dp::StepMechanism::Kind::poisson_gaussian_difference;
    dp::PldAccountant pld;
    pld.add_steps(step, steps);
    dp::RdpAccountant rdp;
    rdp.add_steps(q, sigma, steps);
    const std::clock_t begin = std::clock();
    const double above = pld.epsilon(delta), spent = double(std::clock() - begin) * 1e3 / CLOCKS_PER_SEC;
    std::printf("%.17g %.17g %.17g %.3f 1\n", pld.least_epsilon(delta), above,
                relation == "add_or_remove_one" ? rdp.epsilon(delta) : -1.0, spent);
  }
}

// SPDX-License-Identifier: Apache-2.0
// For compare_accountants.py: reads lines "relation q sigma steps delta" and writes for each the least and the largest epsilon
// by privacy-loss distributions, that by Renyi divergences (-1 where they do not hold), and the CPU time in milliseconds.
#include <cstdio>
#include <ctime>
#include <iostream>
#include <string>

#include "dpmp/dp/pld_accountant.hpp"
#include "dpmp/dp/rdp_accountant.hpp"

using namespace dpmp;

int main() {
  std::string relation;
  double q = 0, sigma = 0, delta = 0;
  index_t steps = 0;
  while (std::cin >> relation >> q >> sigma >> steps >> delta) {
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
    std::printf("%.17g %.17g %.17g %.3f\n", pld.least_epsilon(delta), above,
                relation == "add_or_remove_one" ? rdp.epsilon(delta) : -1.0, spent);
  }
}

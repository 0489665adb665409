// SPDX-License-Identifier: Apache-2.0
// The smallest private release: the mean of some numbers. A plan says how much noise epsilon and delta ask for, its ledger
// counts what is released, and the statement says what is promised.
#include <algorithm>
#include <dpmp/dpmp.hpp>
#include <iostream>
using namespace dpmp;

int main() {
  Context ctx(Device::cpu());
  const index_t records = 10000;  // ages, say: one number a person
  const double most = 100;        // no number counts for more; public, and chosen without looking
  std::vector<double> ages;
  for (index_t r = 0; r < records; ++r)
    ages.push_back(18 + 60 * double(uniform_open(philox_block(1, std::uint64_t(r), 0).word[0])));

  for (const double epsilon : {0.1, 1.0, 10.0}) {
    const auto plan = dp::Plan::calibrate({.epsilon = epsilon,
                                           .delta = 1e-6,
                                           .sampling_rate = 1,  // everybody counts, once
                                           .steps = 1,
                                           .clip_threshold = most,
                                           .dataset_size = records});
    dp::StepLedger ledger = plan.ledger(dp::StreamKeys(dp::random_key()));
    dp::StepTicket ticket = ledger.begin_step();
    std::vector<double> sum(1, 0.0);
    for (const double age : ages) sum[0] += std::clamp(age, 0.0, most);
    dp::add_gaussian_noise(ctx.team(), sum, plan.noise_standard_deviation(), ticket.noise(), 0);
    std::cout << "epsilon " << epsilon << ": mean " << sum[0] / double(records) << ", noise of standard deviation "
              << plan.noise_standard_deviation() / double(records) << '\n';
    if (epsilon == 1.0) std::cout << dp::privacy_statement(plan, ledger.steps()) << '\n';
  }
}

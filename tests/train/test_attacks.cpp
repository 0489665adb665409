// SPDX-License-Identifier: Apache-2.0
// Attacks on the guarantee as black boxes: train many times, look at what is released, and prove a lower bound of epsilon
// and mu. None may be above what the plan claims, by more than an accident of probability 10^-7 explains; and each
// attack must find a run with half of the noise, or it would show nothing.
#include <doctest/doctest.h>

#include <cstdio>

#include "../../bench/audit_attacks.hpp"
#include "support/random.hpp"

namespace {
constexpr double confidence = 1 - 1e-7;

void check(const audit::Experiment& e, dpmp::index_t runs, std::uint64_t stream) {
  CAPTURE(e.name);
  std::mt19937_64 random(test::seed() + stream);
  const audit::Outcome whole = audit::run(e, runs, 1, confidence, random),
                       half = audit::run(e, runs, 0.5, confidence, random);
  std::printf("%s, %lld + %lld runs: epsilon claimed %.3f, at least %.3f (half of the noise: %.3f); mu %.3f, %.3f (%.3f)\n",
              e.name.c_str(), (long long)runs, (long long)runs, e.claimed_epsilon, whole.result.epsilon, half.result.epsilon,
              whole.claimed_mu, whole.result.mu, half.result.mu);
  CHECK(whole.result.epsilon <= e.claimed_epsilon);
  CHECK(whole.result.mu <= whole.claimed_mu);
  CHECK(half.above);
}
}  // namespace

TEST_CASE("P34: attack: a removed record moves all others by a slot, and their gradients turn with their roundings") {
  for (const dpmp::DType dtype : {dpmp::DType::f32, dpmp::DType::bf16, dpmp::DType::f16})
    check(audit::slot_experiment(dtype, dtype == dpmp::DType::f32 ? 2 : 1), 2000, 1 + std::uint64_t(dtype));
}

TEST_CASE("P18: attack: an emptied record changes the count that an adaptive threshold follows") {
  using dpmp::dp::NeighbouringRelation;
  check(audit::adaptive_experiment(NeighbouringRelation::zero_out), 3000, 10);
  check(audit::adaptive_experiment(NeighbouringRelation::add_or_remove_one), 3000, 11);
  // What an emptied record changes, taken for what a removed one does: the attack must find it.
  const audit::Experiment halved = audit::adaptive_experiment(NeighbouringRelation::zero_out, 0.5);
  std::mt19937_64 random(test::seed() + 12);
  const audit::Outcome found = audit::run(halved, 3000, 1, confidence, random);
  std::printf("%s, 3000 + 3000 runs: epsilon claimed %.3f, at least %.3f; mu %.3f, %.3f\n", halved.name.c_str(),
              halved.claimed_epsilon, found.result.epsilon, found.claimed_mu, found.result.mu);
  CHECK(found.result.mu > found.claimed_mu);
}

TEST_CASE("P11: attack: a record that overflows moves the loss scale that follows a count of such records") {
  using dpmp::dp::NeighbouringRelation;
  check(audit::overflow_experiment(NeighbouringRelation::add_or_remove_one), 3000, 13);
  check(audit::overflow_experiment(NeighbouringRelation::zero_out), 3000, 14);
}

TEST_CASE("P35: attack: a removed record changes the dropout masks of all others") {
  check(audit::dropout_experiment(0.1), 4000, 20);
  check(audit::dropout_experiment(0.3), 6000, 21);
}

TEST_CASE("P22: attack: the grid of the noise shows in the weights of a float64 model") {
  if (const auto lattice = audit::lattice_experiment())
    check(*lattice, 2000, 30);
  else
    std::printf("float64 lattice: such a run is refused\n");
}

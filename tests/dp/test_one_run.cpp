// SPDX-License-Identifier: Apache-2.0
// P36: one key may serve many runs, and no noise is met twice: not by two ledgers, a copied one, or a ticket asked again.
#include <doctest/doctest.h>
#include <type_traits>
#include <vector>

#include "dpmp/dp/ledger.hpp"
#include "dpmp/dp/plan.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
std::vector<double> values(const dp::NoiseStream& stream) {
  ThreadTeam team(1);
  std::vector<double> z(50, 0.0);
  dp::add_gaussian_noise(team, z, 1, stream, 0);
  return z;
}
dp::Plan plan() {
  return dp::Plan::with_noise_multiplier({.delta = 1e-5, .sampling_rate = 0.5, .steps = 5, .dataset_size = 400}, 1);
}
std::vector<index_t> draw(const dp::StepLedger& ledger) {
  std::vector<index_t> records;
  plan().sampler(ledger.keys()).draw(0, records);
  return records;
}
}  // namespace

TEST_CASE("P36: ledgers made from one StreamKeys, or from each other's keys, draw and add independently") {
  const dp::StreamKeys keys(dp::random_key());
  dp::StepLedger one = plan().ledger(keys), two = plan().ledger(keys), three = plan().ledger(one.keys());
  CHECK(draw(one) != draw(two));
  CHECK(draw(one) != draw(three));
  const std::vector<double> first = values(one.begin_step().noise());
  CHECK(first != values(two.begin_step().noise()));
  CHECK(first != values(three.begin_step().noise()));
  // Only what says so repeats.
  const auto same = dp::StreamKeys::repeat(keys.root(), one.keys().run_nonce());
  dp::StepLedger again = plan().ledger(same), once_more = plan().ledger(same);
  CHECK(values(again.begin_step().noise()) == first);
  CHECK(values(once_more.begin_step().noise()) == first);
  CHECK(values(plan().ledger(again.keys()).begin_step().noise()) != first);
  // And not where the steps sum different things.
  CHECK(values(plan().ledger(same).begin_step(1).noise()) != first);
  CHECK(values(plan().ledger(same).begin_step(1).auxiliary_noise()) !=
        values(plan().ledger(same).begin_step().auxiliary_noise()));
}

TEST_CASE("P36: a root key of zeros is refused, one bit is enough to be taken") {
  CHECK(test::refuses([] { dp::StreamKeys keys(Key256{}); }, "a random root key"));
  CHECK(test::refuses([] { dp::StreamKeys::repeat(Key256{}, 7); }, "a random root key"));
  Key256 key;
  key.words[7] = 1;
  CHECK(dp::StreamKeys(key).root() == key);
}

TEST_CASE("P36: a ticket gives the noise of its step once, and the auxiliary noise once") {
  dp::StepLedger ledger = plan().ledger(dp::StreamKeys(dp::random_key()));
  dp::StepTicket ticket = ledger.begin_step();
  const std::vector<double> noise = values(ticket.noise());
  CHECK(test::refuses([&] { ticket.noise(); }, "one request for the noise of step 0"));
  CHECK(values(ticket.auxiliary_noise()) != noise);
  CHECK(test::refuses([&] { ticket.auxiliary_noise(); }, "one request for the auxiliary noise of step 0"));
  // The right moves with the ticket.
  dp::StepTicket second = ledger.begin_step(), owner = std::move(second);
  CHECK(test::refuses([&] { second.noise(); }, "got another one"));
  CHECK(values(owner.noise()) != noise);
  CHECK(test::refuses([&] { owner.noise(); }, "of step 1"));
  static_assert(!std::is_copy_constructible_v<dp::StepTicket> && !std::is_copy_assignable_v<dp::StepTicket>);
}

TEST_CASE("P36: a ledger cannot be copied, and one that was moved elsewhere begins no step") {
  static_assert(!std::is_copy_constructible_v<dp::StepLedger> && !std::is_copy_assignable_v<dp::StepLedger>);
  dp::StepLedger ledger = plan().ledger(dp::StreamKeys(dp::random_key()), 2);
  dp::StepLedger owner = std::move(ledger);
  CHECK(test::refuses([&] { ledger.begin_step(); }, "got one that was moved elsewhere"));
  CHECK(owner.begin_step().step() == 2);
  ledger = std::move(owner);
  CHECK(test::refuses([&] { owner.begin_step(); }, "got one that was moved elsewhere"));
  CHECK(ledger.begin_step().step() == 3);
}

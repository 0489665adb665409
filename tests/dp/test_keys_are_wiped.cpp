// SPDX-License-Identifier: Apache-2.0
// What holds keys of a run leaves none of their words in memory when it is dropped.
#include <doctest/doctest.h>
#include <algorithm>
#include <cstring>
#include <new>

#include "dpmp/dp/ledger.hpp"
#include "dpmp/dp/poisson_sampler.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
Key256 random_root() {
  test::Rng rng;
  Key256 key;
  for (auto& word : key.words) word = std::uint32_t(rng.integer(1, 0xffffffff));
  return key;
}

/// Makes a T, looks for the words of `key` in its memory, drops it, looks again.
template <class T>
struct Traces {
  int before = 0, after = 0;

  template <class Make, class Use>
  Traces(const Key256& key, Make&& make, Use&& use) {
    alignas(T) static unsigned char bytes[sizeof(T)];
    T* made = new (bytes) T(make());
    use(*made);
    before = found(bytes, key);
    made->~T();
    after = found(bytes, key);
  }

 private:
  static int found(const unsigned char* bytes, const Key256& key) {
    unsigned char seen[sizeof(T)];
    for (std::size_t k = 0; k < sizeof(T); ++k) seen[k] = static_cast<const volatile unsigned char*>(bytes)[k];
    int n = 0;
    for (const std::uint32_t word : key.words)
      for (std::size_t at = 0; at + 4 <= sizeof(T); at += 4) n += std::memcmp(seen + at, &word, 4) == 0;
    return n;
  }
};
}  // namespace

TEST_CASE("keys, a ledger, a ticket, a noise stream and a sampler leave no word of their keys in memory") {
  const Key256 root = random_root();
  const dp::StreamKeys keys = dp::StreamKeys::repeat(root, 7);
  const auto nothing = [](auto&) {};

  const Traces<dp::StreamKeys> of_keys(
      root, [&] { return dp::StreamKeys::repeat(root, 7); }, nothing);
  CHECK(of_keys.before == 8);
  CHECK(of_keys.after == 0);

  const Traces<dp::StepLedger> of_ledger(
      root, [&] { return dp::StepLedger(3, keys); }, nothing);
  CHECK(of_ledger.before == 8);
  CHECK(of_ledger.after == 0);

  const Key256 noise = keys.key(dp::Stream::noise), counts = keys.key(dp::Stream::auxiliary_noise);
  dp::StepLedger ledger(9, keys);
  for (const Key256& key : {noise, counts}) {
    const Traces<dp::StepTicket> dropped(
        key, [&] { return ledger.begin_step(); }, nothing);
    CHECK(dropped.before == 8);
    CHECK(dropped.after == 0);
  }
  const Traces<dp::StepTicket> asked(
      noise, [&] { return ledger.begin_step(); }, [](auto& ticket) { ticket.noise(); });
  CHECK(asked.before == 0);  // already when the noise was asked for
  const Traces<dp::StepTicket> moved(
      counts, [&] { return ledger.begin_step(); }, [](auto& ticket) { dp::StepTicket elsewhere(std::move(ticket)); });
  CHECK(moved.before == 0);
  const Traces<dp::NoiseStream> stream(
      noise, [&] { return ledger.begin_step().noise(); }, nothing);
  CHECK(stream.before == 8);
  CHECK(stream.after == 0);

  const Key256 draws = keys.key(dp::Stream::sampler);
  const Traces<dp::PoissonSampler> sampler(
      draws, [&] { return dp::PoissonSampler(draws, 100, 0.5); }, nothing);
  CHECK(sampler.before == 8);
  CHECK(sampler.after == 0);
}

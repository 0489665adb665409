// SPDX-License-Identifier: Apache-2.0
// Vector clocks: which accesses of a block happen before which.
#include <doctest/doctest.h>

#include <numeric>

#include "race_clocks.hpp"

using emu::RaceClocks;
using emu::Stamp;

namespace {

constexpr std::uint32_t launch = 7;

/// A block of three warps; block 1 of 4.
RaceClocks three_warps() {
  RaceClocks r;
  r.start_block(launch, 0, 3, 1, 4);
  return r;
}
Stamp at(const RaceClocks& r, std::uint32_t thread, bool atomic = false) { return r.stamp(thread, launch, 0, atomic); }
std::vector<int> threads(int first, int last) {
  std::vector<int> all(std::size_t(last - first));
  std::iota(all.begin(), all.end(), first);
  return all;
}

}  // namespace

TEST_CASE("a thread is ordered with itself, others are not without synchronisation") {
  const RaceClocks r = three_warps();
  const Stamp first = at(r, 5);
  CHECK(r.ordered(first, at(r, 5)));
  CHECK_FALSE(r.ordered(first, at(r, 6)));   // another lane
  CHECK_FALSE(r.ordered(first, at(r, 37)));  // the same lane of another warp
  CHECK(r.ordered(Stamp(), at(r, 5)));       // never accessed
}

TEST_CASE("lanes that join have seen each other, lanes outside have not") {
  RaceClocks r = three_warps();
  const Stamp before = at(r, 0), outside = at(r, 4);
  r.join_lanes(0, 0b0011);
  CHECK(r.ordered(before, at(r, 1)));
  CHECK_FALSE(r.ordered(before, at(r, 2)));
  CHECK_FALSE(r.ordered(outside, at(r, 1)));
  CHECK_FALSE(r.ordered(at(r, 0), at(r, 1)));  // after the join they run apart again
}

TEST_CASE("what a lane has seen passes on to those that join with it") {
  RaceClocks r = three_warps();
  const Stamp before = at(r, 0);
  r.join_lanes(0, 0b0011);
  r.join_lanes(0, 0b0110);
  CHECK(r.ordered(before, at(r, 2)));
  CHECK_FALSE(r.ordered(before, at(r, 3)));
}

TEST_CASE("a barrier orders warps that wait in it and no other") {
  RaceClocks r = three_warps();
  const Stamp before = at(r, 3);
  r.join_barrier(threads(0, 64), {});
  CHECK(r.ordered(before, at(r, 40)));
  CHECK(r.ordered(before, at(r, 9)));         // another lane of its own warp
  CHECK_FALSE(r.ordered(before, at(r, 70)));  // warp 2 was not there
  CHECK_FALSE(r.ordered(at(r, 3), at(r, 40)));
  r.join_barrier(threads(32, 96), {});
  CHECK(r.ordered(before, at(r, 70)));  // by way of warp 1
}

TEST_CASE("bar.arrive releases but does not acquire") {
  RaceClocks r = three_warps();
  const Stamp of_arriving = at(r, 0), of_waiting = at(r, 32);
  r.join_barrier(threads(32, 64), threads(0, 32));
  CHECK(r.ordered(of_arriving, at(r, 33)));
  CHECK_FALSE(r.ordered(of_waiting, at(r, 0)));
}

TEST_CASE("blocks are ordered by what they release through atomics") {
  RaceClocks first, second, third;
  first.start_block(launch, 0, 1, 0, 130);
  second.start_block(launch, 0, 1, 1, 130);
  third.start_block(launch, 0, 1, 129, 130);
  const Stamp before = at(first, 0);
  std::vector<std::uint64_t> word, other_word;
  CHECK_FALSE(second.ordered(before, at(second, 0)));
  first.release_to(word);
  second.acquire(other_word);
  CHECK_FALSE(second.ordered(before, at(second, 0)));
  second.acquire(word);
  CHECK(second.ordered(before, at(second, 0)));
  second.release_to(other_word);
  third.acquire(other_word);
  CHECK(third.ordered(before, at(third, 0)));  // block 129 has it from block 1
  CHECK_FALSE(first.ordered(at(third, 0), at(first, 0)));
}

TEST_CASE("atomics are ordered with atomics, launches with launches, and a new block forgets") {
  RaceClocks r = three_warps();
  CHECK(r.ordered(at(r, 0, true), at(r, 1, true)));
  CHECK_FALSE(r.ordered(at(r, 0, true), at(r, 1)));
  CHECK_FALSE(r.ordered(at(r, 0), at(r, 1, true)));
  const Stamp before = at(r, 0);
  CHECK(r.ordered(before, r.stamp(1, launch + 1, 0, false)));
  r.join_lanes(0, ~0u);
  CHECK(r.ordered(before, at(r, 1)));
  r.start_block(launch, 0, 3, 1, 4);
  CHECK_FALSE(r.ordered(before, at(r, 1)));
}

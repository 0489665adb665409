// SPDX-License-Identifier: Apache-2.0
// How a draw is dealt to the slots of physical batches, and what a loss sees of them.
#include <doctest/doctest.h>

#include "dpmp/train/batch.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;

TEST_CASE("P6: physical batches hold every drawn record exactly once, whatever their size") {
  test::Rng rng;
  std::vector<index_t> draw;
  for (index_t record = 0; record < 500; ++record)
    if (rng.uniform() < 0.2) draw.push_back(record);
  for (index_t physical : {index_t(1), index_t(3), index_t(64), index_t(draw.size()), index_t(1000)}) {
    const index_t batches = train::physical_batches(index_t(draw.size()), physical);
    CHECK(batches == std::max<index_t>(1, (index_t(draw.size()) + physical - 1) / physical));
    std::vector<index_t> all, slots(static_cast<std::size_t>(physical));
    index_t masked = 0;
    for (index_t b = 0; b < batches; ++b) {
      train::fill_physical_batch(draw, b, slots);
      for (index_t i : slots) {
        if (i == train::masked_slot)
          ++masked;
        else
          all.push_back(i);
      }
    }
    CHECK(all == draw);
    CHECK(masked == batches * physical - index_t(draw.size()));
  }
}

TEST_CASE("P7: an empty draw makes one physical batch of empty slots") {
  CHECK(train::physical_batches(0, 8) == 1);
  std::vector<index_t> slots(8, 99);
  train::fill_physical_batch({}, 0, slots);
  CHECK(slots == std::vector<index_t>(8, train::masked_slot));
}

TEST_CASE("a loss sees records that exist: empty slots repeat the first, or record 0") {
  constexpr index_t none = train::masked_slot;
  using Slots = std::vector<index_t>;
  CHECK(train::records_of(Slots{3, 5, none}) == Slots{3, 5, 3});
  CHECK(train::records_of(Slots{none, 4, none, 2}) == Slots{4, 4, 4, 2});
  CHECK(train::records_of(Slots{none, none}) == Slots{0, 0});
  CHECK(train::records_of(Slots{}) == Slots{});
}

TEST_CASE("bad input: physical batches") {
  const std::vector<index_t> draw(5);
  std::vector<index_t> slots(2);
  CHECK(test::refuses([] { train::physical_batches(5, 0); }, "at least one slot, got 0"));
  CHECK(test::refuses([] { train::physical_batches(-1, 4); }, "records >= 0, got -1"));
  CHECK(test::refuses([&] { train::fill_physical_batch(draw, 3, slots); }, "physical batch in [0, 3), got 3"));
  CHECK(test::refuses([&] { train::fill_physical_batch(draw, -1, slots); }, "got -1"));
  CHECK(test::refuses([&] { train::fill_physical_batch(draw, 0, {}); }, "at least one slot"));
  CHECK(test::refuses([] { train::checked_slots(0); }, "at least one slot, got 0"));
}

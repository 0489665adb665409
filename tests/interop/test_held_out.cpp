// SPDX-License-Identifier: Apache-2.0
// A record's side of the split is its own.
#include <doctest/doctest.h>
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "dpmp/interop/held_out.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using interop::is_held_out;

TEST_CASE("held out: every record is on one side, which no other record changes, and one in so many is") {
  test::Rng rng;
  std::vector<std::string> records(4000);
  for (std::string& record : records) record = std::to_string(rng.bits());
  const auto identity = [&](index_t k) -> const std::string& { return records[std::size_t(k)]; };
  for (const index_t one_in : {2, 5, 20}) {
    const interop::Split split = interop::split_held_out(index_t(records.size()), identity, one_in);
    CHECK(split.learned.size() + split.held_out.size() == records.size());
    for (const index_t k : split.held_out) CHECK(is_held_out(identity(k), one_in));
    for (const index_t k : split.learned) CHECK_FALSE(is_held_out(identity(k), one_in));
    CHECK(std::is_sorted(split.held_out.begin(), split.held_out.end()));
    // Binomial of 4000 hashes: seven standard deviations, below 1e-11.
    const double p = 1. / double(one_in), n = double(records.size());
    CHECK(std::abs(double(split.held_out.size()) - n * p) <= 7 * std::sqrt(n * p * (1 - p)));
    // Without a record the others stay where they are.
    std::vector<std::string> fewer = records;
    const std::size_t gone = std::size_t(rng.integer(0, std::int64_t(records.size()) - 1));
    fewer.erase(fewer.begin() + std::ptrdiff_t(gone));
    const interop::Split other = interop::split_held_out(
        index_t(fewer.size()), [&](index_t k) { return std::string_view(fewer[std::size_t(k)]); }, one_in);
    std::vector<index_t> expected;
    for (const index_t k : split.held_out)
      if (k != index_t(gone)) expected.push_back(k > index_t(gone) ? k - 1 : k);
    CHECK(other.held_out == expected);
  }
  CHECK(test::refuses([] { is_held_out("x", 1); }, "one record in two or more, got one in 1"));
}

// SPDX-License-Identifier: Apache-2.0
// IDX arrays: what is written is read, and every way a file can be broken is refused.
#include <doctest/doctest.h>

#include "dpmp/interop/idx.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using interop::parse_idx;

namespace {
std::string idx(const std::vector<index_t>& extents, const std::string& values, char type = 8) {
  std::string text{0, 0, type, char(extents.size())};
  for (const index_t n : extents)
    for (int shift : {24, 16, 8, 0}) text += char(n >> shift & 0xff);
  return text + values;
}
}  // namespace

TEST_CASE("idx: shapes of rank 1 to 5 and all byte values come back") {
  test::Rng rng;
  std::string bytes;
  for (int k = 0; k < 2 * 300 * 3; ++k) bytes += char(rng.integer(0, 255));
  const interop::IdxArray array = parse_idx("x", idx({2, 300, 3}, bytes));
  CHECK(array.shape == Shape{2, 300, 3});
  REQUIRE(array.values.size() == bytes.size());
  for (std::size_t k = 0; k < bytes.size(); ++k) CHECK(array.values[k] == static_cast<unsigned char>(bytes[k]));
  CHECK(parse_idx("x", idx({4}, "abcd")).shape == Shape{4});
  CHECK(parse_idx("x", idx({1, 2, 1, 2, 1}, "abcd")).shape == Shape{1, 2, 1, 2, 1});
  CHECK(parse_idx("x", idx({0, 28, 28}, "")).values.empty());
}

TEST_CASE("bad input: idx files that are something else, cut off, too long, or of another type") {
  const auto refused = [](const std::string& content, const char* part) {
    return test::refuses([&] { parse_idx("some/file", content); }, part) &&
           test::refuses([&] { parse_idx("some/file", content); }, "'some/file'");
  };
  const std::string good = idx({2, 3}, "abcdef");
  for (std::size_t n = 0; n < 4; ++n) CHECK(refused(good.substr(0, n), "fewer than 4 bytes"));
  for (std::size_t n = 4; n < 12; ++n) CHECK(refused(good.substr(0, n), "a header of 12 bytes"));
  CHECK(refused(good.substr(0, 17), "expected 6 bytes for the shape [2, 3]"));
  CHECK(refused(good + "g", "got 7"));
  CHECK(refused("\x1f\x8b" + good, "other bytes"));
  CHECK(refused(idx({6}, "abcdef", 13), "got the type 13"));
  CHECK(refused(idx({}, ""), "1 to 5 axes"));
  CHECK(refused(idx({1, 1, 1, 1, 1, 1}, "a"), "got 6"));
  CHECK(refused(idx({0xffffffff, 0xffffffff}, "abcdef"), "2^63 - 1") == false);  // refused by the shape, without the name
  CHECK(test::refuses([&] { parse_idx("x", idx({0xffffffff, 0xffffffff}, "abcdef")); }, "2^63 - 1"));
}

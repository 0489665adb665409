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
  const interop::IdxArray<std::uint8_t> array = parse_idx("x", idx({2, 300, 3}, bytes));
  CHECK(array.shape == Shape{2, 300, 3});
  REQUIRE(array.values.size() == bytes.size());
  for (std::size_t k = 0; k < bytes.size(); ++k) CHECK(array.values[k] == static_cast<unsigned char>(bytes[k]));
  CHECK(parse_idx("x", idx({4}, "abcd")).shape == Shape{4});
  CHECK(parse_idx("x", idx({1, 2, 1, 2, 1}, "abcd")).shape == Shape{1, 2, 1, 2, 1});
  CHECK(parse_idx("x", idx({0, 28, 28}, "")).values.empty());
}

namespace {
/// The bytes of random values of T, most significant first, by shifts; and the values.
template <class T>
void check_type(int type) {
  test::Rng rng(test::seed(), std::uint64_t(type));
  using Bits = std::conditional_t<
      sizeof(T) == 8, std::uint64_t,
      std::conditional_t<sizeof(T) == 4, std::uint32_t, std::conditional_t<sizeof(T) == 2, std::uint16_t, std::uint8_t>>>;
  std::vector<Bits> expected;
  std::string bytes;
  for (int k = 0; k < 3 * 50; ++k) {
    expected.push_back(Bits(rng.bits()));
    for (int shift = int(8 * sizeof(T)) - 8; shift >= 0; shift -= 8) bytes += char(expected.back() >> shift & 0xff);
  }
  const auto array = parse_idx<T>("x", idx({3, 50}, bytes, char(type)));
  CHECK(array.shape == Shape{3, 50});
  REQUIRE(array.values.size() == expected.size());
  for (std::size_t k = 0; k < expected.size(); ++k) CHECK(std::bit_cast<Bits>(array.values[k]) == expected[k]);
  for (const int other : {0x08, 0x09, 0x0b, 0x0c, 0x0d, 0x0e})
    if (other != type)
      CHECK(test::refuses(
          [&] {
            parse_idx<T>("x", idx({3, 50}, bytes, char(other)));
          },
          "got the type " + std::to_string(other)));
  const std::string one_less = bytes.substr(1), one_more = bytes + "x";
  for (const std::string& wrong : {one_less, one_more})
    CHECK(test::refuses([&] { parse_idx<T>("x", idx({3, 50}, wrong, char(type))); }, "expected"));
  if (sizeof(T) == 8)
    CHECK(test::refuses([&] { parse_idx<T>("x", idx({0x7fffffff, 0x7fffffff}, bytes, char(type))); }, "2^63 - 1 bytes"));
}
}  // namespace

TEST_CASE("idx: every element type of the format, big-endian, and no other one in its place") {
  check_type<std::uint8_t>(0x08);
  check_type<std::int8_t>(0x09);
  check_type<std::int16_t>(0x0b);
  check_type<std::int32_t>(0x0c);
  check_type<float>(0x0d);
  check_type<double>(0x0e);
  CHECK(parse_idx<float>("x", idx({1}, std::string("\x3f\x80\0\0", 4), 13)).values == std::vector<float>{1});
  CHECK(parse_idx<std::int16_t>("x", idx({2}, std::string("\xff\xfe\1\0", 4), 11)).values ==
        std::vector<std::int16_t>{-2, 256});
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
  CHECK(refused(idx({0xffffffff, 0xffffffff}, "abcdef"), "2^63 - 1"));
  // A header that promises far more than there is: refused before memory is asked for.
  CHECK(refused(idx({0x7fffffff, 0x7fffffff}, "abcdef"), "expected 4611686014132420609 bytes"));
  for (const int type : {0, 1, 7, 10, 15, 255}) CHECK(refused(idx({6}, "abcdef", char(type)), "got the type"));
}

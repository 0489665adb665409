// SPDX-License-Identifier: Apache-2.0
// Checksums of files: the check values of both polynomials, and division of polynomials bit by bit.
#include <doctest/doctest.h>
#include <string>

#include "dpmp/core/crc32.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
/// The remainder, one bit after the other, with the polynomial in its usual order.
std::uint32_t by_bits(const std::string& text, std::uint32_t polynomial) {
  std::uint32_t rest = 0xffffffffu;
  for (const char c : text)
    for (int bit = 0; bit < 8; ++bit) {
      const std::uint32_t in = (static_cast<unsigned char>(c) >> bit) & 1u, out = rest >> 31;
      rest = rest << 1 ^ (in ^ out ? polynomial : 0);
    }
  std::uint32_t turned = 0;
  for (int bit = 0; bit < 32; ++bit) turned |= (rest >> bit & 1u) << (31 - bit);
  return ~turned;
}
}  // namespace

TEST_CASE("crc32 and crc32c: the published check values, and those of a division bit by bit, in pieces too") {
  CHECK(crc32("123456789", 9) == 0xcbf43926u);
  CHECK(crc32c("123456789", 9) == 0xe3069283u);
  CHECK(crc32c(std::string(32, '\0').data(), 32) == 0x8a9136aau);  // RFC 3720, B.4
  test::Rng rng;
  for (int trial = 0; trial < 50; ++trial) {
    std::string text(std::size_t(rng.integer(0, 300)), '\0');
    for (char& c : text) c = char(rng.bits());
    const std::size_t cut = std::size_t(rng.integer(0, std::int64_t(text.size())));
    CHECK(crc32(text.data() + cut, text.size() - cut, crc32(text.data(), cut)) == by_bits(text, 0x04c11db7u));
    CHECK(crc32c(text.data() + cut, text.size() - cut, crc32c(text.data(), cut)) == by_bits(text, 0x1edc6f41u));
  }
}

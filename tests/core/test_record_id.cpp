// SPDX-License-Identifier: Apache-2.0
// SipHash against its authors' numbers, and what a record's identity depends on.
#include <doctest/doctest.h>
#include <set>
#include <vector>

#include "dpmp/core/record_id.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
std::vector<std::byte> counting(std::size_t n) {
  std::vector<std::byte> bytes;
  for (std::size_t k = 0; k < n; ++k) bytes.push_back(std::byte(k));
  return bytes;
}
Key256 random_key_of(test::Rng& rng) {
  Key256 key;
  for (auto& word : key.words) word = std::uint32_t(rng.bits());
  return key;
}
}  // namespace

TEST_CASE("SipHash-2-4: the test vectors of its authors") {
  // Key bytes 00 .. 0f, message bytes 00, 01, ..; appendix A of the paper has the one of 15 bytes.
  const std::uint64_t key0 = 0x0706050403020100u, key1 = 0x0f0e0d0c0b0a0908u;
  const std::pair<std::size_t, std::uint64_t> known[] = {
      {0, 0x726fdb47dd0e0e31u}, {1, 0x74f839c593dc67fdu}, {7, 0xab0200f58b01d137u},
      {8, 0x93f5f5799a932462u}, {9, 0x9e0082df0ba9e4b0u}, {15, 0xa129ca6149be45e5u},
  };
  for (const auto& [length, hash] : known) CHECK(siphash24(key0, key1, counting(length)) == hash);
}

TEST_CASE("P35: an identity is a function of its key and the content, name or place, and the kinds never meet") {
  test::Rng rng;
  const Key256 key = random_key_of(rng), other = random_key_of(rng);
  std::set<std::uint64_t> values;
  for (const Key256& k : {key, other})
    for (std::uint64_t n = 0; n < 200; ++n) {
      values.insert(content_id(k, counting(n)).value());
      values.insert(stable_id(k, n).value());
      values.insert(place_id(k, index_t(n)).value());
    }
  CHECK(values.size() == 1200);
  CHECK(content_id(key, std::string_view("a record")) == content_id(key, std::string_view("a record")));
  CHECK_FALSE(content_id(key, std::string_view("a record")) == content_id(key, std::string_view("a record ")));
  CHECK(content_id(key, counting(3)).kind() == RecordId::Kind::content);
  CHECK(stable_id(key, 3).kind() == RecordId::Kind::stable);
  CHECK(place_id(key, 3).kind() == RecordId::Kind::place);
  CHECK(RecordId().kind() == RecordId::Kind::empty);
  CHECK(stable_id(key, 1).value() != stable_id(key, std::uint64_t(1) << 63).value());
}

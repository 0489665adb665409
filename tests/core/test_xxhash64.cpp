// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <vector>

#include "dpmp/core/xxhash64.hpp"
#include "support/random.hpp"

using dpmp::Xxh64;

TEST_CASE("XXH64: the values of the xxhash library") {
  struct Known {
    std::size_t bytes;
    std::uint64_t seed, value;
  };
  // By python-xxhash 3, xxh64_intdigest of bytes (131 i + 7) mod 256.
  for (const Known& k :
       {Known{0, 0, 0xef46db3751d8e999u}, Known{0, 0x9e3779b1, 0xac75fda2929b17efu}, Known{1, 0, 0xa96c7f0ce858bbb7u},
        Known{3, 0, 0xbed43740ee6332bbu}, Known{4, 0x9e3779b1, 0x60492c4bfcb70cacu}, Known{7, 0, 0x2744460dd675d2c0u},
        Known{8, 0, 0x994b676b71ce94ddu}, Known{12, 0, 0xb92f588ce720786eu}, Known{31, 0x9e3779b1, 0xfa1259cc8b20eb58u},
        Known{32, 0, 0x07f7b8e3bc5d6e25u}, Known{33, 0, 0x09f85eeb4e1cbe9fu}, Known{63, 0x9e3779b1, 0x184bc5097530bb9au},
        Known{64, 0, 0x50d4159a0411632eu}, Known{100, 0x9e3779b1, 0x5766be6782b96389u}, Known{1000, 0, 0x0bf0bdbcc82eb373u},
        Known{1000, 0x9e3779b1, 0xb43e358553049780u}}) {
    CAPTURE(k.bytes);
    std::vector<unsigned char> bytes;
    for (std::size_t i = 0; i < k.bytes; ++i) bytes.push_back(static_cast<unsigned char>(131 * i + 7));
    Xxh64 hash(k.seed);
    hash.add(bytes.data(), bytes.size());
    CHECK(hash.value() == k.value);
  }
}

TEST_CASE("XXH64: it does not matter in which pieces the bytes come, and every bit matters") {
  test::Rng rng(test::seed(), 1);
  for (int k = 0; k < 200; ++k) {
    std::vector<unsigned char> bytes(std::size_t(rng.integer(1, 200)));
    for (unsigned char& b : bytes) b = static_cast<unsigned char>(rng.bits());
    Xxh64 whole, pieces;
    whole.add(bytes.data(), bytes.size());
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t piece = std::min(bytes.size() - at, std::size_t(rng.integer(0, 70)));
      pieces.add(bytes.data() + at, piece);
      at += piece;
    }
    CHECK(pieces.value() == whole.value());
    bytes[std::size_t(rng.integer(0, std::int64_t(bytes.size()) - 1))] ^= static_cast<unsigned char>(1 << rng.integer(0, 7));
    Xxh64 changed;
    changed.add(bytes.data(), bytes.size());
    CHECK(changed.value() != whole.value());
  }
}

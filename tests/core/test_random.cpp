// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10 and ChaCha20 against their published known answers, and the vectorised ChaCha20 against the plain one.
#include <doctest/doctest.h>
#include <cmath>
#include <vector>

#include "dpmp/core/chacha20.hpp"
#include "dpmp/core/philox.hpp"
#include "dpmp/runtime/launch.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
bool same(const PhiloxBlock& x, const PhiloxBlock& y) {
  return x.word[0] == y.word[0] && x.word[1] == y.word[1] && x.word[2] == y.word[2] && x.word[3] == y.word[3];
}
Key256 random_test_key(test::Rng& rng) {
  Key256 key;
  for (auto& w : key.words) w = std::uint32_t(rng.bits());
  return key;
}
template <int W>
void check_lanes(const Key256& key, std::uint64_t counter, std::uint64_t nonce) {
  std::uint32_t out[16 * W];
  chacha20_blocks<W>(key, counter, nonce, out);
  for (int b = 0; b < W; ++b) {
    const ChaChaBlock expected = chacha20_block(key, counter + std::uint64_t(b), nonce);
    for (int k = 0; k < 16; ++k) {
      INFO("W ", W, " block ", b, " word ", k, " counter ", counter);
      REQUIRE(out[16 * b + k] == expected[std::size_t(k)]);
    }
  }
}
struct BlocksRow {
  using Real = float;
  Key256 key;
  std::uint32_t* out;
  template <int W>
  DPMP_HOST void operator()(HostTeam<float, W>, index_t row) const {
    for (int g = 0; g < 16; g += W) chacha20_blocks<W>(key, std::uint64_t(row * 16 + g), 7, out + row * 256 + g * 16);
  }
};
}  // namespace

TEST_CASE("P21: Philox4x32-10 known answers of the Random123 distribution") {
  CHECK(same(philox4x32({{0, 0, 0, 0}}, 0, 0), {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}));
  const std::uint32_t f = 0xffffffffu;
  CHECK(same(philox4x32({{f, f, f, f}}, f, f), {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}));
  CHECK(same(philox4x32({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0),
             {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}));
}

TEST_CASE("P21: Philox blocks take all bits of seed, stream and index") {
  test::Rng rng(test::seed(), 1);
  const std::uint64_t seed = rng.bits(), stream = rng.bits(), index = rng.bits();
  const PhiloxBlock base = philox_block(seed, stream, index);
  CHECK(same(base, philox4x32({{std::uint32_t(index), std::uint32_t(index >> 32), std::uint32_t(stream),
                                std::uint32_t(stream >> 32)}},
                              std::uint32_t(seed), std::uint32_t(seed >> 32))));
  for (int bit = 0; bit < 64; ++bit) {
    const std::uint64_t flip = std::uint64_t(1) << bit;
    CHECK_FALSE(same(base, philox_block(seed ^ flip, stream, index)));
    CHECK_FALSE(same(base, philox_block(seed, stream ^ flip, index)));
    CHECK_FALSE(same(base, philox_block(seed, stream, index ^ flip)));
  }
}

TEST_CASE("uniform_open stays inside (0, 1), normal_pair is finite and standard") {
  CHECK(uniform_open(0) == 0x1p-24f);
  CHECK(uniform_open(0xffffffffu) == 1 - 0x1p-24f);
  for (std::uint32_t r : {0u, 0xffffffffu, 0x80000000u})
    for (std::uint32_t a : {0u, 0xffffffffu, 0x80000000u}) {
      const NormalPair p = normal_pair(r, a);
      CHECK(std::isfinite(p.first));
      CHECK(std::isfinite(p.second));
    }
  const int n = 200000;
  double sum = 0, squares = 0, product = 0;
  for (int i = 0; i < n; ++i) {
    const PhiloxBlock b = philox_block(test::seed(), 3, std::uint64_t(i));
    const NormalPair p = normal_pair(b.word[0], b.word[1]);
    sum += double(p.first) + double(p.second);
    squares += double(p.first) * double(p.first) + double(p.second) * double(p.second);
    product += double(p.first) * double(p.second);
  }
  // Standard errors: 1/sqrt(2n) of the mean, sqrt(2/(2n)) of the variance, 1/sqrt(n) of the covariance; 5 of each.
  CHECK(std::fabs(sum / (2 * n)) < 5 / std::sqrt(2.0 * n));
  CHECK(std::fabs(squares / (2 * n) - 1) < 5 / std::sqrt(double(n)));
  CHECK(std::fabs(product / n) < 5 / std::sqrt(double(n)));
}

TEST_CASE("P21: ChaCha20 known answers of RFC 8439") {
  std::array<std::uint8_t, 32> bytes{};
  for (std::size_t k = 0; k < 32; ++k) bytes[k] = std::uint8_t(k);
  // Section 2.3.2
  CHECK(chacha20_block_rfc8439(Key256::from_bytes(bytes), 1, {0x09000000, 0x4a000000, 0}) ==
        ChaChaBlock{0xe4e7f110, 0x15593bd1, 0x1fdd0f50, 0xc47120a3, 0xc7f4d1c7, 0x0368c033, 0x9aaa2204, 0x4e6cd4c3,
                    0x466482d2, 0x09aa9f07, 0x05d7c214, 0xa2028bd9, 0xd19c12b5, 0xb94e16de, 0xe883d0cb, 0x4e3c50a2});
  // Appendix A.1, vectors 1 and 2; both layouts agree where the nonce is 0.
  const ChaChaBlock first{0xade0b876, 0x903df1a0, 0xe56a5d40, 0x28bd8653, 0xb819d2bd, 0x1aed8da0, 0xccef36a8, 0xc70d778b,
                          0x7c5941da, 0x8d485751, 0x3fe02477, 0x374ad8b8, 0xf4b8436a, 0x1ca11815, 0x69b687c3, 0x8665eeb2};
  const ChaChaBlock second{0xbee7079f, 0x7a385155, 0x7c97ba98, 0x0d082d73, 0xa0290fcb, 0x6965e348, 0x3e53c612, 0xed7aee32,
                           0x7621b729, 0x434ee69c, 0xb03371d5, 0xd539d874, 0x281fed31, 0x45fb0a51, 0x1f0ae1ac, 0x6f4d794b};
  CHECK(chacha20_block_rfc8439({}, 0, {0, 0, 0}) == first);
  CHECK(chacha20_block_rfc8439({}, 1, {0, 0, 0}) == second);
  CHECK(chacha20_block({}, 0, 0) == first);
  CHECK(chacha20_block({}, 1, 0) == second);
}

TEST_CASE("P21: the 64-bit layout is the RFC's with the counter's upper half in the first nonce word") {
  test::Rng rng(test::seed(), 4);
  const Key256 key = random_test_key(rng);
  const std::uint64_t counter = rng.bits(), nonce = rng.bits();
  CHECK(chacha20_block(key, counter, nonce) ==
        chacha20_block_rfc8439(key, std::uint32_t(counter),
                               {std::uint32_t(counter >> 32), std::uint32_t(nonce), std::uint32_t(nonce >> 32)}));
}

TEST_CASE("P21: vectorised ChaCha20 equals the plain one in every lane count, also across 2^32 and 2^64") {
  test::Rng rng(test::seed(), 5);
  const Key256 key = random_test_key(rng);
  for (std::uint64_t counter :
       std::initializer_list<std::uint64_t>{0, rng.bits(), 0xfffffff9u, 0x7fffffff9u, ~std::uint64_t(5)}) {
    const std::uint64_t nonce = rng.bits();
    check_lanes<4>(key, counter, nonce);
    check_lanes<8>(key, counter, nonce);
    check_lanes<16>(key, counter, nonce);
  }
}

TEST_CASE("P21: every instruction set draws the same ChaCha20 blocks") {
  test::Rng rng(test::seed(), 6);
  const Key256 key = random_test_key(rng);
  std::vector<std::uint32_t> out(3 * 256);
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (isa > best_isa()) continue;
    std::fill(out.begin(), out.end(), 0u);
    run_rows(0, 3, BlocksRow{key, out.data()}, isa);
    for (std::uint64_t b = 0; b < 48; ++b) {
      const ChaChaBlock expected = chacha20_block(key, b, 7);
      for (std::size_t k = 0; k < 16; ++k) REQUIRE(out[b * 16 + k] == expected[k]);
    }
  }
}

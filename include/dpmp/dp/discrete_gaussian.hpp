// SPDX-License-Identifier: Apache-2.0
// Exact samples of the discrete Gaussian: integers x with probability proportional to exp(-x^2 / (2 sigma^2)), by
// comparisons of integers alone (Canonne, Kamath, Steinke 2020, arXiv 2004.00010, algorithms 1 to 3). No rounding anywhere:
// what comes out is the distribution of the analysis. Random bits are ChaCha20's, a stretch of the key stream for each
// element.
//
// A sample takes as many bits as it takes: the time of a call depends on the noise, never on a record.
#pragma once
#include <span>

#include "dpmp/dp/noise.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Largest sigma, an integer: squares of samples stay within 128 bits.
inline constexpr index_t max_discrete_sigma = index_t(1) << 40;

/// Uniform bits of one element: ChaCha20 blocks of counter 2^16 element + k, k = 0, 1, .. under the noise key's nonce of
/// step and parameter.
class ElementBits {
 public:
  /// element: in [0, 2^47). Throws otherwise.
  ElementBits(const NoiseStream& stream, index_t parameter, index_t element);
  ElementBits(const ElementBits&) = delete;
  ElementBits& operator=(const ElementBits&) = delete;
  ~ElementBits() { wipe(block_.data(), sizeof block_); }
  std::uint64_t next();

 private:
  SecretKey key_;
  std::uint64_t nonce_, first_, blocks_ = 0;
  ChaChaBlock block_{};
  int taken_ = 16;  // words of the block
};

namespace detail {
__extension__ typedef unsigned __int128 Wide;
/// Uniform in [0, below), below >= 1, by rejection.
Wide uniform_below(Wide below, ElementBits& bits);
/// True with probability exp(-numerator / denominator), of any ratio >= 0.
bool bernoulli_exp(Wide numerator, Wide denominator, ElementBits& bits);
}  // namespace detail

/// A sample for an integer sigma in [1, 2^40]. Throws otherwise.
index_t discrete_gaussian(index_t sigma, ElementBits& bits);

/// sum[j] += x_j, independent samples, the same for the same (stream, parameter, j) on any number of threads.
void add_discrete_gaussian(ThreadTeam& team, std::span<std::int64_t> sum, index_t sigma, const NoiseStream& stream,
                           index_t parameter);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <bit>

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
DPMP_KEPT_BODY inline Wide uniform_below(Wide below, ElementBits& bits) {
  const Wide last = below - 1;
  const auto high = std::uint64_t(last >> 64), low = std::uint64_t(last);
  const int width = high ? 64 + int(std::bit_width(high)) : int(std::bit_width(low));
  const Wide mask = width == 128 ? ~Wide(0) : (Wide(1) << width) - 1;
  for (;;) {
    Wide x = width > 0 ? bits.next() : 0;
    if (width > 64) x |= Wide(bits.next()) << 64;
    x &= mask;
    if (x < below) return x;
  }
}
/// True with probability exp(-numerator / denominator), of integers with a ratio of at most 1.
inline bool bernoulli_exp_of_share(Wide numerator, Wide denominator, ElementBits& bits) {
  // The number of successes of shares ratio / k, k = 1, 2, .. is even with the probability of the series of exp(-ratio).
  Wide k = 1;
  while (uniform_below(denominator * k, bits) < numerator) ++k;
  return k % 2 == 1;
}
DPMP_KEPT_BODY inline bool bernoulli_exp(Wide numerator, Wide denominator, ElementBits& bits) {
  for (; numerator > denominator; numerator -= denominator)
    if (!bernoulli_exp_of_share(1, 1, bits)) return false;
  return bernoulli_exp_of_share(numerator, denominator, bits);
}
/// An integer y with probability proportional to exp(-|y| / scale): (magnitude, whether it is negative).
inline std::pair<Wide, bool> discrete_laplace(std::uint64_t scale, ElementBits& bits) {
  for (;;) {
    const Wide rest = uniform_below(scale, bits);
    if (!bernoulli_exp_of_share(rest, scale, bits)) continue;
    Wide whole = 0;
    while (bernoulli_exp_of_share(1, 1, bits)) ++whole;
    const Wide magnitude = rest + whole * scale;
    const bool negative = bits.next() & 1;
    if (!negative || magnitude != 0) return {magnitude, negative};
  }
}
inline void check_discrete_sigma(index_t sigma) {
  DPMP_CHECK(sigma >= 1 && sigma <= max_discrete_sigma, "expected an integer sigma in [1, 2^40], got ", sigma);
}
}  // namespace detail

DPMP_KEPT_BODY inline ElementBits::ElementBits(const NoiseStream& stream, index_t parameter, index_t element)
    : key_(stream.key), nonce_(noise_nonce(stream.step, parameter)), first_(std::uint64_t(element) << 16) {
  DPMP_CHECK(element >= 0 && element < index_t(1) << 47, "expected an element in [0, 2^47), got ", element);
}

DPMP_KEPT_BODY inline std::uint64_t ElementBits::next() {
  if (taken_ == 16) {
    DPMP_CHECK(blocks_ < 0x10000, "expected a sample from at most 2^16 blocks of random bits, got none");
    block_ = chacha20_block(key_, first_ + blocks_++, nonce_);
    taken_ = 0;
  }
  const std::uint64_t word = block_[std::size_t(taken_)] | std::uint64_t(block_[std::size_t(taken_) + 1]) << 32;
  taken_ += 2;
  return word;
}

DPMP_KEPT_BODY inline index_t discrete_gaussian(index_t sigma, ElementBits& bits) {
  detail::check_discrete_sigma(sigma);
  const auto s = detail::Wide(sigma);
  for (;;) {
    const auto [magnitude, negative] = detail::discrete_laplace(std::uint64_t(sigma), bits);
    // exp(-|y| / sigma) times exp(-(|y| - sigma)^2 / (2 sigma^2)) is exp(-y^2 / (2 sigma^2)) times a constant. Beyond 2^20
    // sigma the second factor is below 2^-(2^38): no sample is taken from there, and no square leaves 128 bits.
    const detail::Wide off = magnitude > s ? magnitude - s : s - magnitude;
    if (off >> 20 > s) continue;
    if (!detail::bernoulli_exp(off * off, 2 * s * s, bits)) continue;
    return negative ? -index_t(magnitude) : index_t(magnitude);
  }
}

DPMP_KEPT_BODY inline void add_discrete_gaussian(ThreadTeam& team, std::span<std::int64_t> sum, index_t sigma,
                                                 const NoiseStream& stream, index_t parameter) {
  detail::check_discrete_sigma(sigma);
  noise_nonce(stream.step, parameter);  // throws here, not in a thread
  team.parallel_for(
      index_t(sum.size()),
      [&](index_t begin, index_t end) {
        for (index_t j = begin; j < end; ++j) {
          ElementBits bits(stream, parameter, j);
          sum[std::size_t(j)] += discrete_gaussian(sigma, bits);
        }
      },
      sum.size() < 256);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif

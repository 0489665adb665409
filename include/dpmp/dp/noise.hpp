// SPDX-License-Identifier: Apache-2.0
// Gaussian noise in double, a pure function of (key, step, parameter, element): independent of threads and of the split.
// Normals come from Box and Muller's transform of 64-bit uniforms. The radius uniform is (x + 1/2) 2^-64 with x of 64 bits,
// so |z| reaches sqrt(2 * 65 ln 2) = 9.49 (P22; 24-bit uniforms would end at 5.8). The angle uniform keeps 62 bits and a
// quadrant. Bits are the same on every run of one machine; between instruction sets the last bit may differ (fused
// multiply-add).
//
// A noised sum is released on a public grid: the nearest multiple of g, the largest power of two that is at most 2^-20 of
// the noise's standard deviation. In double alone, fl(s + n) shows s by its trailing bits (Mironov, "On significance of the
// least significant bits for differential privacy", CCS 2012): where |n| is far below |s| the sum has no bits below s's last
// place, while n added to s = 0 has. On the grid every sum has the same last place. docs/numerics.md derives the 2^-20, says
// what the rounding costs (nothing: it is a public function of a noised sum) and what is still not proven.
#pragma once
#include <algorithm>
#include <cmath>
#include <span>

#include "dpmp/dp/streams.hpp"
#include "dpmp/runtime/launch.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::dp {
/// Which noise: the key of Stream::noise and the number of the step. One per step, shared by its parameters.
struct NoiseStream {
  SecretKey key;
  index_t step = 0;
};

/// Elements that the host draws noise for at once. A chunk gets the 64 pairs of sixteen ChaCha20 blocks, four of each:
/// elements 2 i and 2 i + 1 are the cosine and the sine of pair i, which is pair i / 16 of block i % 16. A GPU's thread
/// computes one block; neighbours in its warp then hold neighbouring elements, and their accesses fill whole sectors of
/// memory.
inline constexpr index_t noise_chunk = 128;
/// Chunks that the noise of n elements takes: the last one may be drawn for fewer elements.
DPMP_HD index_t noise_chunks(index_t n) { return (n + noise_chunk - 1) / noise_chunk; }

namespace detail {
inline constexpr index_t blocks_of_chunk = 16;
inline constexpr int pairs_of_block = 4;

// Apart from NoiseLanes: GCC drops a vector_size that depends on the parameters of the class that uses it.
template <int D>
struct NoiseVectors {
  typedef double Real __attribute__((vector_size(8 * D)));
  typedef std::uint64_t Word __attribute__((vector_size(8 * D)));
};
/// D numbers side by side, and their bits: vectors on the host, one number (D = 1) in a GPU's thread.
template <int D>
struct NoiseLanes : NoiseVectors<D> {
  using typename NoiseVectors<D>::Real, typename NoiseVectors<D>::Word;
  static DPMP_HOST Real real(Word w) { return reinterpret_cast<Real>(w); }
  static DPMP_HOST Word word(Real x) { return reinterpret_cast<Word>(x); }
};
template <>
struct NoiseLanes<1> {
  using Real = double;
  using Word = std::uint64_t;
  static DPMP_HD Real real(Word w) {
    Real x;
    memcpy(&x, &w, sizeof x);
    return x;
  }
  static DPMP_HD Word word(Real x) {
    Word w;
    memcpy(&w, &x, sizeof w);
    return w;
  }
};

/// D pairs of standard normals: first[k] = r cos(t), second[k] = r sin(t), r from radius_bits[k], t from angle_bits[k].
/// Relative error of each factor below 2^-50.
DPMP_ANY_TEAM
template <int D>
DPMP_HD void box_muller(const std::uint64_t* radius_bits, const std::uint64_t* angle_bits, double* first, double* second) {
  using Lanes = NoiseLanes<D>;
  using Real = typename Lanes::Real;
  using Word = typename Lanes::Word;
  Word radius, angle;
  memcpy(&radius, radius_bits, sizeof radius);
  memcpy(&angle, angle_bits, sizeof angle);

  // u = (x + 1/2) 2^-64 with one rounding: both halves of x become exact doubles through the exponents 2^84 and 2^52.
  const Real high = Lanes::real((radius >> 32) | 0x4530000000000000u) - 0x1p84;
  const Real low = (Lanes::real((radius & 0xffffffffu) | 0x4330000000000000u) - 0x1p52) + 0.5;
  const Real u = (high + low) * 0x1p-64;

  // log u = e ln 2 + log m with m in [sqrt(1/2), sqrt(2)); no cancellation near u = 1, where e is 0.
  // log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.1716: eleven terms of the series leave less than 2^-56.
  const Word shifted = Lanes::word(u) + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
  const Real e = Lanes::real((shifted >> 52) | 0x4330000000000000u) - (0x1p52 + 1023.0);
  const Real m = Lanes::real((shifted & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu);
  const Real s = (m - 1.0) / (m + 1.0), s2 = s * s;
  Real p = Real{} + 2.0 / 21;
  p = p * s2 + 2.0 / 19;
  p = p * s2 + 2.0 / 17;
  p = p * s2 + 2.0 / 15;
  p = p * s2 + 2.0 / 13;
  p = p * s2 + 2.0 / 11;
  p = p * s2 + 2.0 / 9;
  p = p * s2 + 2.0 / 7;
  p = p * s2 + 2.0 / 5;
  p = p * s2 + 2.0 / 3;
  p = p * s2 + 2.0;
  const Real minus_two_log = (p * s + e * 0x1.62e42fefa39efp-1) * -2.0;

  // The angle: two bits choose the quadrant, 62 bits a position x in [-pi/4, pi/4) in it; sin and cos by their series.
  const Word part = angle & 0x3fffffffffffffffu;
  const Real part_high = Lanes::real((part >> 32) | 0x4530000000000000u) - (0x1p84 + 0x1p61);
  const Real part_low = (Lanes::real((part & 0xffffffffu) | 0x4330000000000000u) - 0x1p52) + 0.5;
  const Real x = (part_high + part_low) * (0x1.921fb54442d18p+2 * 0x1p-64), x2 = x * x;
  Real sine = Real{} + 1.0 / 355687428096000.0;
  sine = sine * x2 - 1.0 / 1307674368000.0;
  sine = sine * x2 + 1.0 / 6227020800.0;
  sine = sine * x2 - 1.0 / 39916800.0;
  sine = sine * x2 + 1.0 / 362880.0;
  sine = sine * x2 - 1.0 / 5040.0;
  sine = sine * x2 + 1.0 / 120.0;
  sine = sine * x2 - 1.0 / 6.0;
  sine = sine * x2 * x + x;
  Real cosine = Real{} + 1.0 / 20922789888000.0;
  cosine = cosine * x2 - 1.0 / 87178291200.0;
  cosine = cosine * x2 + 1.0 / 479001600.0;
  cosine = cosine * x2 - 1.0 / 3628800.0;
  cosine = cosine * x2 + 1.0 / 40320.0;
  cosine = cosine * x2 - 1.0 / 720.0;
  cosine = cosine * x2 + 1.0 / 24.0;
  cosine = cosine * x2 - 0.5;
  cosine = cosine * x2 + 1.0;
  // Quadrants 0..3: the direction's larger coordinate is +first, -first, +second, -second.
  const Word large = Lanes::word(cosine) ^ ((angle << 1) & 0x8000000000000000u), small = Lanes::word(sine);
  const Word swap = Word{} - (angle >> 63);
  const Real c = Lanes::real((large & ~swap) | (small & swap)), d = Lanes::real((small & ~swap) | (large & swap));

  alignas(64) double r[std::size_t(D)];
  memcpy(r, &minus_two_log, sizeof r);
  for (int k = 0; k < D; ++k) r[k] = std::sqrt(r[k]);
  Real length;
  memcpy(&length, r, sizeof r);
  const Real a = length * c, b = length * d;
  memcpy(first, &a, sizeof a);
  memcpy(second, &b, sizeof b);
}

/// 1.5 * 2^52 g: added and taken away again, it rounds a number to the nearest multiple of g (ties to even), because doubles
/// from 2^52 g to 2^53 g are g apart; for numbers beyond 2^51 g (2^30 standard deviations) to a public grid of that order. 0
/// for a standard deviation of 0.
inline double grid_shift(double standard_deviation) {
  return standard_deviation > 0 ? std::ldexp(1.5, std::ilogb(standard_deviation) - 20 + 52) : 0;
}
DPMP_HD double on_grid(double x, double shift) { return (x + shift) - shift; }

/// Row r: elements 128 r .. 128 r + 127 += standard_deviation * z, from ChaCha20 blocks 16 r .. 16 r + 15. A block's eight
/// 64-bit words are the radii of its four pairs, then their angles.
struct GaussianChunks {
  using Real = float;  // decides the instruction set only
  static constexpr bool wide = true;
  Key256 key;
  std::uint64_t nonce;
  double* sum;  // from element 128 first_row on
  index_t n;    // elements of sum
  double standard_deviation;
  index_t first_row = 0;
  double shift = 0;  // grid_shift(standard_deviation); 0: no grid

  template <int W>
  DPMP_HOST void operator()(HostTeam<float, W>, index_t row) const {
    alignas(64) std::uint64_t radius[noise_chunk / 2], angle[noise_chunk / 2];
    for (int g = 0; g < int(blocks_of_chunk); g += W) {
      alignas(64) std::uint32_t words[std::size_t(16 * W)];
      chacha20_lanes<W>(key, std::uint64_t(row * blocks_of_chunk + g), nonce, words);
      for (int k = 0; k < pairs_of_block; ++k)
        for (int b = 0; b < W; ++b) {
          const std::uint32_t *r = words + 2 * k * W + b, *a = r + 8 * W;
          radius[k * blocks_of_chunk + g + b] = r[0] | std::uint64_t(r[W]) << 32;
          angle[k * blocks_of_chunk + g + b] = a[0] | std::uint64_t(a[W]) << 32;
        }
    }
    alignas(64) double first[noise_chunk / 2], second[noise_chunk / 2], z[noise_chunk];
    for (int i = 0; i < int(noise_chunk) / 2; i += W / 2) box_muller<W / 2>(radius + i, angle + i, first + i, second + i);
    for (int i = 0; i < int(noise_chunk) / 2; ++i) z[2 * i] = first[i], z[2 * i + 1] = second[i];
    const index_t begin = (row - first_row) * noise_chunk, left = n - begin;
    double* out = sum + begin;
    const index_t count = left < noise_chunk ? left : noise_chunk;
    for (index_t j = 0; j < count; ++j) out[j] = on_grid(out[j] + standard_deviation * z[j], shift);
  }
};

/// The four pairs of a ChaCha20 block, for threads that are many and narrow. Registers only.
struct BlockNormals {
  std::uint32_t words[16];

  DPMP_HD void draw(const std::uint32_t* key, std::uint64_t nonce, index_t block) {
    const std::uint64_t counter = std::uint64_t(block);
    const std::uint32_t tail[4] = {std::uint32_t(counter), std::uint32_t(counter >> 32), std::uint32_t(nonce),
                                   std::uint32_t(nonce >> 32)};
    dpmp::detail::chacha20_state_block(key, tail, words);
  }
  /// sums [2] += standard_deviation * z, on the grid: of pair k.
  DPMP_HD void add(int k, double standard_deviation, double shift, double* sums) const {
    const std::uint64_t radius = words[2 * k] | std::uint64_t(words[2 * k + 1]) << 32,
                        angle = words[8 + 2 * k] | std::uint64_t(words[9 + 2 * k]) << 32;
    double z[2];
    box_muller<1>(&radius, &angle, z, z + 1);
    for (int j = 0; j < 2; ++j) sums[j] = on_grid(sums[j] + standard_deviation * z[j], shift);
  }
};
/// First of the two elements that pair k of a block belongs to.
DPMP_HD index_t first_element(index_t block, int k) {
  return block / blocks_of_chunk * noise_chunk + 2 * (k * blocks_of_chunk + block % blocks_of_chunk);
}

/// The same numbers as GaussianChunks adds, on a GPU: launched over NoiseBlock::count(n) blocks, a thread for each.
struct GaussianBlocks {
  using Real = double;
  static constexpr int elements_each = 1;
  std::uint32_t key[8];
  std::uint64_t nonce;
  double* sum;
  index_t n;
  double standard_deviation, shift;

  DPMP_ANY_TEAM
  template <template <class, int> class Span>
  DPMP_HD void operator()(const Span<double, 1>& block) const {
    BlockNormals normals;
    normals.draw(key, nonce, block.offset);
    for (int k = 0; k < pairs_of_block; ++k) {
      const index_t first = first_element(block.offset, k);
      if (first >= n) return;
      const Span<double, 2> at{first, n - first < 2 ? 1 : 2};
      auto noised = at.load(sum);
      normals.add(k, standard_deviation, shift, noised.v);
      at.store(sum, noised);
    }
  }
};

inline void check_noise(double standard_deviation) {
  DPMP_CHECK(standard_deviation >= 0 && std::isfinite(standard_deviation),
             "expected a finite noise standard deviation >= 0, got ", standard_deviation);
  DPMP_CHECK(standard_deviation <= 0x1p900, "expected a noise standard deviation of at most 2^900, got ",
             standard_deviation);
}
}  // namespace detail

/// The noise of one step but for its key, as kernels read it: from the memory of the device, so that a captured graph draws
/// the noise of every step that it is launched for.
struct NoiseOfStep {
  double standard_deviation = 0;
  double grid_shift = 0;          // rounds a sum to the grid, by an addition
  std::uint64_t first_nonce = 0;  // noise_nonce(step, 0)

  NoiseOfStep() = default;
  /// Throws on a step and a standard deviation that add_gaussian_noise refuses.
  NoiseOfStep(index_t step, double deviation)
      : standard_deviation(deviation), grid_shift(0), first_nonce(noise_nonce(step, 0)) {
    detail::check_noise(deviation);
    grid_shift = detail::grid_shift(deviation);
  }
};

/// The noise of one parameter, for a kernel that draws it where it uses it: the numbers that add_gaussian_noise adds to the
/// sum of this parameter in the step. On the host by chunks, on a GPU by NoiseBlock.
struct ParameterNoise {
  std::uint32_t key[8] = {};
  const NoiseOfStep* step = nullptr;  // in the memory of the device; null: no noise
  std::uint64_t parameter = 0;

  /// No noise.
  ParameterNoise() = default;
  /// Throws on a parameter outside of the counter layout.
  ParameterNoise(const Key256& k, const NoiseOfStep* of_step, index_t index)
      : step(of_step), parameter(noise_nonce(0, index)) {
    std::copy(k.words.begin(), k.words.end(), key);
  }
  /// sums [count] += the noise of elements 128 chunk .. 128 chunk + count - 1, on the grid. count <= noise_chunk. For the
  /// host, inside of a row of a kernel; there has to be a step. Draws a whole chunk in a function of its own, which all
  /// kernels share.
  void add_to_chunk(index_t chunk, double* sums, index_t count) const {
    detail::GaussianChunks noise{
        {}, step->first_nonce | parameter, sums, count, step->standard_deviation, chunk, step->grid_shift};
    std::copy(key, key + 8, noise.key.words.begin());
    run_library_rows(chunk, chunk + 1, noise);
  }
};

/// What a thread of a GPU draws of a ParameterNoise: four pairs of elements. Launched over count(n) threads.
class NoiseBlock {
 public:
  static constexpr int pairs = detail::pairs_of_block;
  /// Blocks that the noise of n elements takes: those of whole chunks.
  static DPMP_HD index_t count(index_t n) { return noise_chunks(n) * detail::blocks_of_chunk; }

  /// Block `index` in [0, count(n)).
  DPMP_HD NoiseBlock(const ParameterNoise& noise, index_t index) : index_(index), noisy_(noise.step != nullptr) {
    if (!noisy_) return;
    standard_deviation_ = noise.step->standard_deviation;
    grid_shift_ = noise.step->grid_shift;
    normals_.draw(noise.key, noise.step->first_nonce | noise.parameter, index);
  }
  /// The first of the two elements of pair k; ascending in k, and not below n where there is no such pair.
  DPMP_HD index_t element(int k) const { return detail::first_element(index_, k); }
  /// sums [2] += the noise of elements element(k) and element(k) + 1, on the grid; nothing where there is no noise.
  DPMP_HD void add(int k, double* sums) const {
    if (noisy_) normals_.add(k, standard_deviation_, grid_shift_, sums);
  }

 private:
  index_t index_;
  bool noisy_;
  double standard_deviation_ = 0, grid_shift_ = 0;
  detail::BlockNormals normals_{};
};

/// g: the spacing of the grid that a sum with noise of this standard deviation > 0 is released on, in (2^-21, 2^-20] of it.
inline double noise_grid(double standard_deviation) { return std::ldexp(1.0, std::ilogb(standard_deviation) - 20); }

/// sum[j] <- the multiple of noise_grid() next to sum[j] + standard_deviation * z_j, z_j independent standard normals, the
/// same for the same (stream, parameter, j). A standard deviation of 0 changes nothing.
/// `parameter`: index of the parameter that this sum belongs to, each used once a step. Throws on a standard deviation that
/// is negative, not finite or above 2^900, and on a step or parameter outside of the counter layout.
inline void add_gaussian_noise(ThreadTeam& team, std::span<double> sum, double standard_deviation, const NoiseStream& stream,
                               index_t parameter) {
  detail::check_noise(standard_deviation);
  const index_t n = index_t(sum.size()), rows = noise_chunks(n);
  const detail::GaussianChunks chunks{stream.key, noise_nonce(stream.step, parameter),   sum.data(), n, standard_deviation,
                                      0,          detail::grid_shift(standard_deviation)};
  team.parallel_for(
      rows, [&](index_t begin, index_t end) { run_library_rows(begin, end, chunks); }, n < worth_a_fork::noised);
}

/// The same for n elements in the memory of a context's device. On a GPU the last bit of a z may differ from the host's.
inline void add_gaussian_noise(Context& ctx, double* sum, index_t n, double standard_deviation, const NoiseStream& stream,
                               index_t parameter) {
  DPMP_IF_CUDA (ctx.on_cuda()) {
    detail::check_noise(standard_deviation);
    ctx.backend().refuse_in_capture("noise of a fixed step");
    detail::GaussianBlocks blocks{
        {}, noise_nonce(stream.step, parameter), sum, n, standard_deviation, detail::grid_shift(standard_deviation)};
    std::copy(stream.key.words.begin(), stream.key.words.end(), blocks.key);
    return dpmp::detail::launch_library_elements_on_cuda(ctx, NoiseBlock::count(n), blocks);
  }
  add_gaussian_noise(ctx.team(), {sum, std::size_t(n)}, standard_deviation, stream, parameter);
}

/// One number with its noise: what add_gaussian_noise makes of a sum of one element.
inline double noised(double value, double standard_deviation, const NoiseStream& stream, index_t parameter) {
  detail::check_noise(standard_deviation);
  run_library_rows(0, 1,
                   detail::GaussianChunks{stream.key, noise_nonce(stream.step, parameter), &value, 1, standard_deviation, 0,
                                          detail::grid_shift(standard_deviation)});
  return value;
}
}  // namespace dpmp::inline DPMP_ABI::dp
DPMP_KERNELS_END

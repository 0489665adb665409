// SPDX-License-Identifier: Apache-2.0
// The noise of a source whose steps are correlated (noise_source.hpp): n_t = (C^-1 z)_t, z_t the normals of dp/noise.hpp for
// the key and step t. It is a pure function of key, step, parameter and element: a resumed run draws again what it lacks.
#pragma once
#include <span>
#include <vector>

#include "dpmp/dp/noise.hpp"
#include "dpmp/dp/noise_source.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// The noise of one run, on the host. Memory: of banded (bands - 1) * 8 bytes for each element, of tree none. Time: of tree
/// two draws an element on average, at most 1 + log2(steps).
class CorrelatedNoise {
 public:
  explicit CorrelatedNoise(const NoiseSourceOptions& source);

  /// sum[j] <- the multiple of noise_grid() next to sum[j] + standard_deviation * n_t,j, t = stream.step. Steps ascend for
  /// each parameter; one that is left out, or all of them before the first, are drawn and kept as if they had been added.
  /// Throws on a step that was added already, on a key or a number of elements other than before, and on what
  /// add_gaussian_noise refuses.
  void add(ThreadTeam& team, std::span<double> sum, double standard_deviation, const NoiseStream& stream, index_t parameter);

  /// Standard deviation of n_t where z has that of 1: the length of row t of C^-1. Time, of banded: the bands, for each step
  /// up to this one that was not asked for before. Memory: 16 bytes a step.
  double relative_deviation(index_t step);

 private:
  struct Past {
    index_t steps = 0;           // drawn so far
    std::vector<double> values;  // [bands - 1, n]: of step t at t mod (bands - 1), in units of z
  };
  void add_step(ThreadTeam& team, double* sum, index_t n, double standard_deviation, const Key256& key, index_t step,
                index_t parameter, Past& past);
  NoiseMatrix matrix_;
  SecretKey key_;
  bool has_key_ = false;
  std::vector<Past> past_;  // by parameter
  // Of relative_deviation(): the first column of C^-1 and the sums of its squares.
  std::vector<double> inverse_, squares_;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::dp::detail {
/// Row r: n_t of elements 128 r .. 128 r + 127 from z_t and the bands before it, kept at `place` and added to the sum.
struct BandedChunks {
  using Real = float;  // decides the instruction set only
  static constexpr bool wide = true;
  GaussianChunks normals;  // of standard deviation 1; its sum is not used
  double* sum;             // [n]; null: nothing is added
  index_t n;
  double standard_deviation, shift;
  const double* bands;
  index_t count;  // of bands before this step
  double* past;   // [kept, n]
  index_t kept, place;

  template <int W>
  DPMP_HOST void operator()(HostTeam<float, W> team, index_t row) const {
    alignas(64) double x[noise_chunk] = {};
    const index_t begin = row * noise_chunk, left = n - begin, length = left < noise_chunk ? left : noise_chunk;
    GaussianChunks draw = normals;
    draw.sum = x, draw.n = noise_chunk, draw.first_row = row;
    draw(team, row);
    for (index_t k = 1; k <= count; ++k) {
      const double* before = past + (place - k + kept) % kept * n + begin;
      for (index_t j = 0; j < length; ++j) x[j] -= bands[k] * before[j];
    }
    for (index_t j = 0; j < length; ++j) x[j] /= bands[0];
    if (kept > 0) memcpy(past + place * n + begin, x, std::size_t(length) * sizeof(double));
    if (!sum) return;
    for (index_t j = 0; j < length; ++j) sum[begin + j] = on_grid(sum[begin + j] + standard_deviation * x[j], shift);
  }
};

/// Row r: z_t - z_{t-1} - z_{t-2} - z_{t-4} - .. of as many terms as the tree's node of step t has children, added to the
/// sum.
struct TreeChunks {
  using Real = float;  // decides the instruction set only
  static constexpr bool wide = true;
  GaussianChunks normals;  // of step 0, standard deviation 1
  double* sum;             // [n]
  index_t n;
  double standard_deviation, shift;
  std::uint64_t step, length;  // steps that the node sums

  template <int W>
  DPMP_HOST void operator()(HostTeam<float, W> team, index_t row) const {
    alignas(64) double x[noise_chunk] = {};
    GaussianChunks draw = normals;
    draw.sum = x, draw.n = noise_chunk, draw.first_row = row;
    draw.nonce = normals.nonce | step << 24;
    draw(team, row);
    draw.standard_deviation = -1;
    for (std::uint64_t back = 1; back < length; back *= 2) {
      draw.nonce = normals.nonce | (step - back) << 24;
      draw(team, row);
    }
    const index_t begin = row * noise_chunk, left = n - begin, count = left < noise_chunk ? left : noise_chunk;
    for (index_t j = 0; j < count; ++j) sum[begin + j] = on_grid(sum[begin + j] + standard_deviation * x[j], shift);
  }
};
}  // namespace dpmp::inline DPMP_ABI::dp::detail
DPMP_KERNELS_END

namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline CorrelatedNoise::CorrelatedNoise(const NoiseSourceOptions& source) : matrix_(source) {
  DPMP_CHECK(source.is_correlated(), "expected a noise source with correlated steps, got ", source.kind);
}

DPMP_KEPT_BODY inline void CorrelatedNoise::add(ThreadTeam& team, std::span<double> sum, double standard_deviation,
                                                const NoiseStream& stream, index_t parameter) {
  detail::check_noise(standard_deviation);
  noise_nonce(stream.step, parameter);  // throws
  DPMP_CHECK(stream.step < max_correlated_steps, "expected fewer than 2^20 steps with correlated noise, got step ",
             stream.step);
  DPMP_CHECK(!has_key_ || key_ == stream.key,
             "expected the key of the earlier steps, got another one: their noise is "
             "part of this step's");
  if (past_.size() <= std::size_t(parameter)) past_.resize(std::size_t(parameter) + 1);
  Past& past = past_[std::size_t(parameter)];
  const index_t n = index_t(sum.size());
  DPMP_CHECK(stream.step >= past.steps, "expected a step from ", past.steps, " on, got step ", stream.step,
             ": the same noise on two sums cancels in their difference");
  const std::size_t values = std::size_t(std::max<index_t>(matrix_.options().bands - 1, 0)) * sum.size();
  DPMP_CHECK(past.steps == 0 || past.values.size() == values, "expected as many elements as before, got ", n);
  key_ = SecretKey(stream.key), has_key_ = true;
  past.values.resize(values);
  if (matrix_.options().kind == NoiseSourceKind::banded)
    for (; past.steps < stream.step; ++past.steps)
      add_step(team, nullptr, n, standard_deviation, stream.key, past.steps, parameter, past);
  add_step(team, sum.data(), n, standard_deviation, stream.key, stream.step, parameter, past);
  past.steps = stream.step + 1;
}

DPMP_KEPT_BODY inline void CorrelatedNoise::add_step(ThreadTeam& team, double* sum, index_t n, double standard_deviation,
                                                     const Key256& key, index_t step, index_t parameter, Past& past) {
  const double shift = detail::grid_shift(standard_deviation);
  const auto launch = [&](const auto& chunks) {
    team.parallel_for(
        noise_chunks(n), [&](index_t begin, index_t end) { run_library_rows(begin, end, chunks); },
        n < worth_a_fork::noised);
  };
  if (matrix_.options().kind == NoiseSourceKind::tree)
    return launch(detail::TreeChunks{{key, noise_nonce(0, parameter), nullptr, 0, 1},
                                     sum,
                                     n,
                                     standard_deviation,
                                     shift,
                                     std::uint64_t(step),
                                     std::uint64_t(detail::node_length(step))});
  const index_t kept = matrix_.options().bands - 1;
  launch(detail::BandedChunks{{key, noise_nonce(step, parameter), nullptr, 0, 1},
                              sum,
                              n,
                              standard_deviation,
                              shift,
                              matrix_.bands().data(),
                              std::min(kept, step),
                              past.values.data(),
                              kept,
                              kept > 0 ? step % kept : 0});
}

DPMP_KEPT_BODY inline double CorrelatedNoise::relative_deviation(index_t step) {
  DPMP_CHECK(step >= 0 && step < max_correlated_steps, "expected a step in [0, 2^20), got ", step);
  if (matrix_.options().kind == NoiseSourceKind::tree)
    return std::sqrt(double(std::bit_width(std::uint64_t(detail::node_length(step)))));
  // The first column of C^-1, backwards a row of it: the inverse of a Toeplitz matrix is one.
  const std::vector<double>& c = matrix_.bands();
  for (std::size_t t = inverse_.size(); t <= std::size_t(step); ++t) {
    double x = t == 0;
    for (std::size_t k = 1; k < c.size() && k <= t; ++k) x -= c[k] * inverse_[t - k];
    inverse_.push_back(x / c[0]);
    squares_.push_back((t > 0 ? squares_.back() : 0) + inverse_.back() * inverse_.back());
  }
  return std::sqrt(squares_[std::size_t(step)]);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif

// SPDX-License-Identifier: Apache-2.0
// One pass over a parameter for all that a step does with its sum: noise, moments, master values and their copy in the
// compute dtype. The noise is drawn where it is used and never stored: 16 bytes an element less than noise, update and
// rounding one after the other would move, and few launches for all parameters.
#pragma once
#include <span>

#include "dpmp/dp/noise.hpp"
#include "dpmp/kernels/optimiser_update.hpp"
#include "dpmp/runtime/launch_many.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::optim {
namespace detail {
/// What an update reads from the memory of the device.
struct FusedNumbers {
  kernels::UpdateNumbers update;
  dp::NoiseOfStep noise;
};

/// weight, copy, moments <- rule(sum + noise, on the grid of dp/noise.hpp). T: what the copy is rounded to; no copy is kept
/// where T is the master's type. A rule with `keeps_weights` updates moments only.
template <class Rule_, class T>
struct FusedUpdate {
  using Rule = Rule_;
  using Real = typename Rule::Real;
  static constexpr int elements_each = 1;  // on a GPU, where a thread gets a block of noise
  index_t n;
  const double* sum;  // [n]
  Real* weight;       // [n]
  T* copy;            // [n]; not used where T is Real
  Rule rule;          // moments [n]
  const kernels::UpdateNumbers* numbers;
  dp::ParameterNoise noise;

  /// For a span of elements whose sums are in hand.
  DPMP_ANY_TEAM
  template <class Span, class Pack>
  DPMP_HD void apply(const Span& at, const Pack& noised, const kernels::UpdateNumbers& now) const {
    if constexpr (requires { requires Rule::keeps_weights; }) {
      rule(at, noised, now);
    } else {
      const Pack updated = rule(at, noised, at.load(weight), now);
      at.store(weight, updated);
      if constexpr (!std::is_same_v<T, Real>) at.store(copy, updated);
    }
  }

  /// A thread of a GPU, launched over dp::NoiseBlock::count(n): the pairs of elements of one block.
  DPMP_ANY_TEAM
  template <template <class, int> class Span>
  DPMP_HD void operator()(const Span<Real, 1>& block) const {
    const kernels::UpdateNumbers now = *numbers;
    const dp::NoiseBlock drawn(noise, block.offset);
    for (int k = 0; k < dp::NoiseBlock::pairs; ++k) {
      const index_t first = drawn.element(k);
      if (first >= n) return;
      const Span<Real, 2> at{first, n - first < 2 ? 1 : 2};
      auto sums = Span<double, 2>{at.offset, at.count}.load(sum);
      drawn.add(k, sums.v);
      typename Span<Real, 2>::Pack noised;
      for (int j = 0; j < 2; ++j) noised.v[j] = Real(sums.v[j]);
      apply(at, noised, now);
    }
  }
};

/// The same for the host, whose noise comes in chunks: row r has the elements 128 r .. 128 r + 127.
template <class Update>
struct UpdateChunks {
  using Real = float;  // decides the instruction set only
  Update update;

  template <int W>
  DPMP_HOST void operator()(HostTeam<float, W>, index_t row) const {
    using R = typename Update::Real;
    using Team = HostTeam<R, std::is_same_v<R, double> ? W / 2 : W>;
    const kernels::UpdateNumbers now = *update.numbers;
    const index_t begin = row * dp::noise_chunk, left = update.n - begin,
                  count = left < dp::noise_chunk ? left : dp::noise_chunk;
    alignas(64) double noised[dp::noise_chunk];
    const double* sum = update.sum + begin;
    if (update.noise.step) {
      memcpy(noised, sum, std::size_t(count) * sizeof(double));
      update.noise.add_to_chunk(row, noised, count);
      sum = noised;
    }
    Team{}.for_each(count, [&](auto at) DPMP_LAMBDA {
      const auto sums = at.load(sum);
      at.offset += begin;
      update.apply(at, sums, now);
    });
  }
};

/// Runs an update on the cores of a context.
template <class Update>
void update_on_host(Context& ctx, const Update& update) {
  constexpr index_t as_work = worth_a_fork::elements / worth_a_fork::noised;  // an element with its noise
  dpmp::detail::launch_library_rows_on_host(
      ctx, dp::noise_chunks(update.n), dp::noise_chunk * (update.noise.step ? as_work : 1), UpdateChunks<Update>{update});
}

/// Updates of several parameters in one launch of a GPU, over the blocks of all of them.
template <class Update>
struct FusedUpdates {
  using Real = typename Update::Real;
  static constexpr int elements_each = 1;
  LaunchJobs<Update> parameters;

  DPMP_ANY_TEAM
  template <template <class, int> class Span>
  DPMP_HD void operator()(const Span<Real, 1>& block) const {
    const index_t k = parameters.of_row(block.offset);
    parameters.jobs[k](Span<Real, 1>{block.offset - parameters.first_row[k], 1});
  }
};

/// Runs updates on the device of a context.
template <class Update>
void launch_updates(Context& ctx, std::span<const Update> updates) {
  DPMP_IF_CUDA (ctx.on_cuda()) {
    const auto launch = [&](const LaunchJobs<Update>& some) {
      dpmp::detail::launch_library_elements_on_cuda(ctx, some.rows, FusedUpdates<Update>{some});
    };
    launch_many(
        updates, [](const Update& update) { return dp::NoiseBlock::count(update.n); }, launch);
    return;
  }
  for (const Update& update : updates) update_on_host(ctx, update);
}
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI::optim
DPMP_KERNELS_END

// SPDX-License-Identifier: Apache-2.0
// One pass over a parameter for all that a step does with its sum: noise, moments, master values and their copy in the
// compute dtype. The noise is drawn where it is used and never stored: 16 bytes an element less than noise, update and
// rounding one after the other would move, and one launch instead of three.
#pragma once
#include "dpmp/dp/noise.hpp"
#include "dpmp/kernels/optimiser_update.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::optim {
/// The numbers of one step, in the memory of the device.
struct StepNumbers {
  kernels::UpdateNumbers update;
  double noise_standard_deviation = 0;
  std::uint64_t first_nonce = 0;  // dp::noise_nonce(step, 0)
};

namespace detail {
/// weight, copy, moments <- rule(sum + noise). T: what the copy is rounded to; no copy is kept where T is the master's type.
template <class Rule_, class T>
struct FusedUpdate {
  using Rule = Rule_;
  using Real = typename Rule::Real;
  using Storage = f16;  // of which 16 bytes are eight elements: a thread of a GPU gets a block of noise whole
  const double* sum;    // [n]
  Real* weight;         // [n]
  T* copy;              // [n]; not used where T is Real
  Rule rule;            // moments [n]
  const StepNumbers* numbers;
  std::uint64_t parameter;  // its number in the nonces
  std::uint32_t key[8];
  bool noisy;

  /// For a span of elements whose sums are in hand.
  DPMP_ANY_TEAM
  template <class Span, class Pack>
  DPMP_HD void apply(const Span& at, const Pack& noised, const kernels::UpdateNumbers& now) const {
    const Pack updated = rule(at, noised, at.load(weight), now);
    at.store(weight, updated);
    if constexpr (!std::is_same_v<T, Real>) at.store(copy, updated);
  }

  /// A thread of a GPU with eight elements or what is left of them.
  DPMP_ANY_TEAM
  template <template <class, int> class Span>
  DPMP_HD void operator()(const Span<Real, 8>& at) const {
    const StepNumbers now = *numbers;
    auto wide = Span<double, 8>{at.offset, at.count}.load(sum);
    if (noisy) {
      double z[8];
      dp::detail::block_normals(key, now.first_nonce | parameter, at.offset / 8, z);
      for (int k = 0; k < 8; ++k) wide.v[k] += now.noise_standard_deviation * z[k];
    }
    typename Span<Real, 8>::Pack noised;
    for (int k = 0; k < 8; ++k) noised.v[k] = Real(wide.v[k]);
    apply(at, noised, now.update);
  }
};

/// The same for the host, whose noise comes in chunks: row r has the elements 128 r .. 128 r + 127 of n.
template <class Update>
struct UpdateChunks {
  using Real = float;  // decides the instruction set only
  Update update;
  index_t n;

  template <int W>
  DPMP_HOST void operator()(HostTeam<float, W>, index_t row) const {
    using R = typename Update::Real;
    using Team = HostTeam<R, std::is_same_v<R, double> ? W / 2 : W>;
    const StepNumbers now = *update.numbers;
    const index_t begin = row * dp::detail::noise_chunk, left = n - begin,
                  count = left < dp::detail::noise_chunk ? left : dp::detail::noise_chunk;
    alignas(64) double noised[dp::detail::noise_chunk];
    const double* sum = update.sum + begin;
    if (update.noisy) {
      memcpy(noised, sum, std::size_t(count) * sizeof(double));
      dp::detail::GaussianChunks noise{{},    now.first_nonce | update.parameter, noised,
                                       count, now.noise_standard_deviation,       row};
      memcpy(noise.key.words.data(), update.key, sizeof update.key);
      noise(HostTeam<float, W>{}, row);
      sum = noised;
    }
    Team{}.for_each(count, [&](auto at) DPMP_LAMBDA {
      const auto sums = at.load(sum);
      at.offset += begin;
      update.apply(at, sums, now.update);
    });
  }
};

/// Runs an update of n elements on the device of a context.
template <class Update>
void launch_update(Context& ctx, index_t n, const Update& update) {
#if defined(DPMP_WITH_CUDA) && DPMP_WITH_CUDA
  if (ctx.on_cuda()) return dpmp::detail::launch_elements_on_cuda(ctx, n, update);
#endif
  const UpdateChunks<Update> chunks{update, n};
  const index_t worth_a_fork = update.noisy ? 4096 : 16384;
  ctx.team().parallel_for((n + dp::detail::noise_chunk - 1) / dp::detail::noise_chunk,
                          [&](index_t begin, index_t end) { run_rows(begin, end, chunks); }, n < worth_a_fork);
}
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI::optim
DPMP_KERNELS_END

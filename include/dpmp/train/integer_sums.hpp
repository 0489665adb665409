// SPDX-License-Identifier: Apache-2.0
// The clipped sum as whole numbers on a public grid (dp/integer_grid.hpp), on the host: per-sample gradients of a physical
// batch are formed, clipped, rounded and added as 64-bit integers. The sum has the same bits however records are split into
// physical batches, in whatever order, by any number of threads.
#pragma once
#include "dpmp/dp/integer_grid.hpp"
#include "dpmp/dp/ledger.hpp"
#include "dpmp/per_sample/group_pass.hpp"
#include "dpmp/train/accumulate.hpp"

namespace dpmp::inline DPMP_ABI::train {
class IntegerSums {
 public:
  /// Makes room for the trainable ones of these sums, all 0. Throws where they have more values than `dimensions`.
  void begin(const per_sample::GradientSums& like, index_t dimensions);

  /// One physical batch: of each record with finite norms the integers next to its clipped gradient, unless their norm is
  /// beyond the grid's. Memory: one gradient of each slot (Strategy::materialised). Throws like accumulate_clipped(), and
  /// on a GPU.
  void accumulate(Context& ctx, Losses losses, const PhysicalBatch& batch, const dp::FlatClipping& clipping,
                  const dp::IntegerGrid& grid, const per_sample::GradientSums& sums, const PassRequests& requests = {});

  /// Adds discrete Gaussian noise of this sigma to each integer, and puts the sums, times the grid's spacing, into `sums`:
  /// exact below 2^53.
  void release(Context& ctx, index_t sigma, const dp::NoiseStream& stream, const dp::IntegerGrid& grid,
               const per_sample::GradientSums& sums);

  /// Of parameter k of the sums that this was begun for.
  std::span<const std::int64_t> of(std::size_t k) const { return values_[k]; }

 private:
  std::vector<std::vector<std::int64_t>> values_;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
namespace detail {
/// c times a gradient in compute precision, as the clipped sum has it; 0 for a factor of 0, whatever the gradient is.
template <class R>
double clipped_value(R gradient, R factor) {
  return factor > 0 ? double(gradient * factor) : 0;
}
/// x of at most 2^26 in magnitude, to the nearest integer, ties to even.
inline double nearest_integer(double x) { return (x + 0x1.8p52) - 0x1.8p52; }
inline constexpr double largest_integer = 0x1p26;

/// squares[i] += sum over a parameter of the squares of sample i's integers; beyond 2^62 where one is too large to be
/// squared, or no number.
template <class R>
void add_integer_squares(Context& ctx, const R* gradients, index_t samples, index_t n, const float* factors, double units,
                         std::uint64_t* squares) {
  constexpr std::uint64_t most = std::uint64_t(1) << 62;
  ctx.team().parallel_for(samples, [&](index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i) {
      const R* g = gradients + i * n;
      for (index_t first = 0; first < n; first += 1024) {
        std::uint64_t part = 0, outside = 0;  // 1024 squares of at most 2^52
        for (index_t j = first; j < std::min(n, first + 1024); ++j) {
          const double x = clipped_value(g[j], R(factors[i])) * units;
          const bool inside = x >= -largest_integer && x <= largest_integer;
          const auto q = std::int64_t(nearest_integer(inside ? x : 0));
          part += std::uint64_t(q * q);
          outside |= std::uint64_t(!inside);
        }
        squares[i] = std::min(most, squares[i] + std::min(most, part) + outside * most);
      }
    }
  });
}
/// sum += the integers of all samples with counts[i] = 1.
template <class R>
void add_integers(Context& ctx, const R* gradients, index_t samples, index_t n, const float* factors, double units,
                  const std::uint8_t* counts, std::int64_t* sum) {
  ctx.team().parallel_for(
      n,
      [&](index_t begin, index_t end) {
        for (index_t i = 0; i < samples; ++i) {
          const auto mask = -std::int64_t(counts[i]);
          for (index_t j = begin; j < end; ++j) {
            const double x = clipped_value(gradients[i * n + j], R(factors[i])) * units;
            const bool inside = x >= -largest_integer && x <= largest_integer;
            sum[j] += std::int64_t(nearest_integer(inside ? x : 0)) & mask;
          }
        }
      },
      n * samples < worth_a_fork::elements);
}
}  // namespace detail

DPMP_KEPT_BODY inline void IntegerSums::begin(const per_sample::GradientSums& like, index_t dimensions) {
  index_t trained = 0;
  values_.resize(like.parameters().size());
  for (std::size_t k = 0; k < values_.size(); ++k) {
    trained += like.parameters()[k]->numel();
    values_[k].assign(std::size_t(like.parameters()[k]->numel()), 0);
  }
  DPMP_CHECK(trained <= dimensions, "expected at most the plan's ", dimensions, " trained values, got ", trained);
}

DPMP_KEPT_BODY inline void IntegerSums::accumulate(Context& ctx, Losses losses, const PhysicalBatch& batch,
                                                   const dp::FlatClipping& clipping, const dp::IntegerGrid& grid,
                                                   const per_sample::GradientSums& sums, const PassRequests& requests) {
  DPMP_CHECK(!ctx.on_cuda(), "expected a context on the CPU for sums of whole numbers, got ", ctx.device());
  const index_t samples = index_t(batch.slots.size());
  Tape tape(ctx, samples);
  tape.set_checkpointing(requests.checkpointing);
  const Variable loss = detail::forward_pass(ctx, losses, tape, batch);
  if (requests.program) requests.program->check(tape);
  const LossScaling scaling = requests.loss_scaling ? *requests.loss_scaling : detail::usual_scaling(tape);
  const ScaledSeed seed = scaled_seed(tape, loss, detail::weights_of(ctx, batch, loss), scaling);
  per_sample::MaterialisedSink pass;
  tape.backward(loss, pass, seed.weights);
  per_sample::NormBounds norms = pass.norms(ctx, samples);
  if (seed.exponents.defined()) norms = norms.unscaled(ctx, seed.exponents);
  if (requests.norms) requests.norms->add_group(norms.upper(), norms.finite(), clipping.clip_threshold());
  per_sample::SampleFactors factors = clip_factors(ctx, norms, batch.slots, detail::weights_of(ctx, batch, loss), clipping);
  if (seed.exponents.defined()) factors = factors.unscaled(ctx, seed.exponents);

  const double units = 1 / grid.spacing;
  std::vector<std::uint64_t> squares(batch.slots.size());
  const auto for_each_gradient = [&](const auto& f) {
    for (std::size_t k = 0; k < sums.parameters().size(); ++k) {
      const Parameter& p = *sums.parameters()[k];
      const auto used = [&](const per_sample::SiteList& sites) { return sites[0].parameter == &p; };
      if (std::none_of(pass.lists().begin(), pass.lists().end(), used)) continue;
      const Tensor gradients = pass.gradients(ctx, p);
      if (gradients.dtype() == DType::f64)
        f(k, static_cast<const double*>(gradients.data<double>()), p.numel());
      else
        f(k, static_cast<const float*>(gradients.data<float>()), p.numel());
    }
  };
  for_each_gradient([&](std::size_t, const auto* g, index_t n) {
    detail::add_integer_squares(ctx, g, samples, n, factors.on(ctx), units, squares.data());
  });
  std::vector<std::uint8_t> counts(squares.size());
  for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = std::uint8_t(squares[i] <= std::uint64_t(grid.largest_square));
  for_each_gradient([&](std::size_t k, const auto* g, index_t n) {
    detail::add_integers(ctx, g, samples, n, factors.on(ctx), units, counts.data(), values_[k].data());
  });
  if (requests.program) requests.program->take(tape);
}

DPMP_KEPT_BODY inline void IntegerSums::release(Context& ctx, index_t sigma, const dp::NoiseStream& stream,
                                                const dp::IntegerGrid& grid, const per_sample::GradientSums& sums) {
  for (std::size_t k = 0; k < values_.size(); ++k) {
    dp::add_discrete_gaussian(ctx.team(), values_[k], sigma, stream, sums.places()[k]);
    double* sum = Tensor(sums.tensors()[k]).data<double>();
    for (std::size_t j = 0; j < values_[k].size(); ++j) sum[j] = double(values_[k][j]) * grid.spacing;
  }
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif

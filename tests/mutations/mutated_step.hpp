// SPDX-License-Identifier: Apache-2.0
// A private step written out by hand from the library's parts, with the mistakes that make such a step leak. Without a
// mistake it releases what train::Trainer does, so whoever finds a mutant finds the mistake and nothing else.
#pragma once
#include <functional>
#include <memory>

#include "dpmp/per_sample/weighted_sum.hpp"
#include "dpmp/train/trainer.hpp"

namespace mutation {
using namespace dpmp;

enum class Bug {
  none,
  no_clip,
  clip_after_mean,
  tied_sum_of_squares,
  bf16_norm,
  non_finite_after_sum,
  skip_on_overflow,
  noise_over_batch,
  noise_per_micro_batch,
  unit_noise,
  noise_of_first_group,
  no_noise_after_thaw,
  sparse_noise,
  bf16_noise,
  reused_noise,
  noise_of_one_parameter,
  repeated_run,
  batch_size_divisor,
  empty_batch_skipped,
  with_replacement,
  shuffled_batches,
  double_rate,
};

/// What a run is made from; the real one takes the same.
struct RunSettings {
  Context& ctx;
  const nn::Parameters& parameters;
  dp::Plan plan;
  dp::StreamKeys keys;
  index_t records;
  train::TrainerOptions options;
};
/// A run, real or broken: one step.
using Step = std::function<void(train::Losses)>;
using MakeRun = std::function<Step(const RunSettings&)>;

inline Step real_run(const RunSettings& s) {
  const auto trainer = std::make_shared<train::Trainer>(s.ctx, s.parameters, s.plan, s.keys, s.records, s.options);
  return [trainer](train::Losses losses) { trainer->step(losses); };
}

/// Plain descent, clipping rule of Abadi, constant thresholds.
class MutatedRun {
 public:
  MutatedRun(const RunSettings& s, Bug bug)
      : s_(s),
        bug_(bug),
        parameters_(s.parameters.all().begin(), s.parameters.all().end()),
        groups_(s.options.groups ? *s.options.groups : per_sample::Groups::flat(parameters_)),
        ledger_(s.plan.ledger(bug == Bug::repeated_run ? dp::StreamKeys::repeat(s.keys.root(), 1) : s.keys)),
        sums_(s.ctx, parameters_),
        frozen_once_(parameters_.size(), false) {}

  void step(train::Losses losses) {
    dp::StepTicket ticket = ledger_.begin_step();
    const index_t t = ticket.step();
    const dp::StepPlan numbers = s_.plan.at(t);
    const std::vector<index_t> draw = drawn(t);
    if (bug_ == Bug::empty_batch_skipped && draw.empty()) return;
    sums_.follow_trainable(s_.ctx);
    sums_.set_zero();
    std::vector<index_t> slots(std::size_t(s_.options.physical_batch));
    const index_t batches = train::physical_batches(index_t(draw.size()), s_.options.physical_batch);
    bool all_finite = true;
    for (index_t k = 0; k < batches; ++k) {
      train::fill_physical_batch(draw, k, slots);
      all_finite = accumulate(losses, slots, t, numbers) && all_finite;
    }
    if (bug_ == Bug::skip_on_overflow && !all_finite) return;
    update(sums(all_finite, index_t(draw.size()), numbers), ticket.noise(), numbers, batches, index_t(draw.size()));
  }

 private:
  std::vector<index_t> drawn(index_t t) const {
    const double q = s_.plan.options().sampling_rate;
    std::vector<index_t> draw;
    if (bug_ == Bug::with_replacement || bug_ == Bug::shuffled_batches) {
      const index_t n = std::max<index_t>(1, index_t(q * double(s_.records)));
      std::vector<index_t> left(std::size_t(s_.records), 0);
      for (std::size_t k = 0; k < left.size(); ++k) left[k] = index_t(k);
      for (index_t k = 0; k < n; ++k) {
        const std::uint64_t bits =
            philox_block(std::uint64_t(ledger_.keys().run_nonce()), std::uint64_t(t), std::uint64_t(k)).word[0];
        const std::size_t at = std::size_t(bits % left.size());
        draw.push_back(left[at]);
        if (bug_ == Bug::shuffled_batches) left.erase(left.begin() + std::ptrdiff_t(at));
      }
      return draw;
    }
    const double rate = bug_ == Bug::double_rate ? std::min(1.0, 2 * q) : q;
    dp::PoissonSampler(ledger_.keys().key(dp::Stream::sampler), s_.records, rate).draw(t, draw);
    return draw;
  }

  /// Keeps the sites of each parameter.
  struct Uses final : GradientSink {
    std::map<const Parameter*, per_sample::SiteList> of;
    void accept(Context&, const ParameterSite& site) override { of[site.parameter].push_back(site); }
  };

  /// Adds a physical batch to the sums; whether all its norms are finite.
  bool accumulate(train::Losses losses, std::span<const index_t> slots, index_t t, const dp::StepPlan& numbers) {
    Tape tape(s_.ctx, index_t(slots.size()));
    const Variable loss = losses({tape, train::records_of(slots), t});
    Uses uses;
    tape.backward(loss, uses, train::slot_weights(s_.ctx, slots, loss.dtype()));
    bool all_finite = true;
    for (index_t g = 0; g < groups_.count(); ++g) {
      per_sample::NormBounds bounds(index_t(slots.size()));
      for (const auto& [parameter, sites] : uses.of) {
        if (groups_.of(*parameter) != g) continue;
        if (bug_ == Bug::tied_sum_of_squares)
          for (const ParameterSite& site : sites) per_sample::squared_norm(s_.ctx, {site}, bounds);
        else if (bug_ == Bug::bf16_norm)
          for (index_t i = 0; i < bounds.samples(); ++i) bounds.add(i, bf16_squared_norm(s_.ctx, sites, i), 0, 0);
        else
          per_sample::squared_norm(s_.ctx, sites, bounds);
      }
      std::vector<std::uint8_t> ok = bounds.finite();
      for (std::size_t i = 0; i < ok.size(); ++i) {
        all_finite = all_finite && (ok[i] || slots[i] == train::masked_slot);
        ok[i] = ok[i] && slots[i] != train::masked_slot;
      }
      std::vector<float> factors(ok.size());
      if (bug_ == Bug::no_clip || bug_ == Bug::clip_after_mean)
        for (std::size_t i = 0; i < ok.size(); ++i) factors[i] = ok[i];
      else
        numbers.groups[std::size_t(g)].factors(bounds.upper(), ok, factors);
      for (const auto& [parameter, sites] : uses.of)
        if (groups_.of(*parameter) == g) per_sample::add_weighted_sum(s_.ctx, sites, factors, sums_);
    }
    return all_finite;
  }

  /// The ghost norm as autocast computes it: Gram matrices and the square in bf16, negative squares set to 0.
  static double bf16_squared_norm(Context& ctx, const per_sample::SiteList& sites, index_t i) {
    const auto rounded = [](double x) { return to_float(from_float<bf16>(float(x))); };
    float sum = 0;
    for (const ParameterSite& site : per_sample::merge_sites(ctx, sites)) {
      const index_t tokens = site.a.shape()[1], d = site.a.shape()[2], p = site.b.numel() / site.b.shape()[0] / tokens;
      const std::vector<double> a = site.a.rows(i, i + 1).to_doubles(), b = site.b.rows(i, i + 1).to_doubles();
      const auto product = [&](const std::vector<double>& x, index_t width, index_t t, index_t s) {
        float dot = 0;
        for (index_t k = 0; k < width; ++k)
          dot += float(x[std::size_t(t * width + k)]) * float(x[std::size_t(s * width + k)]);
        return rounded(dot);
      };
      for (index_t t = 0; t < tokens; ++t)
        for (index_t s = 0; s < tokens; ++s) sum += rounded(product(a, d, t, s) * product(b, p, t, s));
    }
    return std::pow(rounded(std::sqrt(std::max(0.0f, rounded(sum)))), 2);
  }

  /// The sums before noise, one vector for each trained parameter.
  std::vector<std::vector<double>> sums(bool all_finite, index_t records, const dp::StepPlan& numbers) const {
    std::vector<std::vector<double>> all;
    double squares = 0;
    for (const Tensor& sum : sums_.tensors()) {
      all.push_back(sum.to_doubles());
      if (bug_ == Bug::non_finite_after_sum && !all_finite) std::fill(all.back().begin(), all.back().end(), 0.0);
      for (const double x : all.back()) squares += x * x;
    }
    if (bug_ == Bug::clip_after_mean) {
      const double n = double(std::max<index_t>(records, 1)), norm = std::sqrt(squares) / n;
      const double factor = std::min(1.0, numbers.groups[0].clip_threshold() / norm) / n;
      for (auto& sum : all)
        for (double& x : sum) x *= factor;
    }
    return all;
  }

  double deviation(const dp::StepPlan& numbers, index_t batches) const {
    const double right = numbers.noise_standard_deviation;
    switch (bug_) {
      case Bug::noise_over_batch: return right / s_.plan.expected_batch();
      case Bug::noise_per_micro_batch: return right / double(batches);
      case Bug::unit_noise: return s_.plan.noise_multiplier();
      case Bug::noise_of_first_group: return s_.plan.noise_multiplier() * numbers.groups[0].clip_threshold();
      default: return right;
    }
  }

  void update(std::vector<std::vector<double>> sums, dp::NoiseStream stream, const dp::StepPlan& numbers, index_t batches,
              index_t drawn) {
    if (bug_ == Bug::reused_noise) stream.step = 0;
    for (std::size_t k = 0; k < parameters_.size(); ++k) frozen_once_[k] = frozen_once_[k] || !parameters_[k]->trainable();
    const double divisor = bug_ == Bug::batch_size_divisor ? double(std::max<index_t>(drawn, 1)) : s_.plan.expected_batch();
    const double rate = s_.options.learning_rate.at(ledger_.steps() - 1) / divisor;
    for (std::size_t k = 0; k < sums.size(); ++k) {
      Parameter& p = *sums_.parameters()[k];
      const index_t place = bug_ == Bug::noise_of_one_parameter ? 0 : sums_.places()[k];
      std::vector<double>& sum = sums[k];
      const bool silent = bug_ == Bug::no_noise_after_thaw && frozen_once_[std::size_t(place)];
      for (index_t repeat = 0; !silent && repeat < (bug_ == Bug::noise_per_micro_batch ? batches : 1); ++repeat) {
        std::vector<double> noised = sum;
        const dp::NoiseStream own{stream.key, stream.step + (repeat << 20)};
        dp::add_gaussian_noise(s_.ctx.team(), noised, deviation(numbers, batches), own, place);
        for (std::size_t j = 0; j < sum.size(); ++j) {
          if (bug_ == Bug::bf16_noise) noised[j] = sum[j] + to_float(from_float<bf16>(float(noised[j] - sum[j])));
          if (bug_ != Bug::sparse_noise || sum[j] != 0) sum[j] = noised[j];
        }
      }
      for (std::size_t j = 0; j < sum.size(); ++j) p.master().data<float>()[j] -= float(rate * sum[j]);
      p.refresh(s_.ctx);
    }
  }

  RunSettings s_;
  Bug bug_;
  std::vector<Parameter*> parameters_;
  per_sample::Groups groups_;
  dp::StepLedger ledger_;
  per_sample::GradientSums sums_;
  std::vector<bool> frozen_once_;
};

inline MakeRun mutated(Bug bug) {
  return [bug](const RunSettings& s) -> Step {
    const auto run = std::make_shared<MutatedRun>(s, bug);
    return [run](train::Losses losses) { run->step(losses); };
  };
}
}  // namespace mutation

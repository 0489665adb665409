// SPDX-License-Identifier: Apache-2.0
// SGD with momentum, AdamW, DP-AdamBC and LAMB on FP32 master weights (f64 for an f64 model), from f64 gradient sums: the
// state of a run, which belongs to the parameters one by one.
#pragma once
#include <cmath>
#include <span>
#include <vector>

#include "dpmp/optim/fused_update.hpp"
#include "dpmp/optim/lamb.hpp"
#include "dpmp/optim/optimiser_kinds.hpp"
#include "dpmp/per_sample/gradient_sums.hpp"

namespace dpmp::inline DPMP_ABI::optim {
/// Gaussian noise that a step adds to the sums: to sum k the normals of parameter sums.places()[k].
struct StepNoise {
  dp::NoiseStream stream;
  double standard_deviation = 0;
  /// The sums have it already (a noise source with a memory): nothing is drawn, the optimiser knows its size.
  bool added = false;
};

/// What an optimiser keeps of one parameter: made when it is first trained, kept while it is frozen.
struct ParameterState {
  /// Updates made so far; Adam's bias correction depends on it.
  index_t updates = 0;
  /// DP-AdamBC: the part of `second` that is the noise's variance: its moving average over the same steps.
  double noise_share = 0;
  /// AdamW, DP-AdamBC, LAMB: both; SGD: the velocity, where it has momentum. Of the parameter's shape, in
  /// OptimiserState::moment_dtype; not defined before the first step that trains the parameter.
  Tensor first, second;
};

/// The state of all parameters of a model. A step updates those that its sums have and that are trained; the others keep
/// their bits, their moments and their counts, as in PyTorch.
class OptimiserState {
 public:
  /// rate_factors: the first group that has a parameter counts; a parameter in none has the factor 1. Throws for settings
  /// outside of their ranges, and for moments in bf16 of f64 masters.
  OptimiserState(Context& ctx, std::span<Parameter* const> parameters, const Optimiser& optimiser,
                 std::span<const RateFactor> rate_factors = {});

  /// One update from gradient = (sums + noise) * gradient_factor (1 / a public divisor), with the compute weights rounded
  /// again. The sums stay as they are. Throws on noise that dp::add_gaussian_noise refuses and on sums of other parameters;
  /// nothing is counted then.
  void step(Context& ctx, const per_sample::GradientSums& sums, double gradient_factor, double learning_rate,
            const StepNoise* noise = nullptr);
  /// The two halves of step. begin_step makes moments that are missing, counts the step for each parameter that it trains,
  /// and puts its numbers into the memory of the device; update launches kernels only, with nothing of the step but the key
  /// in their arguments: it may be captured in a CUDA graph, which then is launched after each begin_step. A graph updates
  /// the parameters that were trained when it was captured: capture again when others are.
  void begin_step(Context& ctx, const per_sample::GradientSums& sums, double gradient_factor, double learning_rate,
                  const StepNoise* noise = nullptr);
  /// Throws for a parameter that the last begin_step did not count.
  void update(Context& ctx, const per_sample::GradientSums& sums, const Key256* noise_key = nullptr) const;
  /// Makes moments, all 0, for what these sums train and that has none. begin_step does it too; called before the passes of
  /// a step, it leaves to them the memory that they will use in later steps.
  void make_moments(Context& ctx, const per_sample::GradientSums& sums);

  const Optimiser& optimiser() const { return optimiser_; }
  /// Moments of a parameter that has been trained: 0 or, with momentum, 1 for SGD, 2 for the others.
  int moments() const;
  /// What they are stored in.
  DType moment_dtype(const Parameter& p) const;
  /// Of one parameter; its tensors share their data. Throws for a parameter that this was not made for.
  const ParameterState& of(const Parameter& p) const { return member_of(p).state; }
  /// Puts states in the place of those there are: one for each parameter in the constructor's order, whose tensors are taken
  /// over; without updates there are no moments. Throws where one does not fit, and nothing is changed. A graph that was
  /// captured before is of no use afterwards.
  void restore(const std::vector<ParameterState>& states);
  /// What the predicates decided for a parameter.
  bool decays(const Parameter& p) const { return member_of(p).decays; }
  double rate_factor(const Parameter& p) const { return member_of(p).rate_factor; }

 private:
  struct Member {
    Parameter* parameter;
    bool decays;
    double rate_factor;
    ParameterState state = {};
    bool begun = false;  // counted by the last begin_step
  };
  /// What an update of one parameter has of the step.
  struct Work {
    const Member* member;
    index_t n;
    const double* sum;
    const detail::FusedNumbers* numbers;
    dp::ParameterNoise noise;
  };
  static double rate_factor_of(const Parameter& p, std::span<const RateFactor> rate_factors);
  const Member& member_of(const Parameter& p) const;
  /// Those that a step of these sums trains, as places in members_.
  std::vector<std::size_t> trained_by(const per_sample::GradientSums& sums) const;
  void make_moments(Context& ctx, std::span<const std::size_t> places);
  /// Of all trained parameters of that compute dtype.
  std::vector<Work> work_of(DType dtype, const per_sample::GradientSums& sums, const Key256* noise_key) const;
  /// For a state that has counted the step.
  kernels::UpdateNumbers numbers_of(const ParameterState& state, double gradient_factor, double learning_rate) const;
  template <class R>
  static kernels::SgdUpdate<R> formula_of(const Sgd& sgd, const Member& m);
  template <class R, class Moment = R>
  static kernels::AdamWUpdate<R, Moment> formula_of(const AdamW& a, const Member& m);
  kernels::RoundedAdamWUpdate rounded_formula_of(const AdamW& a, const Member& m) const;
  template <class R>
  static kernels::DpAdamBCUpdate<R> formula_of(const DpAdamBC& a, const Member& m);
  template <class R>
  static kernels::LambMoments<R> formula_of(const Lamb& a, const Member& m);
  /// All parameters of compute dtype T.
  template <class T, class Kind>
  void update_all_by(Context& ctx, const Kind& kind, const per_sample::GradientSums& sums, const Key256* noise_key) const;
  template <class T>
  void update_all_by(Context& ctx, const AdamW& a, const per_sample::GradientSums& sums, const Key256* noise_key) const;
  template <class T>
  void update_all_by(Context& ctx, const Lamb& a, const per_sample::GradientSums& sums, const Key256* noise_key) const;
  /// formula_of(member): the optimiser's.
  template <class T, class FormulaOf>
  void update_all(Context& ctx, const FormulaOf& formula_of, const per_sample::GradientSums& sums,
                  const Key256* noise_key) const;

  Optimiser optimiser_;
  std::vector<Member> members_;
  Tensor numbers_;          // detail::FusedNumbers of each member
  detail::LambNorms lamb_;  // memory for LAMB's norms
};
}  // namespace dpmp::inline DPMP_ABI::optim

#if DPMP_BODIES
#include "dpmp/runtime/profiler_range.hpp"

namespace dpmp::inline DPMP_ABI::optim {
DPMP_KEPT_BODY inline OptimiserState::OptimiserState(Context& ctx, std::span<Parameter* const> parameters,
                                                     const Optimiser& optimiser, std::span<const RateFactor> rate_factors)
    : optimiser_(optimiser) {
  check_optimiser(optimiser_, parameters);
  for (const RateFactor& group : rate_factors) {
    DPMP_CHECK(group.parameters, "expected a predicate for the parameters of a rate factor, got none");
    DPMP_CHECK(group.factor > 0 && std::isfinite(group.factor), "expected a finite factor > 0 of the learning rate, got ",
               group.factor, group.factor == 0 ? ": freeze parameters that are not to learn" : "");
  }
  for (Parameter* p : parameters) {
    const bool decays = std::visit([&](const auto& o) { return o.decays(*p); }, optimiser_);
    members_.push_back({p, decays, rate_factor_of(*p, rate_factors)});
  }
  if (std::holds_alternative<Lamb>(optimiser_)) lamb_ = detail::LambNorms(ctx, parameters);
  numbers_ =
      Tensor::zeros(ctx, {index_t(members_.size()), index_t(sizeof(detail::FusedNumbers) / sizeof(double))}, DType::f64);
}

DPMP_KEPT_BODY inline void OptimiserState::step(Context& ctx, const per_sample::GradientSums& sums, double gradient_factor,
                                                double learning_rate, const StepNoise* noise) {
  begin_step(ctx, sums, gradient_factor, learning_rate, noise);
  update(ctx, sums, noise && !noise->added ? &noise->stream.key : nullptr);
}

DPMP_KEPT_BODY inline void OptimiserState::begin_step(Context& ctx, const per_sample::GradientSums& sums,
                                                      double gradient_factor, double learning_rate, const StepNoise* noise) {
  detail::FusedNumbers now;
  if (noise) now.noise = dp::NoiseOfStep(noise->stream.step, noise->standard_deviation);
  const double deviation = noise ? noise->standard_deviation * gradient_factor : 0;
  const auto* unbiased = std::get_if<DpAdamBC>(&optimiser_);
  const std::vector<std::size_t> trained = trained_by(sums);
  make_moments(ctx, trained);
  std::vector<detail::FusedNumbers> numbers(members_.size(), now);
  for (Member& m : members_) m.begun = false;
  for (const std::size_t place : trained) {
    Member& m = members_[place];
    m.begun = true;
    ++m.state.updates;
    if (unbiased)
      m.state.noise_share = unbiased->beta2 * m.state.noise_share + (1 - unbiased->beta2) * deviation * deviation;
    numbers[place].update = numbers_of(m.state, gradient_factor, learning_rate);
  }
  if (!numbers.empty()) numbers_.copy_from_host(numbers.data());
}

DPMP_KEPT_BODY inline void OptimiserState::update(Context& ctx, const per_sample::GradientSums& sums,
                                                  const Key256* noise_key) const {
  const ProfilerRange range(ctx, "update");
  std::visit(
      [&](const auto& optimiser) {
        for (const DType dtype : real_dtypes)
          dispatch_real(dtype,
                        [&](auto tag) { update_all_by<typename decltype(tag)::type>(ctx, optimiser, sums, noise_key); });
      },
      optimiser_);
}

DPMP_KEPT_BODY inline void OptimiserState::make_moments(Context& ctx, const per_sample::GradientSums& sums) {
  make_moments(ctx, trained_by(sums));
}

DPMP_KEPT_BODY inline void OptimiserState::make_moments(Context& ctx, std::span<const std::size_t> places) {
  const MemoryLabel label(ctx.arena(), "optimiser state");
  for (const std::size_t place : places) {
    Member& m = members_[place];
    const auto zeros = [&] { return Tensor::zeros(ctx, m.parameter->shape(), moment_dtype(*m.parameter)); };
    if (moments() >= 1 && !m.state.first.defined()) m.state.first = zeros();
    if (moments() == 2 && !m.state.second.defined()) m.state.second = zeros();
  }
}

DPMP_KEPT_BODY inline int OptimiserState::moments() const {
  const auto* sgd = std::get_if<Sgd>(&optimiser_);
  return sgd ? sgd->momentum > 0 : 2;
}

DPMP_KEPT_BODY inline DType OptimiserState::moment_dtype(const Parameter& p) const {
  const auto* adam = std::get_if<AdamW>(&optimiser_);
  return adam && adam->moments == DType::bf16 ? DType::bf16 : p.master().dtype();
}

DPMP_KEPT_BODY inline void OptimiserState::restore(const std::vector<ParameterState>& states) {
  DPMP_CHECK(states.size() == members_.size(), "expected the state of ", members_.size(), " parameters, got ",
             states.size());
  for (std::size_t k = 0; k < states.size(); ++k) {
    const ParameterState& state = states[k];
    const Tensor& master = members_[k].parameter->master();
    const std::string& name = members_[k].parameter->name();
    const DType dtype = moment_dtype(*members_[k].parameter);
    DPMP_CHECK(state.updates >= 0, "expected a count of updates of '", name, "' >= 0, got ", state.updates);
    DPMP_CHECK(state.noise_share >= 0 && std::isfinite(state.noise_share), "expected a finite share of the noise in '", name,
               "' >= 0, got ", state.noise_share);
    const int given = state.first.defined() + state.second.defined();
    DPMP_CHECK(state.updates == 0 || given == moments(), "expected ", moments(), " moments of '", name, "' after ",
               state.updates, " updates, got ", given);
    for (const Tensor* moment : {&state.first, &state.second}) {
      if (state.updates == 0 || !moment->defined()) continue;
      DPMP_CHECK(moment->shape() == master.shape() && moment->dtype() == dtype && moment->device() == master.device(),
                 "expected a moment of '", name, "' of ", dtype, master.shape(), " on ", master.device(), ", got ",
                 moment->dtype(), moment->shape(), " on ", moment->device());
    }
  }
  for (std::size_t k = 0; k < states.size(); ++k) {
    members_[k].state = states[k].updates > 0 ? states[k] : ParameterState{};
    members_[k].begun = false;
  }
}

DPMP_KEPT_BODY inline std::vector<std::size_t> OptimiserState::trained_by(const per_sample::GradientSums& sums) const {
  std::vector<std::size_t> places;
  for (const Parameter* p : sums.parameters())
    if (p->trainable()) places.push_back(std::size_t(&member_of(*p) - members_.data()));
  return places;
}

DPMP_KEPT_BODY inline kernels::UpdateNumbers OptimiserState::numbers_of(const ParameterState& state, double gradient_factor,
                                                                        double learning_rate) const {
  kernels::UpdateNumbers now{
      .gradient_factor = gradient_factor, .rate = learning_rate, .updates = std::uint64_t(state.updates)};
  const auto t = double(state.updates);
  if (const auto* adam = std::get_if<AdamW>(&optimiser_)) {
    now.rate = learning_rate * (1 / (1 - std::pow(adam->beta1, t)));
    now.second_correction = 1 / std::sqrt(1 - std::pow(adam->beta2, t));
    now.decay = learning_rate * adam->weight_decay;
  } else if (const auto* unbiased = std::get_if<DpAdamBC>(&optimiser_)) {
    now.rate = learning_rate * (1 / (1 - std::pow(unbiased->beta1, t)));
    now.second_correction = 1 / (1 - std::pow(unbiased->beta2, t));
    now.noise_share = state.noise_share * now.second_correction;
    now.decay = learning_rate * unbiased->weight_decay;
  } else if (const auto* lamb = std::get_if<Lamb>(&optimiser_)) {
    now.first_correction = 1 / (1 - std::pow(lamb->beta1, t));
    now.second_correction = 1 / std::sqrt(1 - std::pow(lamb->beta2, t));
    now.decay = lamb->weight_decay;
  }
  return now;
}

DPMP_KEPT_BODY inline double OptimiserState::rate_factor_of(const Parameter& p, std::span<const RateFactor> rate_factors) {
  for (const RateFactor& group : rate_factors)
    if (group.parameters(p)) return group.factor;
  return 1;
}

DPMP_KEPT_BODY inline const OptimiserState::Member& OptimiserState::member_of(const Parameter& p) const {
  for (const Member& m : members_)
    if (m.parameter == &p) return m;
  throw Error("expected a parameter that this optimiser was made for, got " + p.name());
}

DPMP_KEPT_BODY inline std::vector<OptimiserState::Work> OptimiserState::work_of(DType dtype,
                                                                                const per_sample::GradientSums& sums,
                                                                                const Key256* noise_key) const {
  std::vector<Work> work;
  for (std::size_t k = 0; k < sums.parameters().size(); ++k) {
    const Parameter& parameter = *sums.parameters()[k];
    if (!parameter.trainable() || parameter.dtype() != dtype) continue;
    const Member& m = member_of(parameter);
    DPMP_CHECK(m.begun, "expected begin_step() with '", parameter.name(), "' among the trained, got an update without it");
    const detail::FusedNumbers* numbers = static_cast<const detail::FusedNumbers*>(numbers_.raw()) + (&m - members_.data());
    work.push_back({&m, sums.tensors()[k].numel(), sums.tensors()[k].data<double>(), numbers,
                    noise_key ? dp::ParameterNoise(*noise_key, &numbers->noise, sums.places()[k]) : dp::ParameterNoise()});
  }
  return work;
}

template <class R>
inline kernels::SgdUpdate<R> OptimiserState::formula_of(const Sgd& sgd, const Member& m) {
  return {m.state.first.defined() ? m.state.first.data<R>() : nullptr, R(sgd.momentum), R(m.decays ? sgd.weight_decay : 0),
          R(m.rate_factor)};
}

template <class R, class Moment>
inline kernels::AdamWUpdate<R, Moment> OptimiserState::formula_of(const AdamW& a, const Member& m) {
  return {m.state.first.data<Moment>(),
          m.state.second.data<Moment>(),
          R(a.beta1),
          R(1 - a.beta1),
          R(a.beta2),
          R(1 - a.beta2),
          R(a.epsilon),
          R(m.rate_factor),
          R(m.decays ? m.rate_factor : 0)};
}

DPMP_KEPT_BODY inline kernels::RoundedAdamWUpdate OptimiserState::rounded_formula_of(const AdamW& a, const Member& m) const {
  return {formula_of<float, bf16>(a, m), {a.rounding_seed, std::uint32_t(&m - members_.data())}};
}

template <class R>
inline kernels::DpAdamBCUpdate<R> OptimiserState::formula_of(const DpAdamBC& a, const Member& m) {
  return {m.state.first.data<R>(),
          m.state.second.data<R>(),
          R(a.beta1),
          R(1 - a.beta1),
          R(a.beta2),
          R(1 - a.beta2),
          R(a.floor),
          R(m.rate_factor),
          R(m.decays ? m.rate_factor : 0)};
}

template <class R>
inline kernels::LambMoments<R> OptimiserState::formula_of(const Lamb& a, const Member& m) {
  return {m.state.first.data<R>(), m.state.second.data<R>(), R(a.beta1), R(1 - a.beta1), R(a.beta2), R(1 - a.beta2)};
}

template <class T, class Kind>
inline void OptimiserState::update_all_by(Context& ctx, const Kind& kind, const per_sample::GradientSums& sums,
                                          const Key256* noise_key) const {
  update_all<T>(
      ctx, [&](const Member& m) { return formula_of<compute_t<T>>(kind, m); }, sums, noise_key);
}

template <class T>
inline void OptimiserState::update_all_by(Context& ctx, const AdamW& a, const per_sample::GradientSums& sums,
                                          const Key256* noise_key) const {
  if constexpr (std::is_same_v<compute_t<T>, float>)
    if (a.moments == DType::bf16)
      return update_all<T>(
          ctx, [&](const Member& m) { return rounded_formula_of(a, m); }, sums, noise_key);
  update_all<T>(
      ctx, [&](const Member& m) { return formula_of<compute_t<T>>(a, m); }, sums, noise_key);
}

template <class T>
inline void OptimiserState::update_all_by(Context& ctx, const Lamb& a, const per_sample::GradientSums& sums,
                                          const Key256* noise_key) const {
  using R = compute_t<T>;
  update_all<T>(
      ctx, [&](const Member& m) { return formula_of<R>(a, m); }, sums, noise_key);
  for (Parameter* p : sums.parameters()) {
    if (!p->trainable() || p->dtype() != dtype_of<T>) continue;
    const Member& m = member_of(*p);
    const auto* numbers = static_cast<const detail::FusedNumbers*>(numbers_.raw()) + (&m - members_.data());
    lamb_.move<T>(ctx, *p, &m - members_.data(),
                  {m.state.first.data<R>(), m.state.second.data<R>(), R(a.epsilon), R(m.decays)}, R(m.rate_factor),
                  &numbers->update);
  }
}

template <class T, class FormulaOf>
inline void OptimiserState::update_all(Context& ctx, const FormulaOf& formula_of, const per_sample::GradientSums& sums,
                                       const Key256* noise_key) const {
  using R = compute_t<T>;
  using Fused = detail::FusedUpdate<decltype(formula_of(members_[0])), T>;
  const auto update_of = [&](const Work& w) -> Fused {
    Parameter& p = *w.member->parameter;
    return {w.n,
            w.sum,
            p.master().template data<R>(),
            p.value().template data<T>(),
            formula_of(*w.member),
            &w.numbers->update,
            w.noise};
  };
  const std::vector<Work> work = work_of(dtype_of<T>, sums, noise_key);
  DPMP_IF_CUDA (ctx.on_cuda()) {
    std::vector<Fused> updates;
    for (const Work& w : work) updates.push_back(update_of(w));
    return detail::launch_updates<Fused>(ctx, updates);
  }
  for (const Work& w : work) detail::update_on_host(ctx, update_of(w));
}
}  // namespace dpmp::inline DPMP_ABI::optim
#endif

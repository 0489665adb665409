// SPDX-License-Identifier: Apache-2.0
// The optimisers that a user chooses from, with their settings.
#pragma once
#include <functional>
#include <span>
#include <string>
#include <variant>

#include "dpmp/autograd/parameter.hpp"

namespace dpmp::inline DPMP_ABI::optim {
/// Decides by what is public of a parameter: name, shape, dtype. Called once for each parameter, when an optimiser is made.
using ParameterPredicate = std::function<bool(const Parameter&)>;

/// Stochastic gradient descent with heavy-ball momentum (Polyak 1964) and L2 weight decay.
struct Sgd {
  double momentum = 0;
  double weight_decay = 0;
  /// The parameters that decay; by default all but biases and gains.
  ParameterPredicate decays = is_matrix;
};
/// Adam with decoupled weight decay (Loshchilov, Hutter 2019, arXiv 1711.05101).
struct AdamW {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  /// The parameters that decay; by default all but biases and gains.
  ParameterPredicate decays = is_matrix;
  /// What both moments are stored in: f32 (f64 for f64 masters), or bf16 for half of the memory. They are updated in FP32
  /// and rounded to bf16 stochastically: the mean of a moment is that of f32's, where rounding to nearest would lose each
  /// step's share of 1 - beta2. The random numbers are public and keyed by this seed, the parameter's place, its count of
  /// updates and the element: the same on every device, and in a run that goes on from a checkpoint.
  DType moments = DType::f32;
  std::uint64_t rounding_seed = 0;
};
/// DP-AdamBC (Tang, Shpilevskiy, Lecuyer 2024, arXiv 2312.14334): AdamW whose second moment is freed of the noise. The mean
/// of (g + noise)^2 is that of g^2 plus the noise's variance, which is public: with much noise AdamW divides all elements by
/// the same number, and is SGD with momentum. Here the step is m / sqrt(max(v - noise, floor)), m and v corrected for their
/// start. The variance is that of the noise that was added, (sigma Delta / divisor)^2, step by step: it comes from the plan
/// and follows a noise schedule and an adaptive threshold; without noise it is 0.
struct DpAdamBC {
  double beta1 = 0.9;
  double beta2 = 0.999;
  /// Least square that a step is divided by the root of, gamma' of the paper, in [1e-30, 1e30]: in units of the gradient's
  /// square. The difference of two nearly equal numbers is compared with it, so it is the setting that matters.
  double floor = 1e-8;
  double weight_decay = 0;  // decoupled, as AdamW's
  /// The parameters that decay; by default all but biases and gains.
  ParameterPredicate decays = is_matrix;
};
/// LAMB (You et al. 2020, arXiv 1904.00962): AdamW's direction, decay included, which a parameter as a whole follows as far
/// as its weights are long: w -= rate |w| / |direction| direction, and rate times the direction where one norm is 0. Both
/// norms are of noised numbers and of weights: public.
struct Lamb {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-6;
  double weight_decay = 0;
  /// The parameters that decay; by default all but biases and gains.
  ParameterPredicate decays = is_matrix;
};
/// What a user chooses.
using Optimiser = std::variant<Sgd, AdamW, DpAdamBC, Lamb>;

/// A group of parameters that learn at factor times the learning rate (with AdamW, their decay is multiplied too).
struct RateFactor {
  ParameterPredicate parameters;
  double factor = 1;
};

/// Throws for settings outside of their ranges, and for moments in bf16 of f64 masters.
void check_optimiser(const Optimiser& optimiser, std::span<Parameter* const> parameters);
/// Kind and settings but for weight decay, which belongs to parameters: "AdamW, beta1 0.9, beta2 0.999, epsilon 1e-08".
std::string optimiser_text(const Optimiser& optimiser);
/// Of the parameters that decay.
inline double weight_decay_of(const Optimiser& optimiser) {
  return std::visit([](const auto& o) { return o.weight_decay; }, optimiser);
}
}  // namespace dpmp::inline DPMP_ABI::optim

#if DPMP_BODIES
#include <cmath>

namespace dpmp::inline DPMP_ABI::optim {
namespace detail {
inline void check_share(const char* name, double value) {
  DPMP_CHECK(value >= 0 && value < 1, "expected ", name, " in [0, 1), got ", value);
}
inline void check_epsilon(double epsilon) {
  DPMP_CHECK(epsilon > 0 && std::isfinite(epsilon), "expected a finite epsilon > 0, got ", epsilon);
}
}  // namespace detail

DPMP_KEPT_BODY inline void check_optimiser(const Optimiser& optimiser, std::span<Parameter* const> parameters) {
  std::visit(
      [](const auto& o) {
        if constexpr (requires { o.momentum; }) detail::check_share("momentum", o.momentum);
        if constexpr (requires { o.beta1; }) {
          detail::check_share("beta1", o.beta1);
          detail::check_share("beta2", o.beta2);
        }
        if constexpr (requires { o.epsilon; }) detail::check_epsilon(o.epsilon);
        if constexpr (requires { o.floor; })
          DPMP_CHECK(o.floor >= 1e-30 && o.floor <= 1e30, "expected a floor of the second moment in [1e-30, 1e30], got ",
                     o.floor);
        DPMP_CHECK(o.weight_decay >= 0 && std::isfinite(o.weight_decay), "expected a finite weight decay >= 0, got ",
                   o.weight_decay);
        DPMP_CHECK(o.decays, "expected a predicate for the parameters that decay, got none");
      },
      optimiser);
  const auto* a = std::get_if<AdamW>(&optimiser);
  if (!a) return;
  DPMP_CHECK(a->moments == DType::f32 || a->moments == DType::bf16, "expected moments in f32 or bf16, got ", a->moments);
  for (const Parameter* p : parameters)
    DPMP_CHECK(a->moments == DType::f32 || p->master().dtype() == DType::f32, "expected moments in f32 for '", p->name(),
               "', whose master values are f64, got ", a->moments);
}

DPMP_KEPT_BODY inline std::string optimiser_text(const Optimiser& optimiser) {
  TextStream out;
  out.precision(17);
  std::visit(
      [&](const auto& o) {
        using Kind = std::decay_t<decltype(o)>;
        if constexpr (std::is_same_v<Kind, Sgd>) {
          out << "SGD, momentum " << o.momentum;
        } else {
          out << (std::is_same_v<Kind, AdamW>  ? "AdamW"
                  : std::is_same_v<Kind, Lamb> ? "LAMB"
                                               : "DP-AdamBC")
              << ", beta1 " << o.beta1 << ", beta2 " << o.beta2;
          if constexpr (requires { o.epsilon; }) out << ", epsilon " << o.epsilon;
          if constexpr (requires { o.floor; }) out << ", floor " << o.floor;
        }
        if constexpr (std::is_same_v<Kind, AdamW>)
          if (o.moments != DType::f32) out << ", moments " << o.moments << ", rounding seed " << o.rounding_seed;
      },
      optimiser);
  return out.str();
}
}  // namespace dpmp::inline DPMP_ABI::optim
#endif

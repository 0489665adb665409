// SPDX-License-Identifier: Apache-2.0
// The parameters of a model: created, initialised and owned in one place, in a fixed order that files and noise rely on; and
// the scopes that layers name theirs in.
#pragma once
#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dpmp/autograd/parameter.hpp"
#include "dpmp/nn/init.hpp"
#include "dpmp/nn/precision.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// Initial values come from Philox keyed by (seed, number of the parameter): the same on every machine and thread count.
class Parameters {
 public:
  /// precision: a dtype, or more than one (nn/precision.hpp).
  Parameters(Context& ctx, const Precision& precision, std::uint64_t seed) : ctx_(ctx), precision_(precision), seed_(seed) {}
  Context& ctx() const { return ctx_; }
  /// Of the whole model, whatever its scopes have.
  const Precision& precision() const { return precision_; }
  /// Of parameters that are in no scope.
  DType dtype() const { return precision_.at({}).dtype(); }
  /// The precision of the model and those that scopes of it were given, with their paths: what a run is described by.
  std::string precision_text() const;
  /// Throws where an override's pattern is of no scope that has parameters.
  void check_precision() const;

  /// A parameter of a name that there is none of, in the model's dtype; also by Scope.
  Parameter& add(const std::string& name, const Shape& shape, const Init& start) { return add(name, shape, start, dtype()); }
  /// Independent normal values with this standard deviation.
  Parameter& normal(const std::string& name, const Shape& shape, double standard_deviation) {
    return add(name, shape, init::normal(standard_deviation));
  }
  Parameter& constant(const std::string& name, const Shape& shape, double value) {
    return add(name, shape, init::constant(value));
  }

  /// All parameters in the order of their creation.
  std::span<Parameter* const> all() const { return all_; }
  /// Throws when there is none of that name.
  Parameter& find(std::string_view name) const;
  /// Trains those parameters that wanted(const Parameter&) is true for and freezes all others: before training, or between
  /// two steps.
  template <class Wanted>
  void set_trainable(Wanted&& wanted) {
    for (Parameter* p : all_) p->set_trainable(wanted(std::as_const(*p)));
  }
  /// Number of values in all parameters.
  index_t numel() const;

 private:
  friend class Scope;
  Parameter& add(const std::string& name, const Shape& shape, const Init& start, DType dtype);
  struct ScopePrecision {
    std::string path;
    Precision precision;
  };
  void given(const std::string& path, const Precision& precision);
  Context& ctx_;
  Precision precision_;
  std::vector<ScopePrecision> of_scopes_;
  std::uint64_t seed_;
  std::vector<std::unique_ptr<Parameter>> owned_;
  std::vector<Parameter*> all_;
};

/// Where a layer makes its parameters: names begin with the scope's path, `parameters / "block0" / "attention"` makes
/// `block0.attention.weight`. A handle: the Parameters it came from must outlive it.
class Scope {
 public:
  /// The root, implicitly: names without a prefix, the precision of the model, trained.
  Scope(Parameters& parameters) : parameters_(&parameters), precision_(parameters.precision().at({})) {}

  /// The same with another precision, for all scopes inside of it, too.
  Scope with(const Precision& precision) const;
  /// The same in another dtype, with the islands of the precision: a head in f32 inside a bf16 model. Throws for i32.
  Scope in(DType dtype) const;
  /// The same for a norm, in Precision::norms().
  Scope for_norm() const;
  /// The same with parameters that start frozen, or trained again.
  Scope frozen(bool frozen = true) const;

  /// path.name, in the scope's dtype, trained unless the scope is frozen.
  Parameter& add(std::string_view name, const Shape& shape, const Init& start) const;
  Parameter& normal(std::string_view name, const Shape& shape, double standard_deviation) const {
    return add(name, shape, init::normal(standard_deviation));
  }
  Parameter& constant(std::string_view name, const Shape& shape, double value) const {
    return add(name, shape, init::constant(value));
  }

  Parameters& parameters() const { return *parameters_; }
  /// What the names of its parameters begin with, without the last dot; empty for the root.
  const std::string& path() const { return path_; }
  const Precision& precision() const { return precision_; }
  DType dtype() const { return precision_.dtype(); }
  bool is_frozen() const { return frozen_; }

  /// Throws on an empty name.
  friend Scope operator/(const Scope& scope, std::string_view name);
  /// The path, or "the root scope".
  friend std::ostream& operator<<(std::ostream& out, const Scope& scope) {
    return out << (scope.path_.empty() ? std::string_view("the root scope") : std::string_view(scope.path_));
  }

 private:
  std::string full_name(std::string_view name) const;
  Parameters* parameters_;
  std::string path_;
  Precision precision_;
  bool frozen_ = false;
};
Scope operator/(const Scope& scope, std::string_view name);

/// The path of the scope that a parameter is in; empty for the root.
inline std::string_view scope_of(const Parameter& parameter) {
  const std::string_view name = parameter.name();
  const std::size_t dot = name.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : name.substr(0, dot);
}

/// Whether this is an additive term, by its name `..bias`. parameters.set_trainable(nn::is_bias) is bias-only training
/// (BitFit: Ben Zaken, Ravfogel, Goldberg 2022, arXiv 2106.10199): per-sample gradients are vectors then, and no activations
/// are kept for the weights.
inline bool is_bias(const Parameter& parameter) {
  const std::string_view name = parameter.name();
  return name == "bias" || name.ends_with(".bias");
}
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline std::string Parameters::precision_text() const {
  std::string text = precision_.text();
  for (const ScopePrecision& scope : of_scopes_) text += "; at " + scope.path + ": " + scope.precision.text();
  return text;
}

DPMP_KEPT_BODY inline void Parameters::check_precision() const {
  const auto used = [&](const std::string& pattern) {
    // A pattern of its own, which changes the dtype of what it matches.
    const Precision only = Precision(DType::f32).override(pattern, DType::bf16);
    return std::any_of(all_.begin(), all_.end(),
                       [&](const Parameter* p) { return only.at(scope_of(*p)).dtype() == DType::bf16; });
  };
  const auto check = [&](const Precision& precision) {
    for (const std::string& pattern : precision.patterns())
      DPMP_CHECK(used(pattern), "expected a scope with parameters for each override of a precision, got none for '", pattern,
                 "'");
  };
  check(precision_);
  for (const ScopePrecision& scope : of_scopes_) check(scope.precision);
}

DPMP_KEPT_BODY inline void Parameters::given(const std::string& path, const Precision& precision) {
  const std::string text = precision.text();
  for (const ScopePrecision& scope : of_scopes_)
    if (scope.path == path && scope.precision.text() == text) return;
  of_scopes_.push_back({path, precision});
}

DPMP_KEPT_BODY inline Parameter& Parameters::find(std::string_view name) const {
  for (Parameter* p : all_)
    if (p->name() == name) return *p;
  throw Error("expected the name of a parameter of this model, got '" + std::string(name) + "'");
}

DPMP_KEPT_BODY inline index_t Parameters::numel() const {
  index_t n = 0;
  for (const Parameter* p : all_) n += p->numel();
  return n;
}

DPMP_KEPT_BODY inline Parameter& Parameters::add(const std::string& name, const Shape& shape, const Init& start,
                                                 DType dtype) {
  for (const Parameter* p : all_) DPMP_CHECK(p->name() != name, "expected a new parameter name, got '", name, "' twice");
  const MemoryLabel label(ctx_.arena(), "parameters");
  Tensor master = Tensor::from(ctx_, shape, accumulate_dtype(dtype), start.values(shape, {seed_, all_.size()}));
  owned_.push_back(std::make_unique<Parameter>(ctx_, name, std::move(master), dtype));
  all_.push_back(owned_.back().get());
  return *all_.back();
}

DPMP_KEPT_BODY inline Scope operator/(const Scope& scope, std::string_view name) {
  Scope inner = scope;
  inner.path_ = scope.full_name(name);
  inner.precision_ = scope.precision_.descended(scope.path_, inner.path_);
  return inner;
}

DPMP_KEPT_BODY inline Scope Scope::with(const Precision& precision) const {
  Scope other = *this;
  other.precision_ = precision;
  parameters_->given(path_.empty() ? "the root" : path_, precision);
  return other;
}

DPMP_KEPT_BODY inline Scope Scope::in(DType dtype) const {
  DPMP_CHECK(is_real(dtype), "expected a floating dtype for the parameters of ", *this, ", got ", dtype);
  return with(precision_.in(dtype));
}

DPMP_KEPT_BODY inline Scope Scope::for_norm() const {
  Scope other = *this;
  other.precision_ = precision_.in(precision_.norms());
  return other;
}

DPMP_KEPT_BODY inline Scope Scope::frozen(bool frozen) const {
  Scope other = *this;
  other.frozen_ = frozen;
  return other;
}

DPMP_KEPT_BODY inline Parameter& Scope::add(std::string_view name, const Shape& shape, const Init& start) const {
  Parameter& parameter = parameters_->add(full_name(name), shape, start, dtype());
  parameter.set_trainable(!frozen_);
  return parameter;
}

DPMP_KEPT_BODY inline std::string Scope::full_name(std::string_view name) const {
  DPMP_CHECK(!name.empty(), "expected a name inside of ", *this, ", got an empty one");
  return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif

// SPDX-License-Identifier: Apache-2.0
// The parameters of a model: created, initialised and owned in one place, in a fixed order that files and noise rely on.
#pragma once
#include <cmath>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dpmp/autograd/parameter.hpp"
#include "dpmp/core/philox.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// Initial values come from Philox keyed by (seed, number of the parameter): the same on every machine and thread count.
class Parameters {
 public:
  /// dtype: what activations and compute weights are stored in; masters are f32 (f64 for f64).
  Parameters(Context& ctx, DType dtype, std::uint64_t seed);
  Context& ctx() const { return ctx_; }
  DType dtype() const { return dtype_; }

  /// Independent normal values with this standard deviation.
  Parameter& normal(const std::string& name, const Shape& shape, double standard_deviation);
  Parameter& constant(const std::string& name, const Shape& shape, double value);

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
  Parameter& add(const std::string& name, Tensor master);
  Context& ctx_;
  DType dtype_;
  std::uint64_t seed_;
  std::vector<std::unique_ptr<Parameter>> owned_;
  std::vector<Parameter*> all_;
};

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
DPMP_KEPT_BODY inline Parameters::Parameters(Context& ctx, DType dtype, std::uint64_t seed)
    : ctx_(ctx), dtype_(dtype), seed_(seed) {
  DPMP_CHECK(is_real(dtype), "expected a floating dtype for a model (f32, bf16, f16, f64), got ", dtype);
}

DPMP_KEPT_BODY inline Parameter& Parameters::normal(const std::string& name, const Shape& shape, double standard_deviation) {
  std::vector<double> values(std::size_t(shape.numel()));
  for (std::size_t k = 0; k < values.size(); k += 4) {
    const PhiloxBlock block = philox_block(seed_, all_.size(), k / 4);
    const NormalPair first = normal_pair(block.word[0], block.word[1]), second = normal_pair(block.word[2], block.word[3]);
    const float four[] = {first.first, first.second, second.first, second.second};
    for (std::size_t j = 0; j < 4 && k + j < values.size(); ++j) values[k + j] = standard_deviation * double(four[j]);
  }
  return add(name, Tensor::from(ctx_, shape, accumulate_dtype(dtype_), values));
}

DPMP_KEPT_BODY inline Parameter& Parameters::constant(const std::string& name, const Shape& shape, double value) {
  return add(name, Tensor::full(ctx_, shape, accumulate_dtype(dtype_), value));
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

DPMP_KEPT_BODY inline Parameter& Parameters::add(const std::string& name, Tensor master) {
  for (const Parameter* p : all_) DPMP_CHECK(p->name() != name, "expected a new parameter name, got '", name, "' twice");
  owned_.push_back(std::make_unique<Parameter>(ctx_, name, std::move(master), dtype_));
  all_.push_back(owned_.back().get());
  return *all_.back();
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif

// SPDX-License-Identifier: Apache-2.0
// Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): a frozen linear layer learns a correction of low rank. The two
// factors are ordinary linear weights with ordinary outer-product sites, so privacy needs nothing of its own here: clipping
// and noise see r (d + p) values instead of d p.
#pragma once
#include <optional>

#include "dpmp/autograd/rules/elementwise.hpp"
#include "dpmp/nn/dropout.hpp"
#include "dpmp/nn/linear.hpp"

namespace dpmp::inline DPMP_ABI::nn {
struct LoraOptions {
  /// Rank r of the correction; 0: no adapter.
  index_t rank = 0;
  /// The correction is scaled by alpha / rank.
  double alpha = 16;
  /// Share of the adapter's inputs dropped while training.
  double dropout = 0;
};

/// y = W0 x + b0 + (alpha / r) B (A dropout(x)). A [r, inputs] (`lora_a`) starts normal with standard deviation
/// 1 / sqrt(inputs), B [outputs, r] (`lora_b`) with zeros, so that the layer starts as its base.
class LoraLinear {
 public:
  /// The base alone: a plain Linear.
  LoraLinear(const Scope& scope, index_t inputs, index_t outputs, const Linear::Options& base = {})
      : scope_(scope), base_(scope, inputs, outputs, base) {}

  /// Freezes the base and adds the adapter, trained also where the scope is frozen; nothing when the rank is 0. Apart from
  /// the constructor, so that a model can make its adapters after all base parameters: those keep their numbers, which
  /// initial values and noise are keyed by. layer: number of the adapter's dropout. Throws on a rank < 0, an alpha that is
  /// not finite and > 0, a rate outside [0, 1), and when there is an adapter already.
  void adapt(const LoraOptions& options, std::uint32_t layer = 0);

  Variable operator()(const Variable& x) const {
    if (!adapter_) return base_(x);
    const Variable in = cast(x, base_.dtype()), y = base_(in);
    // Scaled between the factors, where a token has r values.
    return add(y, linear(scale(linear(adapter_->dropout(in), *adapter_->a), adapter_->scale), *adapter_->b));
  }
  const Linear& base() const { return base_; }
  bool adapted() const { return adapter_.has_value(); }

 private:
  struct Adapter {
    Parameter* a;
    Parameter* b;
    double scale;
    Dropout dropout;
  };
  Scope scope_;
  Linear base_;
  std::optional<Adapter> adapter_;
};

/// Whether this is a factor of an adapter, by its name.
inline bool is_lora(const Parameter& parameter) {
  const std::string_view name = parameter.name();
  return name.ends_with(".lora_a") || name.ends_with(".lora_b");
}
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline void LoraLinear::adapt(const LoraOptions& options, std::uint32_t layer) {
  DPMP_CHECK(options.rank >= 0 && options.alpha > 0 && std::isfinite(options.alpha),
             "expected a LoRA rank >= 0 and a finite alpha > 0 for ", scope_, ", got ", options.rank, " and ",
             options.alpha);
  DPMP_CHECK(!adapter_, "expected a layer without a LoRA adapter, got one at ", scope_, " already");
  const Dropout dropped(options.dropout, layer);
  if (options.rank == 0) return;
  base_.weight().set_trainable(false);
  if (base_.bias()) base_.bias()->set_trainable(false);
  const index_t outputs = base_.weight().shape()[0], inputs = base_.weight().shape()[1];
  const Scope trained = scope_.frozen(false);
  adapter_.emplace(Adapter{&trained.add("lora_a", {options.rank, inputs}, init::fan_in_normal()),
                           &trained.constant("lora_b", {outputs, options.rank}, 0), options.alpha / double(options.rank),
                           dropped});
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif

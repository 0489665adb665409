// SPDX-License-Identifier: Apache-2.0
// Every number of one pass that belongs to a record: the values of the forward pass, the losses, what parameter sites hand
// over, the norm and its certificate. Two passes are compared slot by slot and bit for bit, to see whether a record's
// numbers depend on anything but that record. Copies everything to the host: for checks on public data and for tests.
#pragma once
#include <bit>
#include <optional>
#include <string>

#include "dpmp/autograd/loss_scale.hpp"
#include "dpmp/per_sample/group_pass.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Whether two doubles are the same number, bit for bit; one NaN is as good as another.
inline bool same_bits(double x, double y) {
  return std::bit_cast<std::uint64_t>(x) == std::bit_cast<std::uint64_t>(y) || (x != x && y != y);
}

class PassTrace {
 public:
  /// Records losses(tape) on a tape of `samples` slots and walks it back once. weights [samples] or
  /// none: factors of the losses, as for Tape::backward. What losses() throws ends the trace. scaling: where the walk
  /// begins; norms are those without it.
  template <class Losses>
  PassTrace(Context& ctx, index_t samples, Losses&& losses, std::span<const double> weights = {},
            const StrategyOptions& options = {}, const LossScaling& scaling = {})
      : samples_(samples) {
    Tape tape(ctx, samples);
    index_t operations = 0;
    tape.observe([&](std::string_view operation, const Tensor& value) {
      add(dpmp::detail::concat("forward value ", operations++, " (", operation, ")"), value);
    });
    const Variable loss = losses(tape);
    add("the losses", loss.value());
    Sites sites(*this, options);
    const ScaledSeed seed =
        scaled_seed(tape, loss, weights.empty() ? Tensor() : Tensor::from(ctx, {samples}, loss.dtype(), weights), scaling);
    if (seed.exponents.defined()) add("the exponent of the loss scale", seed.exponents);
    tape.backward(loss, sites, seed.weights);
    NormBounds norms = sites.sink.norms(ctx, samples);
    if (seed.exponents.defined()) norms = norms.unscaled(ctx, seed.exponents);
    std::vector<double> rows;
    const std::vector<double> upper = norms.upper();
    const std::vector<std::uint8_t> finite = norms.finite();
    for (index_t i = 0; i < samples; ++i)
      rows.insert(rows.end(), {norms.norm(i), norms.quadratic(i), upper[std::size_t(i)], double(finite[std::size_t(i)])});
    values_.push_back({"the norm and its certificate", 4, std::move(rows)});
  }
  index_t samples() const { return samples_; }
  /// How many tensors there are.
  index_t size() const { return index_t(values_.size()); }

  /// The first thing, in the order of the pass, that is not the same in slot i here as in slot j there; nothing when all is.
  /// Throws when the two passes are not of the same operations and shapes.
  std::optional<std::string> first_difference(index_t i, const PassTrace& other, index_t j) const {
    DPMP_CHECK(values_.size() == other.values_.size(), "expected a pass of ", values_.size(), " tensors, got one of ",
               other.values_.size(), ": the operations depend on the records");
    for (std::size_t k = 0; k < values_.size(); ++k) {
      const Value &x = values_[k], &y = other.values_[k];
      DPMP_CHECK(x.what == y.what && x.width == y.width, "expected ", x.what, " of ", x.width, " numbers a record, got ",
                 y.what, " of ", y.width, ": the operations depend on the records");
      for (std::size_t e = 0; e < x.width; ++e)
        if (!same_bits(x.numbers[std::size_t(i) * x.width + e], y.numbers[std::size_t(j) * y.width + e]))
          return dpmp::detail::concat(x.what, ", element ", e, " of the record");
    }
    return std::nullopt;
  }

 private:
  struct Value {
    std::string what;
    std::size_t width;  // numbers a slot
    std::vector<double> numbers;
  };
  /// Copies sites before a rule may overwrite them, and hands them on for norms.
  struct Sites final : GradientSink {
    Sites(PassTrace& t, const StrategyOptions& options) : trace(t), sink(options) {}
    void accept(Context& ctx, const ParameterSite& site) override {
      if (site.a.defined()) trace.add("the input rows of " + site.parameter->name(), site.a);
      const char* what = site.form == SiteForm::vector ? "the gradients of " : "the output gradients of ";
      trace.add(what + site.parameter->name(), site.b);
      sink.accept(ctx, site);
    }
    void finish(Context& ctx, Parameter& parameter) override { sink.finish(ctx, parameter); }
    PassTrace& trace;
    GroupPass sink;
  };
  void add(std::string what, const Tensor& value) {
    const index_t width = value.shape().numel(1, value.shape().rank());
    values_.push_back({std::move(what), std::size_t(width), value.to_doubles()});
  }

  index_t samples_;
  std::vector<Value> values_;
};
}  // namespace dpmp::inline DPMP_ABI::per_sample

// SPDX-License-Identifier: Apache-2.0
// Layers and GPTs whose records can be put into any slots.
#pragma once
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "per_sample/layer_cases.hpp"
#include "per_sample/slots.hpp"
#include "support/gpt.hpp"

namespace test {
/// A layer on random inputs [B, ..], or on inputs that cancel; squared outputs as losses.
class LayerInSlots final : public SlotModel {
 public:
  LayerInSlots(dpmp::Context& ctx, Rng& rng, const LayerCase& layer, const dpmp::Shape& input, DType dtype, bool cancel)
      : ctx_(ctx), dtype_(dtype), owned_(ctx, dtype, rng.bits()), layer_(layer.make(owned_, input.back())) {
    const auto symmetry = [&] { return cancel ? Symmetry(rng.integer(0, 2)) : Symmetry::none; };
    for (dpmp::Parameter* p : owned_.all()) {
      Values v{p->shape(), std::vector<double>(std::size_t(p->numel()))};
      fill_symmetric(rng, v, symmetry(), 1);
      dispatch_real(p->master().dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>)
          for (index_t k = 0; k < p->numel(); ++k) p->master().template data<T>()[k] = T(v.values[std::size_t(k)]);
      });
      p->refresh(ctx);
      if (layer.trains) p->set_trainable(layer.trains(*p));
      parameters_.push_back(p);
    }
    x_ = {input, std::vector<double>(std::size_t(input.numel()))};
    fill_records(rng, x_, symmetry(), 1);
  }
  index_t records() const override { return x_.shape.front(); }
  const Parameters& parameters() const override { return parameters_; }
  dpmp::Variable record(dpmp::Tape& tape, const Arrangement& slots) const override {
    const dpmp::Shape shape = x_.shape.with(0, index_t(slots.size()));
    const dpmp::Variable y =
        layer_(tape.input(dpmp::Tensor::from(ctx_, shape, dtype_, arranged(x_.values, records(), slots))));
    return mean_squared_error(y, dpmp::Tensor::zeros(ctx_, y.shape(), accumulate_dtype(dtype_)));
  }

 private:
  dpmp::Context& ctx_;
  DType dtype_;
  dpmp::nn::Parameters owned_;
  AnyLayer layer_;
  Values x_;
  Parameters parameters_;
};

/// A GPT; fillers have the ids of record 0.
class GptInSlots final : public SlotModel {
 public:
  GptInSlots(dpmp::Context& ctx, Rng& rng, const dpmp::nn::TransformerConfig& config, index_t records, DType dtype)
      : ctx_(ctx), model_(ctx, config, dtype), records_(records), tokens_(config.context) {
    for (index_t k = 0; k < records * tokens_; ++k) {
      ids_.push_back(std::int32_t(rng.integer(0, config.vocabulary - 1)));
      targets_.push_back(std::int32_t(rng.integer(-1, config.vocabulary - 1)));
    }
    const auto all = model_.parameters().all();
    parameters_.assign(all.begin(), all.end());
  }
  index_t records() const override { return records_; }
  const Parameters& parameters() const override { return parameters_; }
  dpmp::Variable record(dpmp::Tape& tape, const Arrangement& slots) const override {
    const dpmp::Shape shape{index_t(slots.size()), tokens_};
    return cross_entropy(model_(tape, dpmp::Tensor::from(ctx_, shape, arranged(ids_, records_, slots))),
                         dpmp::Tensor::from(ctx_, shape, arranged(targets_, records_, slots)), {.divisor = double(tokens_)});
  }

 private:
  dpmp::Context& ctx_;
  dpmp::nn::Transformer model_;
  index_t records_, tokens_;
  std::vector<std::int32_t> ids_, targets_;
  Parameters parameters_;
};
}  // namespace test

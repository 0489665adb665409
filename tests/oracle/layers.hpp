// SPDX-License-Identifier: Apache-2.0
// The layers of nn:: by name, as a case asks for them. Their parameters get random values: the initial zeros of biases would
// hide what goes wrong with them.
#pragma once
#include <functional>
#include <map>

#include "oracle/values.hpp"
#include "support/random.hpp"

namespace oracle {
using Layer = std::function<Variable(const Variable& x, const Tensor& ids)>;

inline dpmp::nn::BlockOptions block_options(const Json& j) {
  return {.width = j.at("width").get<index_t>(),
          .heads = attribute<index_t>(j, "heads", 1),
          .key_value_heads = attribute<index_t>(j, "key_value_heads", 0),
          .hidden = attribute<index_t>(j, "hidden", 0),
          .layers = attribute<index_t>(j, "layers", 1),
          .causal = attribute(j, "causal", true),
          .rotary = attribute(j, "rotary", false),
          .norm = attribute(j, "rms_norm", false) ? dpmp::nn::Norm::rms_norm : dpmp::nn::Norm::layer_norm,
          .feed_forward = attribute(j, "swiglu", false)      ? dpmp::nn::FeedForward::swiglu
                          : attribute(j, "gelu_tanh", false) ? dpmp::nn::FeedForward::gelu_tanh
                                                             : dpmp::nn::FeedForward::gelu};
}

inline Layer make_layer(const dpmp::nn::Scope& scope, const Json& j) {
  using namespace dpmp;
  const auto type = j.at("type").get<std::string>();
  const auto n = [&](const char* name) { return j.at(name).get<index_t>(); };
  if (type == "linear") {
    const nn::Linear layer(scope, n("inputs"), n("outputs"));
    return [=](const Variable& x, const Tensor&) { return layer(x); };
  }
  if (type == "lora") {
    nn::LoraLinear layer(scope, n("inputs"), n("outputs"));
    layer.adapt({.rank = n("rank"), .alpha = j.at("alpha").get<double>()});
    return [=](const Variable& x, const Tensor&) { return layer(x); };
  }
  if (type == "layer_norm") {
    const nn::LayerNorm layer(scope, n("width"));
    return [=](const Variable& x, const Tensor&) { return layer(x); };
  }
  if (type == "rms_norm") {
    const nn::RmsNorm layer(scope, n("width"));
    return [=](const Variable& x, const Tensor&) { return layer(x); };
  }
  if (type == "gelu_feed_forward") {
    const nn::GeluFeedForward layer(scope, n("width"), n("hidden"));
    return [=](const Variable& x, const Tensor&) { return layer(x); };
  }
  if (type == "swiglu") {
    const nn::SwiGlu layer(scope, n("width"), n("hidden"));
    return [=](const Variable& x, const Tensor&) { return layer(x); };
  }
  if (type == "attention") {
    const nn::Attention layer(scope, n("width"),
                              {.heads = n("heads"),
                               .key_value_heads = attribute<index_t>(j, "key_value_heads", 0),
                               .causal = attribute(j, "causal", true),
                               .rotary = attribute(j, "rotary", false)});
    return [=](const Variable& x, const Tensor& keep) { return layer(x, keep); };
  }
  if (type == "block") {
    const nn::Block layer(scope, block_options(j));
    return [=](const Variable& x, const Tensor& keep) { return layer(x, keep); };
  }
  if (type == "blocks") {
    const nn::Blocks layer(scope, block_options(j));
    return [=](const Variable& x, const Tensor& keep) { return layer(x, keep); };
  }
  if (type == "gru") {
    const nn::Gru layer(scope, n("inputs"), n("hidden"));
    return [=](const Variable& x, const Tensor&) { return layer(x); };
  }
  if (type == "lstm") {
    const nn::Lstm layer(scope, n("inputs"), n("hidden"));
    return [=](const Variable& x, const Tensor&) { return layer(x); };
  }
  if (type == "conv2d") {
    const nn::Conv2d layer(scope, n("inputs"), n("outputs"),
                           {.kernel = size_of(j.at("kernel")),
                            .stride = size_of(j.at("stride")),
                            .padding = size_of(j.at("padding")),
                            .groups = attribute<index_t>(j, "groups", 1)});
    return [=](const Variable& x, const Tensor&) { return layer(x); };
  }
  if (type == "conv1d") {
    const nn::Conv1d layer(scope, n("inputs"), n("outputs"),
                           {.kernel = n("kernel"), .stride = n("stride"), .padding = n("padding")});
    return [=](const Variable& x, const Tensor&) { return layer(x); };
  }
  if (type == "group_norm") {
    const nn::GroupNorm layer(scope, n("channels"), n("groups"));
    return [=](const Variable& x, const Tensor&) { return layer(x); };
  }
  if (type == "instance_norm") {
    const nn::InstanceNorm layer(scope, n("channels"));
    return [=](const Variable& x, const Tensor&) { return layer(x); };
  }
  throw Error("the oracle has no layer '" + type + "'");
}

inline dpmp::nn::TransformerConfig transformer_config(const Json& j) {
  const dpmp::nn::BlockOptions block = block_options(j);
  return {.vocabulary = j.at("vocabulary").get<index_t>(),
          .width = block.width,
          .layers = block.layers,
          .heads = block.heads,
          .context = j.at("context").get<index_t>(),
          .tied = attribute(j, "tied", false),
          .norm = block.norm,
          .feed_forward = block.feed_forward,
          .positions = block.rotary ? dpmp::nn::Positions::rotary : dpmp::nn::Positions::learned,
          .key_value_heads = block.key_value_heads};
}

/// Writes values into a parameter.
inline void set_values(dpmp::Context& ctx, dpmp::Parameter& p, const std::vector<double>& values) {
  p.master().copy_from(Tensor::from(ctx, p.shape(), p.master().dtype(), values));
  p.refresh(ctx);
}
/// Gains near 1, everything else of the size of a weight.
inline void randomise(dpmp::Context& ctx, dpmp::Parameter& p, test::Rng& rng) {
  std::vector<double> values(static_cast<std::size_t>(p.numel()));
  const bool gain = p.name() == "gain" || p.name().ends_with(".gain");
  for (double& v : values) v = (gain ? 1 : 0) + rng.uniform(-0.5, 0.5);
  set_values(ctx, p, values);
}
}  // namespace oracle

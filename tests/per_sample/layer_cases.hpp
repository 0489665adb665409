// SPDX-License-Identifier: Apache-2.0
// Layers made of several operations: adapters, recurrent cells, gated blocks, frozen and bias-only models.
#pragma once
#include "dpmp/nn/feed_forward.hpp"
#include "dpmp/nn/lora.hpp"
#include "dpmp/nn/recurrent.hpp"
#include "dpmp/nn/summed_embedding.hpp"
#include "dpmp/nn/vision.hpp"

namespace test {
using AnyLayer = std::function<dpmp::Variable(const dpmp::Variable&)>;
struct LayerCase {
  std::string name;
  bool images;  // the input is [B, H, W, C], else [B, T, C]
  std::function<AnyLayer(dpmp::nn::Parameters&, dpmp::index_t width)> make;
  std::function<bool(const dpmp::Parameter&)> trains = {};
};

/// Ids [B, T] of a table of so many rows, from a column of numbers [B, T, ..].
inline dpmp::Tensor ids_of(const dpmp::Variable& x, dpmp::index_t column, dpmp::index_t rows) {
  const std::vector<double> values = x.value().to_doubles();
  const dpmp::index_t width = x.shape()[2], tokens = x.shape()[0] * x.shape()[1];
  std::vector<std::int32_t> ids;
  for (dpmp::index_t t = 0; t < tokens; ++t) {
    const double number = 64 * std::abs(values[std::size_t(t * width + column)]);
    ids.push_back(std::isfinite(number) ? std::int32_t(std::fmod(number, double(rows))) : 0);
  }
  return dpmp::Tensor::from(x.tape().ctx(), {x.shape()[0], x.shape()[1]}, ids);
}

inline std::vector<LayerCase> layer_cases() {
  using namespace dpmp;
  return {
      {"lora", false,
       [](nn::Parameters& p, index_t d) -> AnyLayer {
         nn::LoraLinear layer(p / "layer", d, 5);
         layer.adapt({.rank = 2, .alpha = 3});
         return [layer](const Variable& x) { return layer(x); };
       },
       nn::is_lora},
      {"gru", false,
       [](nn::Parameters& p, index_t d) -> AnyLayer {
         return [layer = nn::Gru(p / "layer", d, 3)](const Variable& x) { return layer(x); };
       }},
      {"lstm", false,
       [](nn::Parameters& p, index_t d) -> AnyLayer {
         return [layer = nn::Lstm(p / "layer", d, 3)](const Variable& x) { return layer(x); };
       }},
      {"swiglu block", false,
       [](nn::Parameters& p, index_t d) -> AnyLayer {
         return [layer = nn::SwiGlu(p / "layer", d, 6)](const Variable& x) { return layer(x); };
       }},
      {"summed embedding", false,
       [](nn::Parameters& p, index_t) -> AnyLayer {
         const nn::SummedEmbedding layer(p / "layer", 6, {.tables = {{"tokens", 9}, {"types", 2}}, .positions = 64});
         return [layer](const Variable& x) { return layer(x.tape(), {ids_of(x, 0, 9), ids_of(x, 1, 2)}); };
       }},
      {"two linears, biases only", false,
       [](nn::Parameters& p, index_t d) -> AnyLayer {
         return [a = nn::Linear(p / "a", d, 7), b = nn::Linear(p / "b", 7, 4)](const Variable& x) { return b(gelu(a(x))); };
       },
       nn::is_bias},
      {"two linears, the first one frozen", false,
       [](nn::Parameters& p, index_t d) -> AnyLayer {
         return [a = nn::Linear(p / "a", d, 7), b = nn::Linear(p / "b", 7, 4)](const Variable& x) { return b(gelu(a(x))); };
       },
       [](const Parameter& p) { return p.name()[0] == 'b'; }},
      {"convolution, group norm, pooling", true,
       [](nn::Parameters& p, index_t c) -> AnyLayer {
         return [conv = nn::Conv2d(p / "conv", c, 4, {.kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}}),
                 norm = nn::GroupNorm(p / "norm", 4, 2)](const Variable& x) {
           return global_average_pool(tanh(norm(conv(x))));
         };
       }},
  };
}
}  // namespace test

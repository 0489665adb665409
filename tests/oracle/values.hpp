// SPDX-License-Identifier: Apache-2.0
// Arrays in JSON: {"shape": [..], "values": [..]}, doubles that read back as the same bits.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "dpmp/dpmp.hpp"

namespace oracle {
using dpmp::index_t, dpmp::Tensor, dpmp::Variable;
using Json = nlohmann::json;

inline dpmp::Shape shape_of(const Json& list) {
  dpmp::Shape shape;
  for (const auto& extent : list) shape.push_back(extent.get<index_t>());
  return shape;
}
inline Tensor tensor_of(dpmp::Context& ctx, const Json& array, dpmp::DType dtype) {
  return Tensor::from(ctx, shape_of(array.at("shape")), dtype, array.at("values").get<std::vector<double>>());
}
inline Tensor ids_of(dpmp::Context& ctx, const Json& array) {
  return Tensor::from(ctx, shape_of(array.at("shape")), array.at("values").get<std::vector<std::int32_t>>());
}
inline Json json_of(const Tensor& t) {
  Json shape = Json::array();
  for (int k = 0; k < t.shape().rank(); ++k) shape.push_back(t.shape()[k]);
  return {{"shape", shape}, {"values", t.to_doubles()}};
}
/// {"height", "width"}-like pairs are lists of two.
inline dpmp::Size2d size_of(const Json& pair) { return {pair.at(0).get<index_t>(), pair.at(1).get<index_t>()}; }

/// An attribute of a node, or what it is by default.
template <class T>
T attribute(const Json& node, const char* name, T otherwise) {
  return node.contains(name) ? node.at(name).get<T>() : otherwise;
}
}  // namespace oracle

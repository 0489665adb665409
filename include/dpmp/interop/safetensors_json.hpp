// SPDX-License-Identifier: Apache-2.0
// The JSON in front of a safetensors file, by nlohmann/json, whose header takes as long to parse as a fifth of the library:
// programs that link dpmp::compiled find it compiled there.
#pragma once
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "dpmp/interop/safetensors_header.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
DPMP_KEPT inline std::string safetensors_header_text(const SafetensorsHeader& header, const std::string& place) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!header.metadata.empty()) json[metadata_key] = header.metadata;
  for (const TensorEntry& t : header.tensors) {
    std::vector<index_t> shape;
    for (int axis = 0; axis < t.shape.rank(); ++axis) shape.push_back(t.shape[axis]);
    json[t.name] = {{"dtype", safetensors_name(t.dtype)}, {"shape", shape}, {"data_offsets", {t.begin, t.end}}};
  }
  try {
    return json.dump();
  } catch (const nlohmann::json::exception& e) {
    throw Error(place + "expected names and metadata in UTF-8, got: " + e.what());
  }
}

/// Reads entries of a header; `place` stands in front of what is refused.
class HeaderParser {
 public:
  explicit HeaderParser(const std::string& place) : place_(place) {}

  SafetensorsHeader parse(const std::string& text) const {
    using Json = nlohmann::json;
    // JSON parsers keep the last of equal keys in silence; a file that says two things about one tensor is refused.
    std::set<std::string> names;
    auto on_event = [&](int depth, Json::parse_event_t event, Json& value) {
      check(depth <= 3, "a header of nesting depth 3 at most", "a deeper one");
      if (event == Json::parse_event_t::key && depth == 1) {
        const auto name = value.template get<std::string>();
        check(names.insert(name).second, "each name once", "'" + name + "' again");
      }
      return true;
    };
    Json json;
    try {
      json = Json::parse(text, on_event);
    } catch (const Json::exception& e) {
      check(false, "a header in JSON", e.what());
    }
    SafetensorsHeader header;
    for (const auto& [name, value] : json.items()) {
      check(value.is_object(), "a JSON object for '" + name + "'", value.type_name());
      if (name == metadata_key) {
        for (const auto& [key, item] : value.items()) {
          check(item.is_string(), "a string for the metadata '" + key + "'", item.type_name());
          header.metadata[key] = item.get<std::string>();
        }
      } else {
        header.tensors.push_back(entry(name, value));
      }
    }
    return header;
  }

 private:
  void check(bool holds, const std::string& expected, const std::string& got) const {
    if (!holds) throw Error(place_ + "expected " + expected + ", got " + got);
  }
  TensorEntry entry(const std::string& name, const nlohmann::json& value) const {
    for (const char* key : {"dtype", "shape", "data_offsets"})
      check(value.contains(key), dpmp::detail::concat("a ", key, " for '", name, "'"), "none");
    TensorEntry entry;
    entry.name = name;
    const auto& dtype = value["dtype"];
    bool known = false;
    for (DType d : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32})
      if (dtype == safetensors_name(d)) entry.dtype = d, known = true;
    check(known, "F32, BF16, F16, F64 or I32 for '" + name + "'", dtype.dump());
    const auto& shape = value["shape"];
    check(shape.is_array() && shape.size() <= std::size_t(Shape::max_rank), "a shape of at most 5 axes for '" + name + "'",
          shape.dump().substr(0, 200));
    for (const auto& extent : shape) entry.shape.push_back(size_from(extent, "extents of '" + name + "'"));
    const auto& offsets = value["data_offsets"];
    check(offsets.is_array() && offsets.size() == 2, "two data_offsets for '" + name + "'", offsets.dump().substr(0, 200));
    entry.begin = size_from(offsets[0], "data_offsets of '" + name + "'");
    entry.end = size_from(offsets[1], "data_offsets of '" + name + "'");
    return entry;
  }
  index_t size_from(const nlohmann::json& value, const std::string& what) const {
    check(value.is_number_unsigned() && value.get<std::uint64_t>() <= std::uint64_t(std::numeric_limits<index_t>::max()),
          what + " that are whole numbers from 0 to 2^63 - 1", value.dump().substr(0, 200));
    return value.get<index_t>();
  }

  const std::string& place_;
};

DPMP_KEPT inline SafetensorsHeader parse_safetensors_header(const std::string& text, const std::string& place) {
  return HeaderParser(place).parse(text);
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail

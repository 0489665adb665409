// SPDX-License-Identifier: Apache-2.0
// What the JSON files beside the weights of a folder from the hub say.
#pragma once
#include <map>
#include <string>
#include <variant>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// A value of a config.json: null, a truth value, a whole number, another number, a text.
using Setting = std::variant<std::monostate, bool, index_t, double, std::string>;

namespace detail {
inline constexpr const char* config_name = "config.json";
inline constexpr const char* weights_name = "model.safetensors";
inline constexpr const char* index_name = "model.safetensors.index.json";

/// The settings of an object in JSON, and the map "weight_map" of an index. Defined in huggingface_json.hpp. Both throw with
/// `place` in front.
std::map<std::string, Setting> parse_settings(const std::string& text, const std::string& place);
std::map<std::string, std::string> parse_weight_map(const std::string& text, const std::string& place);
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI::interop

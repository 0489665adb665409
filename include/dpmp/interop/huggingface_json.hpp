// SPDX-License-Identifier: Apache-2.0
// The JSON beside the weights of a folder from the hub, by nlohmann/json: programs that link dpmp::compiled find it compiled
// there. A name twice in one object is refused: readers disagree about which of them counts.
#pragma once
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "dpmp/interop/huggingface_settings.hpp"
#include "dpmp/interop/safetensors_header.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
/// An object; throws for anything else.
inline nlohmann::json json_object(const std::string& text, const std::string& place) {
  constexpr int deepest = 32;
  std::vector<std::set<std::string>> names;  // of the objects that are open
  std::string twice;
  bool deep = false;
  const auto look = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    deep = deep || depth > deepest;
    if (event == Event::object_start) names.emplace_back();
    if (event == Event::object_end) names.pop_back();
    if (event == Event::key && !names.back().insert(parsed.get<std::string>()).second && twice.empty())
      twice = parsed.get<std::string>();
    return !deep;
  };
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(text, look);
  } catch (const nlohmann::json::exception& e) {
    throw Error(place + "expected JSON, got: " + std::string(e.what()).substr(0, 300));
  }
  if (deep)
    throw Error(place + dpmp::detail::concat("expected JSON of nesting depth ", deepest, " at most, got a deeper one"));
  if (!twice.empty()) throw Error(place + "expected each name once, got " + shown(twice) + " again");
  if (!json.is_object()) throw Error(place + "expected a JSON object, got " + json.type_name());
  return json;
}

DPMP_KEPT inline std::map<std::string, Setting> parse_settings(const std::string& text, const std::string& place) {
  std::map<std::string, Setting> settings;
  const nlohmann::json flat = json_object(text, place).flatten();
  for (const auto& [pointer, value] : flat.items()) {
    if (pointer.empty()) continue;  // of an object without settings
    Setting& setting = settings[pointer.substr(1)];
    if (value.is_boolean()) setting = value.get<bool>();
    if (value.is_string()) setting = value.get<std::string>();
    if (value.is_number()) setting = value.get<double>();
    if (value.is_number_integer()) {
      const bool fits =
          !value.is_number_unsigned() || value.get<std::uint64_t>() <= std::uint64_t(std::numeric_limits<index_t>::max());
      if (fits) setting = value.get<index_t>();
    }
  }
  return settings;
}

DPMP_KEPT inline std::map<std::string, std::string> parse_weight_map(const std::string& text, const std::string& place) {
  const nlohmann::json json = json_object(text, place);
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object())
    throw Error(place + "expected an object 'weight_map', got " + (map == json.end() ? "none" : map->type_name()));
  std::map<std::string, std::string> files;
  for (const auto& [name, file] : map->items()) {
    if (!file.is_string())
      throw Error(place + "expected the name of a file for " + shown(name) + ", got " + file.type_name());
    files[name] = file.get<std::string>();
  }
  if (files.empty()) throw Error(place + "expected tensors in 'weight_map', got none");
  return files;
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail

// SPDX-License-Identifier: Apache-2.0
// What stands in front of the tensors of a safetensors file.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "dpmp/interop/stored_type.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// What the header of a file says about one tensor. Offsets count from the first byte after the header.
struct TensorEntry {
  std::string name;
  StoredType dtype = DType::f32;
  StoredShape shape;
  index_t begin = 0, end = 0;
};

namespace detail {
inline constexpr index_t longest_header = 100'000'000;  // the format's own limit
inline constexpr const char* metadata_key = "__metadata__";
inline constexpr const char* checksum_key = "checksum";
inline constexpr std::string_view no_checksum = "0000000000000000";  // what is hashed in place of it

/// What the JSON in front of the tensors says.
struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;
  std::map<std::string, std::string> metadata;
};
/// The header as text, tensors in this order; and back. Defined in safetensors_json.hpp. Both throw with `place` in front:
/// the first on what is not UTF-8, the second on everything that is not such a header. Offsets are not checked here.
std::string safetensors_header_text(const SafetensorsHeader& header, const std::string& place);
SafetensorsHeader parse_safetensors_header(const std::string& text, const std::string& place);
/// A name from a file as messages show it: its beginning, in quotation marks.
inline std::string shown(const std::string& name) {
  constexpr std::size_t most = 200;
  return "'" + (name.size() > most ? name.substr(0, most) + ".." : name) + "'";
}
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI::interop

// SPDX-License-Identifier: Apache-2.0
// The JSON in front of a safetensors file, by nlohmann/json, whose header takes as long to parse as a fifth of the library:
// programs that link dpmp::compiled find it compiled there.
//
// Readers that disagree about a file are a way to have one thing checked and another one used. So what any reader of the
// format refuses is refused (a key twice in one object, at any depth; anything after the last brace but spaces; numbers
// that are not whole), and so is what readers understand in different ways: an entry that is a list instead of an object,
// "__metadata__" that is null. Keys of an entry that the format does not define are skipped, as the format's own reader
// does.
#pragma once
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "dpmp/interop/safetensors_header.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
DPMP_KEPT inline std::string safetensors_header_text(const SafetensorsHeader& header, const std::string& place) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!header.metadata.empty()) json[metadata_key] = header.metadata;
  for (const TensorEntry& t : header.tensors)
    json[t.name] = {{"dtype", t.dtype.name()}, {"shape", t.shape.extents()}, {"data_offsets", {t.begin, t.end}}};
  try {
    return json.dump();
  } catch (const nlohmann::json::exception& e) {
    throw Error(place + "expected names and metadata in UTF-8, got: " + e.what());
  }
}

/// Takes the header from the events of the parser, so that nothing is stored but what is asked for, and nothing is merged
/// before it can be seen. `place` stands in front of what is refused.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& place) : place_(place) {}
  SafetensorsHeader take() { return std::move(header_); }

  bool null() override { return other("null"); }
  bool boolean(bool) override { return other("a boolean"); }
  bool number_integer(number_integer_t value) override { return whole(false, 0, std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override { return whole(true, value, std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return whole(false, 0, text); }
  bool binary(binary_t&) override { return other("binary data"); }
  bool string(string_t& value) override {
    if (at_metadata()) {
      header_.metadata[keys_.back().latest] = value;
    } else if (field() == Field::dtype) {
      entry_.dtype = StoredType(value);
    } else {
      other("a string");
    }
    return true;
  }
  bool key(string_t& name) override {
    Object& object = keys_.back();
    check(object.names.insert(name).second, "each name once", shown(name) + " again");
    object.latest = name;
    if (keys_.size() == 1) check(!name.empty(), "a name for each tensor", "an empty one");
    return true;
  }
  bool start_object(std::size_t) override {
    const bool entry_or_metadata = keys_.size() == 1 && depth_ == 1;
    if (depth_ > 0 && !entry_or_metadata) other("an object");
    if (entry_or_metadata) entry_ = {.name = keys_[0].latest, .dtype = StoredType(""), .shape = {}};
    keys_.emplace_back();
    return deeper();
  }
  bool end_object() override {
    const std::set<std::string> names = std::move(keys_.back().names);
    keys_.pop_back();
    --depth_;
    if (depth_ != 1 || keys_[0].latest == metadata_key) return true;
    for (const char* field : {"dtype", "shape", "data_offsets"})
      check(names.contains(field), dpmp::detail::concat("a ", field, " for ", shown(entry_.name)), "none");
    check(numbers_of_.offsets.size() == 2, "two data_offsets for " + shown(entry_.name),
          std::to_string(numbers_of_.offsets.size()));
    entry_.shape = StoredShape(std::exchange(numbers_of_.shape, {}));
    entry_.begin = numbers_of_.offsets[0];
    entry_.end = numbers_of_.offsets[1];
    numbers_of_.offsets.clear();
    header_.tensors.push_back(std::move(entry_));
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ != 2 || (field() != Field::shape && field() != Field::offsets)) other("a list");
    return deeper();
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& e) override {
    check(false, "a header in JSON", std::string(e.what()).substr(0, 300));
    return false;
  }

 private:
  enum class Field { none, dtype, shape, offsets };
  struct Object {
    std::set<std::string> names;
    std::string latest;  // the key whose value comes next
  };
  void check(bool holds, const std::string& expected, const std::string& got) const {
    if (!holds) throw Error(place_ + "expected " + expected + ", got " + got);
  }
  bool deeper() {
    constexpr int deepest = 16;
    check(++depth_ <= deepest, dpmp::detail::concat("a header of nesting depth ", deepest, " at most"), "a deeper one");
    return true;
  }
  bool at_metadata() const { return keys_.size() == 2 && depth_ == 2 && keys_[0].latest == metadata_key; }
  /// Which part of a tensor's entry a value belongs to.
  Field field() const {
    if (keys_.size() != 2 || keys_[0].latest == metadata_key) return Field::none;
    const std::string& name = keys_[1].latest;
    return name == "dtype"          ? Field::dtype
           : name == "shape"        ? Field::shape
           : name == "data_offsets" ? Field::offsets
                                    : Field::none;
  }
  /// A value that can only be one of those that are skipped.
  bool other(const std::string& got) const {
    check(depth_ > 0, "a header that is an object", got);
    const std::string name = shown(keys_[0].latest);
    check(keys_.size() > 1, "a JSON object for " + name, got);
    check(!at_metadata(), "a string for the metadata " + shown(keys_[1].latest), got);
    check(keys_[0].latest != metadata_key, "strings in the metadata", got);
    switch (field()) {
      case Field::none: break;
      case Field::dtype: check(false, "a name as dtype of " + name, got); break;
      case Field::shape:
        check(false, depth_ == 2 ? "a list as shape of " + name : "whole numbers from 0 to 2^63 - 1 in the shape of " + name,
              got);
        break;
      case Field::offsets:
        check(false,
              depth_ == 2 ? "a list of two data_offsets for " + name
                          : "whole numbers from 0 to 2^63 - 1 in the data_offsets of " + name,
              got);
    }
    return true;
  }
  bool whole(bool is_unsigned, std::uint64_t value, const std::string& text) {
    const Field to = field();
    const bool fits = is_unsigned && value <= std::uint64_t(std::numeric_limits<index_t>::max());
    if (depth_ == 3 && fits && to == Field::shape) {
      numbers_of_.shape.push_back(index_t(value));
    } else if (depth_ == 3 && fits && to == Field::offsets) {
      numbers_of_.offsets.push_back(index_t(value));
    } else {
      other(text.substr(0, 100));
    }
    return true;
  }

  const std::string& place_;
  SafetensorsHeader header_;
  std::vector<Object> keys_;  // of the objects that are open
  int depth_ = 0;             // objects and lists that are open
  TensorEntry entry_;
  struct {
    std::vector<index_t> shape, offsets;
  } numbers_of_;
};

DPMP_KEPT inline SafetensorsHeader parse_safetensors_header(const std::string& text, const std::string& place) {
  const auto check = [&](bool holds, const char* expected, const char* got) {
    if (!holds) throw Error(place + "expected " + expected + ", got " + got);
  };
  check(text.starts_with('{'), "a header that starts with '{'", text.empty() ? "an empty one" : "another byte");
  // The parser takes a NUL for the end of the text, and other kinds of white space for padding.
  check(text.find('\0') == std::string::npos, "a header in JSON", "a NUL byte in it");
  const std::size_t last = text.find_last_not_of(' ');
  check(text[last] == '}', "a header in JSON that ends with '}' and spaces", "another byte");
  HeaderReader reader(place);
  nlohmann::json::sax_parse(text, &reader);
  return reader.take();
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail

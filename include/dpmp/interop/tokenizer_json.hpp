// SPDX-License-Identifier: Apache-2.0
// Tokenizers from files: tokenizer.json of the package `tokenizers` (github.com/huggingface/tokenizers), and the lists of
// tokens and merges that GPT-2 and BERT were published with. Whatever has an effect on ids and is not understood is refused
// by its name.
#pragma once
#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "dpmp/core/escaped_text.hpp"
#include "dpmp/interop/tokenizer_parts.hpp"
#include "dpmp/runtime/input_file.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
inline std::string whole_file(const std::string& path) {
  const InputFile file(path);
  std::string text(std::size_t(file.size()), '\0');
  text.resize(std::size_t(file.read(0, text.data(), file.size())));
  DPMP_CHECK(index_t(text.size()) == file.size(), "reading '", path, "': expected ", file.size(), " bytes, got ",
             text.size());
  const std::size_t good = utf8_prefix(text);
  DPMP_CHECK(good == text.size(), "reading '", path, "': expected UTF-8, got other bytes at offset ", good);
  return text;
}
/// Text of a file as messages show it.
inline std::string in_quotes(std::string_view text) {
  constexpr std::size_t most = 100;
  return text.size() > most ? "'" + std::string(text.substr(0, most)) + "..'" : "'" + std::string(text) + "'";
}

/// A value with the way to it, for messages: "reading 'tokenizer.json': model.vocab: ".
class JsonValue {
 public:
  using Json = nlohmann::json;
  JsonValue(const Json& value, std::string place) : value_(value), place_(std::move(place)) {}
  const std::string& place() const { return place_; }
  const Json& operator*() const { return value_; }
  const Json* operator->() const { return &value_; }

  [[noreturn]] void refuse(const std::string& expected, const std::string& got) const {
    throw Error(place_ + "expected " + expected + ", got " + got);
  }
  [[noreturn]] void refuse(const std::string& expected) const { refuse(expected, shown()); }
  /// The value, or what kind of one it is.
  std::string shown() const {
    if (value_.is_string()) return in_quotes(value_.get_ref<const std::string&>());
    return value_.is_primitive() ? value_.dump().substr(0, 100) : std::string("an ") + value_.type_name();
  }
  /// Refuses an object that has other keys, and what is no object.
  const JsonValue& only(std::initializer_list<std::string_view> keys) const {
    if (!value_.is_object()) refuse("an object");
    for (const auto& [key, value] : value_.items())
      if (std::find(keys.begin(), keys.end(), key) == keys.end())
        refuse("no option that dpmp does not know", in_quotes(key));
    return *this;
  }
  /// Nothing where the key is not there, or its value is null.
  std::optional<JsonValue> find(const char* key) const {
    if (!value_.is_object()) refuse("an object");
    const auto at = value_.find(key);
    if (at == value_.end() || at->is_null()) return std::nullopt;
    return std::optional<JsonValue>(std::in_place, *at, inside(key));
  }
  JsonValue at(const char* key) const {
    const auto found = find(key);
    if (!found) refuse(std::string("a value of '") + key + "'", "none");
    return *found;
  }
  JsonValue at(std::size_t index) const { return {value_.at(index), inside(std::to_string(index))}; }
  std::size_t length() const {
    if (!value_.is_array()) refuse("a list");
    return value_.size();
  }
  const std::string& text() const {
    if (!value_.is_string()) refuse("a string");
    return value_.get_ref<const std::string&>();
  }
  bool flag() const {
    if (!value_.is_boolean()) refuse("true or false");
    return value_.get<bool>();
  }
  bool flag(const char* key, bool otherwise) const {
    const auto found = find(key);
    return found ? found->flag() : otherwise;
  }
  static constexpr std::uint64_t largest = (std::uint64_t(1) << 31) - 2;
  int whole() const {
    if (!value_.is_number_unsigned() || value_.get<std::uint64_t>() > largest) refuse("a whole number from 0 to 2^31 - 2");
    return value_.get<int>();
  }
  /// The kind of a part, one of those.
  const std::string& type(const std::string& part, std::initializer_list<std::string_view> known) const {
    const std::string& name = at("type").text();
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      std::string list;
      for (const std::string_view k : known) list.append(list.empty() ? "" : " or ").append(k);
      refuse(part + " of type " + list, in_quotes(name));
    }
    return name;
  }

 private:
  std::string inside(const std::string& key) const {
    const bool nested = place_.ends_with(": ") && !place_.ends_with("': ");
    return (nested ? place_.substr(0, place_.size() - 2) + "." : place_) + key + ": ";
  }
  const Json& value_;
  std::string place_;
};

/// Parses JSON in which no object has a key twice: readers differ in which of them they believe.
inline nlohmann::json parsed_json(const std::string& text, const std::string& place) {
  std::vector<std::unordered_set<std::string>> keys;
  const nlohmann::json::parser_callback_t watch = [&](int depth, nlohmann::json::parse_event_t event,
                                                      nlohmann::json& value) {
    using Event = nlohmann::json::parse_event_t;
    constexpr int deepest = 32;
    DPMP_CHECK(depth <= deepest, place, "expected JSON of nesting depth ", deepest, " at most, got a deeper one");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key) {
      const auto& key = value.get_ref<const std::string&>();
      DPMP_CHECK(keys.back().insert(key).second, place, "expected each key of an object once, got ", in_quotes(key),
                 " again");
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, watch);
  } catch (const nlohmann::json::exception& e) {
    throw Error(place + "expected JSON, got: " + std::string(e.what()).substr(0, 300));
  }
}

/// Adds an object of tokens and ids.
inline void read_vocabulary(const JsonValue& from, Vocabulary& to) {
  if (!from->is_object()) from.refuse("an object of tokens and ids");
  for (const auto& [token, id] : from->items()) to.add(token, JsonValue(id, from.place() + in_quotes(token) + ": ").whole());
  const int twice = to.finish();
  if (twice >= 0) from.refuse("an id of its own for each token", "id " + std::to_string(twice) + " for two");
}

/// The ids of a merge. `place` is made only where something is refused.
template <class Place>
Merge merge_of(const Vocabulary& vocabulary, const std::string& left, const std::string& right, Place&& place) {
  const auto id = [&](const std::string& token) {
    const auto found = vocabulary.id_of(token);
    if (!found) throw Error(place() + "expected tokens of the vocabulary, got " + in_quotes(token));
    return *found;
  };
  return {id(left), id(right), id(left + right)};
}
/// "left right", without other spaces.
inline std::optional<std::pair<std::string, std::string>> cut_merge(std::string_view text) {
  const std::size_t space = text.find(' ');
  if (space == std::string_view::npos || space == 0 || space + 1 == text.size() ||
      text.find(' ', space + 1) != std::string_view::npos)
    return std::nullopt;
  return std::pair(std::string(text.substr(0, space)), std::string(text.substr(space + 1)));
}

/// Registers a token that is added to the vocabulary or, with its id there, found before the model sees a text. Throws with
/// `place` in front.
inline void add_token(TokenizerParts& parts, AddedToken token, const std::string& place) {
  std::string content = token.content;
  if (token.normalized && parts.normalizer) content = parts.normalizer->normalize(content, parts.characters);
  DPMP_CHECK(!content.empty(), place, "expected a token that is not empty", token.content.empty() ? "" : " when normalised",
             ", got ", in_quotes(token.content));
  if (token.special) parts.special.insert(token.id);
  if (content != token.content) parts.normalized_spelling[token.id] = content;
  const std::string spelled = token.content;
  AddedTokenFinder& finder = token.normalized ? parts.added_normalized : parts.added;
  DPMP_CHECK(finder.add(std::move(token), content), place, "expected each added token once, got ", in_quotes(spelled),
             " again");
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail

// SPDX-License-Identifier: Apache-2.0
// Tokenizers from files: tokenizer.json of the package `tokenizers` (github.com/huggingface/tokenizers), and the lists of
// tokens and merges that GPT-2 and BERT were published with. Whatever has an effect on ids and is not understood is refused
// by its name.
#pragma once
#include "dpmp/interop/tokenizer_json.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
inline void read_byte_pairs(const JsonValue& model, TokenizerParts& parts) {
  // Every byte has a token, so nothing is ever unknown, and what is done about that does not matter.
  model.only({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
              "ignore_merges", "vocab", "merges"});
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (const auto value = model.find(key); value && !value->text().empty()) value->refuse("none");
  if (const auto dropout = model.find("dropout"); dropout && *(*dropout) != 0) dropout->refuse("no dropout of merges");
  const JsonValue merges = model.at("merges");
  std::vector<Merge> list;
  const std::size_t count = merges.length();
  for (std::size_t k = 0; k < count; ++k) {
    const nlohmann::json& value = (*merges)[k];
    const bool is_pair = value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string();
    const auto cut = value.is_string() ? cut_merge(value.get_ref<const std::string&>())
                     : is_pair         ? std::optional(std::pair(value[0].get<std::string>(), value[1].get<std::string>()))
                                       : std::nullopt;
    if (!cut) merges.at(k).refuse("two tokens, in a list or with a space between them");
    list.push_back(merge_of(parts.vocabulary, cut->first, cut->second, [&] { return merges.at(k).place(); }));
  }
  parts.model.emplace<BytePairs>(parts.vocabulary, list, model.flag("ignore_merges", false), model.place());
}

inline void read_model(const JsonValue& model, TokenizerParts& parts) {
  // Files of the first versions do not name the type.
  const bool word_pieces = model.find("type") ? model.type("a model", {"BPE", "WordPiece"}) == "WordPiece"
                                              : !model.find("merges") && model.find("max_input_chars_per_word").has_value();
  read_vocabulary(model.at("vocab"), parts.vocabulary);
  if (!word_pieces) return read_byte_pairs(model, parts);
  model.only({"type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"});
  parts.model.emplace<WordPieces>(parts.vocabulary, model.at("unk_token").text(),
                                  model.at("continuing_subword_prefix").text(),
                                  std::size_t(model.at("max_input_chars_per_word").whole()), model.place());
}

inline void read_words(const JsonValue& root, TokenizerParts& parts) {
  const bool byte_level = std::holds_alternative<BytePairs>(parts.model);
  if (const auto normalizer = root.find("normalizer")) {
    if (byte_level) normalizer->refuse("none for byte-level pairs", normalizer->at("type").shown());
    normalizer->type("a normaliser", {"BertNormalizer"});
    normalizer->only({"type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"});
    const bool lowercase = normalizer->at("lowercase").flag();
    parts.normalizer = {normalizer->at("clean_text").flag(), normalizer->at("handle_chinese_chars").flag(),
                        normalizer->flag("strip_accents", lowercase), lowercase};
  }
  const JsonValue words = root.at("pre_tokenizer");
  words.type(byte_level ? "a pre-tokeniser for BPE" : "a pre-tokeniser for WordPiece",
             {byte_level ? "ByteLevel" : "BertPreTokenizer"});
  words.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  if (!byte_level) words.only({"type"});
  parts.leading_space = byte_level && words.at("add_prefix_space").flag();
  parts.pattern = words.flag("use_regex", true);
  const auto decoder = root.find("decoder");
  if (!decoder) return;
  decoder->type(byte_level ? "a decoder for BPE" : "a decoder for WordPiece", {byte_level ? "ByteLevel" : "WordPiece"});
  if (byte_level) {
    decoder->only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    parts.decoding = {.kind = Decoding::Kind::bytes};
  } else {
    decoder->only({"type", "prefix", "cleanup"});
    parts.decoding = {Decoding::Kind::word_pieces, decoder->at("prefix").text(), decoder->at("cleanup").flag()};
  }
}

inline void read_added_tokens(const JsonValue& list, TokenizerParts& parts) {
  std::vector<std::pair<AddedToken, std::string>> tokens;
  const std::size_t count = list.length();
  for (std::size_t k = 0; k < count; ++k) {
    const JsonValue from = list.at(k);
    from.only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    AddedToken token{from.at("id").whole(),    from.at("content").text(), from.at("single_word").flag(),
                     from.at("lstrip").flag(), from.at("rstrip").flag(),  from.at("normalized").flag(),
                     from.at("special").flag()};
    const auto known = parts.vocabulary.id_of(token.content);
    if (known && *known != token.id)
      from.refuse("id " + std::to_string(*known) + " for " + in_quotes(token.content) + ", as in the vocabulary",
                  std::to_string(token.id));
    if (!known) parts.vocabulary.add(token.content, token.id);
    tokens.emplace_back(std::move(token), from.place());
  }
  const int twice = parts.vocabulary.finish();
  if (twice >= 0) list.refuse("an id of its own for each token", "id " + std::to_string(twice) + " for two");
  for (auto& [token, place] : tokens) add_token(parts, std::move(token), place);
}

/// What "cls" and "sep" of BERT's and RoBERTa's post-processors say: [token, id].
inline std::vector<int> token_with_id(const JsonValue& from, const Vocabulary& vocabulary) {
  if (from.length() != 2) from.refuse("a token and its id");
  const std::string& token = from.at(std::size_t(0)).text();
  const int id = from.at(std::size_t(1)).whole();
  if (vocabulary.id_of(token) != id)
    from.refuse("a token of the vocabulary and its id", in_quotes(token) + ", " + std::to_string(id));
  return {id};
}

inline Template read_template(const JsonValue& from, const JsonValue& special, bool is_pair, const Vocabulary& vocabulary) {
  Template result;
  int texts[2] = {0, 0};
  const std::size_t count = from.length();
  for (std::size_t k = 0; k < count; ++k) {
    const JsonValue part = from.at(k);
    part.only({"Sequence", "SpecialToken"});
    if (part->size() != 1) part.refuse("one of 'Sequence' and 'SpecialToken'", std::to_string(part->size()));
    if (const auto text = part.find("Sequence")) {
      text->only({"id", "type_id"});
      const std::string& name = text->at("id").text();
      if (name != "A" && name != "B") text->at("id").refuse("A or B");
      ++texts[name == "B"];
      result.push_back(
          {name == "A" ? TemplatePart::Kind::first : TemplatePart::Kind::second, {}, text->at("type_id").whole()});
      continue;
    }
    const JsonValue token = part.at("SpecialToken").only({"id", "type_id"});
    const JsonValue ids = special.at(token.at("id").text().c_str()).only({"id", "ids", "tokens"}).at("ids");
    TemplatePart made{TemplatePart::Kind::special, {}, token.at("type_id").whole()};
    const std::size_t ids_count = ids.length();
    for (std::size_t i = 0; i < ids_count; ++i) {
      made.ids.push_back(ids.at(i).whole());
      if (!vocabulary.token_of(made.ids.back())) ids.at(i).refuse("an id of the vocabulary");
    }
    result.push_back(std::move(made));
  }
  if (texts[0] != 1 || texts[1] != int(is_pair))
    from.refuse(is_pair ? "the texts A and B once" : "the text A once",
                dpmp::detail::concat("A ", texts[0], " times and B ", texts[1], " times"));
  return result;
}

inline void read_post_processor(const JsonValue& from, TokenizerParts& parts, bool in_sequence = false) {
  const std::string& type = from.type("a post-processor", {"ByteLevel", "TemplateProcessing", "BertProcessing",
                                                           "RobertaProcessing", in_sequence ? "ByteLevel" : "Sequence"});
  using Kind = TemplatePart::Kind;
  if (type == "Sequence") {
    const JsonValue list = from.only({"type", "processors"}).at("processors");
    const std::size_t count = list.length();
    std::size_t templates = 0;
    for (std::size_t k = 0; k < count; ++k) {
      read_post_processor(list.at(k), parts, true);
      templates += list.at(k).at("type").text() != "ByteLevel";
    }
    if (templates > 1) list.refuse("one post-processor that adds tokens", std::to_string(templates));
  } else if (type == "ByteLevel") {
    from.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});  // about places of tokens in a text
  } else if (type == "TemplateProcessing") {
    const JsonValue special = from.only({"type", "single", "pair", "special_tokens"}).at("special_tokens");
    parts.single = read_template(from.at("single"), special, false, parts.vocabulary);
    parts.pair = read_template(from.at("pair"), special, true, parts.vocabulary);
  } else {
    const bool roberta = type == "RobertaProcessing";
    if (roberta)
      from.only({"type", "sep", "cls", "trim_offsets", "add_prefix_space"});
    else
      from.only({"type", "sep", "cls"});
    const TemplatePart cls{Kind::special, token_with_id(from.at("cls"), parts.vocabulary)};
    const TemplatePart sep{Kind::special, token_with_id(from.at("sep"), parts.vocabulary)};
    const int second = roberta ? 0 : 1;
    parts.single = {cls, {Kind::first}, sep};
    parts.pair = {cls, {Kind::first}, sep};
    if (roberta) parts.pair.push_back(sep);
    parts.pair.push_back({Kind::second, {}, second});
    parts.pair.push_back({Kind::special, sep.ids, second});
  }
}

inline void read_lengths(const JsonValue& root, TokenizerParts& parts) {
  if (const auto from = root.find("truncation")) {
    from->only({"direction", "max_length", "strategy", "stride"});
    parts.truncation.max_length = from->at("max_length").whole();
    const auto direction = from->find("direction");
    if (direction && direction->text() != "Left" && direction->text() != "Right") direction->refuse("Left or Right");
    parts.truncation.at_start = direction && direction->text() == "Left";
    const JsonValue strategy = from->at("strategy");
    const std::string& name = strategy.text();
    if (name != "LongestFirst" && name != "OnlyFirst" && name != "OnlySecond")
      strategy.refuse("LongestFirst, OnlyFirst or OnlySecond");
    parts.truncation.which = name == "OnlyFirst"    ? Shortened::first
                             : name == "OnlySecond" ? Shortened::second
                                                    : Shortened::longest;
  }
  if (const auto from = root.find("padding")) {
    from->only({"strategy", "direction", "pad_to_multiple_of", "pad_id", "pad_type_id", "pad_token"});
    parts.pad_id = from->at("pad_id").whole();
    parts.pad_type = from->at("pad_type_id").whole();
    if (!parts.vocabulary.token_of(*parts.pad_id)) from->at("pad_id").refuse("an id of the vocabulary");
  }
}

DPMP_KEPT inline std::shared_ptr<const TokenizerParts> tokenizer_of_json(const std::string& path,
                                                                         const Characters& characters) {
  const std::string place = "reading '" + path + "': ";
  const nlohmann::json json = parsed_json(whole_file(path), place);
  const JsonValue root(json, place);
  root.only({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder",
             "model"});
  if (const JsonValue version = root.at("version"); version.text() != "1.0") version.refuse("version 1.0");
  auto parts = std::make_shared<TokenizerParts>(characters, "tokenizer '" + path + "': ");
  read_model(root.at("model"), *parts);
  read_words(root, *parts);
  if (const auto added = root.find("added_tokens")) read_added_tokens(*added, *parts);
  if (const auto post = root.find("post_processor")) read_post_processor(*post, *parts);
  read_lengths(root, *parts);
  return parts;
}

/// Calls line(text, number), from 1, for what a file's LF and CRLF end; what follows the last one is a line if it is not
/// empty.
template <class Line>
void for_each_line(std::string_view text, Line&& line) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view content = text.substr(0, end);
    if (content.ends_with('\r')) content.remove_suffix(1);
    line(content, number);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

DPMP_KEPT inline std::shared_ptr<const TokenizerParts> tokenizer_of_bpe_files(const std::string& vocabulary,
                                                                              const std::string& merges,
                                                                              const std::vector<std::string>& special,
                                                                              const Characters& characters) {
  auto parts = std::make_shared<TokenizerParts>(characters, "tokenizer '" + vocabulary + "': ");
  const std::string place = "reading '" + vocabulary + "': ";
  const nlohmann::json json = parsed_json(whole_file(vocabulary), place);
  read_vocabulary(JsonValue(json, place), parts->vocabulary);
  std::vector<Merge> list;
  for_each_line(whole_file(merges), [&](std::string_view line, std::size_t number) {
    const auto where = [&] { return dpmp::detail::concat("reading '", merges, "': line ", number, ": "); };
    if (line.starts_with("#version")) return;
    const auto cut = cut_merge(line);
    DPMP_CHECK(cut, where(), "expected two tokens with a space between them, got ", in_quotes(line));
    list.push_back(merge_of(parts->vocabulary, cut->first, cut->second, where));
  });
  parts->model.emplace<BytePairs>(parts->vocabulary, list, false, place);
  parts->decoding = {.kind = Decoding::Kind::bytes};
  for (const std::string& token : special)
    if (const auto id = parts->vocabulary.id_of(token))
      add_token(*parts, {.id = *id, .content = token, .special = true}, place);
  return parts;
}

DPMP_KEPT inline std::shared_ptr<const TokenizerParts> tokenizer_of_wordpiece_file(const std::string& vocabulary,
                                                                                   const BertNormalizer& normalizer,
                                                                                   const Characters& characters) {
  auto parts = std::make_shared<TokenizerParts>(characters, "tokenizer '" + vocabulary + "': ");
  parts->normalizer = normalizer;
  const std::string place = "reading '" + vocabulary + "': ";
  for_each_line(whole_file(vocabulary), [&](std::string_view line, std::size_t number) {
    const char *const begin = line.data(), *end = begin + line.size();
    for (const char* at = end; at > begin && characters.is(character_before(at), is_white);) end = at;
    DPMP_CHECK(end > begin, place, "expected a token on each line, got none on line ", number);
    DPMP_CHECK(number - 1 <= JsonValue::largest, place, "expected at most 2^31 - 1 lines, got more");
    DPMP_CHECK(parts->vocabulary.add(std::string(begin, end), int(number - 1)), place, "expected each token once, got ",
               in_quotes({begin, end}), " again on line ", number);
  });
  parts->vocabulary.finish();
  parts->model.emplace<WordPieces>(parts->vocabulary, "[UNK]", "##", 100, place);
  const auto id = [&](const char* token) {
    const auto found = parts->vocabulary.id_of(token);
    DPMP_CHECK(found, place, "expected the token ", token, ", got none");
    return *found;
  };
  const TemplatePart cls{TemplatePart::Kind::special, {id("[CLS]")}}, sep{TemplatePart::Kind::special, {id("[SEP]")}};
  parts->single = {cls, {TemplatePart::Kind::first}, sep};
  parts->pair = {cls, {TemplatePart::Kind::first}, sep, {TemplatePart::Kind::second, {}, 1}, {sep.kind, sep.ids, 1}};
  parts->decoding = {Decoding::Kind::word_pieces, "##", true};
  for (const char* token : {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"})
    if (const auto found = parts->vocabulary.id_of(token))
      add_token(*parts, {.id = *found, .content = token, .special = true}, place);
  return parts;
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail

// SPDX-License-Identifier: Apache-2.0
// Text to the ids that a published model was trained with, and back: GPT-2's byte-level pairs and BERT's word pieces, from
// the files that such models come with. Ids are those of the package `tokenizers` (docs/tokenizers.md). Needs ICU: a program
// that includes this links icuuc.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dpmp/core/config.hpp"
#include "dpmp/interop/tokenizer_icu.hpp"
#include "dpmp/interop/tokenizer_normalizer.hpp"

namespace dpmp::inline DPMP_ABI::interop {
struct EncodeOptions {
  /// With the tokens that the model wants around a text ([CLS] and [SEP], for BERT).
  bool special_tokens = true;
  /// Most ids of a result, those special tokens included: what is longer loses its end (or what the file says); of a pair
  /// the longer text gives first. Nothing: what the file says, which may be no limit.
  std::optional<index_t> max_length = {};
  /// Filled up to so many ids, behind the others.
  index_t padded_length = 0;
  /// What with. Nothing: the file's padding token, or else "[PAD]" or "<pad>".
  std::optional<int> pad_id = {};
};

/// A text, or two, as a model takes it. All three have the same length.
struct Encoding {
  std::vector<int> ids;
  std::vector<int> types;  // 0 or 1: which of two texts ("token_type_ids")
  std::vector<int> mask;   // 1, and 0 where it was filled up ("attention_mask")
};

/// How WordPiece's older files are to be read: they are a list of tokens, and nothing says what BERT does to a text.
struct WordPieceOptions {
  bool lowercase = true;                   // "uncased"
  std::optional<bool> strip_accents = {};  // nothing: as lowercase
  bool handle_chinese_chars = true;
  bool clean_text = true;
};

namespace detail {
struct TokenizerParts;
struct TokenizerWork;
}  // namespace detail

/// A vocabulary with all that makes ids of a text. Copies share the vocabulary. Several threads may use one tokenizer; but
/// the words that it remembers serve one thread at a time, so give each its copy.
class Tokenizer {
 public:
  /// From a tokenizer.json of the package `tokenizers`. Throws on whatever is not such a file, and, by name, on models,
  /// normalisers, pre-tokenisers, post-processors, decoders and options that dpmp does not have.
  static Tokenizer from_file(const std::string& path);
  /// From GPT-2's vocab.json and merges.txt; of `special` those that the vocabulary has are special tokens.
  static Tokenizer from_bpe_files(const std::string& vocabulary, const std::string& merges,
                                  const std::vector<std::string>& special = {"<|endoftext|>"});
  /// From BERT's vocab.txt: a token a line, its id the number of the line, from 0. [UNK], [CLS] and [SEP] have to be there;
  /// they, [PAD] and [MASK] are special tokens.
  static Tokenizer from_wordpiece_file(const std::string& vocabulary, const WordPieceOptions& options = {});

  Tokenizer(const Tokenizer& other);
  Tokenizer(Tokenizer&& other) noexcept;
  Tokenizer& operator=(Tokenizer other) noexcept;
  ~Tokenizer();

  /// The ids of a text. Throws where the text is not UTF-8, and names the first byte that is not.
  std::vector<int> encode(std::string_view text, const EncodeOptions& options = {}) const;
  std::vector<int> encode_pair(std::string_view first, std::string_view second, const EncodeOptions& options = {}) const;
  /// The same with types and mask. All throw where max_length is less than the number of special tokens, where the result
  /// is longer than padded_length (if that is not 0), and where there is no padding token.
  Encoding encoding_of(std::string_view text, const EncodeOptions& options = {}) const;
  Encoding encoding_of_pair(std::string_view first, std::string_view second, const EncodeOptions& options = {}) const;

  /// The text of ids, special tokens left out unless asked for. What is no UTF-8 (of byte-level tokens, which may be parts
  /// of a character) becomes U+FFFD. Throws on an id that the vocabulary does not have.
  std::string decode(std::span<const int> ids, bool special_tokens = false) const;

  /// One more than the largest id: what an embedding has rows for.
  int vocabulary_size() const;
  /// Nothing where there is no such token. Byte-level tokens are spelled as in their file: "\u0120the" for " the".
  std::optional<int> id_of(std::string_view token) const;
  /// Throws on an id that the vocabulary does not have.
  const std::string& token_of(int id) const;
  /// The file's padding token, or else "[PAD]" or "<pad>", if there is one.
  std::optional<int> pad_id() const;
  /// The file's limit, if it has one.
  std::optional<index_t> max_length() const;

  /// For those who read a file: the parts are checked already.
  explicit Tokenizer(std::shared_ptr<const detail::TokenizerParts> parts);

 private:
  Encoding encoded(std::string_view first, const std::string_view* second, const EncodeOptions& options) const;
  std::vector<int> ids_of(std::string_view text, const char* name) const;

  std::shared_ptr<const detail::TokenizerParts> parts_;
  std::unique_ptr<detail::TokenizerWork> work_;
};

namespace detail {
/// What is in such files. Defined in tokenizer_files.hpp.
std::shared_ptr<const TokenizerParts> tokenizer_of_json(const std::string& path, const Characters& characters);
std::shared_ptr<const TokenizerParts> tokenizer_of_bpe_files(const std::string& vocabulary, const std::string& merges,
                                                             const std::vector<std::string>& special,
                                                             const Characters& characters);
std::shared_ptr<const TokenizerParts> tokenizer_of_wordpiece_file(const std::string& vocabulary,
                                                                  const BertNormalizer& normalizer,
                                                                  const Characters& characters);
}  // namespace detail

// Without the headers of ICU (libicu-dev) these are declared and nowhere defined.
#if __has_include(<unicode/uchar.h>)
inline Tokenizer Tokenizer::from_file(const std::string& path) {
  return Tokenizer(detail::tokenizer_of_json(path, detail::icu_characters()));
}
inline Tokenizer Tokenizer::from_bpe_files(const std::string& vocabulary, const std::string& merges,
                                           const std::vector<std::string>& special) {
  return Tokenizer(detail::tokenizer_of_bpe_files(vocabulary, merges, special, detail::icu_characters()));
}
inline Tokenizer Tokenizer::from_wordpiece_file(const std::string& vocabulary, const WordPieceOptions& options) {
  const bool strip = options.strip_accents.value_or(options.lowercase);
  return Tokenizer(detail::tokenizer_of_wordpiece_file(
      vocabulary, {options.clean_text, options.handle_chinese_chars, strip, options.lowercase}, detail::icu_characters()));
}
#endif
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
#include "dpmp/core/error.hpp"
#include "dpmp/core/escaped_text.hpp"
#include "dpmp/interop/tokenizer_files.hpp"
#include "dpmp/interop/tokenizer_parts.hpp"

namespace dpmp::inline DPMP_ABI::interop {
DPMP_KEPT_BODY inline Tokenizer::Tokenizer(std::shared_ptr<const detail::TokenizerParts> parts)
    : parts_(std::move(parts)), work_(std::make_unique<detail::TokenizerWork>()) {}
DPMP_KEPT_BODY inline Tokenizer::Tokenizer(const Tokenizer& other) : Tokenizer(other.parts_) {}
DPMP_KEPT_BODY inline Tokenizer::Tokenizer(Tokenizer&& other) noexcept
    : parts_(std::move(other.parts_)), work_(std::move(other.work_)) {}
DPMP_KEPT_BODY inline Tokenizer& Tokenizer::operator=(Tokenizer other) noexcept {
  parts_.swap(other.parts_);
  work_.swap(other.work_);
  return *this;
}
DPMP_KEPT_BODY inline Tokenizer::~Tokenizer() {}  // here, where the parts have a type

DPMP_KEPT_BODY inline std::vector<int> Tokenizer::ids_of(std::string_view text, const char* name) const {
  const detail::TokenizerParts& parts = *parts_;
  const std::size_t good = utf8_prefix(text);
  DPMP_CHECK(good == text.size(), "encoding ", name, ": expected UTF-8, got byte ",
             int(static_cast<unsigned char>(text[good < text.size() ? good : 0])), " at offset ", good, " of ", text.size());
  constexpr std::size_t longest = std::size_t(1) << 30;
  DPMP_CHECK(text.size() <= longest, "encoding ", name, ": expected at most 2^30 bytes, got ", text.size());
  std::vector<int> ids;
  detail::MergeRoom own_room;
  const bool alone = !work_->taken.test_and_set(std::memory_order_acquire);
  struct Release {
    std::atomic_flag* flag;
    ~Release() {
      if (flag) flag->clear(std::memory_order_release);
    }
  } const release{alone ? &work_->taken : nullptr};
  detail::WordCache* const cache = alone ? &work_->cache : nullptr;
  detail::MergeRoom& room = alone ? work_->room : own_room;

  const auto word = [&](std::string_view part) { detail::encode_word(parts, part, cache, room, ids); };
  const auto token = [&](int id) { ids.push_back(id); };
  const bool byte_level = std::holds_alternative<detail::BytePairs>(parts.model);
  std::string spaced;
  const auto words = [&](std::string_view part) {
    if (!byte_level) return detail::split_bert(part, parts.characters, word);
    if (parts.leading_space && !part.starts_with(' ')) part = spaced.assign(" ").append(part);
    if (parts.pattern)
      detail::split_gpt2(part, parts.characters, word);
    else
      word(part);
  };
  parts.added.split(
      text, parts.characters,
      [&](std::string_view part) {
        std::string normal;
        if (parts.normalizer) part = normal = parts.normalizer->normalize(part, parts.characters);
        parts.added_normalized.split(part, parts.characters, words, token);
      },
      token);
  return ids;
}

DPMP_KEPT_BODY inline Encoding Tokenizer::encoded(std::string_view first, const std::string_view* second,
                                                  const EncodeOptions& options) const {
  using Kind = detail::TemplatePart::Kind;
  const detail::TokenizerParts& parts = *parts_;
  std::vector<int> a = ids_of(first, second ? "the first text" : "a text"), b;
  if (second) b = ids_of(*second, "the second text");
  const detail::Template& layout = second ? parts.pair : parts.single;
  const std::optional<index_t> most = options.max_length ? options.max_length : parts.truncation.max_length;
  if (most) {
    index_t special = 0;
    for (const auto& part : layout) special += options.special_tokens ? index_t(part.ids.size()) : 0;
    DPMP_CHECK(*most >= special, parts.place, "expected max_length to be at least ", special,
               ", the number of special tokens, got ", *most);
    const auto [keep_a, keep_b] = detail::shortened({a.size(), b.size()}, std::size_t(*most - special), second != nullptr,
                                                    parts.truncation.which, parts.place);
    const auto shorten = [&](std::vector<int>& ids, std::size_t keep) {
      const auto lost = std::ptrdiff_t(ids.size() - keep);
      if (parts.truncation.at_start)
        ids.erase(ids.begin(), ids.begin() + lost);
      else
        ids.resize(keep);
    };
    shorten(a, keep_a);
    shorten(b, keep_b);
  }
  Encoding result;
  for (const auto& part : layout) {
    if (part.kind == Kind::special && !options.special_tokens) continue;
    const std::vector<int>& ids = part.kind == Kind::first ? a : part.kind == Kind::second ? b : part.ids;
    result.ids.insert(result.ids.end(), ids.begin(), ids.end());
    result.types.resize(result.ids.size(), part.type);
  }
  result.mask.resize(result.ids.size(), 1);
  if (options.padded_length != 0) {
    DPMP_CHECK(index_t(result.ids.size()) <= options.padded_length, parts.place, "expected padded_length to be at least ",
               result.ids.size(), ", the number of ids (max_length limits it), got ", options.padded_length);
    const std::optional<int> pad = options.pad_id ? options.pad_id : pad_id();
    DPMP_CHECK(pad, parts.place, "expected EncodeOptions::pad_id, as the vocabulary has no padding token, got none");
    result.ids.resize(std::size_t(options.padded_length), *pad);
    result.types.resize(result.ids.size(), parts.pad_type);
    result.mask.resize(result.ids.size(), 0);
  }
  return result;
}
DPMP_KEPT_BODY inline std::vector<int> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  return encoded(text, nullptr, options).ids;
}
DPMP_KEPT_BODY inline std::vector<int> Tokenizer::encode_pair(std::string_view first, std::string_view second,
                                                              const EncodeOptions& options) const {
  return encoded(first, &second, options).ids;
}
DPMP_KEPT_BODY inline Encoding Tokenizer::encoding_of(std::string_view text, const EncodeOptions& options) const {
  return encoded(text, nullptr, options);
}
DPMP_KEPT_BODY inline Encoding Tokenizer::encoding_of_pair(std::string_view first, std::string_view second,
                                                           const EncodeOptions& options) const {
  return encoded(first, &second, options);
}

DPMP_KEPT_BODY inline std::string Tokenizer::decode(std::span<const int> ids, bool special_tokens) const {
  using Kind = detail::Decoding::Kind;
  const detail::Decoding& decoding = parts_->decoding;
  std::string out;
  bool first = true;
  for (const int id : ids) {
    std::string token = token_of(id);
    if (!special_tokens && parts_->special.contains(id)) continue;
    if (const auto other = parts_->normalized_spelling.find(id); other != parts_->normalized_spelling.end())
      token = other->second;
    if (decoding.kind == Kind::bytes) {
      detail::append_bytes(out, token);
      continue;
    }
    const bool continues = decoding.kind == Kind::word_pieces && token.starts_with(decoding.prefix);
    if (!first) token = continues ? token.substr(decoding.prefix.size()) : " " + token;
    out += decoding.cleanup ? detail::cleaned_up(std::move(token)) : token;
    first = false;
  }
  return decoding.kind == Kind::bytes ? detail::with_replacements(out) : out;
}

DPMP_KEPT_BODY inline int Tokenizer::vocabulary_size() const { return parts_->vocabulary.size(); }
DPMP_KEPT_BODY inline std::optional<int> Tokenizer::id_of(std::string_view token) const {
  return parts_->vocabulary.id_of(token);
}
DPMP_KEPT_BODY inline const std::string& Tokenizer::token_of(int id) const {
  const std::string* token = parts_->vocabulary.token_of(id);
  DPMP_CHECK(token, parts_->place, "expected the id of a token, from 0 to ", vocabulary_size() - 1, ", got ", id);
  return *token;
}
DPMP_KEPT_BODY inline std::optional<int> Tokenizer::pad_id() const {
  if (parts_->pad_id) return parts_->pad_id;
  const std::optional<int> bert = id_of("[PAD]");
  return bert ? bert : id_of("<pad>");
}
DPMP_KEPT_BODY inline std::optional<index_t> Tokenizer::max_length() const { return parts_->truncation.max_length; }
}  // namespace dpmp::inline DPMP_ABI::interop
#endif

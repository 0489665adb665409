// SPDX-License-Identifier: Apache-2.0
// The steps between a text and its ids, each against its definition, on random texts.
#include <doctest/doctest.h>
#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <map>
#include <numeric>
#include <set>

#include "dpmp/core/escaped_text.hpp"
#include "dpmp/interop/tokenizer_bpe.hpp"
#include "dpmp/interop/tokenizer_cache.hpp"
#include "dpmp/interop/tokenizer_icu.hpp"
#include "dpmp/interop/tokenizer_normalizer.hpp"
#include "dpmp/interop/tokenizer_wordpiece.hpp"
#include "support/random.hpp"

using namespace dpmp;
using namespace dpmp::interop::detail;
using Word = std::vector<int>;

namespace {
using Text = std::u32string;
std::string utf8(const Text& text) {
  std::string out;
  for (const char32_t c : text) append_character(out, c);
  return out;
}
Text characters_of(const std::string& text) {
  Text out;
  for (const char *at = text.data(), *const end = at + text.size(); at < end;) out += next_character(at);
  return out;
}
/// Of 1 to 40 characters: of all of Unicode, of those given, or of both.
Text random_text(test::Rng& rng, const Text& some) {
  Text text(std::size_t(rng.integer(1, 40)), U' ');
  const std::int64_t kind = rng.integer(0, 3);
  for (char32_t& c : text) do
      c = kind == 0 || (kind == 1 && rng.integer(0, 4) == 0)
              ? char32_t(rng.integer(0, 0x10ffff))
              : some[std::size_t(rng.integer(0, std::int64_t(some.size()) - 1))];
    while (c >= 0xd800 && c < 0xe000);
  return text;
}

/// GPT-2's pattern as a regular expression matcher takes it: alternatives in order, the longest repetition first.
std::vector<Text> words_by_definition(const Text& text) {
  enum { letter, number, white, other };
  const auto kind = [&](std::size_t k) {
    const std::uint32_t category = U_GET_GC_MASK(UChar32(text[k]));
    return category & U_GC_L_MASK              ? letter
           : category & U_GC_N_MASK            ? number
           : u_isUWhiteSpace(UChar32(text[k])) ? white
                                               : other;
  };
  const auto run = [&](std::size_t from, int of) {
    std::size_t k = from;
    while (k < text.size() && kind(k) == of) ++k;
    return k - from;
  };
  const auto match = [&](std::size_t at) -> std::size_t {
    for (const Text ending : {U"'s", U"'t", U"'re", U"'ve", U"'m", U"'ll", U"'d"})
      if (text.substr(at, ending.size()) == ending) return ending.size();
    for (const int of : {letter, number, other})
      for (const std::size_t space : {std::size_t(1), std::size_t(0)})
        if (space == 0 || text[at] == U' ')
          if (const std::size_t length = run(at + space, of)) return space + length;
    const std::size_t spaces = run(at, white);
    for (std::size_t length = spaces; length > 0; --length)
      if (at + length == text.size() || kind(at + length) == white) return length;
    return spaces;
  };
  std::vector<Text> words;
  for (std::size_t at = 0; at < text.size(); at += words.back().size()) words.push_back(text.substr(at, match(at)));
  return words;
}

/// A vocabulary of bytes and random merges of what is there already.
struct RandomPairs {
  Vocabulary vocabulary;
  std::vector<Merge> merges;
  RandomPairs(test::Rng& rng, const std::string& letters, int count) {
    for (int b = 0; b < 256; ++b) vocabulary.add(spelled_bytes(std::string(1, char(b))), b);
    std::vector<std::string> tokens;
    for (const char c : letters) tokens.emplace_back(1, c);
    std::set<std::pair<int, int>> seen;
    const auto any = [&] { return tokens[std::size_t(rng.integer(0, std::int64_t(tokens.size()) - 1))]; };
    for (int k = 0; k < count; ++k) {
      const std::string left = any(), right = any();
      const int a = *vocabulary.id_of(left), b = *vocabulary.id_of(right);
      if (!seen.insert({a, b}).second) continue;
      if (!vocabulary.id_of(left + right)) {
        vocabulary.add(left + right, 1000 + k);
        tokens.push_back(left + right);
      }
      merges.push_back({a, b, *vocabulary.id_of(left + right)});
    }
    vocabulary.finish();
  }
};
/// Of all neighbours, the pair that was learnt first, the leftmost of these; again until there is none.
Word merged_by_definition(const std::string& word, const std::vector<Merge>& merges) {
  Word ids;
  for (const char c : word) ids.push_back(static_cast<unsigned char>(c));
  while (true) {
    std::size_t best = merges.size(), at = 0;
    for (std::size_t k = 0; k + 1 < ids.size(); ++k)
      for (std::size_t rank = 0; rank < best; ++rank)
        if (merges[rank].left == ids[k] && merges[rank].right == ids[k + 1]) best = rank, at = k;
    if (best == merges.size()) return ids;
    ids[at] = merges[best].merged;
    ids.erase(ids.begin() + std::ptrdiff_t(at) + 1);
  }
}
}  // namespace

TEST_CASE("GPT-2's pattern: the same words as its alternatives tried in order") {
  test::Rng rng;
  const Text some = U"  \t\n\u00a0\u3000''aAsSrevtmdl19,.-\u00e9\u0301\u4e00\u0665\u2167\U0001f600";
  int wrong = 0;
  for (int round = 0; round < 4000; ++round) {
    const Text text = random_text(rng, some);
    std::vector<Text> words;
    const std::string bytes = utf8(text);
    split_gpt2(bytes, icu_characters(), [&](std::string_view word) { words.push_back(characters_of(std::string(word))); });
    wrong += words != words_by_definition(text);
  }
  CHECK(wrong == 0);
}

TEST_CASE("byte pairs: the same ids as merging the best pair again and again") {
  test::Rng rng;
  int wrong = 0;
  for (int round = 0; round < 60; ++round) {
    const std::string letters = rng.integer(0, 1) == 0 ? "ab" : "abcd";
    const RandomPairs random(rng, letters, int(rng.integer(0, 60)));
    // A merge that is learnt before one of its parts could be made is none of a trained vocabulary.
    const BytePairs pairs(random.vocabulary, random.merges, false, "");
    MergeRoom room;
    for (int k = 0; k < 30; ++k) {
      std::string word(std::size_t(rng.integer(1, 60)), 'a');
      for (char& c : word) c = letters[std::size_t(rng.integer(0, std::int64_t(letters.size()) - 1))];
      Word ids;
      pairs.encode(word, random.vocabulary, room, ids);
      wrong += ids != merged_by_definition(word, random.merges);
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("byte pairs: long runs take time in proportion to n log n") {
  // Quadratic time would be minutes.
  Vocabulary vocabulary;
  std::vector<Merge> merges;
  for (int b = 0; b < 256; ++b) vocabulary.add(spelled_bytes(std::string(1, char(b))), b);
  std::string token = "a";
  for (int k = 0; k < 12; ++k) {
    merges.push_back({*vocabulary.id_of(token), *vocabulary.id_of(token), 256 + k});
    token += token;
    vocabulary.add(token, 256 + k);
  }
  vocabulary.finish();
  const BytePairs pairs(vocabulary, merges, false, "");
  MergeRoom room;
  Word ids;
  pairs.encode(std::string(1 << 19, 'a'), vocabulary, room, ids);
  CHECK(ids == Word(1 << 7, 267));
}

TEST_CASE("bytes are spelled by printable characters, and each by its own") {
  std::set<char32_t> seen;
  for (int b = 0; b < 256; ++b) {
    const char32_t c = character_of_byte(static_cast<unsigned char>(b));
    CHECK(byte_of_character(c) == b);
    CHECK(seen.insert(c).second);
    CHECK(u_isgraph(UChar32(c)));
  }
  CHECK(spelled_bytes(" \n\xc3\xa9!") == "\u0120\u010a\u00c3\u00a9!");
  CHECK(byte_of_character(0x144) == -1);
  CHECK(byte_of_character(' ') == -1);
  CHECK(byte_of_character(0x10ffff) == -1);
}

TEST_CASE("BERT's normaliser: as canonical decomposition of whole texts has it, for characters of Unicode 8") {
  test::Rng rng;
  const Text some =
      U"aA\u0300\u0323\u0345\u302e\u302f\u1e13\u0f71\u0f73\U0001d165\u0327\u05b0\u064b\u00c5\u212b\uac01\u4e00\uf900\u0130 "
      U"\n\u00ad";
  UErrorCode status = U_ZERO_ERROR;
  const UNormalizer2* nfd = unorm2_getNFDInstance(&status);
  const auto decomposed = [&](const Text& text) {
    std::u16string units, out;
    for (const char32_t c : text) {
      if (c >= 0x10000) units += char16_t(0xd7c0 + (c >> 10));
      units += c >= 0x10000 ? char16_t(0xdc00 + (c & 0x3ff)) : char16_t(c);
    }
    out.resize(units.size() * 4 + 1);
    out.resize(std::size_t(unorm2_normalize(nfd, units.data(), int(units.size()), out.data(), int(out.size()), &status)));
    Text result;
    for (std::size_t k = 0; k < out.size(); ++k) {
      const bool high = out[k] >= 0xd800 && out[k] < 0xdc00;
      result += high ? char32_t(((out[k] - 0xd7c0) << 10) + (out[k + 1] & 0x3ff)) : char32_t(out[k]);
      k += high;
    }
    return result;
  };
  const std::set<char32_t> moved = {0x166d, 0x111c9, 0x1734, 0x1885, 0x1886, 0xa9bd};  // to another category since
  int wrong = 0;
  for (int round = 0; round < 6000; ++round) {
    Text text;
    for (const char32_t c : random_text(rng, some))
      if (by_icu::in_unicode(8, c) && !moved.contains(c)) text += c;
    const BertNormalizer n{rng.integer(0, 1) == 1, rng.integer(0, 1) == 1, rng.integer(0, 1) == 1, rng.integer(0, 1) == 1};
    Text clean, spaced, stripped, lower;
    for (const char32_t c : text) {
      const bool line = c == U'\t' || c == U'\n' || c == U'\r';
      const bool control = !line && (U_GET_GC_MASK(UChar32(c)) & (U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK));
      if (!n.clean_text)
        clean += c;
      else if (c != 0xfffd && !control)
        clean += u_isUWhiteSpace(UChar32(c)) ? U' ' : c;
    }
    for (const char32_t c : clean) {
      const auto block = ublock_getCode(UChar32(c));
      bool ideograph = false;
      for (const auto of : {UBLOCK_CJK_UNIFIED_IDEOGRAPHS, UBLOCK_CJK_UNIFIED_IDEOGRAPHS_EXTENSION_A,
                            UBLOCK_CJK_COMPATIBILITY_IDEOGRAPHS, UBLOCK_CJK_UNIFIED_IDEOGRAPHS_EXTENSION_B,
                            UBLOCK_CJK_UNIFIED_IDEOGRAPHS_EXTENSION_C, UBLOCK_CJK_UNIFIED_IDEOGRAPHS_EXTENSION_D,
                            UBLOCK_CJK_UNIFIED_IDEOGRAPHS_EXTENSION_E, UBLOCK_CJK_COMPATIBILITY_IDEOGRAPHS_SUPPLEMENT})
        ideograph = ideograph || block == of;
      // The list in BERT has a gap where extension E begins.
      ideograph = ideograph && n.handle_chinese_chars && !(c >= 0x2b820 && c < 0x2b920);
      spaced += ideograph ? Text{U' ', c, U' '} : Text{c};
    }
    if (n.strip_accents) {
      for (const char32_t c : decomposed(spaced))
        if (u_charType(UChar32(c)) != U_NON_SPACING_MARK) stripped += c;
    } else {
      stripped = spaced;
    }
    for (const char32_t c : stripped)
      lower += !n.lowercase ? Text{c} : c == 0x130 ? Text{U'i', 0x307} : Text{char32_t(u_tolower(UChar32(c)))};
    wrong += n.normalize(utf8(text), icu_characters()) != utf8(lower);
  }
  CHECK(U_SUCCESS(status));
  CHECK(wrong == 0);
}

TEST_CASE("BERT's words: between white space, punctuation by itself") {
  const auto words = [](const std::string& text) {
    std::vector<std::string> out;
    split_bert(text, icu_characters(), [&](std::string_view word) { out.emplace_back(word); });
    return out;
  };
  using Words = std::vector<std::string>;
  CHECK(words("").empty());
  CHECK(words(" \n\u3000").empty());
  CHECK(words("one two\u2003three") == Words{"one", "two", "three"});
  CHECK(words("don't") == Words{"don", "'", "t"});
  CHECK(words("a$b+c<d`e~") == Words{"a", "$", "b", "+", "c", "<", "d", "`", "e", "~"});
  CHECK(words("\u00abx\u00bb\u3002") == Words{"\u00ab", "x", "\u00bb", "\u3002"});
  CHECK(words("a\u00a7b\u20acc") == Words{"a", "\u00a7", "b\u20acc"});  // a section sign is punctuation, a euro is not
  CHECK(words("\u0660\u0301x") == Words{"\u0660\u0301x"});
}

TEST_CASE("word pieces: the longest beginning, again and again, or nothing known") {
  test::Rng rng;
  int wrong = 0, unknown = 0;
  for (int round = 0; round < 100; ++round) {
    const Text letters = U"ab\u00e9\u4e00";
    std::map<Text, int> first, further;
    Vocabulary vocabulary;
    vocabulary.add("[UNK]", 0);
    const auto piece = [&](std::int64_t longest) {
      Text text(std::size_t(rng.integer(1, longest)), U'a');
      for (char32_t& c : text) c = letters[std::size_t(rng.integer(0, 3))];
      return text;
    };
    for (int id = 1; id < 30; ++id) {
      const Text text = piece(3);
      const bool further_one = rng.integer(0, 2) > 0;
      if (!(further_one ? further : first).emplace(text, id).second) continue;
      vocabulary.add((further_one ? "##" : "") + utf8(text), id);
    }
    vocabulary.finish();
    const WordPieces pieces(vocabulary, "[UNK]", "##", 12, "");
    for (int k = 0; k < 50; ++k) {
      const Text word = piece(13);
      Word expected, ids;
      for (std::size_t at = 0; at < word.size() && word.size() <= 12;) {
        const auto& known = at == 0 ? first : further;
        std::size_t length = word.size() - at;
        while (length > 0 && !known.contains(word.substr(at, length))) --length;
        if (length == 0) break;
        expected.push_back(known.at(word.substr(at, length)));
        at += length;
        if (at == word.size()) ids = expected;
      }
      if (ids.empty()) expected = {0}, ++unknown;
      Word got{7};
      pieces.encode(utf8(word), got);
      expected.insert(expected.begin(), 7);
      wrong += got != expected;
    }
  }
  CHECK(wrong == 0);
  CHECK(unknown > 0);
}

TEST_CASE("what is no UTF-8 is replaced as the Unicode standard recommends") {
  // Unicode 15, tables 3-8 to 3-11.
  const std::string r = "\xef\xbf\xbd";
  const auto times = [&](int n) {
    std::string out;
    for (int k = 0; k < n; ++k) out += r;
    return out;
  };
  CHECK(with_replacements("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41") == times(8) + "A");
  CHECK(with_replacements("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41") == times(8) + "A");
  CHECK(with_replacements("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42") == times(5) + "A" + times(2) + "B");
  CHECK(with_replacements("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41") == times(4) + "A");
  CHECK(with_replacements("\xf0\x9f\x98") == r);
  CHECK(with_replacements("a\xc3") == "a" + r);
  CHECK(with_replacements("") == "");
  test::Rng rng;
  int wrong = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(std::size_t(rng.integer(0, 12)), ' ');
    for (char& c : bytes) c = char(rng.integer(0, 3) == 0 ? 'a' : rng.integer(0x80, 0xff));
    const std::string out = with_replacements(bytes);
    wrong += utf8_prefix(out) != out.size() || (utf8_prefix(bytes) == bytes.size() && out != bytes);
  }
  CHECK(wrong == 0);
}

TEST_CASE("facts about characters: as ICU has them, and again when asked again") {
  const Characters& characters = icu_characters();
  int wrong = 0;
  for (int again = 0; again < 2; ++again)
    for (char32_t c = 0; c < 0x110000; c += 7) wrong += characters.facts(c) != by_icu::facts(c);
  CHECK(wrong == 0);
  CHECK(characters.is('a', is_letter));
  CHECK(characters.is(0x10ffff, is_letter) == false);
  // Newer than Unicode 8: a mark and punctuation of Unicode 9 and 11, and what moved from one to the other.
  CHECK_FALSE(characters.is(0x1e944, is_mark));
  CHECK_FALSE(characters.is(0x2e4a, is_punctuation));
  CHECK(characters.is(0x111c9, is_punctuation));
  CHECK_FALSE(characters.is(0x111c9, is_mark));
  CHECK(characters.is(0x1734, is_mark));
  for (const char32_t c : {0x1885, 0x1886, 0xa9bd}) CHECK_FALSE(characters.is(c, is_mark));
  CHECK(characters.is(0x1e944, is_combining));        // Unicode 9
  CHECK_FALSE(characters.is(0x10f46, is_combining));  // Unicode 11
}

TEST_CASE("the cache of words: what was kept, as long as nothing else came to its place") {
  test::Rng rng;
  WordCache cache;
  std::map<std::string, Word> kept;
  int wrong = 0, found = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string word(std::size_t(rng.integer(0, 34)), 'a');
    for (char& c : word) c = char(rng.integer('a', 'b'));
    if (word.size() > 6 && rng.integer(0, 1) == 0) word.resize(6);
    Word ids{-1}, expected{-1};
    if (cache.find(word, WordCache::hash(word), ids)) {
      ++found;
      expected.insert(expected.end(), kept[word].begin(), kept[word].end());
    } else {
      Word made(std::size_t(rng.integer(0, 10)));
      std::iota(made.begin(), made.end(), round);
      kept[word] = made;
      cache.keep(word, WordCache::hash(word), made);
    }
    wrong += ids != expected;
  }
  CHECK(wrong == 0);
  CHECK(found > 1000);
}

// SPDX-License-Identifier: Apache-2.0
// What a tokenizer promises for any text, what it refuses, and the files that it refuses.
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <thread>

#include "dpmp/core/error.hpp"
#include "dpmp/interop/tokenizer.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/source_folder.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using interop::Tokenizer;
using Json = nlohmann::json;
using Ids = std::vector<int>;

namespace {
Json read(const std::string& name) {
  return Json::parse(test::read_text(test::source_folder() / "tests/interop/data/tokenizers" / name));
}
/// Writes files and reads tokenizers from them.
struct Files {
  test::TemporaryFolder folder;
  std::string write(const std::string& name, const std::string& text) const {
    test::write_text(folder / name, text);
    return (folder / name).string();
  }
  Tokenizer of(const std::string& name, const Json& changes = Json::object()) const {
    Json file = read(name);
    file.merge_patch(changes);
    return Tokenizer::from_file(write(name, file.dump()));
  }
  bool refused(const std::string& name, const std::string& changes, const std::string& part) const {
    return test::refuses([&] { of(name, Json::parse(changes)); }, part);
  }
};
/// Any characters but surrogates, most of them of ASCII.
std::string random_text(test::Rng& rng, int longest) {
  std::string text;
  for (auto left = rng.integer(0, longest); left > 0; --left) {
    auto c = char32_t(rng.integer(0, 3) > 0 ? rng.integer(0, 0x7f) : rng.integer(0, 0x10ffff));
    if (c >= 0xd800 && c < 0xe000) c = ' ';
    interop::detail::append_character(text, c);
  }
  return text;
}
}  // namespace

TEST_CASE("byte-level pairs: every text comes back, byte for byte") {
  const Files files;
  const Tokenizer tokenizer = files.of("bpe.json");
  test::Rng rng;
  int wrong = 0;
  for (int round = 0; round < 3000; ++round) {
    const std::string text = random_text(rng, 60);
    wrong += tokenizer.decode(tokenizer.encode(text)) != text;
  }
  CHECK(wrong == 0);
}

TEST_CASE("a text's ids depend on nothing that was encoded before, in any thread or copy") {
  const Files files;
  for (const char* name : {"bpe.json", "wordpiece.json"}) {
    const Tokenizer shared = files.of(name);
    std::vector<std::string> texts;
    std::vector<Ids> expected;
    test::Rng rng;
    for (int k = 0; k < 300; ++k) {
      texts.push_back(random_text(rng, 40) + " the private gradient of a sample");
      expected.push_back(files.of(name).encode(texts.back()));
      if (k == 20) break;  // with a new tokenizer each
    }
    for (std::size_t k = texts.size(); k < 300; ++k) {
      texts.push_back(random_text(rng, 40) + " the noise");
      expected.push_back(Tokenizer(shared).encode(texts.back()));
    }
    std::atomic<int> wrong = 0;
    const auto run = [&](std::size_t first, const Tokenizer& tokenizer) {
      for (std::size_t k = 0; k < 2 * texts.size(); ++k) {
        const std::size_t at = (first + k) % texts.size();
        if (tokenizer.encode(texts[at]) != expected[at]) ++wrong;
      }
    };
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 3; ++t) threads.emplace_back([&, t] { run(t * 50, shared); });
    threads.emplace_back([&, copy = shared] { run(200, copy); });
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
  }
}

TEST_CASE("long runs of one character are encoded in time that grows as the text") {
  // 512 KiB of each: quadratic time in the length of a run would be minutes.
  const Files files;
  const Tokenizer pairs = files.of("bpe.json"), pieces = files.of("wordpiece.json");
  const Tokenizer spaced =
      files.of("bpe.json", Json::parse(R"({"added_tokens": [{"id": 900, "content": "<m>", "lstrip": true,
    "rstrip": true, "single_word": true, "normalized": false, "special": false}, {"id": 901,
    "content": "\n", "lstrip": true, "rstrip": true, "single_word": false, "normalized": false, "special": false}]})"));
  for (const std::string unit : {"a", " ", "\n", "'", "\u0301", "\u302e", "\u4e00", "1", "[", "<", "<m>", " <m> ", "\r\n"}) {
    std::string text;
    while (text.size() < (1 << 19)) text += unit;
    CHECK(pairs.decode(pairs.encode(text)) == text);
    CHECK(pieces.encode(text).size() >= 2);
    CHECK_FALSE(spaced.encode(text).empty());
  }
}

TEST_CASE("special tokens, pairs, types, mask, lengths") {
  const Files files;
  const Tokenizer bert = files.of("wordpiece.json");
  const int cls = *bert.id_of("[CLS]"), sep = *bert.id_of("[SEP]"), pad = *bert.id_of("[PAD]");
  const Ids a = bert.encode("private training", {.special_tokens = false}),
            b = bert.encode("noise", {.special_tokens = false});
  REQUIRE(a.size() >= 2);
  const auto joined = [](std::initializer_list<Ids> parts) {
    Ids out;
    for (const Ids& part : parts) out.insert(out.end(), part.begin(), part.end());
    return out;
  };
  CHECK(bert.encode("private training") == joined({{cls}, a, {sep}}));
  CHECK(bert.encode_pair("private training", "noise") == joined({{cls}, a, {sep}, b, {sep}}));
  const index_t length = index_t(a.size() + b.size()) + 5;
  const auto both = bert.encoding_of_pair("private training", "noise", {.padded_length = length});
  CHECK(both.ids == joined({{cls}, a, {sep}, b, {sep}, {pad, pad}}));
  CHECK(both.types == joined({Ids(a.size() + 2, 0), Ids(b.size() + 1, 1), {0, 0}}));
  CHECK(both.mask == joined({Ids(a.size() + b.size() + 3, 1), {0, 0}}));
  CHECK(bert.encode("private training", {.max_length = 3}) == Ids{cls, a[0], sep});
  CHECK(bert.encode("private training", {.max_length = 2}) == Ids{cls, sep});
  CHECK(bert.encode("private training", {.special_tokens = false, .max_length = 0}).empty());
  CHECK(bert.encoding_of("", {.max_length = 4, .padded_length = 4}).mask == Ids{1, 1, 0, 0});
  CHECK(bert.decode(both.ids) == bert.decode(joined({a, b})));
  CHECK(bert.decode(Ids{cls, sep}, true) == "[CLS] [SEP]");
  CHECK(
      test::refuses([&] { (void)bert.encode("a", {.max_length = 1}); }, "at least 2, the number of special tokens, got 1"));
  CHECK(
      test::refuses([&] { (void)bert.encode("a b c d", {.padded_length = 3}); }, "expected padded_length to be at least 6"));

  const Tokenizer gpt = files.of("bpe.json");
  CHECK(test::refuses([&] { (void)gpt.encode("a", {.padded_length = 3}); }, "expected EncodeOptions::pad_id"));
  const Ids padded = gpt.encode("a", {.padded_length = 3, .pad_id = 7});
  CHECK(padded == Ids{*gpt.id_of("a"), 7, 7});
  CHECK_FALSE(gpt.pad_id());
  CHECK_FALSE(gpt.max_length());
  const Tokenizer cut =
      files.of("wordpiece.json", Json::parse(R"({"truncation": {"max_length": 4, "strategy": "LongestFirst",
    "stride": 0, "direction": "Left"}, "padding": {"strategy": "BatchLongest", "direction": "Right", "pad_id": 5,
    "pad_to_multiple_of": null, "pad_type_id": 1, "pad_token": "x"}})"));
  CHECK(cut.max_length() == 4);
  CHECK(cut.pad_id() == 5);
  CHECK(cut.encode("private training").size() == 4);
  CHECK(cut.encode("private training", {.max_length = 100}) == bert.encode("private training"));
  CHECK(cut.encoding_of("", {.padded_length = 3}).types == Ids{0, 0, 1});
  const Tokenizer second =
      files.of("wordpiece.json", Json::parse(R"({"truncation": {"max_length": 6, "strategy": "OnlySecond",
    "stride": 0, "direction": "Right"}})"));
  CHECK(second.encode_pair("a", "a b c d e") == second.encode_pair("a", "a b", {.max_length = 100}));
  CHECK(test::refuses([&] { (void)second.encode_pair("a b c d e", "a"); }, "first text of a pair, which is not truncated"));
  CHECK(test::refuses([&] { (void)second.encode("a b c d e"); }, "expected a pair of texts"));
}

TEST_CASE("tokens and ids") {
  const Files files;
  const Tokenizer tokenizer = files.of("bpe.json", Json::parse(R"({"added_tokens": [{"id": 1200, "content": "<far>",
    "lstrip": false, "rstrip": false, "single_word": false, "normalized": false, "special": true}]})"));
  CHECK(tokenizer.vocabulary_size() == 1201);
  CHECK(tokenizer.id_of("<far>") == 1200);
  CHECK(tokenizer.token_of(1200) == "<far>");
  CHECK_FALSE(tokenizer.id_of("no such token"));
  CHECK(tokenizer.encode("a<far>").back() == 1200);
  CHECK(tokenizer.decode(tokenizer.encode("a<far>b")) == "ab");
  CHECK(tokenizer.decode(tokenizer.encode("a<far>b"), true) == "a<far>b");
  for (const int id : {-1, 900, 1199, 1201, 1 << 30}) {
    CHECK(test::refuses([&] { (void)tokenizer.token_of(id); }, "expected the id of a token, from 0 to 1200"));
    CHECK(test::refuses([&] { (void)tokenizer.decode(Ids{id}); }, "got " + std::to_string(id)));
  }
  // A character that was cut off, and one that spans tokens.
  const Ids euro = tokenizer.encode("\u20ac");
  REQUIRE(euro.size() > 1);
  CHECK(tokenizer.decode(euro) == "\u20ac");
  CHECK(tokenizer.decode(Ids{euro[0]}) == "\ufffd");
}

TEST_CASE("texts that are no UTF-8 are refused with the place") {
  const Files files;
  for (const char* name : {"bpe.json", "wordpiece.json"}) {
    const Tokenizer tokenizer = files.of(name);
    CHECK(
        test::refuses([&] { (void)tokenizer.encode("abc\xff"); }, "a text: expected UTF-8, got byte 255 at offset 3 of 4"));
    CHECK(test::refuses([&] { (void)tokenizer.encode("\xed\xa0\x80"); }, "at offset 0 of 3"));
    CHECK(
        test::refuses([&] { (void)tokenizer.encode_pair("a", "b\xc3"); }, "the second text: expected UTF-8, got byte 195"));
  }
}

TEST_CASE("options of tokenizer.json that dpmp does not have are refused by name") {
  const Files files;
  const auto refused = [&](const char* name, const char* changes, const char* part) {
    CAPTURE(changes);
    CHECK(files.refused(name, changes, part));
  };
  refused("bpe.json", R"({"model": {"type": "Unigram"}})",
          "model: expected a model of type BPE or WordPiece, got 'Unigram'");
  refused("bpe.json", R"({"model": {"dropout": 0.1}})", "model.dropout: expected no dropout of merges, got 0.1");
  refused("bpe.json", R"({"model": {"end_of_word_suffix": "</w>"}})", "model.end_of_word_suffix: expected none, got '</w>'");
  refused("bpe.json", R"({"model": {"continuing_subword_prefix": "@@"}})", "expected none, got '@@'");
  refused("bpe.json", R"({"model": {"new_option": 1}})", "no option that dpmp does not know, got 'new_option'");
  refused("bpe.json", R"({"normalizer": {"type": "NFC"}})", "normalizer: expected none for byte-level pairs, got 'NFC'");
  refused("bpe.json", R"({"pre_tokenizer": {"type": "Split"}})", "a pre-tokeniser for BPE of type ByteLevel, got 'Split'");
  refused("bpe.json", R"({"pre_tokenizer": null})", "expected a value of 'pre_tokenizer', got none");
  refused("bpe.json", R"({"pre_tokenizer": {"add_prefix_space": 1}})", "add_prefix_space: expected true or false, got 1");
  refused("bpe.json", R"({"decoder": {"type": "Metaspace"}})", "a decoder for BPE of type ByteLevel, got 'Metaspace'");
  refused("bpe.json", R"({"post_processor": {"type": "Other"}})", "post_processor: expected a post-processor of type");
  refused("bpe.json", R"({"version": "2.0"})", "version: expected version 1.0, got '2.0'");
  refused("bpe.json", R"({"more": {}})", "got 'more'");
  refused("bpe.json", R"({"truncation": {"max_length": 4, "strategy": "Best", "stride": 0, "direction": "Right"}})",
          "truncation.strategy: expected LongestFirst, OnlyFirst or OnlySecond, got 'Best'");
  refused("bpe.json", R"({"truncation": {"max_length": -4}})",
          "max_length: expected a whole number from 0 to 2^31 - 2, got -4");
  refused("wordpiece.json", R"({"normalizer": {"type": "Sequence"}})",
          "a normaliser of type BertNormalizer, got 'Sequence'");
  refused("wordpiece.json", R"({"pre_tokenizer": {"type": "Whitespace"}})", "of type BertPreTokenizer, got 'Whitespace'");
  refused("wordpiece.json", R"({"decoder": {"type": "ByteLevel"}})", "a decoder for WordPiece of type WordPiece");
  refused("wordpiece.json", R"({"model": {"unk_token": "<unk>"}})", "expected the unknown token '<unk>' in the vocabulary");
  refused("wordpiece.json", R"({"padding": {"pad_id": 5000, "pad_type_id": 0}})",
          "padding.pad_id: expected an id of the voc");
  refused("wordpiece.json", R"({"post_processor": {"special_tokens": {"[CLS]": {"ids": [4444]}}}})",
          "special_tokens.[CLS].ids.0: expected an id of the vocabulary, got 4444");
  refused("wordpiece.json", R"({"post_processor": {"special_tokens": {"[CLS]": null}}})", "expected a value of '[CLS]'");
  refused("wordpiece.json", R"({"post_processor": {"single": []}})",
          "expected the text A once, got A 0 times and B 0 times");
}

TEST_CASE("files that are wrong are refused with what is wrong") {
  const Files files;
  const auto refused = [&](const char* name, const char* changes, const char* part) {
    CAPTURE(changes);
    CHECK(files.refused(name, changes, part));
  };
  refused("bpe.json", R"({"model": {"merges": [], "vocab": {"a": null}}})", "got none for byte 97, 'a'");
  refused("bpe.json", R"({"model": {"vocab": {"a": 1.5}}})", "'a': expected a whole number");
  refused("bpe.json", R"({"model": {"vocab": {"a": "1"}}})", "'a': expected a whole number from 0 to 2^31 - 2, got '1'");
  refused("bpe.json", R"({"model": {"vocab": {"a": 3}}})", "expected an id of its own for each token, got id 3 for two");
  refused("bpe.json", R"({"model": {"vocab": []}})", "model.vocab: expected an object of tokens and ids, got an array");
  refused("bpe.json", R"({"model": {"merges": ["a b c"]}})", "model.merges.0: expected two tokens");
  refused("bpe.json", R"({"model": {"merges": [["a"]]}})", "model.merges.0: expected two tokens");
  refused("bpe.json", R"({"model": {"merges": ["Q Q"]}})", "model.merges.0: expected tokens of the vocabulary, got 'QQ'");
  refused("bpe.json", R"({"model": {"merges": ["i n", "e r", "i n"]}})", "'i' and 'n' again at merge 3");
  const char* token = R"({"added_tokens": [{"id": %, "content": "$", "lstrip": false, "rstrip": false, "single_word": false,
    "normalized": false, "special": true}]})";
  const auto added = [&](const std::string& id, const std::string& content) {
    std::string text = token;
    text.replace(text.find('%'), 1, id);
    return text.replace(text.find('$'), 1, content);
  };
  CHECK(files.refused("bpe.json", added("899", "<x>"), "expected an id of its own for each token, got id 899 for two"));
  CHECK(
      files.refused("bpe.json", added("901", "a"), "added_tokens.0: expected id 65 for 'a', as in the vocabulary, got 901"));
  CHECK(files.refused("bpe.json", added("901", ""), "expected a token that is not empty"));
  CHECK(files.refused("bpe.json", added("-1", "<x>"), "added_tokens.0.id: expected a whole number"));

  const auto bad = [&](const std::string& text, const std::string& part) {
    CAPTURE(text);
    CHECK(test::refuses([&] { (void)Tokenizer::from_file(files.write("tokenizer.json", text)); }, part));
  };
  bad("", "expected JSON, got:");
  bad("{", "expected JSON, got:");
  bad("[]", "expected an object, got an array");
  bad("{\"version\": \"1.0\", \"version\": \"1.0\"}", "expected each key of an object once, got 'version' again");
  bad("\xff", "expected UTF-8, got other bytes at offset 0");
  bad(std::string(100, '['), "nesting depth 32 at most");
  CHECK(test::refuses([&] { (void)Tokenizer::from_file((files.folder / "none.json").string()); }, "none.json"));

  const std::string vocabulary = files.write("vocab.json", read("bpe.json")["model"]["vocab"].dump());
  const auto merges = [&](const std::string& text, const std::string& part) {
    CHECK(test::refuses([&] { (void)Tokenizer::from_bpe_files(vocabulary, files.write("merges.txt", text)); }, part));
  };
  merges("#version: 0.2\ni n\ni  n\n", "merges.txt': line 3: expected two tokens with a space between them, got 'i  n'");
  merges("i n\n\ne r\n", "line 2: expected two tokens");
  merges("i n\ni", "line 2: expected two tokens");
  merges("Q Q\n", "line 1: expected tokens of the vocabulary, got 'QQ'");
  const auto list = [&](const std::string& text, const std::string& part) {
    CHECK(test::refuses([&] { (void)Tokenizer::from_wordpiece_file(files.write("vocab.txt", text)); }, part));
  };
  list("[UNK]\n[CLS]\n\n[SEP]\n", "expected a token on each line, got none on line 3");
  list("[UNK]\n[CLS]\n[SEP]\n[CLS]\n", "expected each token once, got '[CLS]' again on line 4");
  list("[CLS]\n[SEP]\n", "expected the unknown token '[UNK]'");
  list("[UNK]\n[SEP]\n", "expected the token [CLS], got none");
}

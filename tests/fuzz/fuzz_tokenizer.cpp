// SPDX-License-Identifier: Apache-2.0
// Tokenizers: what is accepted, as tokenizer.json, as vocab.txt or as merges.txt of a vocabulary of bytes, makes ids of its
// vocabulary of any text, the same ids each time, and texts of any of its ids.
#include "dpmp/interop/tokenizer.hpp"

#include <algorithm>

#include "dpmp/core/escaped_text.hpp"
#include "dpmp/interop/tokenizer_bpe.hpp"
#include "fuzz/fuzz.hpp"

namespace {
using dpmp::interop::Tokenizer;
using Ids = std::vector<int>;

// What a tokenizer remembers of words takes 2 MiB.
[[maybe_unused]] const bool limit_is_set = (fuzz::most_bytes = 1 << 22, true);

const std::vector<std::string> texts = {"",
                                        "the Theatre of thieves, 1984!",
                                        " \n\t  x\r\n",
                                        "[CLS]<x> ab[SEP]aab <|end|>",
                                        "e\u0301\u0323 \u00c5\u4e00\uac01\u0130 \U0001f600\u200d",
                                        std::string(150, 'a'),
                                        "\ufffd\u00ad\u3000''s 'll"};

/// 256 tokens for the bytes and three more, as the inside of an object.
std::string byte_vocabulary() {
  std::string out;
  for (int b = 0; b < 256; ++b)
    out += dpmp::json_text(dpmp::interop::detail::spelled_bytes(std::string(1, char(b)))) + ":" + std::to_string(b) + ",";
  return out + R"("th":256,"the":257,"aa":258)";
}

void check(const Tokenizer& tokenizer) {
  ++fuzz::accepted;
  const Tokenizer copy = tokenizer;  // remembers no word yet
  Ids all;
  for (const std::string& text : texts) {
    Ids ids;
    try {
      ids = tokenizer.encode(text);
      fuzz::hold(tokenizer.encoding_of_pair(text, "ab").ids.size() == tokenizer.encode_pair(text, "ab").size(), "a pair");
    } catch (const dpmp::Error& e) {
      const std::string_view what = e.what();
      const bool about_length = what.find("max_length") != what.npos || what.find("truncated") != what.npos;
      fuzz::hold(about_length && tokenizer.max_length(), "a text is refused for a limit of the file alone");
      ids = tokenizer.encode(text, {.special_tokens = false, .max_length = 1 << 20});
    }
    for (const int id : ids) fuzz::hold(id >= 0 && id < tokenizer.vocabulary_size(), "ids of the vocabulary");
    fuzz::hold(tokenizer.encode(text, {.max_length = 1 << 20}) == copy.encode(text, {.max_length = 1 << 20}),
               "the same ids again");
    all.insert(all.end(), ids.begin(), ids.end());
  }
  std::reverse(all.begin(), all.end());
  const std::string text = tokenizer.decode(all, true);
  fuzz::hold(dpmp::utf8_prefix(text) == text.size(), "UTF-8");
}

template <class Read>
void try_to(Read&& read) {
  try {
    check(read());
  } catch (const dpmp::Error&) {
  }
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string path = fuzz::file_of(std::string(reinterpret_cast<const char*>(data), size)).string();
  static const test::TemporaryFolder folder;
  static const std::string vocabulary = [] {
    test::write_text(folder / "vocab.json", "{" + byte_vocabulary() + "}");
    return (folder / "vocab.json").string();
  }();
  if (size > 0 && data[0] == '{') {
    try_to([&] { return Tokenizer::from_file(path); });
  } else {
    try_to([&] { return Tokenizer::from_wordpiece_file(path); });
    try_to([&] { return Tokenizer::from_bpe_files(vocabulary, path); });
  }
  return 0;
}

std::vector<std::string> fuzz::seeds() {
  const std::string head = R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)";
  const std::string token =
      R"({"id":8,"content":"<x>","single_word":false,"lstrip":true,"rstrip":false,"normalized":true,"special":true})";
  const std::string pieces =
      R"("model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,)"
      R"("vocab":{"[UNK]":0,"[CLS]":1,"[SEP]":2,"a":3,"##a":4,"th":5,"##e":6,"##b":7}}})";
  const std::string bert = R"("normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,)"
                           R"("strip_accents":null,"lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},)";
  const std::string decoder = R"("decoder":{"type":"WordPiece","prefix":"##","cleanup":true},)";
  const std::string layout =
      R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},)"
      R"({"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],)"
      R"("special_tokens":{"[CLS]":{"id":"[CLS]","ids":[1],"tokens":["[CLS]"]}}},)";
  const std::string byte_level = R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true})";
  const std::string pairs = R"("normalizer":null,"pre_tokenizer":)" + byte_level + R"(,"post_processor":)" + byte_level +
                            R"(,"decoder":)" + byte_level +
                            R"(,"model":{"type":"BPE","dropout":null,"ignore_merges":false,)" +
                            R"("merges":["t h",["th","e"],"a a"],"vocab":{)" + byte_vocabulary() + "}}}";
  const std::string limits =
      R"({"version":"1.0","truncation":{"direction":"Left","max_length":5,"strategy":"LongestFirst",)"
      R"("stride":0},"padding":{"strategy":{"Fixed":8},"direction":"Right","pad_to_multiple_of":null,)"
      R"("pad_id":0,"pad_type_id":0,"pad_token":"[PAD]"},"added_tokens":[)";
  const std::string around = R"("post_processor":{"type":"BertProcessing","sep":["[SEP]",2],"cls":["[CLS]",1]},)";
  return {head + token + "]," + bert + decoder + layout + pieces,
          limits + "]," + bert + around + pieces,
          head + "]," + pairs,
          head + token + "]," + R"("normalizer":null,"pre_tokenizer":{"type":"BertPreTokenizer"},)" + pieces,
          "[UNK]\n[CLS]\n[SEP]\na\n##a\n##b\nth\n##e\n",
          "[UNK]\r\n[CLS]\r\n[SEP]\r\n[PAD]\r\n\u00e9\r\n",
          "#version: 0.2\nt h\nth e\na a\n",
          "a a\r\n"};
}
std::vector<std::string> fuzz::words() {
  return {"null",
          "true",
          "false",
          "\"normalized\":true",
          "\"special\":false",
          "\"ids\":[1,2]",
          "\"A\"",
          "\"B\"",
          "[UNK]",
          "##",
          "\"vocab\":{}",
          "\"merges\":[]",
          "\"Sequence\"",
          "\"ByteLevel\"",
          "\"OnlyFirst\"",
          "\"use_regex\":false",
          "\u0120",
          "\\u0000",
          "\n",
          "a",
          "\"a\":9,",
          ",",
          "{",
          "}"};
}

// SPDX-License-Identifier: Apache-2.0
// Ids, types and decoded texts that the package `tokenizers` made with two small vocabularies in seventeen ways
// (record_tokenizers.py): all of them have to be the same here, of files of every kind, and of words that are remembered.
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "dpmp/interop/tokenizer.hpp"
#include "support/source_folder.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using interop::Tokenizer;
using Json = nlohmann::json;

namespace {
std::filesystem::path data(const std::string& name) {
  return test::source_folder() / "tests/interop/data/tokenizers" / name;
}
Json read(const std::string& name) { return Json::parse(test::read_text(data(name))); }

struct Differences {
  int cases = 0, different = 0;
  std::string first;
  void compare(bool same, const Json& expected, const std::string& what) {
    if (same) return;
    if (++different == 1) first = what + " of " + expected.dump(-1, ' ', true);
  }
};

void check_cases(const Tokenizer& tokenizer, const Json& cases, Differences& found) {
  for (const Json& expected : cases) {
    ++found.cases;
    const std::string text = expected["text"];
    const std::vector<int> ids = expected["ids"];
    if (expected.contains("pair")) {
      const auto got = tokenizer.encoding_of_pair(text, expected["pair"].get<std::string>());
      found.compare(got.ids == ids, expected, "ids");
      found.compare(got.types == expected["types"].get<std::vector<int>>(), expected, "types");
      found.compare(got.mask == std::vector<int>(ids.size(), 1), expected, "mask");
      continue;
    }
    found.compare(tokenizer.encode(text) == ids, expected, "ids");
    found.compare(tokenizer.encode(text) == ids, expected, "ids, again,");
    found.compare(tokenizer.decode(ids) == expected.value("decoded", text), expected, "decoded");
  }
}
}  // namespace

TEST_CASE("tokenizer.json: what the package makes of texts, the same here") {
  const test::TemporaryFolder folder;
  const Json recorded = read("recorded.json");
  int cases = 0;
  for (const Json& group : recorded["groups"]) {
    Json file = read(group["file"]);
    file.merge_patch(group["changes"]);
    test::write_text(folder / "tokenizer.json", file.dump());
    const Tokenizer tokenizer = Tokenizer::from_file((folder / "tokenizer.json").string());
    Differences found;
    check_cases(tokenizer, group["cases"], found);
    CAPTURE(group["file"].dump());
    CAPTURE(group["changes"].dump());
    CHECK_MESSAGE(found.different == 0, found.first);
    cases += found.cases;
  }
  CHECK(recorded["groups"].size() == 17);
  CHECK(cases > 500);
}

TEST_CASE("vocab.json and merges.txt, vocab.txt: the same as their tokenizer.json") {
  const test::TemporaryFolder folder;
  const Json recorded = read("recorded.json");
  for (const std::string end : {"\n", "\r\n"}) {
    const Json pairs = read("bpe.json");
    std::string merges = "#version: 0.2" + end;
    for (const Json& merge : pairs["model"]["merges"])
      merges += merge[0].get<std::string>() + " " + merge[1].get<std::string>() + end;
    test::write_text(folder / "vocab.json", pairs["model"]["vocab"].dump());
    test::write_text(folder / "merges.txt", merges);
    Differences found;
    check_cases(Tokenizer::from_bpe_files((folder / "vocab.json").string(), (folder / "merges.txt").string()),
                recorded["groups"][0]["cases"], found);
    CHECK_MESSAGE(found.different == 0, found.first);

    std::map<int, std::string> lines;
    const Json pieces = read("wordpiece.json")["model"]["vocab"];
    for (const auto& [token, id] : pieces.items()) lines[id.get<int>()] = token;
    std::string text;
    for (const auto& [id, token] : lines) text += token + end;
    test::write_text(folder / "vocab.txt", text);
    const std::string vocabulary = (folder / "vocab.txt").string();
    Differences uncased, cased;
    check_cases(Tokenizer::from_wordpiece_file(vocabulary), recorded["groups"][8]["cases"], uncased);
    CHECK_MESSAGE(uncased.different == 0, uncased.first);
    REQUIRE(recorded["groups"][9]["changes"]["normalizer"]["lowercase"] == false);
    check_cases(Tokenizer::from_wordpiece_file(vocabulary, {.lowercase = false}), recorded["groups"][9]["cases"], cased);
    CHECK_MESSAGE(cased.different == 0, cased.first);
  }
}

// SPDX-License-Identifier: Apache-2.0
// examples/fine_tune as its users run it: a folder of the hub goes in, a fine-tuned one comes out.
#include <doctest/doctest.h>

#include <cmath>
#include <regex>

#include "dpmp/interop/huggingface.hpp"
#include "support/errors.hpp"
#include "support/process.hpp"
#include "support/random.hpp"
#include "support/source_folder.hpp"

namespace {
struct Result {
  int code;
  std::string out, error;
};
Result run(const test::TemporaryFolder& folder, const std::string& model, const std::vector<std::string>& more) {
  std::vector<std::string> words{DPMP_FINE_TUNE,
                                 "--model=" + (test::source_folder() / "tests/interop/data/huggingface" / model).string(),
                                 "--data=" + (folder / "data").string(), "--output=" + (folder / "out").string()};
  words.insert(words.end(), more.begin(), more.end());
  test::Process process(words, folder.path());
  const int code = process.wait();
  return {code, process.out(), process.error()};
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Records that count upwards from anywhere, which no model has learnt before.
void write_records(const std::filesystem::path& file) {
  std::string text;
  test::Rng rng;
  for (int record = 0; record < 400; ++record) {
    const auto first = rng.integer(0, 36);
    for (int t = 0; t < 9; ++t) text += (t ? " " : "") + std::to_string((first + t) % 37);
    text += '\n';
  }
  test::write_text(file, text);
}
}  // namespace

TEST_CASE("fine_tune: models of both forms learn with adapters and as a whole, and come out as folders of the hub") {
  test::TemporaryFolder folder;
  write_records(folder / "data");
  for (const std::string model : {"gpt2_tied", "llama_grouped_f16"})
    for (const std::string rank : {"0", "4"}) {
      CAPTURE(model);
      CAPTURE(rank);
      const Result r = run(folder, model,
                           {"--lora-rank=" + rank, "--context=8", "--steps=60", "--epsilon=50", "--batch=120",
                            "--physical-batch=40", "--learning-rate=0.02", "--dtype=f32", "--evaluate-every=60"});
      CHECK_MESSAGE(r.code == 0, r.error);
      CHECK(r.error == "");
      std::vector<double> nats;
      const std::regex line("step +[0-9]+: ([0-9.]+) nats");
      for (std::sregex_iterator m(r.out.begin(), r.out.end(), line), end; m != end; ++m) nats.push_back(std::stod((*m)[1]));
      REQUIRE(nats.size() == 2);
      // Random weights are worse than a guess, log 37; a model that has learnt anything of counting is better than before.
      CHECK(nats[1] < 0.9 * nats[0]);
      CHECK(has(r.out, "-differentially private"));
      const dpmp::interop::HuggingFaceFolder before(test::source_folder() / "tests/interop/data/huggingface" / model),
          after(folder / "out");
      CHECK(before.names() == after.names());  // the adapters are in the weights
      CHECK(after.settings().integer("bos_token_id") == 0);
    }
}

TEST_CASE("fine_tune: what it refuses, before it trains") {
  test::TemporaryFolder folder;
  write_records(folder / "data");
  const auto refused = [&](const std::string& model, const std::vector<std::string>& more, const std::string& part) {
    const Result r = run(folder, model, more);
    CAPTURE(r.error);
    CHECK(r.code == 1);
    CHECK(has(r.error, part));
  };
  refused("bert_model", {}, "expected 'gpt2' or 'llama' for a Transformer as 'model_type', got 'bert'");
  refused("no_such_model", {}, "config.json': expected a readable file");
  refused("gpt2_tied", {"--context=17"}, "expected a context of at most the model's 16 tokens, got 17");
  refused("gpt2_tied", {"--context=8", "--bytes"}, "expected a vocabulary of at least the 256 bytes, got 37");
  refused("gpt2_tied", {"--context=8", "--batch=4000"}, "expected a batch of at most the ");
  std::string text = test::read_text(folder / "data");
  test::write_text(folder / "data", text + "1 2 37\n");
  refused("gpt2_tied", {"--context=8"}, "expected tokens 0 .. 36 in record ");
  test::write_text(folder / "data", text + "1 2 x\n");
  refused("gpt2_tied", {"--context=8"}, "expected tokens 0 .. 36 in record ");
  test::write_text(folder / "data", text + "1\n");
  refused("gpt2_tied", {"--context=8"}, "expected at least two tokens in record ");
}

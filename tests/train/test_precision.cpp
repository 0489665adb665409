// SPDX-License-Identifier: Apache-2.0
// What a trainer says and stores of a model's precision: the report's table of operations by dtype, and the description that
// a checkpoint fits no other.
#include <doctest/doctest.h>
#include <sstream>

#include "dpmp/train/checkpoint.hpp"
#include "support/errors.hpp"
#include "support/mixed_precision.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

namespace {
using namespace dpmp;
using nn::Precision;
using test::TinyTraining;
using train::Trainer;

/// The words of the report's line of an operation with results in this dtype; none where there is no such line.
std::vector<std::string> words_of(const std::string& report, const std::string& operation, DType dtype) {
  std::istringstream lines(report);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream in(line);
    std::vector<std::string> words;
    for (std::string word; in >> word;) words.push_back(word);
    if (words.size() > 2 && words[0] == operation && words[1] == name_of(dtype)) return words;
  }
  return {};
}
}  // namespace

TEST_CASE("P28: the validation report says which operation ran in which dtype, as often as the pass recorded it") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  TinyTraining run(ctx, test::mixed_precision());
  Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9), test::random_keys(rng), run.records());
  const train::ValidationReport report = trainer.validate(run.losses());
  Tape tape(ctx, 2);
  run.loss(tape, std::vector<index_t>{0, 1});
  index_t recorded = 0, counted = 0;
  for (const RecordedValue& value : tape.recorded()) recorded += value.name != "input";
  for (const train::OperationCount& o : report.operations()) {
    const std::string name(o.name);
    CAPTURE(name);
    const auto same = [&](const RecordedValue& v) { return v.name == o.name && v.dtype == o.dtype; };
    CHECK(o.count == std::count_if(tape.recorded().begin(), tape.recorded().end(), same));
    counted += o.count;
  }
  CHECK(counted == recorded);
  const std::string text = report.text();
  CAPTURE(text);
  using Words = std::vector<std::string>;
  CHECK(words_of(text, "linear", DType::bf16) == Words{"linear", "bf16", "3", "S", "FP32", "FP32"});
  CHECK(words_of(text, "linear", DType::f16) == Words{"linear", "f16", "1", "S", "FP32", "FP32"});
  CHECK(words_of(text, "linear", DType::f32).size() == 6);  // the head
  CHECK(words_of(text, "softmax", DType::bf16).empty());
  CHECK(words_of(text, "layer_norm", DType::f32) ==
        Words{"layer_norm", "f32", "3", "S,", "statistics", "FP32", "FP32", "FP32"});
  CHECK(words_of(text, "add", DType::f32) == Words{"add", "f32", "2", "S", "FP32", "-"});
  CHECK(words_of(text, "cross_entropy", DType::f32).back() == "double");
  CHECK(text.find(" operations, 6 of them casts") != std::string::npos);
}

TEST_CASE("P20: a checkpoint fits no model of another precision, which is named; its weights fit all") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const test::TemporaryFolder folder;
  TinyTraining run(ctx, test::mixed_precision());
  const dp::StreamKeys keys = test::random_keys(rng);
  Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9), keys, run.records());
  trainer.step(run.losses());
  train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
  train::save_weights(folder / "w", run.model.parameters());
  const auto refusal = [&](const Precision& precision) {
    TinyTraining other(ctx, precision);
    Trainer fresh(ctx, other.model.parameters(), test::tiny_plan(other, 9), keys, other.records());
    const std::vector<double> before = other.masters();
    const std::string error = test::error_of([&] { train::load_checkpoint(folder / "c", other.model.parameters(), fresh); });
    CHECK((error.empty() || other.masters() == before));
    train::load_weights(folder / "w", other.model.parameters());
    CHECK(other.masters() == run.masters());
    return error;
  };
  CHECK(refusal(test::mixed_precision()) == "");
  // Parameters of the same dtypes, stored results of others.
  for (const Precision& other : {test::mixed_precision().fp32_logits(), test::mixed_precision().fp32_norms()}) {
    const std::string error = refusal(other);
    CAPTURE(error);
    CHECK(error.find("checkpoint: precision: bf16, residual stream f32; head: f32; block0.mlp.down: f16\n") !=
          std::string::npos);
    CHECK(error.find("here: precision: " + other.text()) != std::string::npos);
  }
  CHECK(refusal(Precision::bf16()).find("here: precision: bf16\n") != std::string::npos);
}

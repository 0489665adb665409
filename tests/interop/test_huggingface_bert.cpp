// SPDX-License-Identifier: Apache-2.0
// BERT as transformers saves it: rows, pooled rows, logits and per-sample gradient norms are those that it computes.
#include <doctest/doctest.h>

#include "dpmp/autograd/rules/cross_entropy.hpp"
#include "dpmp/nn/huggingface_bert.hpp"
#include "interop/huggingface_cases.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using interop::HuggingFaceFolder;
using List = std::vector<double>;

namespace {
nn::Bert::Inputs inputs_of(const test::Expected& expected) {
  return {.ids = expected.integers("ids"), .types = expected.integers("types"), .keep = expected.integers("keep")};
}
/// The mask, where a row is a token's and not a sample's.
Tensor kept(const test::Expected& expected, const List& want) {
  const Tensor keep = expected.integers("keep");
  return std::size_t(keep.numel()) <= want.size() && want.size() % std::size_t(keep.numel()) == 0 ? keep : Tensor();
}
}  // namespace

TEST_CASE("BERT from the hub with a head: logits and per-sample gradient norms are those of transformers in float64") {
  Context ctx(Device::cpu(), 1);
  for (const std::string name : {"bert_masked_lm", "bert_classifier"}) {
    CAPTURE(name);
    const HuggingFaceFolder folder(test::case_folder(name));
    const nn::BertConfig config = nn::bert_config(folder);
    CHECK(config.head == (name == "bert_classifier" ? nn::BertHead::classes : nn::BertHead::masked_tokens));
    nn::Bert model(ctx, config, DType::f64);
    CHECK(nn::load_huggingface(folder, model).empty());
    const test::Expected expected(ctx, name);
    const nn::Bert::Inputs in = inputs_of(expected);
    const List want = expected.numbers("f64.logits");
    Tape tape(ctx, 3);
    const List got = model(tape, in).value().to_doubles();
    CHECK(test::relative_difference(got, want, kept(expected, want)) <= test::bound_f64);
    const Tensor labels = expected.integers("labels");
    const List norms = test::gradient_norms(ctx, 3, [&](Tape& t) { return cross_entropy(model(t, in), labels); });
    CHECK(test::relative_difference(norms, expected.numbers("f64.norms")) <= 4 * test::bound_f64);
  }
}

TEST_CASE("BERT from the hub without a head, whose names have no prefix: rows and pooled rows") {
  Context ctx(Device::cpu(), 1);
  const HuggingFaceFolder folder(test::case_folder("bert_model"));
  for (const DType dtype : {DType::f64, DType::f32}) {
    nn::Bert model(ctx, nn::bert_config(folder), dtype);
    CHECK(nn::load_huggingface(folder, model).empty());
    const test::Expected expected(ctx, "bert_model");
    const std::string which = dtype == DType::f64 ? "f64." : "f32.";
    const double bound = dtype == DType::f64 ? test::bound_f64 : test::bound_f32;
    Tape tape(ctx, 3);
    const Variable rows = model.rows(tape, inputs_of(expected));
    const List hidden = expected.numbers(which + "hidden"), pooled = expected.numbers(which + "pooled");
    CHECK(test::relative_difference(rows.value().to_doubles(), hidden, kept(expected, hidden)) <= bound);
    CHECK(test::relative_difference(model.pooled(rows).value().to_doubles(), pooled) <= bound);
    CHECK(test::refuses([&] { model(tape, inputs_of(expected)); }, "expected a BERT with a head"));
  }
}

TEST_CASE("BERT from the hub for fine-tuning: a new head keeps its values, and says so; without a word it is refused") {
  Context ctx(Device::cpu(), 1);
  const HuggingFaceFolder folder(test::case_folder("bert_masked_lm"));
  nn::BertConfig config = nn::bert_config(folder);
  config.head = nn::BertHead::classes;
  config.classes = 5;
  config.seed = test::seed();
  nn::Bert model(ctx, config, DType::f64);
  const auto values = [&](const char* name) { return model.parameters().find(name).value().to_doubles(); };
  const List head = values("head.weight"), tokens = values("tokens.weight");
  CHECK(test::refuses([&] { nn::load_huggingface(folder, model); }, "a tensor 'bert.pooler.dense.weight'"));
  CHECK(values("tokens.weight") == tokens);
  const std::vector<std::string> kept_values = nn::load_huggingface(folder, model, nn::MissingHead::keeps_values);
  CHECK(kept_values == std::vector<std::string>{"pooler.weight", "pooler.bias", "head.weight", "head.bias"});
  CHECK(values("head.weight") == head);
  CHECK(values("tokens.weight") != tokens);
}

TEST_CASE("BERT: token types that are not given are 0, and padding that nobody sees changes no other token") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::Bert model(ctx, {.vocabulary = 30, .width = 12, .layers = 2, .heads = 3, .context = 9, .seed = test::seed()},
                 DType::f64);
  Tape tape(ctx, 2);
  std::vector<std::int32_t> ids(18), keep(18, 1);
  for (auto& id : ids) id = std::int32_t(rng.integer(0, 29));
  for (std::size_t k : {7, 8}) keep[k] = 0;
  const Shape shape{2, 9};
  const Tensor mask = Tensor::from(ctx, shape, keep);
  const auto rows = [&](const Tensor& types) {
    return model.rows(tape, {.ids = Tensor::from(ctx, shape, ids), .types = types, .keep = mask}).value().to_doubles();
  };
  const List before = rows({});
  CHECK(before == rows(Tensor::zeros(ctx, shape, DType::i32)));
  ids[7] = (ids[7] + 1) % 30;
  ids[8] = (ids[8] + 1) % 30;
  const List after = rows({});
  for (std::size_t k = 0; k < before.size(); ++k)
    if (keep[k / 12]) CHECK(before[k] == after[k]);
}

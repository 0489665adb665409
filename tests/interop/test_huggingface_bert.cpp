// SPDX-License-Identifier: Apache-2.0
// BERT as transformers saves it: rows, pooled rows, logits and per-sample gradient norms are those that it computes.
#include <doctest/doctest.h>

#include "dpmp/autograd/rules/cross_entropy.hpp"
#include "dpmp/nn/huggingface_bert.hpp"
#include "interop/huggingface_folders.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

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

TEST_CASE("BERT from the hub: norms with TensorFlow's names, decoders and buffers that are stored, and what is refused") {
  Context ctx(Device::cpu(), 1);
  test::ChangedFolder folder("bert_masked_lm");
  folder.rename([](std::string name) {
    for (const auto& [now, before] :
         {std::pair("LayerNorm.weight", "LayerNorm.gamma"), {"LayerNorm.bias", "LayerNorm.beta"}})
      if (name.ends_with(now)) name.replace(name.size() - std::string(now).size(), std::string::npos, before);
    return name;
  });
  folder.weights([](test::StoredTensors& t) {
    t["cls.predictions.decoder.weight"] = t.at("bert.embeddings.word_embeddings.weight");
    t["cls.predictions.decoder.bias"] = t.at("cls.predictions.bias");
    t["cls.seq_relationship.weight"] = {DType::f32, {2, 24}, std::vector<char>(192)};
    t["bert.embeddings.position_ids"] = {DType::i32, {1, 16}, std::vector<char>(64)};
  });
  const HuggingFaceFolder open(folder.path());
  nn::Bert model(ctx, nn::bert_config(open), DType::f64);
  CHECK(nn::load_huggingface(open, model).empty());
  const test::Expected expected(ctx, "bert_masked_lm");
  const List want = expected.numbers("f64.logits");
  Tape tape(ctx, 3);
  const List got = model(tape, inputs_of(expected)).value().to_doubles();
  CHECK(test::relative_difference(got, want, kept(expected, want)) <= test::bound_f64);

  const auto refused = [&](const std::string& from, const std::string& to, const std::string& part) {
    test::ChangedFolder changed("bert_masked_lm");
    changed.config(from, to);
    const HuggingFaceFolder there(changed.path());
    const std::string error = test::error_of([&] { nn::bert_config(there); });
    CAPTURE(error);
    CHECK(error.find(part) != std::string::npos);
  };
  refused("\"model_type\": \"bert\"", "\"model_type\": \"roberta\"", "'bert' for a Bert as 'model_type', got 'roberta'");
  refused("\"gelu\"", "\"relu\"", "as 'hidden_act', got 'relu'");
  refused("\"is_decoder\": false", "\"is_decoder\": true", "false as 'is_decoder', got true");
  refused("{", "{\"position_embedding_type\": \"relative_key\",", "'absolute' as 'position_embedding_type'");
  refused("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", "true as 'tie_word_embeddings', got false");
  nn::BertConfig config = nn::bert_config(open);
  config.norm_epsilon = 1e-5;
  nn::Bert other(ctx, config, DType::f64);
  CHECK(test::refuses([&] { nn::load_huggingface(open, other); }, "expected a model with norm_epsilon 1e-12, as '"));
}

// SPDX-License-Identifier: Apache-2.0
// GPT-2 and LLaMA as transformers saves them: their logits and their per-sample gradient norms are those that it computes.
#include <doctest/doctest.h>

#include "dpmp/nn/huggingface.hpp"
#include "interop/huggingface_folders.hpp"
#include "support/random.hpp"

using namespace dpmp;
using interop::HuggingFaceFolder;
using List = std::vector<double>;

namespace {
List logits(Context& ctx, const nn::Transformer& model, const Tensor& ids) {
  Tape tape(ctx, ids.shape()[0]);
  return model(tape, ids).value().to_doubles();
}
}  // namespace

TEST_CASE("GPT-2 and LLaMA from the hub: logits and per-sample gradient norms are those of transformers in float64") {
  Context ctx(Device::cpu(), 1);
  for (const std::string name : {"gpt2_tied", "gpt2_sharded_bf16", "llama_plain", "llama_grouped_f16"}) {
    CAPTURE(name);
    const HuggingFaceFolder folder(test::case_folder(name));
    nn::Transformer model(ctx, nn::transformer_config(folder), DType::f64);
    nn::load_huggingface(folder, model);
    const test::Expected expected(ctx, name);
    const Tensor ids = expected.integers("ids"), labels = expected.integers("labels");
    const double difference = test::relative_difference(logits(ctx, model, ids), expected.numbers("f64.logits"));
    CAPTURE(difference);
    CHECK(difference <= test::bound_f64);
    const List norms =
        test::gradient_norms(ctx, ids.shape()[0], [&](Tape& tape) { return model.losses(tape, ids, labels); });
    // The backward pass is as long a chain again, and a norm is a sum of squares of all of it.
    const double of_norms = test::relative_difference(norms, expected.numbers("f64.norms"));
    CAPTURE(of_norms);
    CHECK(of_norms <= 4 * test::bound_f64);
  }
}

TEST_CASE("GPT-2 and LLaMA from the hub in float32: logits are those of the unchanged models") {
  Context ctx(Device::cpu(), 1);
  for (const std::string name : {"gpt2_tied", "gpt2_sharded_bf16", "llama_plain", "llama_grouped_f16"}) {
    CAPTURE(name);
    const HuggingFaceFolder folder(test::case_folder(name));
    nn::Transformer model(ctx, nn::transformer_config(folder), DType::f32);
    nn::load_huggingface(folder, model);
    const test::Expected expected(ctx, name);
    const List got = logits(ctx, model, expected.integers("ids"));
    CHECK(test::relative_difference(got, expected.numbers("f32.logits")) <= test::bound_f32);
  }
}

TEST_CASE("GPT-2 from the hub: names without a prefix, buffers of any dtype, and a tied head that is stored, too") {
  Context ctx(Device::cpu(), 1);
  test::ChangedFolder folder("gpt2_tied");
  folder.rename([](const std::string& name) { return name.substr(std::string("transformer.").size()); });
  folder.weights([](test::StoredTensors& t) {
    t["lm_head.weight"] = t.at("wte.weight");
    t["h.0.attn.bias"] = {DType::i32, {1, 1, 2, 2}, std::vector<char>(16)};
    t["h.1.attn.bias"] = {DType::f16, {1, 1, 2, 2}, std::vector<char>(8)};
    t["h.1.attn.masked_bias"] = {DType::f64, {}, std::vector<char>(8)};
  });
  const HuggingFaceFolder open(folder.path());
  nn::Transformer model(ctx, nn::transformer_config(open), DType::f64);
  nn::load_huggingface(open, model);
  const test::Expected expected(ctx, "gpt2_tied");
  const List got = logits(ctx, model, expected.integers("ids"));
  CHECK(test::relative_difference(got, expected.numbers("f64.logits")) <= test::bound_f64);
}

TEST_CASE("LLaMA from the hub: config.json as releases before transformers 5 wrote it says the same") {
  for (const std::string name : {"llama_plain", "llama_grouped_f16"}) {
    const HuggingFaceFolder now(test::case_folder(name));
    const bool scaled = name != "llama_plain";
    test::ChangedFolder folder(name);
    folder.config("\"rope_parameters\"",
                  "\"rope_theta\": " + std::string(scaled ? "500000" : "10000.0") + ", \"rope_scaling\"");
    folder.config(scaled ? "\n    \"rope_theta\": 500000.0," : "\n    \"rope_theta\": 10000.0,", "");
    if (scaled) folder.config("\"rope_type\"", "\"type\"");
    const HuggingFaceFolder before(folder.path());
    const nn::TransformerConfig a = nn::transformer_config(now), b = nn::transformer_config(before);
    CHECK(a.rope_base == (scaled ? 500000 : 10000));
    CHECK(b.rope_base == a.rope_base);
    CHECK(b.rope_scaling == a.rope_scaling);
    CHECK((a.rope_scaling.kind == RopeScaling::Kind::llama3) == scaled);
  }
  // Nothing said: the defaults of transformers.
  test::ChangedFolder folder("llama_plain");
  std::string text = test::read_text(folder / "config.json");
  const auto drop = [&](const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from), end = text.find(to, at) + to.size();
    REQUIRE((at != std::string::npos && end > at));
    text.erase(at, end - at);
  };
  drop("\"rope_parameters\"", "},");
  drop("\"num_key_value_heads\"", ",");
  drop("\"tie_word_embeddings\"", ",");
  drop("\"rms_norm_eps\"", ",");
  drop("\"head_dim\"", ",");
  drop("\"max_position_embeddings\"", ",");
  test::write_text(folder / "config.json", text);
  const nn::TransformerConfig c = nn::transformer_config(HuggingFaceFolder(folder.path()));
  CHECK(c.rope_base == 10000);
  CHECK(c.rope_scaling == RopeScaling{});
  CHECK(c.key_value_heads == c.heads);
  CHECK(!c.tied);
  CHECK(c.norm_epsilon == 1e-6);
  CHECK(c.context == 2048);
}

TEST_CASE("GPT-2 from the hub with adapters, in a scope and in bf16: the base is the folder's, adapters start at nothing") {
  Context ctx(Device::cpu(), 1);
  const HuggingFaceFolder folder(test::case_folder("gpt2_sharded_bf16"));
  nn::TransformerConfig config = nn::transformer_config(folder);
  nn::Parameters plain_parameters(ctx, DType::bf16, 1), parameters(ctx, DType::bf16, test::seed());
  nn::Transformer plain(plain_parameters, config);
  nn::load_huggingface(folder, plain);
  config.lora.rank = 3;
  nn::Transformer model(nn::Scope(parameters) / "base", config);
  const List a = parameters.find("base.block1.mlp.up.lora_a").value().to_doubles();
  nn::load_huggingface(folder, model);
  CHECK(parameters.find("base.block1.mlp.up.lora_a").value().to_doubles() == a);
  CHECK(!parameters.find("base.block1.mlp.up.weight").trainable());
  // Weights that were stored in bf16 are what the model computes with, bit for bit.
  for (const Parameter* p : plain_parameters.all())
    CHECK(parameters.find("base." + p->name()).value().to_doubles() == p->value().to_doubles());
  CHECK(plain_parameters.find("norm.bias").value().to_doubles() == plain_parameters.find("norm.bias").master().to_doubles());
}

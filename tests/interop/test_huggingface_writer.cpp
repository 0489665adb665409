// SPDX-License-Identifier: Apache-2.0
// Models written as folders of the hub. That transformers loads them: record_huggingface.py --check.
#include <doctest/doctest.h>

#include "dpmp/nn/huggingface_bert.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/sites.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using interop::HuggingFaceFolder;
using List = std::vector<double>;

namespace {
/// Where folders stay for transformers to look at, with expected.safetensors in each: DPMP_WRITE_HUGGINGFACE.
void keep_for_check(const std::filesystem::path& folder, const std::string& name,
                    std::span<const interop::TensorView> expected) {
  const char* to = std::getenv("DPMP_WRITE_HUGGINGFACE");
  if (!to) return;
  const std::filesystem::path target = std::filesystem::path(to) / name;
  std::filesystem::create_directories(target);
  std::filesystem::copy(folder, target,
                        std::filesystem::copy_options::overwrite_existing | std::filesystem::copy_options::recursive);
  interop::write_safetensors(target / "expected.safetensors", expected);
}

nn::TransformerConfig gpt2() {
  return {.vocabulary = 23,
          .width = 12,
          .layers = 2,
          .heads = 3,
          .context = 10,
          .tied = true,
          .seed = test::seed(),
          .norm_epsilon = 1e-4,
          .feed_forward = nn::FeedForward::gelu_tanh};
}
nn::TransformerConfig llama() {
  return {.vocabulary = 23,
          .width = 24,
          .layers = 2,
          .heads = 6,
          .context = 40,
          .seed = test::seed(),
          .norm = nn::Norm::rms_norm,
          .norm_epsilon = 1e-6,
          .feed_forward = nn::FeedForward::swiglu,
          .positions = nn::Positions::rotary,
          .rope_base = 12345.5,
          .rope_scaling = {.kind = RopeScaling::Kind::llama3, .factor = 4, .high_frequency = 30, .original_context = 20},
          .qkv_bias = false,
          .projection_bias = false,
          .key_value_heads = 2};
}
}  // namespace

TEST_CASE("a written Transformer is read again: the same settings, and f64 weights bit for bit") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  std::vector<std::pair<std::string, nn::TransformerConfig>> cases{{"gpt2", gpt2()}, {"llama", llama()}};
  cases.emplace_back("gpt2_untied", gpt2());
  cases.back().second.tied = false;
  cases.back().second.feed_forward = nn::FeedForward::gelu;
  cases.back().second.hidden = 20;
  cases.emplace_back("llama_biases", llama());
  cases.back().second.qkv_bias = cases.back().second.projection_bias = cases.back().second.swiglu_bias = true;
  cases.back().second.tied = true;
  cases.back().second.key_value_heads = 0;
  cases.back().second.rope_scaling = {.kind = RopeScaling::Kind::linear, .factor = 2.5};
  cases.emplace_back("llama_default_rope", llama());
  cases.back().second.rope_scaling = {};
  for (const auto& [name, config] : cases) {
    CAPTURE(name);
    const test::TemporaryFolder folder;
    // In a scope, as a part of a user's model: the file's names do not have it.
    nn::Parameters parameters(ctx, DType::f64, test::seed()), others(ctx, DType::f64, test::seed() + 1);
    const nn::Transformer model(nn::Scope(parameters) / "inner" / "model", config);
    test::randomise(parameters, rng, 0.5);
    nn::save_huggingface(folder.path(), model, {.dtype = DType::f64});
    CHECK(folder.entries() == 2);
    const HuggingFaceFolder written(folder.path());
    nn::TransformerConfig found = nn::transformer_config(written);
    nn::Transformer again(nn::Scope(others) / "other", found);
    nn::load_huggingface(written, again);
    REQUIRE(model.own_parameters().size() == again.own_parameters().size());
    for (std::size_t k = 0; k < model.own_parameters().size(); ++k)
      CHECK(model.own_parameters()[k]->master().to_doubles() == again.own_parameters()[k]->master().to_doubles());
    const Tensor ids = test::id_tensor(ctx, rng, {2, 10}, 0, 22);
    Tape tape(ctx, 2);
    const List logits = model(tape, ids).value().to_doubles();
    CHECK(again(tape, ids).value().to_doubles() == logits);
    const interop::TensorView views[] = {{"ids", DType::i32, ids.shape(), ids.raw()},
                                         {"f64.logits", DType::f64, {2, 10, 23}, logits.data()}};
    keep_for_check(folder.path(), name, views);
  }
}

TEST_CASE("a written BERT of each head is read again, f64 weights bit for bit") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const nn::BertHead head : {nn::BertHead::none, nn::BertHead::masked_tokens, nn::BertHead::classes})
    for (const bool pooler : {false, true}) {
      const test::TemporaryFolder folder;
      nn::Bert model(ctx,
                     {.vocabulary = 23,
                      .width = 12,
                      .layers = 2,
                      .heads = 2,
                      .hidden = 20,
                      .context = 10,
                      .types = 3,
                      .head = head,
                      .pooler = pooler,
                      .classes = 4},
                     DType::f64);
      test::randomise(model.parameters(), rng, 0.5);
      if (head == nn::BertHead::masked_tokens && pooler) {
        CHECK(test::refuses([&] { nn::save_huggingface(folder.path(), model); }, "without a pooler"));
        CHECK(folder.entries() == 0);
        continue;
      }
      nn::save_huggingface(folder.path(), model, {.dtype = DType::f64});
      const HuggingFaceFolder written(folder.path());
      nn::Bert again(ctx, nn::bert_config(written), DType::f64);
      CHECK(nn::load_huggingface(written, again).empty());
      REQUIRE(model.own_parameters().size() == again.own_parameters().size());
      for (std::size_t k = 0; k < model.own_parameters().size(); ++k)
        CHECK(model.own_parameters()[k]->master().to_doubles() == again.own_parameters()[k]->master().to_doubles());
      if (head == nn::BertHead::none) continue;
      const nn::Bert::Inputs in{.ids = test::id_tensor(ctx, rng, {2, 10}, 0, 22),
                                .types = test::id_tensor(ctx, rng, {2, 10}, 0, 2)};
      Tape tape(ctx, 2);
      const Tensor logits = model(tape, in).value();
      CHECK(again(tape, in).value().to_doubles() == logits.to_doubles());
      const interop::TensorView views[] = {{"ids", DType::i32, in.ids.shape(), in.ids.raw()},
                                           {"types", DType::i32, in.types.shape(), in.types.raw()},
                                           {"f64.logits", DType::f64, logits.shape(), logits.raw()}};
      keep_for_check(folder.path(), head == nn::BertHead::classes ? "bert_classes" : "bert_tokens", views);
    }
}

TEST_CASE("weights are written rounded once to the dtype that is asked for, and a value that it does not have is refused") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::Transformer model(ctx, gpt2(), DType::bf16);  // its masters are f32
  test::randomise(model.parameters(), rng, 0.5);
  const std::pair<DType, double> cases[] = {{DType::f32, 0}, {DType::bf16, 0x1p-9}, {DType::f16, 0x1p-12}};
  for (const auto& [dtype, unit] : cases) {
    const test::TemporaryFolder folder;
    nn::save_huggingface(folder.path(), model, {.dtype = dtype, .begin_token = 3});
    const HuggingFaceFolder written(folder.path());
    CHECK(written.settings().integer("bos_token_id") == 3);
    CHECK(!written.settings().has("eos_token_id"));
    CHECK(written.entry("transformer.h.1.mlp.c_fc.weight").dtype == interop::StoredType(dtype));
    nn::Transformer again(ctx, nn::transformer_config(written), DType::f32);
    nn::load_huggingface(written, again);
    double worst = 0;
    for (std::size_t k = 0; k < model.own_parameters().size(); ++k) {
      const List want = model.own_parameters()[k]->master().to_doubles(),
                 got = again.own_parameters()[k]->master().to_doubles();
      // Half a unit in the last place, of normal numbers and of f16's 2^-14 below these.
      for (std::size_t j = 0; j < want.size(); ++j)
        worst = std::max(worst, std::abs(got[j] - want[j]) - 2 * unit * std::max(std::abs(want[j]), 0x1p-14));
    }
    CHECK(worst <= 0);
  }
  model.parameters().find("norm.bias").master().data<float>()[2] = 1e5f;
  const test::TemporaryFolder folder;
  const std::string error = test::error_of([&] { nn::save_huggingface(folder.path(), model, {.dtype = DType::f16}); });
  CHECK(error.find("expected values of 'norm.bias' that f16 has, got another one as element 2") != std::string::npos);
  CHECK(folder.entries() == 0);
}

TEST_CASE("models that no form of the hub has are refused by what does not fit, and nothing is written") {
  Context ctx(Device::cpu(), 1);
  const auto refused = [&](nn::TransformerConfig config, const char* part) {
    const test::TemporaryFolder folder;
    const nn::Transformer model(ctx, config, DType::f32);
    const bool right = test::refuses([&] { nn::save_huggingface(folder / "new", model); }, part);
    return right && folder.entries() == 0;
  };
  const auto changed = [](nn::TransformerConfig config, auto change) {
    change(config);
    return config;
  };
  CHECK(refused(changed(gpt2(), [](auto& c) { c.norm = nn::Norm::rms_norm; }), "GPT-2's form to write, with layer norms"));
  CHECK(
      refused(changed(gpt2(), [](auto& c) { c.feed_forward = nn::FeedForward::swiglu; }), "with GELU, got one with SwiGLU"));
  CHECK(refused(changed(gpt2(), [](auto& c) { c.key_value_heads = 1; }), "as many key and value heads"));
  CHECK(refused(changed(gpt2(), [](auto& c) { c.qkv_bias = false; }), "all biases"));
  CHECK(refused(changed(llama(), [](auto& c) { c.norm = nn::Norm::layer_norm; }), "LLaMA's form to write, with RMS norms"));
  CHECK(
      refused(changed(llama(), [](auto& c) { c.feed_forward = nn::FeedForward::gelu; }), "with SwiGLU, got one with GELU"));
  CHECK(refused(changed(llama(), [](auto& c) { c.qkv_bias = true; }), "biases all there or all left out"));
  CHECK(refused(changed(llama(), [](auto& c) { c.rope_scaling.original_context = 20.5; }), "a whole original_context"));
}

TEST_CASE("adapters are written merged into their weights: the plain model that is read computes the same") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const bool rotary : {false, true}) {
    nn::TransformerConfig config = rotary ? llama() : gpt2();
    config.lora = {.rank = 3, .alpha = 5};
    nn::Transformer model(ctx, config, DType::f64);
    test::randomise(model.parameters(), rng, 0.4);
    const test::TemporaryFolder folder;
    nn::save_huggingface(folder.path(), model, {.dtype = DType::f64});
    const HuggingFaceFolder written(folder.path());
    nn::Transformer merged(ctx, nn::transformer_config(written), DType::f64);
    nn::load_huggingface(written, merged);
    const Tensor ids = test::id_tensor(ctx, rng, {2, 10}, 0, 22);
    Tape tape(ctx, 2);
    const List want = model(tape, ids).value().to_doubles(), got = merged(tape, ids).value().to_doubles();
    double difference = 0, size = 0;
    for (std::size_t k = 0; k < want.size(); ++k) {
      difference = std::max(difference, std::abs(got[k] - want[k]));
      size = std::max(size, std::abs(want[k]));
    }
    // The same sums in another order; the derivation is that of bound_f64 in huggingface_cases.hpp.
    CHECK(difference <= 2 * 40 * 40 * 16 * 0x1p-53 * size);
    CHECK(merged.parameters().find("block1.mlp.down.weight").value().to_doubles() !=
          model.parameters().find("block1.mlp.down.weight").value().to_doubles());
  }
}

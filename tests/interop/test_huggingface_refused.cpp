// SPDX-License-Identifier: Apache-2.0
// Folders of the hub that are damaged, or of models that are not what they say: file, tensor and reason are named, and
// the model is left as it was.
#include <doctest/doctest.h>

#include "dpmp/nn/huggingface_bert.hpp"
#include "interop/huggingface_folders.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using interop::HuggingFaceFolder;
using test::ChangedFolder;
using test::StoredTensors;

namespace {
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// What opening and loading says, "" when nothing; checks that a refusal leaves a model of the recorded config alone.
std::string refusal(const ChangedFolder& folder, const std::string& recorded) {
  Context ctx(Device::cpu(), 1);
  nn::Transformer model(ctx, nn::transformer_config(HuggingFaceFolder(test::case_folder(recorded))), DType::f32);
  const auto before = test::all_values(model.parameters());
  const std::string error = test::error_of([&] { nn::load_huggingface(HuggingFaceFolder(folder.path()), model); });
  CHECK((error.empty() || test::all_values(model.parameters()) == before));
  return error;
}
/// Whether a setting of this folder is refused with these words.
bool refuses_config(const ChangedFolder& folder, const std::string& part) {
  const HuggingFaceFolder open(folder.path());
  const std::string error = test::error_of([&] { nn::transformer_config(open); });
  CAPTURE(error);
  CHECK((has(error, "config.json'") && has(error, part)));
  return has(error, "config.json'") && has(error, part);
}
const std::string shard1 = "model-00001-of-00002.safetensors", shard2 = "model-00002-of-00002.safetensors";
}  // namespace

TEST_CASE("folders of the hub: a file that is cut anywhere is refused by its name") {
  test::Rng rng;
  for (int round = 0; round < 20; ++round) {
    const bool sharded = round % 2;
    const std::string name = sharded ? "gpt2_sharded_bf16" : "llama_plain",
                      file = sharded ? (rng.integer(0, 1) ? shard1 : shard2) : "model.safetensors";
    ChangedFolder folder(name);
    const auto size = std::filesystem::file_size(folder / file);
    const auto kept = round < 4 ? size - 1 - std::uint64_t(round) : std::uint64_t(rng.integer(0, std::int64_t(size) - 1));
    std::filesystem::resize_file(folder / file, kept);
    const std::string error = refusal(folder, name);
    CAPTURE(error);
    CHECK(has(error, file + "': expected"));
    if (round < 4) CHECK(has(error, "bytes after the header for '"));  // the tensor, too
  }
}

TEST_CASE("folders of the hub: any tensor that is missing, of another shape or type, or not finite is refused by its name") {
  test::Rng rng;
  for (int round = 0; round < 24; ++round) {
    const std::string name = round % 2 ? "gpt2_tied" : "llama_plain";
    ChangedFolder folder(name);
    std::string tensor;
    index_t element = 0;
    folder.weights([&](StoredTensors& tensors) {
      const auto chosen = std::next(tensors.begin(), rng.integer(0, std::int64_t(tensors.size()) - 1));
      tensor = chosen->first;
      test::StoredTensor& t = chosen->second;
      switch (round / 2 % 4) {
        case 0: tensors.erase(chosen); break;
        case 1:
          t.shape = t.shape.rank() == 1 ? Shape{t.shape[0] + 1} : Shape{t.shape[0] + 1, t.shape[1]};
          t.bytes.resize(std::size_t(t.shape.numel()) * 4);
          break;
        case 2: t.dtype = DType::i32; break;
        default: {
          element = rng.integer(0, t.shape.numel() - 1);
          const float bad[] = {NAN, INFINITY, -INFINITY};
          std::memcpy(t.bytes.data() + element * 4, &bad[rng.integer(0, 2)], 4);
        }
      }
    });
    const std::string error = refusal(folder, name);
    CAPTURE(error);
    CHECK(has(error, "model.safetensors': expected "));
    CHECK(has(error, "'" + tensor + "'"));
    const std::string reasons[] = {"got none of that name", ", as config.json says, got f32[",
                                   ", as config.json says, got i32[",
                                   "got another one as element " + std::to_string(element)};
    CHECK(has(error, reasons[round / 2 % 4]));
  }
}

TEST_CASE("folders of the hub: sizes of config.json that the weights do not have") {
  ChangedFolder folder("gpt2_tied");
  folder.config("\"vocab_size\": 37", "\"vocab_size\": 38");
  Context ctx(Device::cpu(), 1);
  const HuggingFaceFolder open(folder.path());
  nn::Transformer model(ctx, nn::transformer_config(open), DType::f32);
  const std::string error = test::error_of([&] { nn::load_huggingface(open, model); });
  CHECK(
      has(error,
          "expected 'transformer.wte.weight' of shape [38, 24] and a floating type, as config.json says, got f32[37, 24]"));
  // And a model of another config than the folder's.
  CHECK(has(refusal(folder, "gpt2_tied"), "expected a model with vocabulary 38, as '"));
}

TEST_CASE("folders of the hub: an index and its shards have to agree") {
  const std::string name = "gpt2_sharded_bf16", index = "model.safetensors.index.json";
  CHECK(refusal(ChangedFolder(name), name) == "");
  {
    ChangedFolder folder(name);
    std::filesystem::remove(folder / shard2);
    const std::string error = refusal(folder, name);
    CHECK(has(error, index + "': expected a file that is there for 'lm_head.weight', got '" + shard2 + "'"));
  }
  {
    ChangedFolder folder(name);
    test::StoredTensor twice;
    folder.weights([&](StoredTensors& t) { twice = t.at("lm_head.weight"); }, shard2);
    folder.weights([&](StoredTensors& t) { t["lm_head.weight"] = twice; }, shard1);
    const std::string error = refusal(folder, name);
    CHECK(has(error,
              shard2 + "': expected tensors that no other shard has, got 'lm_head.weight', which '" + shard1 + "' has"));
  }
  {
    ChangedFolder folder(name);
    folder.replace(index, "\"lm_head.weight\": \"" + shard2, "\"lm_head.weight\": \"" + shard1);
    CHECK(has(refusal(folder, name), "got it in '" + shard2 + "'"));
  }
  {
    ChangedFolder folder(name);
    folder.replace(index, "\"lm_head.weight\"", "\"another.weight\"");
    CHECK(has(refusal(folder, name), shard2 + "': expected a tensor 'another.weight', as " + index + " says, got none"));
  }
  {
    ChangedFolder folder(name);
    folder.weights([](StoredTensors& t) { t["more.weight"] = t.at("lm_head.weight"); }, shard2);
    CHECK(has(refusal(folder, name), shard2 + "': expected tensors that " + index + " has, got 'more.weight'"));
  }
  for (const std::string& bad : {"../" + shard2, "/" + shard2, std::string(".."), std::string()}) {
    ChangedFolder folder(name);
    folder.replace(index, "\"lm_head.weight\": \"" + shard2, "\"lm_head.weight\": \"" + bad);
    CHECK(has(refusal(folder, name), "expected the name of a file in this folder for 'lm_head.weight', got '" + bad + "'"));
  }
  {
    ChangedFolder folder(name);
    folder.replace(index, "\"weight_map\"", "\"weights\"");
    CHECK(has(refusal(folder, name), index + "': expected an object 'weight_map', got none"));
  }
  {
    ChangedFolder folder(name);
    folder.replace(index, "\"lm_head.weight\": \"" + shard2 + "\"", "\"lm_head.weight\": 2");
    CHECK(has(refusal(folder, name), "expected the name of a file for 'lm_head.weight', got number"));
  }
  {
    ChangedFolder folder(name);
    std::filesystem::remove(folder / index);
    CHECK(has(refusal(folder, name), "expected weights in model.safetensors, or in shards"));
  }
}

TEST_CASE("folders of the hub: a config.json that is missing, no JSON, no object, or says a thing twice") {
  const auto error_of = [](const std::string& text) {
    ChangedFolder folder("gpt2_tied");
    test::write_text(folder / "config.json", text);
    return refusal(folder, "gpt2_tied");
  };
  CHECK(has(error_of("{\"model_type\": "), "config.json': expected JSON, got: "));
  CHECK(has(error_of(""), "config.json': expected JSON, got: "));
  CHECK(has(error_of("[1]"), "expected a JSON object, got array"));
  CHECK(has(error_of("{\"a\": {\"b\": 1, \"c\": 2, \"b\": 3}}"), "expected each name once, got 'b' again"));
  CHECK(has(error_of(std::string(100000, '[')), "config.json': expected JSON"));
  CHECK(has(error_of("{\"a\": " + std::string(50, '[') + std::string(50, ']') + "}"), "of nesting depth 32 at most"));
  CHECK(has(error_of("{}"), "expected a text as 'model_type', got none"));
  CHECK(has(error_of("{\"model_type\": {\"a\": 1}}"), "expected a text as 'model_type', got an object or a list"));
  CHECK(has(error_of("{\"model_type\": 3}"), "expected a text as 'model_type', got 3"));
  ChangedFolder without("gpt2_tied");
  std::filesystem::remove(without / "config.json");
  CHECK(has(refusal(without, "gpt2_tied"), "config.json': expected a readable file"));
}

TEST_CASE("folders of the hub: settings that a Transformer does not have are refused by name and value") {
  const auto changed = [](const std::string& name, const std::string& from, const std::string& to, const std::string& part) {
    ChangedFolder folder(name);
    refuses_config(folder.config(from, to), part);
  };
  changed("gpt2_tied", "\"gpt2\"", "\"t5\"", "expected 'gpt2' or 'llama' for a Transformer as 'model_type', got 't5'");
  changed("bert_model", "\"bert\"", "\"bert\"", "expected 'gpt2' or 'llama' for a Transformer as 'model_type', got 'bert'");
  changed("gpt2_tied", "\"gelu_new\"", "\"swish7\"", "as 'activation_function', got 'swish7'");
  changed("gpt2_tied", "_layer_idx\": false", "_layer_idx\": true", "false as 'scale_attn_by_inverse_layer_idx', got true");
  changed("gpt2_tied", "scale_attn_weights\": true", "scale_attn_weights\": false",
          "true as 'scale_attn_weights', got false");
  changed("gpt2_tied", "cross_attention\": false", "cross_attention\": true", "false as 'add_cross_attention', got true");
  changed("gpt2_tied", "\"n_embd\": 24", "\"n_embd\": 0", "a size of 1 .. 2^31 - 1 as 'n_embd', got 0");
  changed("gpt2_tied", "\"n_embd\": 24", "\"n_embd\": 24.5", "a whole number as 'n_embd', got 24.5");
  changed("gpt2_tied", "\"n_embd\": 24", "\"n_embed\": 24", "a whole number as 'n_embd', got none");
  changed("gpt2_tied", "\"n_embd\": 24", "\"n_embd\": 99999999999999999999", "a whole number as 'n_embd', got ");
  changed("gpt2_tied", "{", "{\"quantization_config\": {\"bits\": 4},", "none (quantised weights are not read)");
  changed("llama_plain", "\"silu\"", "\"gelu\"", "'silu' as 'hidden_act', got 'gelu'");
  changed("llama_plain", "\"head_dim\": 6", "\"head_dim\": 8", "as 'head_dim', got 8");
  changed("llama_plain", "\"default\"", "\"yarn\"",
          "'default', 'linear' or 'llama3' as 'rope_parameters/rope_type', got 'yarn'");
  changed("llama_plain", "{", "{\"partial_rotary_factor\": 0.5,", "1 as 'partial_rotary_factor', got 0.5");
  changed("llama_grouped_f16", "\"factor\": 8.0,", "", "a number as 'rope_parameters/factor', got none");
  changed("llama_plain", "\"num_key_value_heads\": 4", "\"num_key_value_heads\": \"4\"", "got '4'");
  // The form of releases before transformers 5, whose kind of scaling has two names.
  ChangedFolder before("llama_plain");
  before.config("\"rope_parameters\"", "\"rope_scaling\"").config("\"rope_type\": \"default\"", "\"type\": \"dynamic\"");
  refuses_config(before, "as 'rope_scaling/type', got 'dynamic'");
  ChangedFolder nameless("llama_plain");
  nameless.config("\"rope_parameters\"", "\"rope_scaling\"").config(",\n    \"rope_type\": \"default\"", "");
  refuses_config(nameless, "a text as 'rope_scaling/rope_type', got none");
}

TEST_CASE("folders of the hub: tensors that have no place in the model, and tied weights that differ") {
  ChangedFolder folder("llama_plain");
  folder.weights([](StoredTensors& t) { t["model.layers.0.self_attn.q_norm.weight"] = t.at("model.norm.weight"); });
  CHECK(has(refusal(folder, "llama_plain"), "got 'model.layers.0.self_attn.q_norm.weight', which has no place in it"));
  ChangedFolder layers("gpt2_tied");
  layers.weights([](StoredTensors& t) { t["transformer.h.2.ln_1.weight"] = t.at("transformer.h.1.ln_1.weight"); });
  CHECK(has(refusal(layers, "gpt2_tied"), "got 'transformer.h.2.ln_1.weight', which has no place in it"));
  ChangedFolder tied("gpt2_tied");
  tied.weights([](StoredTensors& t) {
    t["lm_head.weight"] = t.at("transformer.wte.weight");
    t["lm_head.weight"].bytes[5] ^= 1;
  });
  CHECK(has(refusal(tied, "gpt2_tied"), "the same values as 'transformer.wte.weight' in 'lm_head.weight', got others"));
}

TEST_CASE("folders of the hub: a model whose config was changed in what it computes is not loaded") {
  Context ctx(Device::cpu(), 1);
  const auto refused = [&](const char* name, auto change, const std::string& part) {
    const HuggingFaceFolder folder(test::case_folder(name));
    nn::TransformerConfig config = nn::transformer_config(folder);
    change(config);
    nn::Transformer model(ctx, config, DType::f32);
    const auto before = test::all_values(model.parameters());
    const std::string error = test::error_of([&] { nn::load_huggingface(folder, model); });
    CAPTURE(error);
    CHECK(has(error, "expected a model with " + part));
    CHECK(test::all_values(model.parameters()) == before);
  };
  refused(
      "gpt2_tied", [](auto& c) { c.norm_epsilon = 1e-6; }, "norm_epsilon 1e-05, as '");
  refused(
      "gpt2_tied", [](auto& c) { c.feed_forward = nn::FeedForward::gelu; }, "feed_forward (0: gelu, ");
  refused(
      "gpt2_tied", [](auto& c) { c.heads = 2; }, "heads 4, as '");
  refused(
      "gpt2_tied", [](auto& c) { c.context = 8; }, "context 16, as '");
  refused(
      "gpt2_tied", [](auto& c) { c.tied = false; }, "tied 1, as '");
  refused(
      "llama_plain", [](auto& c) { c.rope_base = 500; }, "rope_base 10000, as '");
  refused(
      "llama_plain", [](auto& c) { c.qkv_bias = true; }, "qkv_bias 0, as '");
  refused(
      "llama_grouped_f16", [](auto& c) { c.rope_scaling = {}; }, "the rope_scaling that '");
  refused(
      "llama_grouped_f16", [](auto& c) { c.key_value_heads = 3; }, "key_value_heads 2, as '");
  refused(
      "llama_plain", [](auto& c) { c.hidden = 48; }, "hidden 40, as '");
  // What may differ.
  const HuggingFaceFolder folder(test::case_folder("llama_plain"));
  nn::TransformerConfig config = nn::transformer_config(folder);
  config.context = 7;
  config.dropout = 0.1;
  config.chunked_head = true;
  nn::Transformer model(ctx, config, DType::f32);
  CHECK(test::error_of([&] { nn::load_huggingface(folder, model); }) == "");
}

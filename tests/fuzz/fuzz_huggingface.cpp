// SPDX-License-Identifier: Apache-2.0
// Folders of the Hugging Face hub. An input is "C" and a config.json, or "I" and a model.safetensors.index.json, next to
// files that are fine.
//
// What is accepted of a config is what a JSON parser reads into a tree, and of indices the one that says what is where.
#include <cstring>
#include <nlohmann/json.hpp>

#include "dpmp/nn/huggingface_bert.hpp"
#include "fuzz/fuzz.hpp"

namespace {
using namespace dpmp;

const std::string gpt2 = R"({"model_type":"gpt2","vocab_size":3,"n_positions":4,"n_embd":4,"n_layer":1,"n_head":2})";
const std::string agreed = R"({"weight_map":{"x":"a.safetensors","y":"b.safetensors"}})";

/// A folder of two shards, made once.
struct Folder : test::TemporaryFolder {
  Folder() {
    const float value = 1;
    for (const auto& [file, tensor] : {std::pair("a.safetensors", "x"), std::pair("b.safetensors", "y")}) {
      const interop::TensorView views[] = {{tensor, DType::f32, {1}, &value}};
      interop::write_safetensors(*this / file, views);
    }
  }
};

void compare_with_tree(const interop::ModelSettings& settings, const nlohmann::json& tree) {
  for (const auto& [name, value] : tree.items()) {
    if (value.is_structured() || name.find_first_of("~/") != std::string::npos) continue;
    fuzz::hold(settings.has(name) == !value.is_null(), "null is nothing");
    if (value.is_boolean()) fuzz::hold(settings.flag(name) == value.get<bool>(), "the truth value");
    if (value.is_string()) fuzz::hold(settings.text(name) == value.get<std::string>(), "the text");
    if (value.is_number()) fuzz::hold(!settings.has(name) || settings.number(name) == value.get<double>(), "the number");
  }
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
  static const Folder folder;
  const std::string bytes(reinterpret_cast<const char*>(input), size), text = bytes.empty() ? "" : bytes.substr(1);
  const bool config = !bytes.starts_with('I');
  test::write_text(folder / "config.json", config ? text : gpt2);
  test::write_text(folder / "model.safetensors.index.json", config ? agreed : text);
  try {
    const interop::HuggingFaceFolder open(folder.path());
    ++fuzz::accepted;
    const nlohmann::json tree = nlohmann::json::parse(text);
    if (config) compare_with_tree(open.settings(), tree);
    if (!config) fuzz::hold(tree.at("weight_map") == nlohmann::json::parse(agreed).at("weight_map"), "what is where");
    for (const auto& name : {"rope_scaling", "id2label", "a"})
      fuzz::hold(open.settings().has_below(name) == (open.settings().count_below(name) > 0), "counted");
    try {
      nn::transformer_config(open);
    } catch (const Error& e) {
      fuzz::hold(std::strlen(e.what()) < 2000, "a short message");
    }
    nn::bert_config(open);
  } catch (const Error& e) {
    fuzz::hold(std::strlen(e.what()) < 2000, "a short message");
  }
  return 0;
}

std::vector<std::string> fuzz::seeds() {
  return {"C" + gpt2,
          "I" + agreed,
          "I{\"metadata\":{\"total_size\":8},\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}}",
          R"(C{"model_type":"llama","vocab_size":3,"hidden_size":4,"intermediate_size":5,"num_hidden_layers":1,)"
          R"("num_attention_heads":2,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1,)"
          R"("high_freq_factor":4,"original_max_position_embeddings":8192},"rms_norm_eps":1e-5,"head_dim":2})",
          R"(C{"model_type":"bert","vocab_size":3,"hidden_size":4,"intermediate_size":5,"num_hidden_layers":1,)"
          R"("num_attention_heads":2,"max_position_embeddings":6,"id2label":{"0":"a","1":"b"}})",
          "C{}",
          "C{\"a\":[1,2.5,{\"b\":null}],\"c\":\"\\u00e9\"}"};
}
std::vector<std::string> fuzz::words() {
  return {"{",
          "}",
          "[",
          "]",
          ",",
          ":",
          "\"",
          "\\u0061",
          "\\ud800",
          "null",
          "true",
          "1e9",
          "-0",
          "1.5",
          " ",
          "\n",
          "[[[[",
          "{\"a\":",
          "1e999",
          "\xff",
          "-1",
          "\"../a\"",
          "\"a/\"",
          "\"x\"",
          "\"y\":",
          "\"gpt2\"",
          "\"weight_map\":{",
          "\"linear\"",
          "\"rope_parameters\":{",
          "\"rope_type\":",
          "\"n_inner\":",
          "\"head_dim\":",
          "9223372036854775807",
          "18446744073709551615",
          "\"a.safetensors\"",
          "\"b.safetensors\"",
          std::string(1, '\0')};
}

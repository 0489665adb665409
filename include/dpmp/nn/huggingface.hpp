// SPDX-License-Identifier: Apache-2.0
// GPT-2 and LLaMA as the Hugging Face hub has them, read into a Transformer and written back.
//
//     const interop::HuggingFaceFolder folder("gpt2");
//     nn::TransformerConfig config = nn::transformer_config(folder);
//     config.lora.rank = 8;
//     nn::Transformer model(ctx, config, DType::bf16);
//     nn::load_huggingface(folder, model);
//
// Names and conventions: docs/huggingface.md. Settings that would change what the model computes, and that are not listed
// there, are refused. Dropout is not taken over: a private run is regularised by its noise.
#pragma once
#include "dpmp/nn/stored_parameters.hpp"
#include "dpmp/nn/transformer.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// What config.json says of a model of type "gpt2" or "llama". What does not change the function may be set afterwards:
/// dropout, adapters, checkpointing, fp32_logits, chunked_head, and a shorter context where positions are rotary. Throws,
/// naming the setting, for another type and for everything that a Transformer does not do.
TransformerConfig transformer_config(const interop::HuggingFaceFolder& folder);

/// Reads the folder's weights (read_stored); adapters keep their values. Throws where the model's config differs from
/// transformer_config(folder) in something that changes the function; the model is then unchanged.
void load_huggingface(const interop::HuggingFaceFolder& folder, Transformer& model);

struct HuggingFaceWriting {
  /// f32, bf16, f16, or f64: what weights are rounded to.
  DType dtype = DType::f32;
  /// Tokens that begin and end a text, which config.json has for programs that generate; negative: none.
  index_t begin_token = -1, end_token = -1;
};
/// Writes a folder that transformers loads, adapters merged into their weights: GPT2LMHeadModel for a model with learned
/// positions, layer norms, all biases and one of the GELUs, LlamaForCausalLM for rotary positions, RMS norms and SwiGLU with
/// attention's biases all there or all left out. Throws for other models, naming what does not fit, and where write_stored
/// does.
void save_huggingface(const std::filesystem::path& folder, const Transformer& model, const HuggingFaceWriting& options = {});
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
#include <limits>

#include "dpmp/core/escaped_text.hpp"

namespace dpmp::inline DPMP_ABI::nn {
namespace detail {
using Settings = interop::ModelSettings;

/// Throws where the setting is something else: what the model here does is `expected`.
inline void expect_flag(const Settings& settings, const std::string& name, bool expected) {
  if (settings.flag(name, expected) != expected) settings.refuse(name, expected ? "true" : "false");
}
inline index_t size_setting(const Settings& settings, const std::string& name, std::optional<index_t> otherwise = {}) {
  const index_t size = settings.integer(name, otherwise);
  if (size < 1 || size > std::numeric_limits<std::int32_t>::max()) settings.refuse(name, "a size of 1 .. 2^31 - 1");
  return size;
}
inline void expect_plain_weights(const Settings& settings) {
  if (settings.has_below("quantization_config") || settings.has("quantization_config"))
    settings.refuse("quantization_config", "none (quantised weights are not read)");
}
inline FeedForward gelu_of(const Settings& settings, const std::string& name, const std::string& otherwise) {
  const std::string form = settings.text(name, otherwise);
  if (form == "gelu") return FeedForward::gelu;
  if (form == "gelu_new" || form == "gelu_pytorch_tanh") return FeedForward::gelu_tanh;
  settings.refuse(name, "'gelu', 'gelu_new' or 'gelu_pytorch_tanh'");
}

inline TransformerConfig gpt2_config(const Settings& s) {
  expect_flag(s, "scale_attn_weights", true);
  expect_flag(s, "scale_attn_by_inverse_layer_idx", false);
  expect_flag(s, "add_cross_attention", false);
  const index_t width = size_setting(s, "n_embd");
  return {.vocabulary = size_setting(s, "vocab_size"),
          .width = width,
          .layers = size_setting(s, "n_layer"),
          .heads = size_setting(s, "n_head"),
          .context = size_setting(s, "n_positions"),
          .tied = s.flag("tie_word_embeddings", true),
          .norm_epsilon = s.number("layer_norm_epsilon", 1e-5),
          .feed_forward = gelu_of(s, "activation_function", "gelu_new"),
          .hidden = s.has("n_inner") ? size_setting(s, "n_inner") : 4 * width};
}

inline RopeScaling rope_scaling(const Settings& s) {
  // transformers 5 has all of it in rope_parameters, with the base; releases before it have rope_scaling or nothing.
  const std::string at = s.has_below("rope_parameters") ? "rope_parameters/" : "rope_scaling/";
  const std::string name = at + (s.has(at + "rope_type") || !s.has(at + "type") ? "rope_type" : "type");
  const std::string type = s.text(name, s.has_below("rope_scaling") ? std::nullopt : std::optional<std::string>("default"));
  if (s.number(at + "partial_rotary_factor", s.number("partial_rotary_factor", 1)) != 1)
    s.refuse("partial_rotary_factor", "1");
  if (type == "default") return {};
  if (type == "linear") return {.kind = RopeScaling::Kind::linear, .factor = s.number(at + "factor")};
  if (type != "llama3") s.refuse(name, "'default', 'linear' or 'llama3'");
  return {.kind = RopeScaling::Kind::llama3,
          .factor = s.number(at + "factor"),
          .low_frequency = s.number(at + "low_freq_factor"),
          .high_frequency = s.number(at + "high_freq_factor"),
          .original_context = double(size_setting(s, at + "original_max_position_embeddings"))};
}

inline TransformerConfig llama_config(const Settings& s) {
  if (s.text("hidden_act", "silu") != "silu") s.refuse("hidden_act", "'silu'");
  const index_t width = size_setting(s, "hidden_size"), heads = size_setting(s, "num_attention_heads");
  if (s.has("head_dim") && (width % heads != 0 || s.integer("head_dim") != width / heads))
    s.refuse("head_dim", "hidden_size / num_attention_heads or none");
  const bool attention_bias = s.flag("attention_bias", false);
  return {.vocabulary = size_setting(s, "vocab_size"),
          .width = width,
          .layers = size_setting(s, "num_hidden_layers"),
          .heads = heads,
          .context = size_setting(s, "max_position_embeddings", 2048),
          .tied = s.flag("tie_word_embeddings", false),
          .norm = Norm::rms_norm,
          .norm_epsilon = s.number("rms_norm_eps", 1e-6),
          .feed_forward = FeedForward::swiglu,
          .hidden = size_setting(s, "intermediate_size"),
          .positions = Positions::rotary,
          .rope_base = s.number(s.has("rope_parameters/rope_theta") ? "rope_parameters/rope_theta" : "rope_theta", 10000),
          .rope_scaling = rope_scaling(s),
          .qkv_bias = attention_bias,
          .projection_bias = attention_bias,
          .swiglu_bias = s.flag("mlp_bias", false),
          .key_value_heads = size_setting(s, "num_key_value_heads", heads)};
}

inline bool is_gpt2(const TransformerConfig& c) { return c.positions == Positions::learned; }

inline StoredParameters gpt2_table(const TransformerConfig& c) {
  StoredParameters table{{.parameter = "tokens.weight", .parts = {{"transformer.wte.weight"}}},
                         {.parameter = "positions.weight", .parts = {{"transformer.wpe.weight"}}}};
  const auto both = [&](const std::string& here, const std::string& there, bool norm) {
    table.push_back({.parameter = here + (norm ? ".gain" : ".weight"), .parts = {{there + ".weight"}}, .transposed = !norm});
    table.push_back({.parameter = here + ".bias", .parts = {{there + ".bias"}}});
  };
  both("norm", "transformer.ln_f", true);
  for (index_t k = 0; k < c.layers; ++k) {
    const std::string here = "block" + std::to_string(k) + ".", there = "transformer.h." + std::to_string(k) + ".";
    both(here + "attention_norm", there + "ln_1", true);
    both(here + "attention.qkv", there + "attn.c_attn", false);
    both(here + "attention.projection", there + "attn.c_proj", false);
    both(here + "mlp_norm", there + "ln_2", true);
    both(here + "mlp.up", there + "mlp.c_fc", false);
    both(here + "mlp.down", there + "mlp.c_proj", false);
  }
  if (c.tied)
    table[0].copies = {"lm_head.weight"};
  else
    table.push_back({.parameter = "head.weight", .parts = {{"lm_head.weight"}}});
  return table;
}

inline StoredParameters llama_table(const TransformerConfig& c) {
  StoredParameters table{{.parameter = "tokens.weight", .parts = {{"model.embed_tokens.weight"}}},
                         {.parameter = "norm.gain", .parts = {{"model.norm.weight"}}}};
  const index_t key_rows = c.key_value_heads * (c.width / c.heads);
  const auto add = [&](const std::string& here, const StoredParameters::value_type& weight, bool bias) {
    table.push_back(weight);
    table.back().parameter = here + ".weight";
    if (!bias) return;
    table.push_back({.parameter = here + ".bias", .parts = weight.parts});
    for (auto& part : table.back().parts) part.tensor.replace(part.tensor.size() - 6, 6, "bias");
  };
  for (index_t k = 0; k < c.layers; ++k) {
    const std::string here = "block" + std::to_string(k) + ".", there = "model.layers." + std::to_string(k) + ".";
    table.push_back({.parameter = here + "attention_norm.gain", .parts = {{there + "input_layernorm.weight"}}});
    add(here + "attention.qkv",
        {.parameter = "",
         .parts = {{there + "self_attn.q_proj.weight", c.width},
                   {there + "self_attn.k_proj.weight", key_rows},
                   {there + "self_attn.v_proj.weight", key_rows}}},
        c.qkv_bias);
    add(here + "attention.projection", {.parameter = "", .parts = {{there + "self_attn.o_proj.weight"}}}, c.projection_bias);
    table.push_back({.parameter = here + "mlp_norm.gain", .parts = {{there + "post_attention_layernorm.weight"}}});
    add(here + "mlp.gate_up",
        {.parameter = "", .parts = {{there + "mlp.gate_proj.weight", c.hidden}, {there + "mlp.up_proj.weight", c.hidden}}},
        c.swiglu_bias);
    add(here + "mlp.down", {.parameter = "", .parts = {{there + "mlp.down_proj.weight"}}}, c.swiglu_bias);
  }
  if (c.tied)
    table[0].copies = {"lm_head.weight"};
  else
    table.push_back({.parameter = "head.weight", .parts = {{"lm_head.weight"}}});
  return table;
}

/// The path of the scope that a transformer was made in, by the name of its first parameter.
inline std::string_view scope_path(const Transformer& model) {
  const std::string_view name = model.own_parameters()[0]->name(), last = "tokens.weight";
  return name.size() == last.size() ? std::string_view() : name.substr(0, name.size() - last.size() - 1);
}

template <class T>
void expect_same(const Settings& settings, const char* field, const T& stored, const T& here) {
  DPMP_CHECK(stored == here, "expected a model with ", field, " ", stored, ", as '", settings.path().string(),
             "' says, got ", here);
}
inline void check_same(const Settings& s, const TransformerConfig& stored, const TransformerConfig& here) {
  expect_same(s, "vocabulary", stored.vocabulary, here.vocabulary);
  expect_same(s, "width", stored.width, here.width);
  expect_same(s, "layers", stored.layers, here.layers);
  expect_same(s, "heads", stored.heads, here.heads);
  expect_same(s, "key_value_heads", stored.key_value_heads ? stored.key_value_heads : stored.heads, here.key_value_heads);
  if (stored.layers > 0) expect_same(s, "hidden", stored.hidden, here.hidden);
  expect_same(s, "positions (0: learned, 1: rotary)", int(stored.positions), int(here.positions));
  if (is_gpt2(stored)) expect_same(s, "context", stored.context, here.context);
  expect_same(s, "tied", stored.tied, here.tied);
  expect_same(s, "norm (0: layer_norm, 1: rms_norm)", int(stored.norm), int(here.norm));
  expect_same(s, "norm_epsilon", stored.norm_epsilon, here.norm_epsilon);
  expect_same(s, "feed_forward (0: gelu, 1: gelu_tanh, 2: swiglu)", int(stored.feed_forward), int(here.feed_forward));
  expect_same(s, "qkv_bias", stored.qkv_bias, here.qkv_bias);
  expect_same(s, "projection_bias", stored.projection_bias, here.projection_bias);
  expect_same(s, "swiglu_bias", stored.swiglu_bias, here.swiglu_bias);
  if (is_gpt2(stored)) return;
  expect_same(s, "rope_base", stored.rope_base, here.rope_base);
  DPMP_CHECK(stored.rope_scaling == here.rope_scaling, "expected a model with the rope_scaling that '", s.path().string(),
             "' says, got another one");
}
/// "F32" as PyTorch names it, in quotation marks.
inline std::string torch_name(DType dtype) {
  switch (dtype) {
    case DType::f32: return json_text("float32");
    case DType::bf16: return json_text("bfloat16");
    case DType::f16: return json_text("float16");
    case DType::f64: return json_text("float64");
    default: break;
  }
  throw Error(dpmp::detail::concat("expected a floating dtype of stored weights, got ", dtype));
}
inline std::string token_text(index_t token) { return token < 0 ? "null" : std::to_string(token); }
inline double lora_scale(const LoraOptions& lora) { return lora.rank > 0 ? lora.alpha / double(lora.rank) : 0; }
inline std::string flag_text(bool flag) { return flag ? "true" : "false"; }
/// What every config.json has. transformers 4 reads torch_dtype, 5 reads dtype.
inline JsonSettings common_settings(const std::string& architecture, const std::string& type,
                                    const HuggingFaceWriting& options) {
  return {{"architectures", "[" + json_text(architecture) + "]"},
          {"model_type", json_text(type)},
          {"dtype", torch_name(options.dtype)},
          {"torch_dtype", torch_name(options.dtype)},
          {"bos_token_id", token_text(options.begin_token)},
          {"eos_token_id", token_text(options.end_token)}};
}
inline std::string gelu_name(FeedForward form) { return json_text(form == FeedForward::gelu ? "gelu" : "gelu_new"); }

inline JsonSettings gpt2_settings(const TransformerConfig& c, const HuggingFaceWriting& options) {
  JsonSettings settings = common_settings("GPT2LMHeadModel", "gpt2", options);
  const JsonSettings own{{"vocab_size", std::to_string(c.vocabulary)},
                         {"n_positions", std::to_string(c.context)},
                         {"n_embd", std::to_string(c.width)},
                         {"n_layer", std::to_string(c.layers)},
                         {"n_head", std::to_string(c.heads)},
                         {"n_inner", std::to_string(c.hidden)},
                         {"activation_function", gelu_name(c.feed_forward)},
                         {"layer_norm_epsilon", json_number(c.norm_epsilon)},
                         {"resid_pdrop", "0.0"},
                         {"embd_pdrop", "0.0"},
                         {"attn_pdrop", "0.0"},
                         {"tie_word_embeddings", flag_text(c.tied)}};
  settings.insert(settings.end(), own.begin(), own.end());
  return settings;
}

inline JsonSettings llama_settings(const TransformerConfig& c, const HuggingFaceWriting& options) {
  const RopeScaling& scaling = c.rope_scaling;
  const bool llama3 = scaling.kind == RopeScaling::Kind::llama3;
  std::string rope = "\"rope_type\": " + json_text(scaling.kind == RopeScaling::Kind::none ? "default"
                                                   : llama3                                ? "llama3"
                                                                                           : "linear");
  if (scaling.kind != RopeScaling::Kind::none) rope += ", \"factor\": " + json_number(scaling.factor);
  if (llama3)
    rope += ", \"low_freq_factor\": " + json_number(scaling.low_frequency) +
            ", \"high_freq_factor\": " + json_number(scaling.high_frequency) +
            ", \"original_max_position_embeddings\": " + std::to_string(index_t(scaling.original_context));
  JsonSettings settings = common_settings("LlamaForCausalLM", "llama", options);
  const JsonSettings own{{"vocab_size", std::to_string(c.vocabulary)},
                         {"hidden_size", std::to_string(c.width)},
                         {"intermediate_size", std::to_string(c.hidden)},
                         {"num_hidden_layers", std::to_string(c.layers)},
                         {"num_attention_heads", std::to_string(c.heads)},
                         {"num_key_value_heads", std::to_string(c.key_value_heads)},
                         {"max_position_embeddings", std::to_string(c.context)},
                         {"hidden_act", json_text("silu")},
                         {"rms_norm_eps", json_number(c.norm_epsilon)},
                         {"attention_bias", flag_text(c.qkv_bias)},
                         {"mlp_bias", flag_text(c.swiglu_bias)},
                         {"tie_word_embeddings", flag_text(c.tied)},
                         // transformers 5 reads rope_parameters, 4 the other two.
                         {"rope_parameters", "{\"rope_theta\": " + json_number(c.rope_base) + ", " + rope + "}"},
                         {"rope_theta", json_number(c.rope_base)},
                         {"rope_scaling", scaling.kind == RopeScaling::Kind::none ? "null" : "{" + rope + "}"}};
  settings.insert(settings.end(), own.begin(), own.end());
  return settings;
}

/// Throws unless one of the two forms has all that this model has.
inline void check_writable(const TransformerConfig& c) {
  const auto expect = [](bool fits, const char* form, const char* what, const char* got) {
    DPMP_CHECK(fits, "expected a model of ", form, "'s form to write, with ", what, ", got one with ", got);
  };
  if (is_gpt2(c)) {
    expect(c.norm == Norm::layer_norm, "GPT-2", "layer norms", "RMS norms");
    expect(c.feed_forward != FeedForward::swiglu, "GPT-2", "GELU", "SwiGLU");
    expect(c.key_value_heads == c.heads, "GPT-2", "as many key and value heads as heads", "fewer");
    expect(c.qkv_bias && c.projection_bias, "GPT-2", "all biases", "some left out");
    return;
  }
  expect(c.norm == Norm::rms_norm, "LLaMA", "RMS norms", "layer norms");
  expect(c.feed_forward == FeedForward::swiglu, "LLaMA", "SwiGLU", "GELU");
  expect(c.qkv_bias == c.projection_bias, "LLaMA", "attention's biases all there or all left out", "some of them");
  const double original = c.rope_scaling.original_context;
  expect(c.rope_scaling.kind != RopeScaling::Kind::llama3 || original == double(index_t(original)), "LLaMA",
         "a whole original_context", "another one");
}
/// The config with the sizes that it left to be computed.
inline TransformerConfig with_sizes(const Transformer& model) {
  TransformerConfig c = model.config();
  if (c.key_value_heads == 0) c.key_value_heads = c.heads;
  for (const Parameter* p : model.own_parameters())
    if (p->name().ends_with("block0.mlp.down.weight")) c.hidden = p->shape()[1];
  if (c.hidden == 0) c.hidden = 4 * c.width;  // of a model without blocks
  return c;
}
}  // namespace detail

DPMP_KEPT_BODY inline TransformerConfig transformer_config(const interop::HuggingFaceFolder& folder) {
  const interop::ModelSettings& settings = folder.settings();
  detail::expect_plain_weights(settings);
  const std::string type = settings.text("model_type");
  if (type == "gpt2") return detail::gpt2_config(settings);
  if (type == "llama") return detail::llama_config(settings);
  settings.refuse("model_type", "'gpt2' or 'llama' for a Transformer");
}

DPMP_KEPT_BODY inline void load_huggingface(const interop::HuggingFaceFolder& folder, Transformer& model) {
  const TransformerConfig stored = transformer_config(folder);
  detail::check_same(folder.settings(), stored, detail::with_sizes(model));
  const bool gpt2 = detail::is_gpt2(stored);
  const StoredParameters table = gpt2 ? as_named(detail::gpt2_table(stored), folder, "transformer.")
                                      : as_named(detail::llama_table(stored), folder, "model.");
  const OtherTensors others{.buffers = {".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"}, .left_out = {}};
  read_stored(model.parameters().ctx(), folder, table, others, model.own_parameters(), detail::scope_path(model));
}

DPMP_KEPT_BODY inline void save_huggingface(const std::filesystem::path& folder, const Transformer& model,
                                            const HuggingFaceWriting& options) {
  const TransformerConfig c = detail::with_sizes(model);
  detail::check_writable(c);
  const bool gpt2 = detail::is_gpt2(c);
  write_stored(folder, gpt2 ? detail::gpt2_settings(c, options) : detail::llama_settings(c, options),
               gpt2 ? detail::gpt2_table(c) : detail::llama_table(c), model.own_parameters(), detail::scope_path(model),
               options.dtype, detail::lora_scale(c.lora));
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif

// SPDX-License-Identifier: Apache-2.0
// BERT as the Hugging Face hub has it (BertModel, BertForMaskedLM, BertForSequenceClassification and folders of their form),
// read into a nn::Bert and written back. Names and conventions: docs/huggingface.md.
#pragma once
#include "dpmp/nn/bert.hpp"
#include "dpmp/nn/huggingface.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// What config.json says of a model of type "bert", with the head and the pooler that the weights have. Head, pooler,
/// classes, dropout and adapters may be set afterwards. Throws, naming the setting, for another type and for everything that
/// nn::Bert does not do.
BertConfig bert_config(const interop::HuggingFaceFolder& folder);

/// Which parameters may keep their values where the folder has no tensors for them.
enum class MissingHead : std::uint8_t { refused, keeps_values };
/// Reads the folder's weights (read_stored). What the folder has of other heads is left out. head: of a head and a pooler
/// that are new, for fine-tuning. Returns the names of parameters that kept their values. Throws where the model's config
/// differs from bert_config(folder) in something that changes the function; the model is then unchanged.
std::vector<std::string> load_huggingface(const interop::HuggingFaceFolder& folder, Bert& model,
                                          MissingHead head = MissingHead::refused);

/// Writes a folder that transformers loads as BertModel, BertForMaskedLM or BertForSequenceClassification, by the model's
/// head. Throws where write_stored does, and for a model for masked tokens with a pooler, which has no place there.
void save_huggingface(const std::filesystem::path& folder, const Bert& model, const HuggingFaceWriting& options = {});
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
namespace detail {
inline StoredParameters bert_table(const BertConfig& c, bool new_head) {
  StoredParameters table{{.parameter = "tokens.weight",
                          .parts = {{"bert.embeddings.word_embeddings.weight"}},
                          .copies = {"cls.predictions.decoder.weight"}},
                         {.parameter = "types.weight", .parts = {{"bert.embeddings.token_type_embeddings.weight"}}},
                         {.parameter = "positions.weight", .parts = {{"bert.embeddings.position_embeddings.weight"}}}};
  const auto both = [&](const std::string& here, const std::string& there, bool norm = false, bool optional = false) {
    table.push_back(
        {.parameter = here + (norm ? ".gain" : ".weight"), .parts = {{there + ".weight"}}, .optional = optional});
    table.push_back({.parameter = here + ".bias", .parts = {{there + ".bias"}}, .optional = optional});
  };
  both("embedding_norm", "bert.embeddings.LayerNorm", true);
  for (index_t k = 0; k < c.layers; ++k) {
    const std::string here = "block" + std::to_string(k) + ".", there = "bert.encoder.layer." + std::to_string(k) + ".";
    for (const std::string part : {"weight", "bias"}) {
      table.push_back({.parameter = here + "attention.qkv." + part, .parts = {}});
      for (const char* which : {"query.", "key.", "value."})
        table.back().parts.push_back({there + "attention.self." + which + part, c.width});
    }
    both(here + "attention.projection", there + "attention.output.dense");
    both(here + "attention_norm", there + "attention.output.LayerNorm", true);
    both(here + "mlp.up", there + "intermediate.dense");
    both(here + "mlp.down", there + "output.dense");
    both(here + "mlp_norm", there + "output.LayerNorm", true);
  }
  if (c.pooler || c.head == BertHead::classes) both("pooler", "bert.pooler.dense", false, new_head);
  if (c.head == BertHead::classes) both("head", "classifier", false, new_head);
  if (c.head != BertHead::masked_tokens) return table;
  both("head.dense", "cls.predictions.transform.dense", false, new_head);
  both("head.norm", "cls.predictions.transform.LayerNorm", true, new_head);
  table.push_back({.parameter = "head.bias",
                   .parts = {{"cls.predictions.bias"}},
                   .copies = {"cls.predictions.decoder.bias"},
                   .optional = new_head});
  return table;
}

inline std::string_view scope_path(const Bert& model) {
  const std::string_view name = model.own_parameters()[0]->name(), last = "tokens.weight";
  return name.size() == last.size() ? std::string_view() : name.substr(0, name.size() - last.size() - 1);
}
}  // namespace detail

DPMP_KEPT_BODY inline BertConfig bert_config(const interop::HuggingFaceFolder& folder) {
  const interop::ModelSettings& s = folder.settings();
  detail::expect_plain_weights(s);
  if (s.text("model_type") != "bert") s.refuse("model_type", "'bert' for a Bert");
  detail::expect_flag(s, "is_decoder", false);
  detail::expect_flag(s, "add_cross_attention", false);
  if (s.text("position_embedding_type", "absolute") != "absolute") s.refuse("position_embedding_type", "'absolute'");
  const bool tokens = folder.contains("cls.predictions.bias"), classes = folder.contains("classifier.weight");
  if (tokens) detail::expect_flag(s, "tie_word_embeddings", true);
  return {.vocabulary = detail::size_setting(s, "vocab_size"),
          .width = detail::size_setting(s, "hidden_size"),
          .layers = detail::size_setting(s, "num_hidden_layers"),
          .heads = detail::size_setting(s, "num_attention_heads"),
          .hidden = detail::size_setting(s, "intermediate_size"),
          .context = detail::size_setting(s, "max_position_embeddings"),
          .types = detail::size_setting(s, "type_vocab_size", 2),
          .norm_epsilon = s.number("layer_norm_eps", 1e-12),
          .feed_forward = detail::gelu_of(s, "hidden_act", "gelu"),
          .head = classes  ? BertHead::classes
                  : tokens ? BertHead::masked_tokens
                           : BertHead::none,
          .pooler = (classes || !tokens) &&
                    (folder.contains("pooler.dense.weight") || folder.contains("bert.pooler.dense.weight")),
          // transformers counts the names of classes, of which there are two unless they are said.
          .classes = s.has_below("id2label") ? s.count_below("id2label") : s.integer("num_labels", 2)};
}

DPMP_KEPT_BODY inline std::vector<std::string> load_huggingface(const interop::HuggingFaceFolder& folder, Bert& model,
                                                                MissingHead head) {
  const BertConfig stored = bert_config(folder), here = model.config();
  const interop::ModelSettings& s = folder.settings();
  detail::expect_same(s, "vocabulary", stored.vocabulary, here.vocabulary);
  detail::expect_same(s, "width", stored.width, here.width);
  detail::expect_same(s, "layers", stored.layers, here.layers);
  detail::expect_same(s, "heads", stored.heads, here.heads);
  detail::expect_same(s, "hidden", stored.hidden, here.hidden ? here.hidden : 4 * here.width);
  detail::expect_same(s, "context", stored.context, here.context);
  detail::expect_same(s, "types", stored.types, here.types);
  detail::expect_same(s, "norm_epsilon", stored.norm_epsilon, here.norm_epsilon);
  detail::expect_same(s, "feed_forward (0: gelu, 1: gelu_tanh)", int(stored.feed_forward), int(here.feed_forward));
  const StoredParameters table = as_named(detail::bert_table(here, head == MissingHead::keeps_values), folder, "bert.");
  const OtherTensors others{.buffers = {"embeddings.position_ids", "embeddings.token_type_ids"},
                            .left_out = {"cls.", "classifier.", "bert.pooler.", "pooler."}};
  return read_stored(model.parameters().ctx(), folder, table, others, model.own_parameters(), detail::scope_path(model));
}

DPMP_KEPT_BODY inline void save_huggingface(const std::filesystem::path& folder, const Bert& model,
                                            const HuggingFaceWriting& options) {
  const BertConfig c = model.config();
  const bool tokens = c.head == BertHead::masked_tokens, classes = c.head == BertHead::classes;
  DPMP_CHECK(!tokens || !c.pooler, "expected a model for masked tokens without a pooler to write, got one with it");
  JsonSettings settings = detail::common_settings(tokens    ? "BertForMaskedLM"
                                                  : classes ? "BertForSequenceClassification"
                                                            : "BertModel",
                                                  "bert", options);
  const JsonSettings own{{"vocab_size", std::to_string(c.vocabulary)},
                         {"hidden_size", std::to_string(c.width)},
                         {"num_hidden_layers", std::to_string(c.layers)},
                         {"num_attention_heads", std::to_string(c.heads)},
                         {"intermediate_size", std::to_string(c.hidden ? c.hidden : 4 * c.width)},
                         {"hidden_act", detail::gelu_name(c.feed_forward)},
                         {"max_position_embeddings", std::to_string(c.context)},
                         {"type_vocab_size", std::to_string(c.types)},
                         {"layer_norm_eps", json_number(c.norm_epsilon)},
                         {"hidden_dropout_prob", "0.0"},
                         {"attention_probs_dropout_prob", "0.0"},
                         {"position_embedding_type", json_text("absolute")},
                         {"tie_word_embeddings", "true"}};
  settings.insert(settings.end(), own.begin(), own.end());
  if (classes) {
    std::string names;
    for (index_t k = 0; k < c.classes; ++k)
      names += (k ? ", " : "") + json_text(std::to_string(k)) + ": " + json_text("LABEL_" + std::to_string(k));
    settings.emplace_back("id2label", "{" + names + "}");
  }
  StoredParameters table = detail::bert_table(c, false);
  // BertModel alone has no prefix.
  if (c.head == BertHead::none)
    for (StoredParameter& stored : table)
      for (auto& part : stored.parts) part.tensor.erase(0, std::string_view("bert.").size());
  write_stored(folder, settings, table, model.own_parameters(), detail::scope_path(model), options.dtype,
               detail::lora_scale(c.lora));
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif

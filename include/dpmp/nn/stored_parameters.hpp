// SPDX-License-Identifier: Apache-2.0
// How a published model's tensors become the parameters of one here, as a table that is read in both directions: tensors
// that are one parameter here, as queries, keys and values, stand below each other in it, and some weights are transposed.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dpmp/interop/huggingface.hpp"
#include "dpmp/nn/parameters.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// Where one parameter is in a folder of the Hugging Face hub.
struct StoredParameter {
  struct Part {
    std::string tensor;
    /// Rows (values, of a vector) of the parameter that it has; 0: all.
    index_t rows = 0;
  };
  /// Its name in the scope that the model was made in.
  std::string parameter;
  /// One below the other.
  std::vector<Part> parts;
  /// Whether the file has [inputs, outputs], as GPT-2's Conv1D.
  bool transposed = false;
  /// Names of tensors that may be there, too, and are the same values: tied weights, stored twice.
  std::vector<std::string> copies = {};
  /// Whether its tensors may be missing, all of them: then the parameter keeps its values.
  bool optional = false;
};
using StoredParameters = std::vector<StoredParameter>;

/// What the tensors of a folder that no parameter has are: names that end like one of `buffers`, which are computed here, or
/// that begin like one of `left_out`, parts that this model does not have.
struct OtherTensors {
  std::vector<std::string> buffers, left_out;
};

/// Reads parameters, those of adapters excepted, from the folder: `parameters` are the model's and `scope` is the path of
/// its scope. Values are stored in F32, F16, BF16, F64 or 8-bit floats. Returns the names of optional parameters that were
/// not there. Throws, naming file and tensor, for a tensor that is missing, has another shape, is not finite, or for which
/// the model has no place, and where copies differ; the model is unchanged then.
std::vector<std::string> read_stored(Context& ctx, const interop::HuggingFaceFolder& folder, const StoredParameters& table,
                                     const OtherTensors& others, std::span<Parameter* const> parameters,
                                     std::string_view scope);

/// The table with names as this folder has them: without `prefix` where it has none of that, and with "gamma" and "beta"
/// for "weight" and "bias" where it has these, as files of norms had in TensorFlow.
StoredParameters as_named(StoredParameters table, const interop::HuggingFaceFolder& folder, std::string_view prefix);

/// Settings as JSON text, in the order of config.json: {"n_embd", "768"}.
using JsonSettings = std::vector<std::pair<std::string, std::string>>;
/// Writes config.json and model.safetensors into the folder, which is made where it is not there: weights first, each file
/// complete or not at all. Masters are rounded once to `dtype`; a weight with an adapter is written as their sum,
/// W0 + lora_scale B A, formed in double. Throws where files cannot be written or a value would become infinite.
void write_stored(const std::filesystem::path& folder, const JsonSettings& settings, const StoredParameters& table,
                  std::span<Parameter* const> parameters, std::string_view scope, DType dtype, double lora_scale);
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
#include <algorithm>
#include <cstring>

#include "dpmp/core/escaped_text.hpp"
#include "dpmp/nn/lora.hpp"
#include "dpmp/runtime/atomic_file.hpp"

namespace dpmp::inline DPMP_ABI::nn {
namespace detail {
inline Parameter& stored_parameter(std::span<Parameter* const> parameters, std::string_view scope, const std::string& name) {
  const std::string full = scope.empty() ? name : std::string(scope) + "." + name;
  for (Parameter* p : parameters)
    if (p->name() == full) return *p;
  throw Error("expected a parameter '" + full + "' of the model, got none");
}
/// Shape of a part in the file. The parameter is a vector or a matrix.
inline Shape part_shape(const StoredParameter& stored, const StoredParameter::Part& part, const Parameter& p) {
  const index_t rows = part.rows ? part.rows : p.shape()[0];
  if (p.shape().rank() == 1) return {rows};
  return stored.transposed ? Shape{p.shape()[1], rows} : Shape{rows, p.shape()[1]};
}
inline bool transposes(const StoredParameter& stored, const Parameter& p) {
  return stored.transposed && p.shape().rank() == 2;
}
inline std::vector<char> transposed(const std::vector<char>& from, index_t rows, index_t columns, std::size_t size) {
  std::vector<char> to(from.size());
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < columns; ++j)
      std::memcpy(to.data() + std::size_t(j * rows + i) * size, from.data() + std::size_t(i * columns + j) * size, size);
  return to;
}
inline bool missing(const interop::HuggingFaceFolder& folder, const StoredParameter& stored) {
  return std::none_of(stored.parts.begin(), stored.parts.end(),
                      [&](const auto& part) { return folder.contains(part.tensor); });
}
/// The values of a parameter, row-major, in the dtype of its master.
inline std::vector<char> stored_values(const interop::HuggingFaceFolder& folder, const StoredParameter& stored,
                                       const Parameter& p) {
  std::vector<char> values;
  const DType dtype = p.master().dtype();
  for (const auto& part : stored.parts) {
    const Shape shape = part_shape(stored, part, p);
    std::vector<char> bytes = folder.read(part.tensor, dtype, shape);
    if (transposes(stored, p)) bytes = transposed(bytes, shape[0], shape[1], std::size_t(size_of(dtype)));
    values.insert(values.end(), bytes.begin(), bytes.end());
  }
  for (const std::string& copy : stored.copies) {
    if (!folder.contains(copy)) continue;
    std::vector<char> bytes = folder.read(copy, dtype, part_shape(stored, {copy}, p));
    if (transposes(stored, p)) bytes = transposed(bytes, p.shape()[1], p.shape()[0], std::size_t(size_of(dtype)));
    DPMP_CHECK(bytes == values, "reading '", folder.path().string(), "': expected tied weights, the same values as '",
               stored.parts[0].tensor, "' in '", copy, "', got others");
  }
  return values;
}
/// The values of a parameter, and of its adapter, `<name>.lora_a` and `lora_b` next to `<name>.weight`.
inline std::vector<double> merged_values(std::span<Parameter* const> parameters, const Parameter& p, double lora_scale) {
  std::vector<double> values = p.master().to_doubles();
  const std::string path(scope_of(p));
  const Parameter *a = nullptr, *b = nullptr;
  for (const Parameter* other : parameters) {
    if (other->name() == path + ".lora_a") a = other;
    if (other->name() == path + ".lora_b") b = other;
  }
  if (!a || !b || !is_matrix(p)) return values;
  const std::vector<double> down = a->master().to_doubles(), up = b->master().to_doubles();
  const auto rank = std::size_t(a->shape()[0]), rows = std::size_t(p.shape()[0]), columns = std::size_t(p.shape()[1]);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t r = 0; r < rank; ++r)
      for (std::size_t j = 0; j < columns; ++j)
        values[i * columns + j] += lora_scale * up[i * rank + r] * down[r * columns + j];
  return values;
}
inline void check_places(const interop::HuggingFaceFolder& folder, const StoredParameters& table,
                         const OtherTensors& others) {
  std::set<std::string> known;
  for (const StoredParameter& stored : table) {
    for (const auto& part : stored.parts) known.insert(part.tensor);
    known.insert(stored.copies.begin(), stored.copies.end());
  }
  for (const std::string& name : folder.names()) {
    const auto begins = [&](const std::string& part) { return name.starts_with(part); };
    const auto ends = [&](const std::string& part) { return name.ends_with(part); };
    DPMP_CHECK(known.contains(name) || std::any_of(others.left_out.begin(), others.left_out.end(), begins) ||
                   std::any_of(others.buffers.begin(), others.buffers.end(), ends),
               "reading '", folder.path().string(), "': expected tensors of the model that ", interop::detail::config_name,
               " describes, got ", interop::detail::shown(name), ", which has no place in it");
  }
}
}  // namespace detail

DPMP_KEPT_BODY inline std::vector<std::string> read_stored(Context& ctx, const interop::HuggingFaceFolder& folder,
                                                           const StoredParameters& table, const OtherTensors& others,
                                                           std::span<Parameter* const> parameters, std::string_view scope) {
  // Names and shapes of all before the values of any, and all values before a parameter changes.
  detail::check_places(folder, table, others);
  std::vector<std::pair<Parameter*, const StoredParameter*>> found;
  std::vector<std::string> kept;
  for (const StoredParameter& stored : table) {
    Parameter& p = detail::stored_parameter(parameters, scope, stored.parameter);
    if (stored.optional && detail::missing(folder, stored)) {
      kept.push_back(p.name());
      continue;
    }
    index_t rows = 0;
    for (const auto& part : stored.parts) {
      folder.check(part.tensor, detail::part_shape(stored, part, p));
      rows += part.rows ? part.rows : p.shape()[0];
    }
    DPMP_CHECK(rows == p.shape()[0], "expected tensors of ", p.shape()[0], " rows for '", p.name(), "', got ", rows);
    found.emplace_back(&p, &stored);
  }
  for (const Parameter* p : parameters)
    DPMP_CHECK(is_lora(*p) || std::find(kept.begin(), kept.end(), p->name()) != kept.end() ||
                   std::any_of(found.begin(), found.end(), [&](const auto& pair) { return pair.first == p; }),
               "expected a tensor for each parameter of the model, got none for '", p->name(), "'");
  std::vector<std::vector<char>> values;
  for (const auto& [p, stored] : found) values.push_back(detail::stored_values(folder, *stored, *p));
  for (std::size_t k = 0; k < found.size(); ++k) {
    Parameter& p = *found[k].first;
    if (values[k].empty()) continue;
    p.master().copy_from_host(values[k].data());
    p.refresh(ctx);
    values[k] = {};
  }
  return kept;
}

DPMP_KEPT_BODY inline StoredParameters as_named(StoredParameters table, const interop::HuggingFaceFolder& folder,
                                                std::string_view prefix) {
  const std::vector<std::string> names = folder.names();
  const bool prefixed = std::any_of(names.begin(), names.end(), [&](const auto& name) { return name.starts_with(prefix); });
  const auto renamed = [&](std::string name) {
    if (!prefixed && name.starts_with(prefix)) name.erase(0, prefix.size());
    for (const auto& [now, before] : {std::pair(".weight", ".gamma"), std::pair(".bias", ".beta")})
      if (!folder.contains(name) && name.ends_with(now)) {
        const std::string old = name.substr(0, name.size() - std::string_view(now).size()) + before;
        if (folder.contains(old)) return old;
      }
    return name;
  };
  for (StoredParameter& stored : table) {
    for (auto& part : stored.parts) part.tensor = renamed(part.tensor);
    for (std::string& copy : stored.copies) copy = renamed(copy);
  }
  return table;
}

DPMP_KEPT_BODY inline void write_stored(const std::filesystem::path& folder, const JsonSettings& settings,
                                        const StoredParameters& table, std::span<Parameter* const> parameters,
                                        std::string_view scope, DType dtype, double lora_scale) {
  std::vector<interop::TensorView> views;
  std::vector<std::vector<char>> bytes;
  for (const StoredParameter& stored : table) {
    const Parameter& p = detail::stored_parameter(parameters, scope, stored.parameter);
    const std::vector<double> values = detail::merged_values(parameters, p, lora_scale);
    std::vector<char> rounded(std::size_t(p.numel() * size_of(dtype)));
    const index_t done = interop::convert(DType::f64, values.data(), dtype, rounded.data(), p.numel());
    DPMP_CHECK(done == p.numel(), "writing '", folder.string(), "': expected values of '", p.name(), "' that ", dtype,
               " has, got another one as element ", done);
    const index_t columns = p.shape().rank() == 2 ? p.shape()[1] : 1;
    index_t row = 0;
    for (const auto& part : stored.parts) {
      const Shape shape = detail::part_shape(stored, part, p);
      const index_t rows = part.rows ? part.rows : p.shape()[0];
      const auto at = [&](index_t r) { return rounded.begin() + std::ptrdiff_t(r * columns * size_of(dtype)); };
      bytes.emplace_back(at(row), at(row + rows));
      if (detail::transposes(stored, p))
        bytes.back() = detail::transposed(bytes.back(), rows, columns, std::size_t(size_of(dtype)));
      views.push_back({part.tensor, dtype, shape, nullptr});
      row += rows;
    }
  }
  for (std::size_t k = 0; k < views.size(); ++k) views[k].data = bytes[k].data();
  std::string text = "{\n";
  for (std::size_t k = 0; k < settings.size(); ++k)
    text += "  " + json_text(settings[k].first) + ": " + settings[k].second + (k + 1 < settings.size() ? ",\n" : "\n}\n");
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  DPMP_CHECK(!failed, "writing '", folder.string(), "': expected a folder, got ", failed.message());
  // transformers reads files that say what they were made for.
  interop::write_safetensors(folder / interop::detail::weights_name, views, {{"format", "pt"}});
  AtomicFile file(folder / interop::detail::config_name);
  file.write(text.data(), text.size());
  file.commit();
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif

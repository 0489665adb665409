// SPDX-License-Identifier: Apache-2.0
// A folder as the Hugging Face hub has models: config.json, and the weights in model.safetensors, or in shards that
// model.safetensors.index.json names. Which tensor belongs where in a model: nn/huggingface.hpp.
#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "dpmp/interop/huggingface_settings.hpp"
#include "dpmp/interop/safetensors.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// The settings of a config.json by their names. One inside of another object or list has a name with both in it:
/// "rope_scaling/factor", "architectures/0". null is as if it were not there. All throw with the file and the name.
class ModelSettings {
 public:
  /// Reads the file. Throws where it is no JSON object, has a name twice in one object, or is larger than 16 MiB.
  explicit ModelSettings(const std::filesystem::path& file);

  bool has(const std::string& name) const { return find(name) != nullptr; }
  /// Whether it is an object or a list with anything in it.
  bool has_below(const std::string& name) const;
  /// How many settings are directly below this one.
  index_t count_below(const std::string& name) const;
  /// Throws where it is something else than asked for, or not there and nothing stands for it.
  index_t integer(const std::string& name, std::optional<index_t> otherwise = {}) const;
  double number(const std::string& name, std::optional<double> otherwise = {}) const;
  bool flag(const std::string& name, std::optional<bool> otherwise = {}) const;
  std::string text(const std::string& name, const std::optional<std::string>& otherwise = {}) const;

  /// Throws, as everything here does that refuses a setting: "reading '<file>': expected <expected> as <name>, got ..".
  [[noreturn]] void refuse(const std::string& name, const std::string& expected) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  const Setting* find(const std::string& name) const;
  std::filesystem::path path_;
  std::map<std::string, Setting> settings_;
};

/// An open folder. Every header has been checked (SafetensorsFile), and files and index agree about what is where: weights
/// are read one tensor after the other.
class HuggingFaceFolder {
 public:
  /// Throws, naming file and tensor, without config.json or weights, for what SafetensorsFile refuses, an index that names a
  /// file that is not there or is in another folder, a tensor that two shards have, that is not in the shard that the index
  /// says, or that the index does not have. Where there is a single file, no index is looked at.
  explicit HuggingFaceFolder(const std::filesystem::path& folder);

  const std::filesystem::path& path() const { return path_; }
  const ModelSettings& settings() const { return settings_; }
  /// Of all tensors, in alphabetic order.
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return shard_of_.contains(name); }
  /// Throws where there is no such tensor.
  const TensorEntry& entry(const std::string& name) const { return shard(name).entry(name); }
  /// Throws, naming file and tensor, unless the tensor is there in this shape and in a floating type.
  void check(const std::string& name, const Shape& shape) const;
  /// The elements as dtype, row-major (SafetensorsFile::read). Throws in addition where one of them is not finite.
  std::vector<char> read(const std::string& name, DType dtype, const Shape& shape) const;

 private:
  const SafetensorsFile& shard(const std::string& name) const;
  [[noreturn]] void refuse(const std::string& file, const std::string& text) const;
  void open_shards();

  std::filesystem::path path_;
  ModelSettings settings_;
  std::vector<std::string> files_;  // their names
  std::vector<SafetensorsFile> shards_;
  std::map<std::string, std::size_t> shard_of_;
};
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
#include "dpmp/core/escaped_text.hpp"

namespace dpmp::inline DPMP_ABI::interop {
namespace detail {
inline std::string whole_text(const std::filesystem::path& path, index_t largest) {
  const InputFile file(path);
  if (file.size() > largest)
    throw Error(
        dpmp::detail::concat("reading '", path.string(), "': expected at most ", largest, " bytes, got ", file.size()));
  std::string text(std::size_t(file.size()), '\0');
  if (file.read(0, text.data(), file.size()) != file.size())
    throw Error("reading '" + path.string() + "': expected a readable file, got a read error");
  return text;
}
/// What a setting is, for a refusal.
inline std::string shown(const Setting* setting) {
  struct Shown {
    std::string operator()(std::monostate) const { return "null"; }
    std::string operator()(bool x) const { return x ? "true" : "false"; }
    std::string operator()(index_t x) const { return std::to_string(x); }
    std::string operator()(double x) const { return number_text(x); }
    std::string operator()(const std::string& x) const { return shown(x); }
  };
  return setting ? std::visit(Shown{}, *setting) : std::string("none");
}
/// Index of the first element that is not finite, or n.
template <class T>
index_t first_not_finite(const std::vector<char>& bytes, index_t n) {
  for (index_t k = 0; k < n; ++k) {
    T x;
    std::memcpy(&x, bytes.data() + std::size_t(k) * sizeof x, sizeof x);
    if (!std::isfinite(double(to_float(x)))) return k;
  }
  return n;
}
}  // namespace detail

DPMP_KEPT_BODY inline ModelSettings::ModelSettings(const std::filesystem::path& file) : path_(file) {
  settings_ = detail::parse_settings(detail::whole_text(file, index_t(1) << 24), "reading '" + file.string() + "': ");
}

DPMP_KEPT_BODY inline const Setting* ModelSettings::find(const std::string& name) const {
  const auto at = settings_.find(name);
  return at == settings_.end() || std::holds_alternative<std::monostate>(at->second) ? nullptr : &at->second;
}

DPMP_KEPT_BODY inline bool ModelSettings::has_below(const std::string& name) const {
  const auto at = settings_.lower_bound(name + "/");
  return at != settings_.end() && at->first.starts_with(name + "/");
}

DPMP_KEPT_BODY inline index_t ModelSettings::count_below(const std::string& name) const {
  std::set<std::string> below;
  for (const auto& [key, value] : settings_)
    if (key.starts_with(name + "/")) below.insert(key.substr(0, key.find('/', name.size() + 1)));
  return index_t(below.size());
}

DPMP_KEPT_BODY inline void ModelSettings::refuse(const std::string& name, const std::string& expected) const {
  std::string got = detail::shown(find(name));
  if (!has(name) && has_below(name)) got = "an object or a list";
  throw Error("reading '" + path_.string() + "': expected " + expected + " as " + detail::shown(name) + ", got " + got);
}

DPMP_KEPT_BODY inline index_t ModelSettings::integer(const std::string& name, std::optional<index_t> otherwise) const {
  const Setting* setting = find(name);
  if (!setting && otherwise && !has_below(name)) return *otherwise;
  if (const auto* value = setting ? std::get_if<index_t>(setting) : nullptr) return *value;
  refuse(name, "a whole number");
}

DPMP_KEPT_BODY inline double ModelSettings::number(const std::string& name, std::optional<double> otherwise) const {
  const Setting* setting = find(name);
  if (!setting && otherwise && !has_below(name)) return *otherwise;
  if (const auto* value = setting ? std::get_if<double>(setting) : nullptr) return *value;
  if (const auto* value = setting ? std::get_if<index_t>(setting) : nullptr) return double(*value);
  refuse(name, "a number");
}

DPMP_KEPT_BODY inline bool ModelSettings::flag(const std::string& name, std::optional<bool> otherwise) const {
  const Setting* setting = find(name);
  if (!setting && otherwise && !has_below(name)) return *otherwise;
  if (const auto* value = setting ? std::get_if<bool>(setting) : nullptr) return *value;
  refuse(name, "true or false");
}

DPMP_KEPT_BODY inline std::string ModelSettings::text(const std::string& name,
                                                      const std::optional<std::string>& otherwise) const {
  const Setting* setting = find(name);
  if (!setting && otherwise && !has_below(name)) return *otherwise;
  if (const auto* value = setting ? std::get_if<std::string>(setting) : nullptr) return *value;
  refuse(name, "a text");
}

DPMP_KEPT_BODY inline HuggingFaceFolder::HuggingFaceFolder(const std::filesystem::path& folder)
    : path_(folder), settings_(folder / detail::config_name) {
  open_shards();
}

DPMP_KEPT_BODY inline void HuggingFaceFolder::refuse(const std::string& file, const std::string& text) const {
  throw Error("reading '" + (path_ / file).string() + "': " + text);
}

DPMP_KEPT_BODY inline void HuggingFaceFolder::open_shards() {
  const auto add = [&](const std::string& file) {
    for (const TensorEntry& tensor : shards_.emplace_back(path_ / file).entries()) {
      const auto [at, added] = shard_of_.emplace(tensor.name, files_.size());
      if (!added)
        refuse(file, "expected tensors that no other shard has, got " + detail::shown(tensor.name) + ", which '" +
                         files_[at->second] + "' has, too");
    }
    files_.push_back(file);
  };
  std::error_code ignored;
  if (std::filesystem::exists(path_ / detail::weights_name, ignored)) return add(detail::weights_name);
  if (!std::filesystem::exists(path_ / detail::index_name, ignored))
    refuse("", std::string("expected weights in ") + detail::weights_name + ", or in shards with " + detail::index_name +
                   ", got neither; weights in other formats (.bin, .onnx, .h5) have to be converted first");
  const std::string place = "reading '" + (path_ / detail::index_name).string() + "': ";
  const auto index = detail::parse_weight_map(detail::whole_text(path_ / detail::index_name, detail::longest_header), place);
  std::set<std::string> files;
  for (const auto& [name, file] : index) {
    if (files.contains(file)) continue;
    // A name alone, so that an index cannot have files elsewhere read.
    if (file.empty() || file == "." || file == ".." || file.find_first_of(std::string("/\\\0", 3)) != std::string::npos)
      refuse(detail::index_name,
             "expected the name of a file in this folder for " + detail::shown(name) + ", got " + detail::shown(file));
    if (!std::filesystem::exists(path_ / file, ignored))
      refuse(detail::index_name,
             "expected a file that is there for " + detail::shown(name) + ", got " + detail::shown(file));
    files.insert(file);
  }
  for (const std::string& file : files) add(file);
  for (const auto& [name, file] : index) {
    const auto at = shard_of_.find(name);
    if (at == shard_of_.end() || files_[at->second] != file)
      refuse(file, "expected a tensor " + detail::shown(name) + ", as " + detail::index_name + " says, got " +
                       (at == shard_of_.end() ? "none of that name" : "it in '" + files_[at->second] + "'"));
  }
  for (const auto& [name, shard] : shard_of_)
    if (!index.contains(name))
      refuse(files_[shard], std::string("expected tensors that ") + detail::index_name + " has, got " + detail::shown(name));
}

DPMP_KEPT_BODY inline std::vector<std::string> HuggingFaceFolder::names() const {
  std::vector<std::string> all;
  for (const auto& [name, shard] : shard_of_) all.push_back(name);
  return all;
}

DPMP_KEPT_BODY inline const SafetensorsFile& HuggingFaceFolder::shard(const std::string& name) const {
  const auto at = shard_of_.find(name);
  if (at == shard_of_.end())
    refuse(files_.size() == 1 ? files_[0] : detail::index_name,
           "expected a tensor " + detail::shown(name) + ", got none of that name");
  return shards_[at->second];
}

DPMP_KEPT_BODY inline void HuggingFaceFolder::check(const std::string& name, const Shape& shape) const {
  const TensorEntry& stored = entry(name);
  const bool floating = stored.dtype.name().find('F') != std::string::npos && converts(stored.dtype, DType::f64);
  if (stored.shape == StoredShape(shape) && floating) return;
  refuse(files_[shard_of_.at(name)],
         dpmp::detail::concat("expected ", detail::shown(name), " of shape ", shape, " and a floating type, as ",
                              detail::config_name, " says, got ", stored.dtype, stored.shape));
}

DPMP_KEPT_BODY inline std::vector<char> HuggingFaceFolder::read(const std::string& name, DType dtype,
                                                                const Shape& shape) const {
  check(name, shape);
  std::vector<char> bytes = shard(name).read(name, dtype, shape);
  const index_t n = shape.numel(), bad = dispatch_real(dtype, [&](auto tag) {
                                     return detail::first_not_finite<typename decltype(tag)::type>(bytes, n);
                                   });
  if (bad < n)
    refuse(files_[shard_of_.at(name)],
           dpmp::detail::concat("expected finite values of ", detail::shown(name), ", got another one as element ", bad));
  return bytes;
}
}  // namespace dpmp::inline DPMP_ABI::interop
#endif

#if DPMP_BODIES && !(defined(DPMP_COMPILED) && defined(__CUDACC__))
#include "dpmp/interop/huggingface_json.hpp"
#endif

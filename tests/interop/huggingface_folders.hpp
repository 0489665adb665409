// SPDX-License-Identifier: Apache-2.0
// Copies of recorded folders of the hub in which something is changed.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "dpmp/interop/huggingface.hpp"
#include "dpmp/nn/parameters.hpp"
#include "interop/huggingface_cases.hpp"
#include "support/temporary_folder.hpp"

namespace test {
/// A tensor of a file, of a dtype that dpmp has.
struct StoredTensor {
  dpmp::DType dtype;
  dpmp::Shape shape;
  std::vector<char> bytes;
};
using StoredTensors = std::map<std::string, StoredTensor>;

class ChangedFolder {
 public:
  explicit ChangedFolder(const std::string& name) {
    for (const auto& entry : std::filesystem::directory_iterator(case_folder(name)))
      std::filesystem::copy_file(entry.path(), folder_ / entry.path().filename().string());
  }
  const std::filesystem::path& path() const { return folder_.path(); }
  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }

  /// Replaces `from`, which is there, in a text file.
  ChangedFolder& replace(const std::string& file, const std::string& from, const std::string& to) {
    std::string text = read_text(folder_ / file);
    const std::size_t at = text.find(from);
    if (at == std::string::npos) throw std::runtime_error("no '" + from + "' in " + file);
    write_text(folder_ / file, text.replace(at, from.size(), to));
    return *this;
  }
  ChangedFolder& config(const std::string& from, const std::string& to) { return replace("config.json", from, to); }

  /// Writes a file of weights again, with changes.
  ChangedFolder& weights(const std::function<void(StoredTensors&)>& change, const std::string& file = "model.safetensors") {
    StoredTensors tensors;
    {
      const dpmp::interop::SafetensorsFile from(folder_ / file);
      for (const auto& entry : from.entries()) {
        StoredTensor& t = tensors[entry.name];
        t.dtype = *entry.dtype.native();
        t.shape = dpmp::Shape(entry.shape);
        t.bytes = from.read(entry.name, t.dtype, t.shape);
      }
    }
    change(tensors);
    std::vector<dpmp::interop::TensorView> views;
    for (const auto& [name, t] : tensors) views.push_back({name, t.dtype, t.shape, t.bytes.data()});
    dpmp::interop::write_safetensors(folder_ / file, views, {{"format", "pt"}});
    return *this;
  }
  /// Renames every tensor.
  ChangedFolder& rename(const std::function<std::string(const std::string&)>& name) {
    return weights([&](StoredTensors& tensors) {
      StoredTensors renamed;
      for (auto& [before, t] : tensors) renamed[name(before)] = std::move(t);
      tensors = std::move(renamed);
    });
  }

 private:
  TemporaryFolder folder_;
};

/// All master values.
inline std::vector<std::vector<double>> all_values(const dpmp::nn::Parameters& parameters) {
  std::vector<std::vector<double>> values;
  for (const dpmp::Parameter* p : parameters.all()) values.push_back(p->master().to_doubles());
  return values;
}
}  // namespace test

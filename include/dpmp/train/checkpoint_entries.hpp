// SPDX-License-Identifier: Apache-2.0
// What a checkpoint is made of: tensors by name, and numbers in hexadecimal in the metadata of a safetensors file.
#pragma once
#include <charconv>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "dpmp/dp/plan.hpp"
#include "dpmp/interop/safetensors.hpp"
#include "dpmp/nn/parameters.hpp"
#include "dpmp/optim/optimiser.hpp"

namespace dpmp::inline DPMP_ABI::train {
namespace detail {
using Metadata = std::map<std::string, std::string>;

inline std::string hex(std::uint64_t value) {
  char text[17] = {};
  std::to_chars(text, text + 16, value, 16);
  return text;
}
inline std::uint64_t from_hex(const Metadata& metadata, const std::string& name) {
  const auto at = metadata.find(name);
  DPMP_CHECK(at != metadata.end(), "expected the checkpoint entry '", name, "', got none");
  std::uint64_t value = 0;
  const char* end = at->second.data() + at->second.size();
  const auto parsed = std::from_chars(at->second.data(), end, value, 16);
  DPMP_CHECK(parsed.ec == std::errc() && parsed.ptr == end, "expected a hexadecimal number in '", name, "', got '",
             at->second, "'");
  return value;
}
inline index_t count_of(const Metadata& metadata, const std::string& name) {
  const std::uint64_t value = from_hex(metadata, name);
  DPMP_CHECK(value < std::uint64_t(dp::max_steps), "expected '", name, "' in [0, 2^40), got ", value);
  return index_t(value);
}
struct NamedTensor {
  std::string name;
  Tensor tensor;
};
using NamedTensors = std::vector<NamedTensor>;
inline NamedTensors weights_of(std::span<Parameter* const> parameters) {
  NamedTensors tensors;
  for (const Parameter* p : parameters) tensors.push_back({p->name(), p->master()});
  return tensors;
}
/// Moments belong to a count of updates: without one they are zeros, and not stored.
inline void append_moments(NamedTensors& tensors, const Parameter& p, const optim::ParameterState& state) {
  if (state.updates == 0) return;
  if (state.first.defined()) tensors.push_back({"optimiser/" + p.name() + ".first_moment", state.first});
  if (state.second.defined()) tensors.push_back({"optimiser/" + p.name() + ".second_moment", state.second});
}
/// A file that only its owner may read (mode 0600, whatever the umask), unless it is said to have no secret.
inline void write_tensors(const std::filesystem::path& path, const NamedTensors& tensors, const Metadata& metadata,
                          FileAccess access = FileAccess::owner_only,
                          interop::Checksum checksum = interop::Checksum::of_all) {
  std::vector<interop::TensorView> views;
  std::vector<std::vector<char>> copies;  // of tensors on a GPU
  for (const auto& [name, tensor] : tensors) {
    const void* data = tensor.raw();
    if (tensor.device() != Device::cpu()) {
      copies.emplace_back(std::size_t(tensor.bytes()));
      tensor.copy_to_host(copies.back().data());
      data = copies.back().data();
    }
    views.push_back({name, tensor.dtype(), tensor.shape(), data});
  }
  interop::write_safetensors(path, views, metadata, access, checksum);
}
/// Throws unless the file has each of these tensors in its dtype and shape.
inline void check_tensors(const interop::SafetensorsFile& file, const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors) {
    const interop::TensorEntry& entry = file.entry(name);
    DPMP_CHECK(entry.shape == tensor.shape() && entry.dtype == tensor.dtype(), "expected '", name, "' as ", tensor.dtype(),
               tensor.shape(), ", got ", entry.dtype, entry.shape);
  }
}
inline void read_tensors(interop::SafetensorsFile& file, NamedTensors tensors) {
  for (auto& [name, tensor] : tensors) {
    const bool on_host = tensor.device() == Device::cpu();
    std::vector<char> copy(on_host ? 0 : std::size_t(tensor.bytes()));
    file.read(name, tensor.dtype(), tensor.shape(), on_host ? tensor.raw() : copy.data());
    if (!on_host) tensor.copy_from_host(copy.data());
  }
}
/// What the file has of these tensors, all of it before any of them is changed: a file may end early although its header was
/// whole.
inline std::vector<std::vector<char>> read_bytes(interop::SafetensorsFile& file, const NamedTensors& tensors) {
  std::vector<std::vector<char>> bytes;
  for (const auto& [name, tensor] : tensors) {
    bytes.emplace_back(std::size_t(tensor.bytes()));
    file.read(name, tensor.dtype(), tensor.shape(), bytes.back().data());
  }
  return bytes;
}
inline void put_weights(std::span<Parameter* const> parameters, const std::vector<std::vector<char>>& bytes, Context& ctx) {
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    if (bytes[k].empty()) continue;
    parameters[k]->master().copy_from_host(bytes[k].data());
    parameters[k]->refresh(ctx);
  }
}
inline void read_weights(interop::SafetensorsFile& file, std::span<Parameter* const> parameters, Context& ctx) {
  put_weights(parameters, read_bytes(file, weights_of(parameters)), ctx);
}
inline constexpr const char* plan_prefix = "plan ";
inline void put_plan(Metadata& metadata, const dp::Plan& plan) {
  for (const auto& [name, value] : plan.text()) metadata[plan_prefix + name] = value;
}
inline dp::PlanText stored_plan(const Metadata& metadata) {
  dp::PlanText text;
  for (auto at = metadata.lower_bound(plan_prefix); at != metadata.end() && at->first.starts_with(plan_prefix); ++at)
    text[at->first.substr(std::string_view(plan_prefix).size())] = at->second;
  return text;
}
inline NamedTensors averages_of(const nn::Parameters& parameters, const std::vector<Tensor>& averages) {
  NamedTensors tensors;
  for (std::size_t k = 0; k < averages.size(); ++k)
    tensors.push_back({"average/" + parameters.all()[k]->name(), averages[k]});
  return tensors;
}
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI::train

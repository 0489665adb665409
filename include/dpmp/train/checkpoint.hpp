// SPDX-License-Identifier: Apache-2.0
// Checkpoints: everything a private run needs to go on bit for bit, in one safetensors file.
//
// The file holds the root key of the run's noise. Whoever has it can subtract the noise: keep a checkpoint as secret as the
// data, publish weights with save_weights(). Resuming twice from one checkpoint repeats the same noise. With other data, or
// with any other setting that changes what is summed (learning rate, dropout, dtype, model), the difference of two such
// continuations has no noise in it: a run that resumes with anything changed must take another run nonce (dp/streams.hpp).
#pragma once
#include <bit>
#include <charconv>
#include <filesystem>

#include "dpmp/interop/safetensors.hpp"
#include "dpmp/train/plain_trainer.hpp"
#include "dpmp/train/private_trainer.hpp"

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
inline std::vector<interop::TensorView> weights_of(const nn::Parameters& parameters) {
  std::vector<interop::TensorView> views;
  for (const Parameter* p : parameters.all())
    views.push_back({p->name(), p->master().dtype(), p->shape(), p->master().raw()});
  return views;
}
/// Throws unless the file has each of these tensors in its dtype and shape.
inline void check_tensors(const interop::SafetensorsFile& file, std::span<const interop::TensorView> views) {
  for (const interop::TensorView& v : views) {
    const interop::TensorEntry& entry = file.entry(v.name);
    DPMP_CHECK(entry.shape == v.shape && entry.dtype == v.dtype, "expected '", v.name, "' as ", v.dtype, v.shape, ", got ",
               entry.dtype, entry.shape);
  }
}
inline void read_weights(interop::SafetensorsFile& file, const nn::Parameters& parameters) {
  for (Parameter* p : parameters.all()) file.read(p->name(), p->master().dtype(), p->shape(), p->master().raw());
  for (Parameter* p : parameters.all()) p->refresh(parameters.ctx());
}
inline void append_state(std::vector<interop::TensorView>& views, const optim::Optimiser& optimiser) {
  for (const auto& entry : optimiser.state())
    views.push_back({"optimiser/" + entry.name, entry.tensor.dtype(), entry.tensor.shape(), entry.tensor.raw()});
}
inline void read_state(interop::SafetensorsFile& file, optim::Optimiser& optimiser) {
  for (const auto& entry : optimiser.state())
    file.read("optimiser/" + entry.name, entry.tensor.dtype(), entry.tensor.shape(), entry.tensor.raw());
}
// Doubles as their bits: a plan read back is equal, not nearly equal.
inline void put_plan(Metadata& metadata, const dp::Plan& plan) {
  const dp::PlanNumbers numbers = plan.numbers();
  dp::for_each_number(numbers, [&](const char* name, auto value) {
    metadata[std::string("plan ") + name] = hex(std::bit_cast<std::uint64_t>(value));
  });
}
inline dp::PlanNumbers plan_numbers(const Metadata& metadata) {
  dp::PlanNumbers numbers;
  dp::for_each_number(numbers, [&](const char* name, auto& value) {
    value = std::bit_cast<std::remove_reference_t<decltype(value)>>(from_hex(metadata, std::string("plan ") + name));
  });
  return numbers;
}
}  // namespace detail

/// The FP32 master weights by parameter name, atomically. Throws where the file cannot be written; nothing is half-written.
inline void save_weights(const std::filesystem::path& path, const nn::Parameters& parameters,
                         const detail::Metadata& metadata = {}) {
  interop::write_safetensors(path, detail::weights_of(parameters), metadata);
}
/// Throws unless the file has every parameter with its shape; the model is then unchanged or complete.
inline void load_weights(const std::filesystem::path& path, const nn::Parameters& parameters) {
  interop::SafetensorsFile file(path);
  detail::check_tensors(file, detail::weights_of(parameters));
  detail::read_weights(file, parameters);
}

/// Weights, optimiser state, steps, plan and root key of a private run. Contains a secret: see the top of this file.
inline void save_checkpoint(const std::filesystem::path& path, const nn::Parameters& parameters,
                            const PrivateTrainer& trainer) {
  detail::Metadata metadata{{"format", "dpmp private run 1"},
                            {"steps", detail::hex(std::uint64_t(trainer.steps()))},
                            {"optimiser steps", detail::hex(std::uint64_t(trainer.optimiser().steps()))},
                            {"run nonce", detail::hex(trainer.keys().run_nonce())}};
  const Key256& root = trainer.keys().root();
  for (std::size_t k = 0; k < root.words.size(); ++k) metadata["key " + std::to_string(k)] = detail::hex(root.words[k]);
  detail::put_plan(metadata, trainer.plan());
  std::vector<interop::TensorView> views = detail::weights_of(parameters);
  detail::append_state(views, trainer.optimiser());
  interop::write_safetensors(path, views, metadata);
}

/// What must be known of a checkpoint before its trainer can be made.
struct CheckpointHeader {
  dp::Plan plan;
  dp::StreamKeys keys;
};
/// Throws when the file is no checkpoint of a private run.
inline CheckpointHeader read_checkpoint_header(const std::filesystem::path& path) {
  const interop::SafetensorsFile file(path);
  const auto format = file.metadata().find("format");
  DPMP_CHECK(format != file.metadata().end() && format->second == "dpmp private run 1",
             "expected a checkpoint of a private run in '", path.string(), "', got ",
             format == file.metadata().end() ? "a file without a format" : format->second);
  Key256 root;
  for (std::size_t k = 0; k < root.words.size(); ++k)
    root.words[k] = std::uint32_t(detail::from_hex(file.metadata(), "key " + std::to_string(k)));
  return {dp::Plan::from_numbers(detail::plan_numbers(file.metadata())),
          dp::StreamKeys(root, detail::from_hex(file.metadata(), "run nonce"))};
}
/// Restores a trainer made from read_checkpoint_header()'s plan and keys and the same model and rule. Throws when the plan
/// of the trainer is another one, naming the numbers that differ, and when the file does not fit the model or the rule;
/// model and trainer are then unchanged.
inline void load_checkpoint(const std::filesystem::path& path, const nn::Parameters& parameters, PrivateTrainer& trainer) {
  const CheckpointHeader header = read_checkpoint_header(path);
  DPMP_CHECK(header.plan == trainer.plan(), "expected the plan of the checkpoint, got another one:\n",
             dp::difference(header.plan.numbers(), trainer.plan().numbers()));
  interop::SafetensorsFile file(path);
  const index_t steps = detail::count_of(file.metadata(), "steps"),
                updates = detail::count_of(file.metadata(), "optimiser steps");
  std::vector<interop::TensorView> views = detail::weights_of(parameters);
  detail::append_state(views, trainer.optimiser());
  detail::check_tensors(file, views);
  detail::read_weights(file, parameters);
  detail::read_state(file, trainer.optimiser());
  trainer.optimiser().set_steps(updates);
  trainer.resume_at(steps);
}
}  // namespace dpmp::inline DPMP_ABI::train

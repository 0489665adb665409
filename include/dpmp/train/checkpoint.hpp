// SPDX-License-Identifier: Apache-2.0
// Checkpoints: everything a private run needs to go on bit for bit, in one safetensors file: weights, which of them are
// trained, the optimiser's state of each, steps, plan, keys, what the statement has to say, and an average of the weights.
//
// The file holds the root key of the run's noise. Whoever has it can subtract the noise: keep a checkpoint as secret as the
// data, publish weights with save_weights().
//
// What is resumed draws other records and other noise, unless nothing is changed: then it is the very run, bit for bit. With
// the same noise and anything else changed that decides what is summed (data, learning rate, dropout, dtype, library,
// threads), the difference of two continuations would have no noise in it. So a checkpoint stores a fingerprint of all that
// the trainer can see and of what it is told of the rest (TrainerOptions::data_fingerprint), and load_checkpoint compares.
#pragma once
#include <algorithm>
#include <bit>
#include <filesystem>

#include "dpmp/nn/lora.hpp"
#include "dpmp/optim/weight_average.hpp"
#include "dpmp/train/checkpoint_entries.hpp"
#include "dpmp/train/trainer.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// The FP32 master weights by parameter name, atomically. Throws where the file cannot be written; nothing is half-written.
void save_weights(const std::filesystem::path& path, const nn::Parameters& parameters,
                  const detail::Metadata& metadata = {});
/// Throws unless the file has every parameter with its shape, in any dtype of numbers: F32, F64, F16, BF16, 8-bit floats and
/// integers become FP32 exactly or rounded once. Other tensors of the file are left alone. The model is then unchanged or
/// complete.
void load_weights(const std::filesystem::path& path, const nn::Parameters& parameters);
/// The base of a model with adapters: every parameter that is no LoRA factor, from a file of save_weights() of a model with
/// or without adapters. Throws unless the file has each of them with its shape; adapters keep their values.
void load_base_weights(const std::filesystem::path& path, const nn::Parameters& parameters);

/// All of a private run. Contains a secret: see the top of this file. average: the run's, where it has one. Throws unless
/// the parameters are the trainer's and the average's, and while the average is swapped with the weights.
void save_checkpoint(const std::filesystem::path& path, const nn::Parameters& parameters, const Trainer& trainer,
                     const optim::WeightAverage* average = nullptr);

namespace detail {
inline constexpr const char* checkpoint_format = "dpmp private run 5";
/// The one before: without a checksum and without the entries that plans have since then, which are optional.
inline constexpr const char* checkpoint_format_before = "dpmp private run 4";

/// Throws when the file is no checkpoint of a private run, one of another version, or damaged anywhere.
inline interop::SafetensorsFile open_checkpoint(const std::filesystem::path& path) {
  interop::SafetensorsFile file(path);
  const auto entry = file.metadata().find("format");
  const std::string format = entry == file.metadata().end() ? "a file without a format" : entry->second;
  DPMP_CHECK(format.starts_with("dpmp private run "), "expected a checkpoint of a private run in '", path.string(),
             "', got ", format);
  DPMP_CHECK(format == checkpoint_format || format == checkpoint_format_before, "expected a checkpoint of the format '",
             checkpoint_format, "' in '", path.string(), "', got '", format,
             "': finish that run with the version of dpmp that wrote it");
  if (format == checkpoint_format || file.has_checksum()) file.check_checksum();
  return file;
}
inline dp::StreamKeys stored_keys(const Metadata& metadata) {
  SecretKey root;
  for (std::size_t k = 0; k < root.words.size(); ++k)
    root.words[k] = std::uint32_t(from_hex(metadata, "key " + std::to_string(k)));
  return dp::StreamKeys::repeat(root, from_hex(metadata, "run nonce"));
}
inline dp::StatementNotes stored_notes(const Metadata& metadata) {
  dp::StatementNotes notes;
  if (metadata.contains("other noise since")) notes.other_noise_since = count_of(metadata, "other noise since");
  notes.counts_left_out = from_hex(metadata, "counts left out") != 0;
  return notes;
}
inline const std::string& stored_text(const Metadata& metadata, const std::string& name) {
  const auto at = metadata.find(name);
  DPMP_CHECK(at != metadata.end(), "expected the checkpoint entry '", name, "', got none");
  return at->second;
}
/// What is stored of a parameter in addition to its tensors.
struct StoredParameter {
  bool trained = true;
  index_t updates = 0;
};
inline StoredParameter stored_parameter(const Metadata& metadata, const std::string& name) {
  const std::uint64_t trained = from_hex(metadata, "trained " + name);
  DPMP_CHECK(trained <= 1, "expected 'trained ", name, "' to be 0 or 1, got ", trained);
  return {trained == 1, count_of(metadata, "updates " + name)};
}
inline void check_parameters(const nn::Parameters& parameters, const Trainer& trainer) {
  DPMP_CHECK(std::ranges::equal(parameters.all(), trainer.parameters()),
             "expected the parameters that the trainer was made for, got others");
}
inline void check_average(const nn::Parameters& parameters, const optim::WeightAverage& average) {
  DPMP_CHECK(std::ranges::equal(parameters.all(), average.parameters()),
             "expected the parameters that the weight average was made for, got others");
  DPMP_CHECK(!average.is_swapped(), "expected weights as they are trained, got those of the weight average: swap it back");
}
/// Steps of the average that a file has; throws unless it is one of this decay, and where one side has none.
inline index_t stored_average_steps(const Metadata& metadata, const optim::WeightAverage* average) {
  const bool stored = metadata.contains("average steps");
  DPMP_CHECK(stored == (average != nullptr), "expected a weight average in both of checkpoint and run, or in none, got ",
             stored ? "it in the checkpoint alone" : "it in the run alone");
  if (!average) return 0;
  const double decay = std::bit_cast<double>(from_hex(metadata, "average decay"));
  DPMP_CHECK(decay == average->decay(), "expected a weight average of decay ", decay, ", got one of ", average->decay());
  return count_of(metadata, "average steps");
}
/// The clip threshold of the next step; 0 unless the plan is adaptive.
inline double stored_threshold(const Metadata& metadata, const dp::Plan& plan) {
  if (!plan.options().adaptive) return 0;
  dp::AdaptiveThreshold checked = plan.adaptive_threshold();
  checked.restore(std::bit_cast<double>(from_hex(metadata, "clip threshold")));
  return checked.threshold();
}
/// The loss scale of the next step; nothing unless the plan counts overflows.
inline std::optional<dp::OverflowState> stored_overflow(const Metadata& metadata, const dp::Plan& plan) {
  if (!plan.options().overflow) return std::nullopt;
  dp::OverflowScale checked = plan.overflow_scale();
  const index_t exponent = std::min(count_of(metadata, "loss scale exponent"), index_t(1000));  // out of range anyway
  checked.restore({.exponent = int(exponent) + dp::smallest_loss_exponent,
                   .good_steps = count_of(metadata, "good steps"),
                   .bad_steps = count_of(metadata, "bad steps"),
                   .alarms = count_of(metadata, "overflow alarms")});
  return checked.state();
}
}  // namespace detail

/// What must be known of a checkpoint before its trainer can be made.
struct CheckpointHeader {
  dp::Plan plan;
  dp::StreamKeys keys;  // of its root: they start runs of their own
};
/// How a checkpoint was taken up.
struct Resumed {
  bool same_run = false;  // bit for bit: the checkpoint's draws and noise
  std::string changed;    // else: the lines of the trainer's fingerprint that are new; empty where one side has none
};
/// custom: the clip rule of a plan with one of the user's own, which the file knows by its name only. Throws when the file
/// is no checkpoint of a private run.
CheckpointHeader read_checkpoint_header(const std::filesystem::path& path, const std::optional<dp::ClipRule>& custom = {});
/// Restores a trainer made from read_checkpoint_header()'s plan and keys and the same model and optimiser; what is trained
/// afterwards is what was trained when the file was saved. Where the fingerprints of file and trainer are equal it becomes
/// the run of the file, else it goes on with draws and noise of its own; its ledger then does not know what that run
/// released after the checkpoint (Trainer::privacy_statement says so). average: gets the one of the file.
/// Throws when the trainer has taken a step, and, naming what differs, when its plan, a parameter's name, shape, dtype,
/// clipping group, weight decay or factor of the learning rate, or the optimiser and its settings are others than those of
/// the file, or where one of file and run has a weight average and the other none, or of another decay; also when the file
/// is damaged: a single changed bit is found by its checksum. Model and trainer are then unchanged.
Resumed load_checkpoint(const std::filesystem::path& path, const nn::Parameters& parameters, Trainer& trainer,
                        optim::WeightAverage* average = nullptr);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline void save_weights(const std::filesystem::path& path, const nn::Parameters& parameters,
                                        const detail::Metadata& metadata) {
  detail::write_tensors(path, detail::weights_of(parameters.all()), metadata, FileAccess::by_umask, interop::Checksum::none);
}

DPMP_KEPT_BODY inline void load_weights(const std::filesystem::path& path, const nn::Parameters& parameters) {
  interop::SafetensorsFile file(path);
  detail::read_weights(file, parameters.all(), parameters.ctx());
}

DPMP_KEPT_BODY inline void load_base_weights(const std::filesystem::path& path, const nn::Parameters& parameters) {
  interop::SafetensorsFile file(path);
  std::vector<Parameter*> base;
  for (Parameter* p : parameters.all())
    if (!nn::is_lora(*p)) base.push_back(p);
  detail::read_weights(file, base, parameters.ctx());
}

DPMP_KEPT_BODY inline void save_checkpoint(const std::filesystem::path& path, const nn::Parameters& parameters,
                                           const Trainer& trainer, const optim::WeightAverage* average) {
  detail::check_parameters(parameters, trainer);
  if (average) detail::check_average(parameters, *average);
  detail::Metadata metadata{{"format", detail::checkpoint_format},
                            {"steps", detail::hex(std::uint64_t(trainer.steps()))},
                            {"run nonce", detail::hex(trainer.keys().run_nonce())}};
  const Key256& root = trainer.keys().root();
  for (std::size_t k = 0; k < root.words.size(); ++k) metadata["key " + std::to_string(k)] = detail::hex(root.words[k]);
  if (trainer.plan().options().adaptive)
    metadata["clip threshold"] = detail::hex(std::bit_cast<std::uint64_t>(trainer.clip_threshold()));
  if (const auto scale = trainer.overflow_scale()) {
    const dp::OverflowState state = scale->state();
    metadata["loss scale exponent"] = detail::hex(std::uint64_t(state.exponent - dp::smallest_loss_exponent));
    metadata["good steps"] = detail::hex(std::uint64_t(state.good_steps));
    metadata["bad steps"] = detail::hex(std::uint64_t(state.bad_steps));
    metadata["overflow alarms"] = detail::hex(std::uint64_t(state.alarms));
  }
  metadata["description"] = trainer.description();
  metadata["fingerprint"] = trainer.fingerprint();
  const dp::StatementNotes& notes = trainer.notes();
  if (notes.other_noise_since) metadata["other noise since"] = detail::hex(std::uint64_t(*notes.other_noise_since));
  metadata["counts left out"] = detail::hex(notes.counts_left_out);
  metadata["frozen history"] = detail::hex(trainer.frozen_history());
  detail::put_plan(metadata, trainer.plan());
  detail::NamedTensors tensors = detail::weights_of(parameters.all());
  for (const Parameter* p : parameters.all()) {
    const optim::ParameterState& state = trainer.optimiser_state().of(*p);
    metadata["trained " + p->name()] = detail::hex(p->trainable());
    metadata["updates " + p->name()] = detail::hex(std::uint64_t(state.updates));
    if (state.noise_share != 0)
      metadata["noise share " + p->name()] = detail::hex(std::bit_cast<std::uint64_t>(state.noise_share));
    detail::append_moments(tensors, *p, state);
  }
  if (average) {
    metadata["average steps"] = detail::hex(std::uint64_t(average->steps()));
    metadata["average decay"] = detail::hex(std::bit_cast<std::uint64_t>(average->decay()));
    for (const auto& tensor : detail::averages_of(parameters, average->averages())) tensors.push_back(tensor);
  }
  detail::write_tensors(path, tensors, metadata);
}

DPMP_KEPT_BODY inline CheckpointHeader read_checkpoint_header(const std::filesystem::path& path,
                                                              const std::optional<dp::ClipRule>& custom) {
  const interop::SafetensorsFile file = detail::open_checkpoint(path);
  return {dp::Plan::from_text(detail::stored_plan(file.metadata()), custom),
          dp::StreamKeys(detail::stored_keys(file.metadata()).root())};
}

DPMP_KEPT_BODY inline Resumed load_checkpoint(const std::filesystem::path& path, const nn::Parameters& parameters,
                                              Trainer& trainer, optim::WeightAverage* average) {
  DPMP_CHECK(trainer.steps() == 0, "expected a trainer that has taken no step, got one at step ", trainer.steps(),
             ": a ledger never goes back");
  detail::check_parameters(parameters, trainer);
  if (average) detail::check_average(parameters, *average);
  interop::SafetensorsFile file = detail::open_checkpoint(path);
  const detail::Metadata& metadata = file.metadata();
  const dp::PlanText stored = detail::stored_plan(metadata), plan = trainer.plan().text();
  DPMP_CHECK(stored == plan, "expected the plan of the checkpoint, got another one:\n", dp::difference(stored, plan));
  const std::string difference =
      difference_of_descriptions(detail::stored_text(metadata, "description"), trainer.description());
  DPMP_CHECK(difference.empty(), "expected the model and the optimiser of the checkpoint, got others:", difference);

  // Everything is read before anything changes.
  const index_t steps = detail::count_of(metadata, "steps");
  DPMP_CHECK(steps <= trainer.plan().steps(), "expected 'steps' to be at most the plan's ", trainer.plan().steps(), ", got ",
             steps);
  const dp::StreamKeys keys = detail::stored_keys(metadata);
  DPMP_CHECK(
      trainer.plan().options().sampling.kind != dp::SamplingKind::cyclic_poisson ||
          Key256(keys.root()) == Key256(trainer.keys().root()),
      "expected the root key of the checkpoint for cyclic_poisson, which makes the groups of records, got another one");
  const dp::RunState released(detail::stored_threshold(metadata, trainer.plan()),
                              detail::stored_overflow(metadata, trainer.plan()));
  const dp::StatementNotes notes = detail::stored_notes(metadata);
  const std::uint64_t frozen = detail::from_hex(metadata, "frozen history");
  const std::string &then = detail::stored_text(metadata, "fingerprint"), now = trainer.fingerprint();
  Context& ctx = parameters.ctx();
  std::vector<detail::StoredParameter> of_parameters;
  std::vector<optim::ParameterState> states;
  const detail::NamedTensors weights = detail::weights_of(parameters.all());
  detail::NamedTensors moments;
  for (const Parameter* p : parameters.all()) {
    of_parameters.push_back(detail::stored_parameter(metadata, p->name()));
    optim::ParameterState& state = states.emplace_back();
    state.updates = of_parameters.back().updates;
    if (state.updates == 0) continue;
    if (metadata.contains("noise share " + p->name()))
      state.noise_share = std::bit_cast<double>(detail::from_hex(metadata, "noise share " + p->name()));
    const int kept = trainer.optimiser_state().moments();
    const DType dtype = trainer.optimiser_state().moment_dtype(*p);
    if (kept >= 1) state.first = Tensor::empty(ctx, p->shape(), dtype);
    if (kept == 2) state.second = Tensor::empty(ctx, p->shape(), dtype);
    detail::append_moments(moments, *p, state);
  }
  const index_t averaged = detail::stored_average_steps(metadata, average);
  std::vector<Tensor> averages;
  if (average)
    for (const Tensor& t : average->averages()) averages.push_back(Tensor::empty(ctx, t.shape(), t.dtype()));
  for (const auto& tensor : detail::averages_of(parameters, averages)) moments.push_back(tensor);
  detail::check_tensors(file, weights);
  detail::check_tensors(file, moments);
  DPMP_CHECK(file.entries().size() == weights.size() + moments.size(), "expected '", path.string(), "' to have the ",
             weights.size() + moments.size(), " tensors of this model and its optimiser and no others, got ",
             file.entries().size());
  const std::vector<std::vector<char>> bytes = detail::read_bytes(file, weights);
  detail::read_tensors(file, moments);

  // A file without a checksum is of another state of the library.
  const bool same_run = !now.empty() && then == now && metadata.at("format") == detail::checkpoint_format;
  if (same_run)
    trainer.repeat_from(steps, released, keys, notes, frozen);
  else
    trainer.resume_at(steps, released, notes);
  trainer.optimiser_state().restore(states);
  if (average) average->restore(averaged, averages);
  detail::put_weights(parameters.all(), bytes, ctx);
  for (std::size_t k = 0; k < of_parameters.size(); ++k) parameters.all()[k]->set_trainable(of_parameters[k].trained);
  return {same_run, then.empty() || now.empty() ? std::string() : changed_lines(then, now)};
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif

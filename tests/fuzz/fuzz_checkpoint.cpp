// SPDX-License-Identifier: Apache-2.0
// Checkpoints of private runs. An input is a file of save_checkpoint() whose length in front and whose checksum are made to
// fit: "C", the header, an ASCII record separator and the tensors' bytes. With "D" in place of "C" the checksum is left as
// it is, and the file is refused where it is another one than that of what was saved.
//
// A file is loaded or refused with dpmp::Error. Refused, the model, what is trained, the optimiser's state and the trainer
// are as they were; loaded, a file that is saved from them says the same, and the run goes on.
#include <cstring>

#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/nn/linear.hpp"
#include "dpmp/train/checkpoint.hpp"
#include "fuzz/fuzz.hpp"
#include "support/checksum.hpp"

namespace {
using namespace dpmp;

struct Run {
  explicit Run(double weight)
      : parameters(ctx, DType::f32, 1),
        layer(parameters / "a", 2, 3),
        trainer(ctx, parameters,
                dp::Plan::with_noise_multiplier(
                    {.delta = 1e-5, .sampling_rate = 0.5, .steps = 4, .clip_threshold = 1, .dataset_size = 8}, 1),
                dp::StreamKeys::repeat(key(), 7), 8,
                {.physical_batch = 4, .optimiser = optim::AdamW{}, .data_fingerprint = 1}) {
    for (Parameter* p : parameters.all()) {
      p->master().copy_from(Tensor::full(ctx, p->shape(), DType::f32, weight));
      p->refresh(ctx);
    }
  }
  static Key256 key() {
    Key256 k;
    for (std::size_t j = 0; j < k.words.size(); ++j) k.words[j] = std::uint32_t(j + 1);
    return k;
  }
  void step() {
    trainer.step([&](const train::Batch& batch) {
      const Tensor x = Tensor::full(ctx, {batch.size(), 2}, DType::f32, 1),
                   y = Tensor::zeros(ctx, {batch.size(), 3}, DType::f32);
      return mean_squared_error(layer(batch.tape.input(x)), y);
    });
  }
  /// All that a load may change.
  std::string state() const {
    std::string text =
        std::to_string(trainer.steps()) + " " + std::to_string(trainer.frozen_history()) + " " + trainer.privacy_statement();
    const auto append = [&](const Tensor& t) {
      text += t.defined() ? std::string(static_cast<const char*>(t.raw()), std::size_t(t.bytes())) : "none";
    };
    for (const Parameter* p : parameters.all()) {
      const optim::ParameterState& s = trainer.optimiser_state().of(*p);
      text += std::to_string(p->trainable()) + std::to_string(s.updates);
      append(p->master());
      append(p->value());
      append(s.first);
      append(s.second);
    }
    return text;
  }

  Context ctx{Device::cpu(), 1};
  nn::Parameters parameters;
  nn::Linear layer;
  train::Trainer trainer;
};

std::string image(const std::string& input) {
  const bool keep = !input.empty() && input[0] == 'D';
  const std::string rest = keep || (!input.empty() && input[0] == 'C') ? input.substr(1) : input;
  const std::size_t end = rest.find('\x1e');
  const std::string header = rest.substr(0, end), data = end == std::string::npos ? "" : rest.substr(end + 1);
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return keep ? bytes + header + data : test::sealed(bytes + header + data);
}
std::string input_of(const std::string& file) {
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  return "C" + file.substr(8, length) + '\x1e' + file.substr(8 + length);
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
  const std::filesystem::path path = fuzz::file_of(image(std::string(reinterpret_cast<const char*>(input), size)));
  try {
    train::read_checkpoint_header(path);
  } catch (const Error&) {
  }
  Run run(0.25);
  const std::string before = run.state();
  try {
    train::load_checkpoint(path, run.parameters, run.trainer);
  } catch (const Error& e) {
    fuzz::hold(run.state() == before, "nothing changes where a file is refused");
    fuzz::hold(std::strlen(e.what()) < 20000, "a message of some length");
    return 0;
  }
  ++fuzz::accepted;
  const std::filesystem::path again = path.string() + "_again";
  train::save_checkpoint(again, run.parameters, run.trainer);
  Run second(0.5);
  const bool same_run = train::load_checkpoint(again, second.parameters, second.trainer).same_run;
  fuzz::hold(!same_run || second.state() == run.state(), "the same state after saving and loading");
  bool any_trained = false;
  for (const Parameter* p : run.parameters.all()) any_trained = any_trained || p->trainable();
  if (!any_trained || run.trainer.steps() >= run.trainer.plan().steps()) return 0;
  run.step();
  return 0;
}

std::vector<std::string> fuzz::seeds() {
  std::vector<std::string> all;
  fuzz::most_bytes = 1 << 24;  // a model, its gradients and work space
  const auto save = [&](Run& run) {
    const std::filesystem::path path = file_of("");
    std::filesystem::remove(path);
    train::save_checkpoint(path, run.parameters, run.trainer);
    all.push_back(input_of(test::read_text(path)));
  };
  Run run(0.25);
  save(run);
  run.step();
  save(run);
  run.parameters.find("a.bias").set_trainable(false);
  run.step();
  save(run);
  return all;
}
std::vector<std::string> fuzz::words() {
  return {"\"steps\":\"",
          "\"trained a.bias\":\"",
          "\"updates a.weight\":\"",
          "\"frozen history\":\"",
          "\"key 0\":\"",
          "\"run nonce\":\"",
          "\"clip threshold\":\"",
          "\"plan ",
          "dpmp private run 5",
          "dpmp private run 4",
          "\"checksum\":\"",
          "\"counts left out\":\"1\",",
          "\"other noise since\":\"1\",",
          "optimiser/a.weight.first_moment",
          "optimiser/a.bias.second_moment",
          "\"description\":\"",
          "\"fingerprint\":\"",
          "0",
          "1",
          "ffffffffffffffff",
          "10000000000",
          "nan",
          "inf",
          "-1",
          "1e308",
          "\"",
          ",",
          "{",
          "}",
          ":",
          "\\n",
          "\n",
          " ",
          "\x1e",
          std::string(4, '\0'),
          std::string("\0\0\x80\x7f", 4),
          std::string("\0\0\xc0\x7f", 4)};
}

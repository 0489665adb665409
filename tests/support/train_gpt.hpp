// SPDX-License-Identifier: Apache-2.0
// examples/train_gpt on a small text: running it, resuming it, and what it leaves behind.
#pragma once
#include <doctest/doctest.h>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "dpmp/core/siphash.hpp"
#include "support/process.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

namespace test::train_gpt {
using Words = std::vector<std::string>;

/// Whether examples/train_gpt holds a line out.
inline bool is_held_out(const std::string& line) {
  return dpmp::siphash24(0, 0, std::as_bytes(std::span(line.data(), line.size()))) % 20 == 0;
}

/// 60 short lines of the same few words, 3 of them held out, in a folder with room for the results.
class Workplace {
 public:
  Workplace() {
    test::Rng rng;
    const Words words{"und", "das", "Licht", "sch\xc3\xb6n", "and", "the", "light"};
    std::string text;
    for (int learnt = 0, held_out = 0; learnt + held_out < 60;) {
      std::string line;
      for (std::int64_t k = rng.integer(1, 6); k > 0; --k)
        line += words[std::size_t(rng.integer(0, std::int64_t(words.size()) - 1))] + ' ';
      line += "end";
      int& side = is_held_out(line) ? held_out : learnt;
      if (side == (is_held_out(line) ? 3 : 57)) continue;
      ++side;
      text += line + '\n';
    }
    test::write_text(data(), text);
  }
  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }
  std::filesystem::path data() const { return folder_ / "text"; }
  /// train_gpt on the text with a tiny model. Later options win over earlier ones by leaving those out.
  Words command(const std::string& output, const Words& options) const {
    std::map<std::string, std::string> defaults{{"--data", data().string()},
                                                {"--output", (folder_ / output).string()},
                                                {"--steps", "6"},
                                                {"--batch", "8"},
                                                {"--physical-batch", "4"},
                                                {"--width", "16"},
                                                {"--layers", "1"},
                                                {"--heads", "2"},
                                                {"--context", "16"},
                                                {"--evaluate-every", "1"},
                                                {"--threads", "1"},
                                                {"--dtype", "f32"},
                                                {"--lines", "1"}};
    Words all{DPMP_TRAIN_GPT};
    for (const std::string& option : options) defaults.erase(option.substr(0, option.find('=')));
    for (const auto& [name, value] : defaults) all.push_back(name + "=" + value);
    all.insert(all.end(), options.begin(), options.end());
    return all;
  }

 private:
  test::TemporaryFolder folder_;
};

struct Result {
  int code;
  std::string out, error;
};
inline bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
inline int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}
inline Result run(const Workplace& place, const std::string& output, const Words& options) {
  const test::TemporaryFolder said;
  test::Process program(place.command(output, options), said.path());
  const int code = program.wait();
  return {code, program.out(), program.error()};
}
inline std::string weights(const Workplace& place, const std::string& output) {
  return test::read_text(place / output / "weights.safetensors");
}
inline Result resume(const Workplace& place, const std::string& checkpoint, const std::string& output, Words options) {
  options.push_back("--resume=" + (place / checkpoint).string());
  const Result r = run(place, output, options);
  CHECK_MESSAGE(r.code == 0, r.error);
  return r;
}
/// A run that was stopped after so many steps; its checkpoint as the file `name`.
inline void checkpoint_after(const Workplace& place, const std::string& name, int steps, Words options) {
  options.push_back("--stop-after=" + std::to_string(steps));
  const Result r = run(place, "from", options);
  REQUIRE_MESSAGE(r.code == 0, r.error);
  std::filesystem::copy_file(place / "from" / "checkpoint.safetensors", place / name);
}
inline std::set<std::string> files(const std::filesystem::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}
}  // namespace test::train_gpt

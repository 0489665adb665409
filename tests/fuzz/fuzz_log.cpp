// SPDX-License-Identifier: Apache-2.0
// Logs of runs, CSV or JSON lines: what is accepted has ascending steps, makes a page and an event
// file, and written by Log it is read as the same numbers.
#include <cmath>
#include <cstring>

#include "dpmp/train/log_report.hpp"
#include "dpmp/train/read_log.hpp"
#include "dpmp/train/tensorboard.hpp"
#include "fuzz/fuzz.hpp"

namespace {
using namespace dpmp;
using train::Progress;

bool same(const std::optional<double>& x, const std::optional<double>& y) {
  return x.has_value() == y.has_value() && (!x || *x == *y || (std::isnan(*x) && std::isnan(*y)));
}
bool same(const Progress& x, const Progress& y) {
  bool equal = x.step == y.step && x.more.size() == y.more.size() && same(x.epsilon, y.epsilon) && same(x.delta, y.delta) &&
               same(x.noise_multiplier, y.noise_multiplier) && same(x.learning_rate, y.learning_rate) &&
               same(x.held_out_loss, y.held_out_loss);
  for (std::size_t k = 0; equal && k < x.more.size(); ++k)
    equal = x.more[k].first == y.more[k].first && same(x.more[k].second, y.more[k].second);
  return equal;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
  const std::filesystem::path path = fuzz::file_of(std::string(reinterpret_cast<const char*>(input), size));
  std::vector<Progress> lines;
  try {
    lines = train::read_log(path.string());
  } catch (const Error& e) {
    fuzz::hold(std::strlen(e.what()) < 2000, "a short message");
    return 0;
  }
  for (std::size_t k = 0; k < lines.size(); ++k)
    fuzz::hold(lines[k].step >= 0 && (k == 0 || lines[k].step > lines[k - 1].step), "ascending steps");
  if (size % 8 == 0)  // a page takes as long as ten inputs
    fuzz::hold(train::log_report_html(lines).ends_with("</html>\n"), "a page");
  fuzz::hold(train::tensorboard_events(lines).size() >= 16, "an event file");
  if (lines.empty()) return 0;
  train::LogOptions options;
  for (const auto& [name, value] : lines[0].more) options.more.push_back(name);
  for (const char* ending : {".csv", ".jsonl"}) {
    const std::string again = path.string() + ending;
    std::filesystem::remove(again);
    try {
      train::Log log(again, options);
      for (const Progress& line : lines) log.write(line);
    } catch (const Error&) {
      continue;  // names that a log cannot have, or others than those of its first line
    }
    fuzz::accepted += std::strcmp(ending, ".csv") == 0;  // a log with lines
    const std::vector<Progress> second = train::read_log(again);
    fuzz::hold(second.size() == lines.size(), "as many lines after writing");
    for (std::size_t k = 0; k < lines.size(); ++k) fuzz::hold(same(second[k], lines[k]), "the same numbers after writing");
  }
  return 0;
}

std::vector<std::string> fuzz::seeds() {
  return {
      "step,epsilon,delta,noise_multiplier,learning_rate,held_out_loss\n1,0.5,1e-05,1.1,0.001,\n2,0.625,1e-05,1.1,0.001,"
      "inf\n",
      "step,epsilon,delta,noise_multiplier,learning_rate,held_out_loss,bits/byte\n1,,,,0.25,2.5,3\n7,,,,0.25,nan,-0\n",
      "{\"step\":1,\"epsilon\":0.5,\"delta\":1e-05,\"noise_multiplier\":null,\"learning_rate\":0.001,\"held_out_loss\":"
      "\"inf\"}\n",
      "{\"step\":3,\"epsilon\":null,\"delta\":null,\"noise_multiplier\":null,\"learning_rate\":1,\"held_out_loss\":2,\"a\":"
      "3}\n"
      "{\"step\":2,\"epsilon\":null,\"delta\":null,\"noise_multiplier\":null,\"learning_rate\":1,\"held_out_loss\":2,\"a\":"
      "3}\n",
      ""};
}
std::vector<std::string> fuzz::words() {
  return {"step,",
          "\n",
          ",",
          "{",
          "}",
          "\"step\":",
          "\"epsilon\":",
          "null",
          "nan",
          "inf",
          "-inf",
          "\"",
          ":",
          "1e308",
          "5e-324",
          "0.1",
          "-",
          "9223372036854775807",
          ",,",
          ",\"x\":1",
          "held_out_loss"};
}

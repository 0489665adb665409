// SPDX-License-Identifier: Apache-2.0
// Plans as they are stored: lines "name=value". What is accepted is a plan with the very text that was read, that keeps its
// target, and whose numbers can be used.
#include <cmath>
#include <cstring>

#include "dpmp/dp/plan.hpp"
#include "fuzz/fuzz.hpp"

namespace {
using namespace dpmp;
using dp::Plan;

dp::PlanText text_of(const std::string& lines) {
  dp::PlanText text;
  for (std::size_t at = 0; at < lines.size();) {
    const std::size_t end = std::min(lines.find('\n', at), lines.size());
    const std::string line = lines.substr(at, end - at);
    const std::size_t middle = line.find('=');
    if (middle != std::string::npos) text[line.substr(0, middle)] = line.substr(middle + 1);
    at = end + 1;
  }
  return text;
}
std::string lines_of(const dp::PlanText& text) {
  std::string lines;
  for (const auto& [name, value] : text) lines += name + '=' + value + '\n';
  return lines;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
  const dp::PlanText text = text_of(std::string(reinterpret_cast<const char*>(input), size));
  std::optional<Plan> read;
  try {
    read.emplace(Plan::from_text(text));
  } catch (const Error& e) {
    fuzz::hold(std::strlen(e.what()) < 2000 + 3 * size, "a message of some length");
    return 0;
  }
  ++fuzz::accepted;
  const Plan& plan = *read;
  fuzz::hold(plan.text() == text, "the text that was read");
  const dp::StepPlan first = plan.first_step();
  fuzz::hold(first.noise_standard_deviation > 0, "noise");
  fuzz::hold(plan.facts().batch_bound >= 1 && plan.facts().batch_bound <= dp::max_batch_bound, "a batch bound");
  const double bound = plan.facts().sensitivity, threshold = plan.facts().clip_threshold;
  fuzz::hold(std::isfinite(bound) && bound >= threshold && threshold > 0, "a sensitivity of at least the threshold");
  const double target = plan.options().epsilon, spent = plan.epsilon();
  fuzz::hold(spent >= 0 && (target == 0 || spent <= target), "the target is kept");
  fuzz::hold(!plan.describe().empty(), "a description");
  return 0;
}

std::vector<std::string> fuzz::seeds() {
  // By Renyi divergences: privacy-loss distributions have arrays of their own, whatever the text's length, and take longer.
  const dp::PlanOptions flat{.delta = 1e-5,
                             .sampling_rate = 0.02,
                             .steps = 300,
                             .clip_threshold = 1.5,
                             .dataset_size = 20000,
                             .accountant = dp::Accountant::rdp};
  dp::PlanOptions groups = flat, adaptive = flat, schedules = flat, target = flat;
  groups.clip_threshold = adaptive.clip_threshold = 1;
  groups.group_thresholds = {0.5, 0.25, 2};
  groups.clip_rule = dp::ClipRule::normalise();
  adaptive.adaptive = dp::AdaptiveOptions{.count_noise = 20};
  schedules.noise_schedule = schedules.clip_schedule = dp::Schedule::piecewise({{0, 1.0}, {10, 1.25}});
  target.epsilon = 3;
  target.clip_rule = dp::ClipRule::automatic();
  return {lines_of(Plan::with_noise_multiplier(flat, 0.9).text()), lines_of(Plan::with_noise_multiplier(groups, 0.9).text()),
          lines_of(Plan::with_noise_multiplier(adaptive, 1.5).text()),
          lines_of(Plan::with_noise_multiplier(schedules, 0.9).text()), lines_of(Plan::calibrate(target).text())};
}
std::vector<std::string> fuzz::words() {
  return {"relation=zero_out\n",
          "relation=replace_one\n",
          "steps=1\n",
          "steps=1099511627775\n",
          "dataset size=1\n",
          "dataset size=9007199254740991\n",
          "group threshold count=9223372036854775807\n",
          "group threshold 3=0x3ff0000000000000\n",
          "adaptive=yes\n",
          "adaptive=no\n",
          "clip schedule count=2\n",
          "noise schedule 1 step=20\n",
          "clip rule=global\n",
          "clip rule=custom: x\n",
          "0x3ff0000000000000",
          "0x7ff0000000000000",
          "0x7ff8000000000000",
          "0x0000000000000001",
          "0x8000000000000000",
          "0x4330000000000000",
          "0x0010000000000000",
          "0x3fe0000000000000",
          "0x7fefffffffffffff",
          "0x3f50624dd2f1a9fc",
          "=",
          "\n",
          "0x",
          "-1",
          "f",
          "e",
          "3",
          "4",
          "delta",
          " count",
          " 0",
          "noise multiplier",
          "sampling rate"};
}

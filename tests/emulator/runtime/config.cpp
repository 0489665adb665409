// SPDX-License-Identifier: Apache-2.0
#include "config.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <thread>

#include "text.hpp"

namespace emu {
namespace {

// Every variable that is read somewhere: one of another name is a slip that would silently test something else.
const char* const known[] = {"ORDER",    "CPASYNC",    "POISON",         "RACE",        "COUNT",     "COUNT_FILE",
                             "DEVICE",   "SMS",        "MEM_MB",         "THREADS",     "PREBUILD",  "JOBS",
                             "CACHE",    "LAX",        "STRICT",         "TIMES",       "VERBOSE",   "CXX",
                             "CXXFLAGS", "TRANSLATOR", "DEVICE_HEADERS", "ABI_HEADERS", "EPILOGUES", "ALGORITHMS",
                             "DEVICES"};

/// Reads one variable after another and collects what is wrong with them.
class Reader {
 public:
  Reader(const Settings& settings, std::vector<std::string>& errors) : settings_(settings), errors_(errors) {}

  std::string text(const char* name) const {
    const auto it = settings_.find(std::string("EMU_") + name);
    return it == settings_.end() ? "" : it->second;
  }

  /// On unless empty or 0.
  bool flag(const char* name) const {
    const std::string value = text(name);
    return !value.empty() && value != "0";
  }

  std::uint64_t number(const char* name, std::uint64_t least, std::uint64_t unset) {
    const std::string value = text(name);
    if (value.empty()) return unset;
    std::uint64_t n = 0;
    if (parse(value, n) && n >= least) return n;
    refuse(name, "a number from " + std::to_string(least));
    return unset;
  }

  /// Index of the value in the list, 0 when it is not set.
  std::size_t choice(const char* name, const std::vector<std::string>& values) {
    const std::string value = text(name);
    if (value.empty()) return 0;
    const auto it = std::find(values.begin(), values.end(), value);
    if (it != values.end()) return std::size_t(it - values.begin());
    std::string list;
    for (const std::string& v : values) list += (list.empty() ? "" : ", ") + v;
    refuse(name, list);
    return 0;
  }

  void order(Config& c) {
    const std::string value = text("ORDER"), seeded = "priority:";
    if (value.rfind(seeded, 0) != 0) {
      c.order = Order(choice("ORDER", {"forward", "reverse", "priority"}));
    } else if (parse(value.substr(seeded.size()), c.seed)) {
      c.order = Order::priority;
      c.seed++;  // seed 0 must differ from "no seed" no less than any other seed does
    } else {
      refuse("ORDER", "forward, reverse, priority or priority:SEED");
    }
  }

 private:
  static bool parse(const std::string& value, std::uint64_t& out) {
    if (value.empty() || value.size() > 18 || value.find_first_not_of("0123456789") != std::string::npos) return false;
    out = std::strtoull(value.c_str(), nullptr, 10);
    return true;
  }
  void refuse(const char* name, const std::string& expected) {
    errors_.push_back(std::string("EMU_") + name + "=" + text(name) + ": expected " + expected);
  }

  const Settings& settings_;
  std::vector<std::string>& errors_;
};

void check_names(const Settings& settings, std::vector<std::string>& errors) {
  for (const auto& entry : settings) {
    if (entry.first.rfind("EMU_", 0) != 0) continue;
    const std::string name = entry.first.substr(4);
    if (std::find(std::begin(known), std::end(known), name) == std::end(known)) {
      errors.push_back(entry.first + ": there is no such setting");
    }
  }
}

Settings environment_settings() {
  Settings all;
  for (char** entry = environ; *entry; entry++) {
    const std::string text = *entry;
    const std::size_t equals = text.find('=');
    if (equals != std::string::npos) all[text.substr(0, equals)] = text.substr(equals + 1);
  }
  return all;
}

Config config_of_process() {
  std::vector<std::string> errors;
  const Config c = read_config(environment_settings(), errors);
  for (const std::string& e : errors) say("EMU ERROR: %s\n", e.c_str());
  if (!errors.empty()) std::_Exit(2);  // what was asked for cannot be tested
  return c;
}

/// Before main: a wrong setting is found even by a program that never gets to the device.
[[gnu::constructor]] void check_environment() { config(); }

}  // namespace

Config read_config(const Settings& settings, std::vector<std::string>& errors) {
  Config c;
  Reader r(settings, errors);
  check_names(settings, errors);
  const std::uint64_t cores = std::max(1u, std::thread::hardware_concurrency());
  r.order(c);
  c.async_lands_late = r.choice("CPASYNC", {"wait", "issue"}) == 0;
  c.race = RaceMode(r.choice("RACE", {"0", "1", "2"}));
  c.bias_only = r.choice("EPILOGUES", {"all", "bias"}) == 1;
  c.algorithms = Algorithms(r.choice("ALGORITHMS", {"one", "mixed", "bad"}));
  c.prebuild = Prebuild(r.choice("PREBUILD", {"used", "all", "none"}));
  c.device = std::vector<std::string>{"sm_80", "sm_90", "sm_100"}[r.choice("DEVICE", {"sm_80", "sm_90", "sm_100"})];
  c.poison = r.flag("POISON");
  c.count = r.flag("COUNT");
  c.lax = r.flag("LAX");
  c.strict = r.flag("STRICT");
  c.verbose = r.flag("VERBOSE");
  c.times = r.flag("TIMES");
  c.threads = int(r.number("THREADS", 0, 1));
  if (c.threads == 0) c.threads = int(cores);
  c.devices = int(r.number("DEVICES", 1, 2));
  c.multiprocessors = int(r.number("SMS", 1, 4));
  c.device_bytes = r.number("MEM_MB", 1, 16384) << 20;
  c.jobs = int(r.number("JOBS", 1, cores));
  return c;
}

const Config& config() {
  static const Config c = config_of_process();
  return c;
}

}  // namespace emu

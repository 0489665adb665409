// SPDX-License-Identifier: Apache-2.0
// Environment variables: their values, and that a wrong one is named.
#include <doctest/doctest.h>

#include <thread>

#include "config.hpp"

using emu::Config;
using emu::read_config;
using emu::Settings;

namespace {

Config good(const Settings& settings) {
  std::vector<std::string> errors;
  const Config c = read_config(settings, errors);
  CHECK(errors.empty());
  return c;
}
std::string wrong(const Settings& settings) {
  std::vector<std::string> errors;
  read_config(settings, errors);
  REQUIRE(errors.size() == 1);
  return errors[0];
}

}  // namespace

TEST_CASE("what is not set has its default") {
  const Config c = good({{"PATH", "/bin"}, {"EMU_ORDER", ""}});
  CHECK(c.order == emu::Order::forward);
  CHECK(c.async_lands_late);
  CHECK(c.race == emu::RaceMode::off);
  CHECK(c.prebuild == emu::Prebuild::used);
  CHECK(c.device == "sm_80");
  CHECK(c.threads == 1);
  CHECK(c.multiprocessors == 4);
  CHECK(c.devices == 2);
  CHECK(c.device_bytes == 16ull << 30);
  CHECK_FALSE((c.poison || c.count || c.lax || c.strict || c.verbose || c.times));
}

TEST_CASE("every value has its meaning") {
  CHECK(good({{"EMU_ORDER", "reverse"}}).order == emu::Order::reverse);
  CHECK(good({{"EMU_ORDER", "priority"}}).order == emu::Order::priority);
  const Config seeded = good({{"EMU_ORDER", "priority:12"}});
  CHECK(seeded.order == emu::Order::priority);
  CHECK(seeded.seed == 13);
  CHECK_FALSE(good({{"EMU_CPASYNC", "issue"}}).async_lands_late);
  CHECK(good({{"EMU_RACE", "1"}}).race == emu::RaceMode::usual);
  CHECK(good({{"EMU_RACE", "2"}}).race == emu::RaceMode::strict);
  CHECK(good({{"EMU_PREBUILD", "none"}}).prebuild == emu::Prebuild::none);
  CHECK(good({{"EMU_PREBUILD", "all"}}).prebuild == emu::Prebuild::all);
  CHECK(good({{"EMU_DEVICE", "sm_90"}}).device == "sm_90");
  CHECK(good({{"EMU_POISON", "1"}}).poison);
  CHECK_FALSE(good({{"EMU_POISON", "0"}}).poison);
  CHECK(good({{"EMU_COUNT", "1"}, {"EMU_COUNT_FILE", "x.csv"}}).count);
  CHECK(good({{"EMU_THREADS", "3"}}).threads == 3);
  CHECK(good({{"EMU_THREADS", "0"}}).threads == int(std::max(1u, std::thread::hardware_concurrency())));
  CHECK(good({{"EMU_MEM_MB", "10"}}).device_bytes == 10ull << 20);
  CHECK(good({{"EMU_SMS", "108"}}).multiprocessors == 108);
  CHECK(good({{"EMU_JOBS", "5"}}).jobs == 5);
  CHECK(good({{"EMU_DEVICES", "3"}}).devices == 3);
  CHECK(good({{"EMU_EPILOGUES", "bias"}}).bias_only);
  CHECK_FALSE(good({{"EMU_EPILOGUES", "all"}}).bias_only);
  CHECK(good({{"EMU_ALGORITHMS", "mixed"}}).algorithms == emu::Algorithms::mixed);
}

TEST_CASE("a wrong value is refused with its variable and what was expected") {
  CHECK(wrong({{"EMU_ORDER", "backward"}}) == "EMU_ORDER=backward: expected forward, reverse, priority");
  CHECK(wrong({{"EMU_ORDER", "priority:x"}}) ==
        "EMU_ORDER=priority:x: expected forward, reverse, priority or priority:SEED");
  CHECK(wrong({{"EMU_ORDER", "priority:"}}) == "EMU_ORDER=priority:: expected forward, reverse, priority or priority:SEED");
  CHECK(wrong({{"EMU_CPASYNC", "late"}}) == "EMU_CPASYNC=late: expected wait, issue");
  CHECK(wrong({{"EMU_RACE", "yes"}}) == "EMU_RACE=yes: expected 0, 1, 2");
  CHECK(wrong({{"EMU_DEVICE", "sm_70"}}) == "EMU_DEVICE=sm_70: expected sm_80, sm_90, sm_100");
  CHECK(wrong({{"EMU_THREADS", "-1"}}) == "EMU_THREADS=-1: expected a number from 0");
  CHECK(wrong({{"EMU_EPILOGUES", "none"}}) == "EMU_EPILOGUES=none: expected all, bias");
  CHECK(wrong({{"EMU_SMS", "0"}}) == "EMU_SMS=0: expected a number from 1");
  CHECK(wrong({{"EMU_MEM_MB", "1e3"}}) == "EMU_MEM_MB=1e3: expected a number from 1");
  CHECK(wrong({{"EMU_DEVICES", "0"}}) == "EMU_DEVICES=0: expected a number from 1");
  CHECK(wrong({{"EMU_JOBS", "9999999999999999999999"}}) == "EMU_JOBS=9999999999999999999999: expected a number from 1");
  CHECK(wrong({{"EMU_ODER", "reverse"}}) == "EMU_ODER: there is no such setting");
}

TEST_CASE("all wrong settings are named at once") {
  std::vector<std::string> errors;
  read_config({{"EMU_ORDER", "x"}, {"EMU_RACE", "x"}, {"EMU_TYPO", "x"}}, errors);
  CHECK(errors.size() == 3);
}

// SPDX-License-Identifier: Apache-2.0
// What the environment variables ask for. Read once, before main.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace emu {

enum class Order {
  forward,   // lowest thread first, until it waits
  reverse,   // highest thread first
  priority,  // one random warp runs ahead of the others, blocks in a random order
};

enum class RaceMode {
  off = 0,
  usual = 1,   // shuffles and votes order memory among their lanes, as on every GPU built so far
  strict = 2,  // only what the PTX ISA promises: bar.warp.sync does, shuffles and votes do not
};

/// What cuBLASLt's heuristic offers. An algorithm is bad where a result depends on its place in the product.
enum class Algorithms {
  one,    // a good one
  mixed,  // a split of k, where the preference allows it, another bad one, then a good one
  bad,    // bad ones only
};

enum class Prebuild { used, all, none };

struct Config {
  Order order = Order::forward;
  std::uint64_t seed = 1;
  bool poison = false;           // fresh memory is filled with 0xFF: NaN in every float format
  bool async_lands_late = true;  // bytes of cp.async land at the wait (latest legal moment), else at issue
  RaceMode race = RaceMode::off;
  bool count = false;
  bool lax = false;        // exited lanes in a member mask are ignored
  bool strict = false;     // warps that meet at different bar.sync instructions are an error
  bool verbose = false;    // print build commands
  bool times = false;      // print seconds per kernel at exit
  bool bias_only = false;  // cuBLASLt has no algorithm for epilogues other than the bias
  Algorithms algorithms = Algorithms::one;
  int threads = 1;  // OS threads that run blocks; with more, atomic sums of floats differ from run to run
  int jobs = 2;     // kernels built at once
  Prebuild prebuild = Prebuild::used;
  std::uint64_t device_bytes = 16ull << 30;
  std::string device = "sm_80";  // that is pretended
  int devices = 2;               // equal ones; memory of one is out of the other's reach
  int multiprocessors = 4;       // few, so that grids sized by the device stay small
};

using Settings = std::map<std::string, std::string>;
/// Settings of these variables. What is wrong with them goes into `errors`, each with the name of its variable.
Config read_config(const Settings& settings, std::vector<std::string>& errors);
/// Settings of the process. A wrong one ends the process with status 2 before main.
const Config& config();

}  // namespace emu

// SPDX-License-Identifier: Apache-2.0
// How many threads this process may keep busy: what its user, the system and its container allow.
#pragma once
#include <string>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
/// What a context that is told no number of threads takes: OMP_NUM_THREADS, or the first number of its list, where it is at
/// least 1; otherwise the cores that the process may run on (its affinity, as taskset and containers set it), and no more
/// than the CPU time that its cgroups allow (versions 1 and 2, at every level), rounded up. At least 1.
int default_threads();

namespace detail {
/// The first number of OMP_NUM_THREADS; 0 where the text (null: not set) is no list of numbers from 1 on.
int threads_asked_for(const char* text);
/// CPUs that the quotas of this process' cgroups come to; 0: there is no quota. root: what stands before /proc and /sys.
double cgroup_cpus(const std::string& root = "");
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#if defined(__linux__)
#include <sched.h>
#endif
#include <unistd.h>

namespace dpmp::inline DPMP_ABI {
namespace detail {
DPMP_KEPT_BODY inline int threads_asked_for(const char* text) {
  if (!text) return 0;
  const char* const end = text + std::char_traits<char>::length(text);
  const auto skip_spaces = [&] {
    while (text != end && (*text == ' ' || *text == '\t')) ++text;
  };
  int first = 0;
  for (bool more = true; more; more = text != end) {
    if (first != 0 && *text++ != ',') return 0;
    skip_spaces();
    int number = 0;
    const auto [after, code] = std::from_chars(text, end, number);
    if (code != std::errc() || number < 1) return 0;
    if (first == 0) first = number;
    text = after;
    skip_spaces();
  }
  return first;
}

/// The numbers at the start of a file's first line, up to two; what is missing or no number is -1.
struct QuotaLine {
  double numbers[2] = {-1, -1};
  explicit QuotaLine(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    const char *at = line.data(), *const end = at + line.size();
    for (double& number : numbers) {
      long long value = 0;
      const auto [after, code] = std::from_chars(at, end, value);
      if (code != std::errc()) return;
      number = double(value);
      at = after == end ? end : after + 1;
    }
  }
};

DPMP_KEPT_BODY inline double cgroup_cpus(const std::string& root) {
  double fewest = 0;
  const auto note = [&](double quota, double period) {
    if (quota > 0 && period > 0 && (fewest == 0 || quota / period < fewest)) fewest = quota / period;
  };
  // A container may see its own group as the root of the tree while /proc names the host's path: every level is looked at.
  const auto look = [&](const std::string& mount, std::string path) {
    for (;; path.erase(path.rfind('/'))) {
      const std::string group = root + "/sys/fs/cgroup" + mount + path + "/";
      const QuotaLine of_v2(group + "cpu.max");
      note(of_v2.numbers[0], of_v2.numbers[1]);
      note(QuotaLine(group + "cpu.cfs_quota_us").numbers[0], QuotaLine(group + "cpu.cfs_period_us").numbers[0]);
      if (path.find('/') == std::string::npos) return;
    }
  };
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    // number:controllers:path
    const std::size_t first = line.find(':'), second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = ',' + line.substr(first + 1, second - first - 1) + ',';
    std::string path = line.substr(second + 1);
    while (!path.empty() && path.back() == '/') path.pop_back();
    if (controllers == ",,") {
      look("", path);
    } else if (controllers.find(",cpu,") != std::string::npos) {
      look("/cpu", path);
      std::string mount = controllers.substr(0, controllers.size() - 1);
      mount[0] = '/';
      look(mount, path);
    }
  }
  return fewest;
}
}  // namespace detail

DPMP_KEPT_BODY inline int default_threads() {
  if (const int asked = detail::threads_asked_for(std::getenv("OMP_NUM_THREADS"))) return asked;
  int cores = 0;
#if defined(__linux__)
  // A machine may have more cores than a cpu_set_t has bits: then the set has to be larger.
  for (int most = CPU_SETSIZE; cores == 0 && most <= 1 << 20; most *= 2) {
    cpu_set_t* const set = CPU_ALLOC(std::size_t(most));
    if (!set) break;
    const std::size_t bytes = CPU_ALLOC_SIZE(std::size_t(most));
    if (sched_getaffinity(0, bytes, set) == 0) cores = CPU_COUNT_S(bytes, set);
    CPU_FREE(set);
  }
#endif
  if (cores == 0) cores = int(sysconf(_SC_NPROCESSORS_ONLN));
  const double quota = detail::cgroup_cpus();
  if (quota > 0) cores = int(std::min<double>(cores, std::ceil(quota)));
  return std::max(1, cores);
}
}  // namespace dpmp::inline DPMP_ABI
#endif

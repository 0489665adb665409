// SPDX-License-Identifier: Apache-2.0
// What the system does to a team of threads: too few of them, and fork(). Run in child processes, which may hang or die.
#pragma once
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "dpmp/runtime/parallel.hpp"

namespace test {
/// Exit status of a child process that runs f() -> bool: 0 where it is true, 1 where not; -1 where it dies or takes longer
/// than 20 s.
template <class F>
int in_child(F&& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    ::_exit(f() ? 0 : 1);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// Whether asking for more threads than the memory has stacks for is a dpmp::Error, and fewer work afterwards.
inline bool survives_missing_threads() {
  rlimit limit;
  if (::getrlimit(RLIMIT_AS, &limit) != 0) return false;
  const rlimit before = limit;
  limit.rlim_cur = rlim_t(4) << 30;
  if (::setrlimit(RLIMIT_AS, &limit) != 0) return false;
  bool refused = false;
  try {
    dpmp::ThreadTeam team(4000);  // stacks of 8 MB
    team.run([](int) {});
  } catch (const dpmp::Error& e) {
    refused = std::string(e.what()).find("expected 3999 more threads, got ") != std::string::npos;
  }
  if (::setrlimit(RLIMIT_AS, &before) != 0) return false;
  std::atomic<int> runs{0};
  dpmp::ThreadTeam few(3);
  few.run([&](int) { ++runs; });
  return refused && runs == 3;
}

/// Whether a team that has run runs in a child of fork() too, and a new one does.
inline bool survives_fork() {
  dpmp::ThreadTeam team(3);
  std::atomic<int> runs{0};
  team.run([&](int) { ++runs; });
  const int status = in_child([&] {
    runs = 0;
    team.run([&](int t) { runs += 1 << 4 * t; });
    bool good = runs == 0x111;
    dpmp::ThreadTeam fresh(4);
    runs = 0;
    fresh.run([&](int t) { runs += 1 << 4 * t; });
    good = good && runs == 0x1111 && !dpmp::ThreadTeam::inside();
    try {
      team.run([](int) { throw dpmp::Error("thrown"); });
      good = false;
    } catch (const dpmp::Error&) {
    }
    return good;
  });
  team.run([&](int) { ++runs; });
  return status == 0 && runs == 6;
}
}  // namespace test

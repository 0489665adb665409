// SPDX-License-Identifier: Apache-2.0
// The team without OpenMP, in a program that has it: the options are in the name of the namespace, so both kinds link.
#undef DPMP_WITH_OPENMP
#define DPMP_WITH_OPENMP 0
#include <doctest/doctest.h>

#include "runtime/team_failures.hpp"

TEST_CASE("ThreadTeam of std::thread: every logical thread runs once, and an exception reaches the caller") {
  for (const int threads : {1, 2, 5}) {
    dpmp::ThreadTeam team(threads);
    for (int round = 0; round < 50; ++round) {
      std::atomic<int> runs{0};
      team.run([&](int t) { runs += 1 << 4 * t; });
      CHECK(runs == 0x11111 % (1 << 4 * threads));
    }
    CHECK_THROWS_AS(team.run([](int t) {
      if (t == 0) throw dpmp::Error("thrown");
    }),
                    dpmp::Error);
  }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("ThreadTeam of std::thread: threads that the system does not start are an error that can be caught") {
  CHECK(test::in_child([] { return test::survives_missing_threads(); }) == 0);
}
#endif

// ThreadSanitizer starts no threads in a child.
#if !defined(__SANITIZE_THREAD__)
TEST_CASE("ThreadTeam of std::thread: a child made by fork() after the team has run gets its work done") {
  CHECK(test::survives_fork());
}
#endif

// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "runtime/team_failures.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
using Chunks = std::set<std::pair<index_t, index_t>>;

Chunks chunks_of(ThreadTeam& team, index_t n, bool serial = false) {
  Chunks chunks;
  std::mutex guard;
  team.parallel_for(
      n,
      [&](index_t begin, index_t end) {
        const std::lock_guard lock(guard);
        chunks.emplace(begin, end);
      },
      serial);
  return chunks;
}
}  // namespace

TEST_CASE("ThreadTeam: every logical thread runs exactly once, more of them than cores too") {
  for (int threads : {1, 2, 3, 7, 16}) {
    ThreadTeam team(threads);
    CHECK(team.threads() == threads);
    for (int round = 0; round < 50; ++round) {
      std::vector<std::atomic<int>> runs(std::size_t(threads) + 1);
      team.run([&](int t) { ++runs[std::size_t(t)]; });
      for (int t = 0; t < threads; ++t) CHECK(runs[std::size_t(t)] == 1);
    }
  }
  CHECK(ThreadTeam().threads() >= 1);
  CHECK(test::refuses([] { ThreadTeam(-2); }, "expected a number of threads >= 0 (0: all cores), got -2"));
}

TEST_CASE("ThreadTeam: parallel_for splits into chunks that depend on the length and the number of threads only") {
  test::Rng rng(test::seed());
  for (int threads : {1, 2, 3, 5}) {
    ThreadTeam team(threads);
    std::vector<index_t> lengths = {0, 1, 2, 3, 4, 5, 6, index_t(1) << 40};
    for (int k = 0; k < 20; ++k) lengths.push_back(rng.integer(0, 1000));
    for (index_t n : lengths) {
      CAPTURE(n);
      CAPTURE(threads);
      Chunks expected;
      index_t at = 0;
      for (int t = 0; t < threads; ++t) {
        const index_t size = n / threads + (t < n % threads ? 1 : 0);
        if (size > 0) expected.emplace(at, at + size);
        at += size;
      }
      CHECK(at == n);
      CHECK(chunks_of(team, n) == expected);
      CHECK(chunks_of(team, n, true) == expected);
    }
  }
}

TEST_CASE("ThreadTeam: a sum over the chunks has the same bits every time, nested, serial or forked") {
  test::Rng rng(test::seed());
  std::vector<float> x(10007);
  for (float& value : x) value = float(rng.normal());
  for (int threads : {1, 2, 3, 4}) {
    ThreadTeam team(threads);
    auto sum = [&](bool serial) {
      std::vector<float> parts(std::size_t(threads), 0.0f);
      team.parallel_for(
          index_t(x.size()),
          [&](index_t begin, index_t end) {
            float part = 0;
            for (index_t k = begin; k < end; ++k) part += x[std::size_t(k)];
            // Chunks are ordered by their begin: the first n % threads are one longer.
            std::size_t t = 0;
            for (index_t at = 0; at < begin; ++t)
              at += index_t(x.size()) / threads + (index_t(t) < index_t(x.size()) % threads ? 1 : 0);
            parts[t] = part;
          },
          serial);
      float total = 0;
      for (float part : parts) total += part;
      return total;
    };
    const float first = sum(false);
    REQUIRE(std::isfinite(first));
    bool same = sum(true) == first;
    for (int round = 0; round < 30; ++round) same = same && sum(false) == first;
    std::vector<float> nested(std::size_t(threads), 0.0f);
    ThreadTeam outer(threads);
    outer.run([&](int t) { nested[std::size_t(t)] = sum(false); });
    for (float value : nested) same = same && value == first;
    CHECK(same);
  }
}

TEST_CASE("ThreadTeam: inside a team a nested one runs on the calling thread") {
#if defined(DPMP_WITH_OPENMP) && DPMP_WITH_OPENMP
  omp_set_max_active_levels(8);  // it is the team, not OpenMP's default, that keeps nested work on one thread
#endif
  ThreadTeam outer(3), inner(4);
  CHECK_FALSE(ThreadTeam::inside());
  std::atomic<int> calls{0}, elsewhere{0}, outside{0};
  outer.run([&](int) {
    outside += !ThreadTeam::inside();
    const auto here = std::this_thread::get_id();
    inner.run([&](int) {
      ++calls;
      elsewhere += std::this_thread::get_id() != here;
    });
    outer.run([&](int) { ++calls; });
  });
  CHECK(outside == 0);
  CHECK(elsewhere == 0);
  CHECK(calls == 3 * 4 + 3 * 3);
  CHECK_FALSE(ThreadTeam::inside());
}

TEST_CASE("ThreadTeam: an exception reaches the caller after all have finished, and the team goes on working") {
  for (int threads : {2, 3, 4}) {
    ThreadTeam team(threads);
    for (int thrower = 0; thrower < threads; ++thrower) {
      std::atomic<int> finished{0};
      CHECK(test::refuses(
          [&] {
            team.run([&](int t) {
              DPMP_CHECK(t != thrower, "thrown by ", t);
              std::this_thread::sleep_for(std::chrono::milliseconds(1));
              ++finished;
            });
          },
          "thrown by " + std::to_string(thrower)));
      CHECK(finished == threads - 1);
      CHECK_FALSE(ThreadTeam::inside());
    }
    CHECK(test::refuses([&] { team.run([](int t) { throw Error("from " + std::to_string(t)); }); }, "from "));
    std::atomic<int> runs{0};
    team.run([&](int) { ++runs; });
    CHECK(runs == threads);
  }
}

TEST_CASE("ThreadTeam: callers on several threads share one team without losing work") {
  ThreadTeam team(2);
  std::atomic<int> runs{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; ++c)
    callers.emplace_back([&] {
      for (int k = 0; k < 200; ++k) team.run([&](int) { ++runs; });
    });
  for (auto& caller : callers) caller.join();
  CHECK(runs == 3 * 200 * 2);
}

// Sanitizers need more address space than a limit leaves.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("ThreadTeam: threads that the system does not start are an error that can be caught") {
  CHECK(test::in_child([] { return test::survives_missing_threads(); }) == 0);
}
#endif

// ThreadSanitizer starts no threads in a child.
#if !defined(__SANITIZE_THREAD__)
TEST_CASE("ThreadTeam: a child made by fork() after the team has run gets its work done") { CHECK(test::survives_fork()); }
#endif

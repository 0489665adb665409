// SPDX-License-Identifier: Apache-2.0
// Many jobs in few launches: each job is in one launch, in order, and each row of a launch finds its own.
#include <doctest/doctest.h>
#include <vector>

#include "dpmp/runtime/launch_many.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
struct Job {
  index_t number, rows;
  double filling[20];
};
}  // namespace

TEST_CASE("jobs that share launches: all of them, in order, some without rows") {
  test::Rng rng(test::seed());
  constexpr index_t most = LaunchJobs<Job>::most;
  static_assert(sizeof(LaunchJobs<Job>) <= kernel_argument_bytes);
  for (const index_t count : {index_t(0), index_t(1), index_t(2), most, most + 1, 3 * most + 5}) {
    CAPTURE(count);
    std::vector<Job> jobs;
    for (index_t k = 0; k < count; ++k) jobs.push_back({k, std::max<index_t>(0, rng.integer(-3, 6)), {}});
    std::vector<index_t> seen, owners, wanted;
    index_t launches = 0;
    launch_many(
        std::span<const Job>(jobs), [](const Job& job) { return job.rows; },
        [&](const LaunchJobs<Job>& some) {
          ++launches;
          for (index_t k = 0; k < some.count; ++k) seen.push_back(some.jobs[k].number);
          for (index_t row = 0; row < some.rows; ++row) {
            const index_t k = some.of_row(row);
            owners.push_back(1000 * some.jobs[k].number + row - some.first_row[k]);
          }
        });
    CHECK(launches == (count + most - 1) / most);
    REQUIRE(seen.size() == jobs.size());
    for (const Job& job : jobs) {
      CHECK(seen[std::size_t(job.number)] == job.number);
      for (index_t row = 0; row < job.rows; ++row) wanted.push_back(1000 * job.number + row);
    }
    CHECK((owners == wanted));
  }
}

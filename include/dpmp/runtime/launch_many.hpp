// SPDX-License-Identifier: Apache-2.0
// Few launches for many small jobs: a kernel takes as many of them as its arguments hold.
#pragma once
#include <span>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
/// Bytes that the arguments of a kernel may have on any GPU.
inline constexpr std::size_t kernel_argument_bytes = 4096;

/// The jobs of one launch, a member of its kernel: job k has `rows` (or elements) of the launch from first_row[k] on, up to
/// those of the next one.
template <class Job>
struct LaunchJobs {
  /// What is left after 128 bytes for what the jobs have in common.
  static constexpr index_t most = index_t((kernel_argument_bytes - 128) / (sizeof(Job) + sizeof(index_t)));
  Job jobs[std::size_t(most)];
  index_t first_row[std::size_t(most)];
  index_t count, rows;

  /// The job that a row of the launch belongs to.
  DPMP_HD index_t of_row(index_t row) const {
    index_t k = 0, beyond = count;
    while (beyond - k > 1) {
      const index_t middle = (k + beyond) / 2;
      (first_row[middle] <= row ? k : beyond) = middle;
    }
    return k;
  }
};

/// launch(LaunchJobs<Job>) for all jobs in their order, as many at a time as a launch takes. rows_of(job): rows of the
/// launch that it needs, which may be 0.
template <class Job, class RowsOf, class Launch>
void launch_many(std::span<const Job> jobs, const RowsOf& rows_of, const Launch& launch) {
  while (!jobs.empty()) {
    LaunchJobs<Job> some{};
    for (; some.count < some.most && !jobs.empty(); jobs = jobs.subspan(1), ++some.count) {
      some.jobs[some.count] = jobs[0];
      some.first_row[some.count] = some.rows;
      some.rows += rows_of(jobs[0]);
    }
    launch(some);
  }
}
}  // namespace dpmp::inline DPMP_ABI

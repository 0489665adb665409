// SPDX-License-Identifier: Apache-2.0
// What bench_cuda_step measures; its CUDA half is step.cu.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace bench {
/// A GPT and how long it is stepped. The defaults are GPT-2 small with the vocabulary padded to a multiple of 64.
struct StepOptions {
  std::int64_t vocabulary = 50304, width = 768, layers = 12, heads = 12, context = 1024, batch = 32;
  std::string dtype = "bf16";
  int repetitions = 7;
};

/// One way to clip, its private and plain steps interleaved: medians, and the median of the paired ratios. Megabytes are the
/// most that a step takes beside what lies there between steps.
struct StepRow {
  std::string clipping, strategy;
  double plain_ms = 0, private_ms = 0, ratio = 0, plain_mb = 0, private_mb = 0;
};

/// Throws dpmp::Error where the GPU refuses something, its memory included.
std::vector<StepRow> measure_steps(const StepOptions& options);
}  // namespace bench

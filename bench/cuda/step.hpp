// SPDX-License-Identifier: Apache-2.0
// What bench_cuda_step measures; its CUDA half is step.cu.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

namespace bench {
/// A GPT and how long it is stepped. The defaults are GPT-2 small with the vocabulary padded to a multiple of 64.
struct StepOptions {
  std::int64_t vocabulary = 50304, width = 768, layers = 12, heads = 12, context = 1024, batch = 32;
  std::string dtype = "bf16";
  int repetitions = 7;
  bool graphs = false;  // each step as a CUDA graph, too
  std::string only;     // ways whose "CLIPPING, STRATEGY" contains this text
};

/// One way to clip, its private and plain steps interleaved: medians, and the median of the paired ratios. Megabytes are the
/// most that a step takes beside what lies there between steps. With graphs: medians of steps that replay one, 0 without.
struct StepRow {
  std::string clipping, strategy;
  std::int64_t batch = 0;
  double plain_ms = 0, private_ms = 0, ratio = 0, plain_mb = 0, private_mb = 0;
  double plain_graph_ms = 0, private_graph_ms = 0;
};

/// Hands out each row as soon as it is measured. A batch of 0: for each way the first of 32, 16, 8, 4, 2 that the GPU has
/// room for. Throws dpmp::Error where the GPU refuses something, its memory included.
void measure_steps(const StepOptions& options, const std::function<void(const StepRow&)>& take);
}  // namespace bench

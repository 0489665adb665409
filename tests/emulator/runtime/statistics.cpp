// SPDX-License-Identifier: Apache-2.0
#include "statistics.hpp"

namespace emu {

Traffic& Traffic::operator+=(const Traffic& o) {
  requests += o.requests;
  sectors += o.sectors;
  bytes += o.bytes;
  useful += o.useful;
  ideal += o.ideal;
  return *this;
}

Stat& Stat::operator+=(const Stat& o) {
  launches += o.launches;
  graph_launches += o.graph_launches;
  blocks += o.blocks;
  threads += o.threads;
  for (int i = 0; i < EC_N; i++) instructions[i] += o.instructions[i];
  for (int i = 0; i < unit_count; i++) operations[i] += o.operations[i];
  loads += o.loads;
  stores += o.stores;
  atomics += o.atomics;
  unique_read += o.unique_read;
  unique_written += o.unique_written;
  shared_requests += o.shared_requests;
  wavefronts += o.wavefronts;
  ideal_wavefronts += o.ideal_wavefronts;
  seconds += o.seconds;
  return *this;
}

void count_operations(Stat& s) {
  for (int i = 0; i < EC_N; i++) {
    const InstructionClass& c = instruction_classes[i];
    s.operations[c.unit] += c.operations * s.instructions[i];
  }
}

}  // namespace emu

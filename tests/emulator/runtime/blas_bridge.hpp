// SPDX-License-Identifier: Apache-2.0
// What the cuBLAS stand-ins need of the runtime.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

extern "C" {
/// Host address of a range of device memory; null after a report that names `what`.
unsigned char* emu_host_ptr(const void* p, size_t bytes, const char* what);
struct EmuProductCount {
  const char* name;
  int unit;  // emu::Unit
  uint64_t operations, bytes_read, bytes_written;
  double seconds;
};
/// Whether cuBLASLt is to have no algorithm for epilogues other than the bias.
int emu_bias_only();
/// EMU_ALGORITHMS: 0 one, 1 mixed, 2 bad.
int emu_algorithms();
/// Adds a matrix product to the counts, where they are asked for.
void emu_count_product(const EmuProductCount* product);
/// Runs run(argument) in the stream: now, or when the graph that captures it is launched. destroy(argument) comes last.
/// identity: all that tells this piece of work from others but the memory it works on; the function of its graph node.
int emu_submit(cudaStream_t stream, int (*run)(void*), void (*destroy)(void*), void* argument, const char* identity);
}

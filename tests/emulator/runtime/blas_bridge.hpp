// SPDX-License-Identifier: Apache-2.0
// What the cuBLAS stand-ins need of the runtime.
#pragma once
#include <cuda_runtime_api.h>

extern "C" {
/// Host address of a range of device memory; null after a report that names `what`.
unsigned char* emu_host_ptr(const void* p, size_t bytes, const char* what);
/// Runs run(argument) in the stream: now, or when the graph that captures it is launched. destroy(argument) comes last.
int emu_submit(cudaStream_t stream, int (*run)(void*), void (*destroy)(void*), void* argument);
}

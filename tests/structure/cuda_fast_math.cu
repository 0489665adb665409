// SPDX-License-Identifier: Apache-2.0
// A unit that makes a context of a GPU: compiled with and without flags that change arithmetic.
#include "dpmp/runtime/cuda_backend.cuh"

int main() { dpmp::detail::CudaBackend(0).synchronize(); }

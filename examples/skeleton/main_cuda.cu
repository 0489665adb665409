// SPDX-License-Identifier: Apache-2.0
// main.cpp for a GPU: the kernels of layer.hpp have to be compiled by nvcc, everything of dpmp's is in dpmp::compiled_cuda.
#include <dpmp/dpmp.cuh>

#include "main.cpp"

// SPDX-License-Identifier: Apache-2.0
// The GPU's half of what every model needs, for a CUDA unit that includes single headers. A model that attends includes
// autograd/rules/attention.cuh too. Includes only.
#pragma once
#include "dpmp/runtime/cuda_backend.cuh"
#include "dpmp/runtime/cuda_graph.cuh"
#include "dpmp/runtime/launch_cuda.cuh"

#if !defined(DPMP_COMPILED) || defined(DPMP_COMPILING)
#include "dpmp/gemm/cublaslt.cuh"
#include "dpmp/per_sample/outer_product.cuh"
#endif

// SPDX-License-Identifier: Apache-2.0
// Everything, with the GPU's half: what a program includes in its CUDA units. Units for other compilers include
// dpmp/dpmp.hpp; a program that uses both compiles what touches a GPU in at least one CUDA unit, or links
// dpmp::compiled_cuda, which has it. Includes only.
#pragma once
#include "dpmp/dpmp.hpp"
#include "dpmp/runtime/cuda_backend.cuh"
#include "dpmp/runtime/cuda_graph.cuh"
#include "dpmp/runtime/launch_cuda.cuh"

#if !defined(DPMP_COMPILED) || defined(DPMP_COMPILING)
#include "dpmp/autograd/rules/attention.cuh"
#include "dpmp/gemm/cublaslt.cuh"
#include "dpmp/per_sample/outer_product.cuh"
#endif

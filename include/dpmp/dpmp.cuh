// SPDX-License-Identifier: Apache-2.0
// Everything, with the GPU's half: what a program includes in its CUDA units. Units for other compilers include
// dpmp/dpmp.hpp; a program that uses both compiles what touches a GPU in at least one CUDA unit, or links
// dpmp::compiled_cuda, which has it. Includes only.
#pragma once
#include "dpmp/cuda.cuh"
#include "dpmp/dpmp.hpp"

#if !defined(DPMP_COMPILED) || defined(DPMP_COMPILING)
#include "dpmp/autograd/rules/attention.cuh"
#endif

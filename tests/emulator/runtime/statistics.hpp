// SPDX-License-Identifier: Apache-2.0
// What is counted of a piece of device work, and what the counted instructions are worth in arithmetic.
#pragma once
#include <cstdint>

#include "emu_abi.h"

namespace emu {

/// Execution units with a peak of their own. A fused multiply-add is two operations.
enum Unit { tensor_f16, tensor_bf16, tensor_tf32, tensor_i8, fp16, fp32, fp64, special, unit_count };
inline constexpr const char* unit_names[unit_count] = {"tensor_f16", "tensor_bf16", "tensor_tf32", "tensor_i8",
                                                       "fp16",       "fp32",        "fp64",        "special"};

/// Class of instructions: name of its column, unit, operations per thread (0: no arithmetic).
struct InstructionClass {
  const char* name;
  Unit unit;
  std::uint32_t operations;
};

/// Operations of one lane's share of mma.m16n8k<K>: 2*16*8*K of the warp over 32 lanes.
constexpr std::uint32_t mma_operations(std::uint32_t k) { return 2 * 16 * 8 * k / 32; }

inline constexpr InstructionClass instruction_classes[EC_N] = {
    {"ld_global", fp32, 0},
    {"st_global", fp32, 0},
    {"ld_shared", fp32, 0},
    {"st_shared", fp32, 0},
    {"atomic", fp32, 0},
    {"cp_async", fp32, 0},
    {"barrier", fp32, 0},
    {"shuffle", fp32, 0},
    {"fma_f32", fp32, 2},
    {"add_f32", fp32, 1},
    {"mul_f32", fp32, 1},
    {"special_f32", special, 1},
    {"fma_f64", fp64, 2},
    {"op_f64", fp64, 1},
    {"fma_f16", fp16, 2},
    {"fma_f16x2", fp16, 4},
    {"op_f16", fp16, 1},
    {"op_f16x2", fp16, 2},
    {"mma_f16_k8", tensor_f16, mma_operations(8)},
    {"mma_f16_k16", tensor_f16, mma_operations(16)},
    {"mma_bf16_k8", tensor_bf16, mma_operations(8)},
    {"mma_bf16_k16", tensor_bf16, mma_operations(16)},
    {"mma_tf32_k4", tensor_tf32, mma_operations(4)},
    {"mma_tf32_k8", tensor_tf32, mma_operations(8)},
    {"mma_i8_k16", tensor_i8, mma_operations(16)},
    {"mma_i8_k32", tensor_i8, mma_operations(32)},
    {"other", fp32, 0},
};

inline constexpr std::uint32_t sector_bytes = 32;

/// Requests of warps to global memory.
struct Traffic {
  std::uint64_t requests = 0;
  std::uint64_t sectors = 0;  // 32-byte sectors touched, each counted once per request
  std::uint64_t bytes = 0;    // asked for by the lanes together
  std::uint64_t useful = 0;   // of these, distinct within the request
  std::uint64_t ideal = 0;    // sectors that the useful bytes of each request would fill
  Traffic& operator+=(const Traffic& o);
};

/// What a kernel (a matrix product, a copy) did, summed over its launches.
struct Stat {
  std::uint64_t launches = 0, graph_launches = 0;  // all; those that came from cudaGraphLaunch
  std::uint64_t blocks = 0, threads = 0;
  std::uint64_t instructions[EC_N] = {};  // per thread, by class
  std::uint64_t operations[unit_count] = {};
  Traffic loads, stores, atomics;                     // global memory
  std::uint64_t unique_read = 0, unique_written = 0;  // bytes of the sectors that a launch touches at least once
  std::uint64_t shared_requests = 0, wavefronts = 0, ideal_wavefronts = 0;
  double seconds = 0;  // of the emulation
  Stat& operator+=(const Stat& o);
  std::uint64_t conflicts() const { return wavefronts - ideal_wavefronts; }
};

/// Fills in the operations that the instructions are worth.
void count_operations(Stat& s);

}  // namespace emu

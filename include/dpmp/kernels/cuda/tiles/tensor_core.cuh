// SPDX-License-Identifier: Apache-2.0
// The tensor-core instructions of sm_80 and later for bf16 and f16 with FP32 sums, and the copies that feed them.
// Names of registers and fragments as in the PTX ISA, "Matrix fragments for mma.m16n8k16": lane = 4 * group + member.
#pragma once
#include "dpmp/core/low_precision.hpp"

namespace dpmp::inline DPMP_ABI::kernels {
__device__ __forceinline__ unsigned shared_address(const void* p) { return unsigned(__cvta_generic_to_shared(p)); }

/// Copies 16 bytes of global memory to shared memory, both 16-byte aligned, past the L1 cache; zeros where !inside (`from`
/// is then not read, but must be a valid address).
__device__ __forceinline__ void copy_async_16(void* to, const void* from, bool inside = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from), "r"(inside ? 16 : 0)
               : "memory");
}
/// Copies 4 bytes, both ends 4-byte aligned, through the L1 cache; otherwise as above.
__device__ __forceinline__ void copy_async_4(void* to, const void* from, bool inside = true) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(shared_address(to)), "l"(from), "r"(inside ? 4 : 0)
               : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
/// Waits for this thread's copies but those of the last Pending groups. Other threads' copies need a barrier after it.
template <int Pending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(Pending) : "memory");
}

/// Four 8x8 matrices of 16-bit elements; lane 8 k + r gives the address of row r (16 bytes) of matrix k.
__device__ __forceinline__ void load_matrix_x4(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
/// The same, each matrix transposed.
__device__ __forceinline__ void load_matrix_x4_transposed(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

/// d (16 x 8) += a (16 x 16, row-major fragment) b (16 x 8, column-major fragment). T: bf16 or f16.
/// d[0], d[1]: row group, columns 2 member, 2 member + 1; d[2], d[3]: row group + 8.
template <class T>
__device__ __forceinline__ void multiply_16_8_16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  if constexpr (std::is_same_v<T, bf16>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
}  // namespace dpmp::inline DPMP_ABI::kernels

// SPDX-License-Identifier: Apache-2.0
// Compiler facts, function markers and the ABI namespace. Includes nothing of dpmp but the version.
#pragma once
#include <cstddef>
#include <cstdint>

#include "dpmp/version.hpp"

// The non-finite test of a sample (c_i = 0 for NaN and Inf) is part of the privacy guarantee; these flags let the
// compiler assume it never fires and turn `isfinite(x) ? c : 0` into `c`.
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error \
    "dpmp must not be compiled with -ffast-math, -Ofast or -ffinite-math-only: they remove the non-finite test that the privacy guarantee rests on"
#endif

// A program whose translation units disagree about these options must not link: every name of the library lives in an
// inline namespace that spells them. __CUDACC__ is deliberately no part of it: g++ and nvcc units of one program link.
// The number is the layout version: it grows when a type's layout changes.
#if defined(DPMP_WITH_CUDA) && DPMP_WITH_CUDA
#define DPMP_ABI_DEVICE _cuda
#else
#define DPMP_ABI_DEVICE _cpu
#endif
#if defined(DPMP_WITH_OPENMP) && DPMP_WITH_OPENMP
#define DPMP_ABI_THREADS _openmp
#else
#define DPMP_ABI_THREADS _threads
#endif
#if defined(DPMP_WITH_ONEDNN) && DPMP_WITH_ONEDNN
#define DPMP_ABI_GEMM _onednn
#else
#define DPMP_ABI_GEMM _eigen
#endif
#define DPMP_ABI_JOIN_(a, b, c, d) a##b##c##d
#define DPMP_ABI_JOIN(a, b, c, d) DPMP_ABI_JOIN_(a, b, c, d)
#define DPMP_ABI DPMP_ABI_JOIN(v1, DPMP_ABI_DEVICE, DPMP_ABI_THREADS, DPMP_ABI_GEMM)

#if defined(__CUDACC__)
/// Callable on the host and on a CUDA device.
#define DPMP_HD __host__ __device__ __forceinline__
// On its own line before a functor's operator(): the functor is instantiated for host-only and for device-only teams,
// each of them called only where it exists.
#define DPMP_ANY_TEAM _Pragma("nv_exec_check_disable")
// Around the kernels of a file: such a functor meets host-only and device-only teams.
#define DPMP_KERNELS_BEGIN _Pragma("nv_diagnostic push") _Pragma("nv_diag_suppress 20011, 20013, 20014, 20015")
#define DPMP_KERNELS_END _Pragma("nv_diagnostic pop")
#else
#define DPMP_HD inline __attribute__((always_inline))
#define DPMP_ANY_TEAM
#define DPMP_KERNELS_BEGIN
#define DPMP_KERNELS_END
#endif
/// Every lambda inside a kernel carries this. Without it GCC at -O0 leaves the lambda out of line, compiled for the baseline
/// instruction set, and its vector return value travels under another ABI than the caller expects.
#define DPMP_LAMBDA __attribute__((always_inline))
/// Host-only and inlined into each instruction-set copy of a kernel.
#define DPMP_HOST inline __attribute__((always_inline))

namespace dpmp::inline DPMP_ABI {
/// Sizes, strides and element counts are 64-bit everywhere.
using index_t = std::int64_t;
}  // namespace dpmp::inline DPMP_ABI

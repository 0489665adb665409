// SPDX-License-Identifier: Apache-2.0
// Compiler facts, function markers and the ABI namespace. Includes nothing of dpmp but the version.
#pragma once
#include <cstddef>
#include <cstdint>

#include "dpmp/version.hpp"

// The non-finite test of a sample (c_i = 0 for NaN and Inf) is part of the privacy guarantee; these flags let the
// compiler assume it never fires and turn `isfinite(x) ? c : 0` into `c`. So is rounding noised sums to a grid, and what
// two-float sums carry along: associativity turns `(x + shift) - shift` into `x`.
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || defined(__ASSOCIATIVE_MATH__)
#error \
    "dpmp must not be compiled with -ffast-math, -Ofast, -ffinite-math-only or -funsafe-math-optimizations: they remove the non-finite test and the roundings that the privacy guarantee rests on"
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
#define DPMP_ABI_GEMM _panels
#endif
// DPMP_COMPILED: the library's kernels and products are in dpmp::compiled, whose units alone define DPMP_COMPILING.
#if defined(DPMP_COMPILED)
#define DPMP_ABI_KERNELS _compiled
#else
#define DPMP_ABI_KERNELS
#endif
// DPMP_F64: whether there are kernels for models in float64, a reference for tests: a fifth of what is compiled, therefore
// header-only where asked for alone.
#if !defined(DPMP_F64)
#if defined(DPMP_COMPILED)
#define DPMP_F64 1
#else
#define DPMP_F64 0
#endif
#endif
#if DPMP_F64
#define DPMP_ABI_F64 _f64
#else
#define DPMP_ABI_F64
#endif
// DPMP_F16: the same for float16. DPMP_F16=0 spares a header-only program a fifth of its compile time.
#if !defined(DPMP_F16)
#define DPMP_F16 1
#endif
#if DPMP_F16
#define DPMP_ABI_F16
#else
#define DPMP_ABI_F16 _without_f16
#endif
#if defined(DPMP_COMPILING)
/// Emitted for other units wherever it is instantiated.
#define DPMP_KEPT __attribute__((noinline, used))
#else
#define DPMP_KEPT
#endif
#if defined(DPMP_COMPILING) && !defined(__CUDACC__)
/// Emitted for other units by the host's unit.
#define DPMP_KEPT_BODY DPMP_KEPT
#else
#define DPMP_KEPT_BODY
#endif
/// Whether this unit sees what stands below the interfaces: not where dpmp::compiled has it. nvcc does: the launches in
/// there say which kernels it has to compile.
#if !defined(DPMP_BODIES)
#if !defined(DPMP_COMPILED) || defined(DPMP_COMPILING)
#define DPMP_BODIES 1
#else
#define DPMP_BODIES 0
#endif
#endif
#define DPMP_ABI_JOIN_(a, b, c, d, e, f, g) a##b##c##d##e##f##g
#define DPMP_ABI_JOIN(a, b, c, d, e, f, g) DPMP_ABI_JOIN_(a, b, c, d, e, f, g)
#define DPMP_ABI \
  DPMP_ABI_JOIN(v1, DPMP_ABI_DEVICE, DPMP_ABI_THREADS, DPMP_ABI_GEMM, DPMP_ABI_KERNELS, DPMP_ABI_F64, DPMP_ABI_F16)

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
// Before a host loop of at most that many trips, whose arrays then live in registers. nvcc knows no such pragma for the
// host.
#if defined(__CUDACC__)
#define DPMP_UNROLL(trips)
#elif defined(__clang__)
#define DPMP_UNROLL(trips) DPMP_PRAGMA(unroll trips)
#else
#define DPMP_UNROLL(trips) DPMP_PRAGMA(GCC unroll trips)
#endif
#define DPMP_PRAGMA(...) _Pragma(#__VA_ARGS__)

namespace dpmp::inline DPMP_ABI {
/// Sizes, strides and element counts are 64-bit everywhere.
using index_t = std::int64_t;
}  // namespace dpmp::inline DPMP_ABI

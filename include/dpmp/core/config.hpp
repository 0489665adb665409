// SPDX-License-Identifier: Apache-2.0
// Compiler facts, function markers and the ABI namespace. Includes nothing of dpmp but the version.
#pragma once
#include <cstddef>
#include <cstdint>

#include "dpmp/version.hpp"

// The non-finite test of a sample (c_i = 0 for NaN and Inf) is part of the privacy guarantee; -ffinite-math-only lets the
// compiler assume it never fires and turn `isfinite(x) ? c : 0` into `c`. So are rounding noised sums to a grid, what
// two-float sums carry along and correctly rounded quotients: associativity turns `(x + shift) - shift` into `x`. GCC says
// what it was given; what clang does not say is found when a Context is made (runtime/floating_point.hpp).
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || defined(__ASSOCIATIVE_MATH__) || \
    defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error \
    "dpmp must not be compiled with -ffast-math, -Ofast or a part of them (-ffinite-math-only, -funsafe-math-optimizations, -fassociative-math, -freciprocal-math, -fno-signed-zeros): they remove the non-finite test and the roundings that the privacy guarantee rests on"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0 && __FLT_EVAL_METHOD__ != 16
#error \
    "dpmp must not be compiled for a unit that keeps more digits than float has (-mfpmath=387, -m32 without -msse2): error bounds count every rounding"
#endif
static_assert(0.1 != double(0.1f), "dpmp must not be compiled with -fsingle-precision-constant");
#if (defined(__CUDACC__) || (defined(__clang__) && defined(__CUDA__))) && !defined(__NVCC__)
#error \
    "dpmp's CUDA kernels are compiled by nvcc: expected __NVCC__, got another CUDA compiler (clang -x cuda). With clang, compile only .cpp files, and link dpmp::compiled_cuda for a GPU"
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
// The instruction sets that a unit's flags allow, in the steps in which CPUs got them. Header-only it is a part of the
// namespace: an inline function of one unit never stands in for that of another one, which may run where the CPU has less,
// or fuse other products. A program that links dpmp::compiled has one copy of the library's kernels, which choose when they
// run; there only what launches a user's kernels carries the name (DPMP_UNIT_ABI).
#if defined(__AVX512FP16__)
#define DPMP_ABI_UNIT _avx512_fp16
#elif defined(__AVX512BF16__)
#define DPMP_ABI_UNIT _avx512_bf16
#elif defined(__AVX512VBMI__)
#define DPMP_ABI_UNIT _avx512_vbmi
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define DPMP_ABI_UNIT _avx512
#elif defined(__AVX512F__)
#define DPMP_ABI_UNIT _avx512f
#elif defined(__AVX2__) && defined(__FMA__)
#define DPMP_ABI_UNIT _avx2
#elif defined(__AVX2__) || defined(__FMA__)
#define DPMP_ABI_UNIT _avx2_or_fma
#elif defined(__AVX__)
#define DPMP_ABI_UNIT _avx
#elif defined(__SSE4_2__)
#define DPMP_ABI_UNIT _sse4
#elif defined(__SSE3__) && defined(__x86_64__)
#define DPMP_ABI_UNIT _sse3
#elif defined(__ARM_FEATURE_SVE)
#define DPMP_ABI_UNIT _sve
#else
#define DPMP_ABI_UNIT
#endif
#if defined(DPMP_COMPILED)
#define DPMP_ABI_ISA
#else
#define DPMP_ABI_ISA DPMP_ABI_UNIT
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
#define DPMP_ABI_JOIN_(a, b, c, d, e, f, g, h) a##b##c##d##e##f##g##h
#define DPMP_ABI_JOIN(a, b, c, d, e, f, g, h) DPMP_ABI_JOIN_(a, b, c, d, e, f, g, h)
#define DPMP_ABI \
  DPMP_ABI_JOIN(v1, DPMP_ABI_DEVICE, DPMP_ABI_THREADS, DPMP_ABI_GEMM, DPMP_ABI_KERNELS, DPMP_ABI_F64, DPMP_ABI_F16, \
                DPMP_ABI_ISA)
/// An inline namespace for what compiles a user's functor for the instruction sets of its unit.
#define DPMP_UNIT_ABI DPMP_ABI_JOIN(unit, DPMP_ABI_UNIT, , , , , , )

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

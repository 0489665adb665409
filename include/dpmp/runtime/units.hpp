// SPDX-License-Identifier: Apache-2.0
// Which instruction sets the units of a program were compiled for: a Context is refused where this CPU has not what one of
// them may use, and, in a program that links dpmp::compiled, where two of them may use different ones. Header-only, units of
// different instruction sets share nothing (DPMP_ABI, core/config.hpp); with dpmp::compiled they would share small inline
// functions, and a linker keeps the one of either unit.
#pragma once
#include <atomic>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI {
#if !defined(__CUDACC__)
namespace detail {
/// What a unit said of itself before main started.
struct UnitReport {
  std::atomic<const char*> file = nullptr;  // null: no unit
  const char* what = "";
};
/// One whose flags ask for what this CPU has not, and what that is.
inline constinit UnitReport unit_beyond_cpu;
/// The first one, and one that was compiled for another instruction set, with their names; not those of dpmp::compiled.
inline constinit UnitReport first_unit, other_unit;

// In each unit a copy of its own, compiled with its flags.
namespace {
// Integers only: it runs where the CPU may not have what the unit is compiled for.
__attribute__((noinline)) const char* missing_on_this_cpu() {
#if defined(__x86_64__)
#define DPMP_ASK_CPU(macro, name) \
  if (!__builtin_cpu_supports(name)) return macro;
#if defined(__AVX512BF16__)
  DPMP_ASK_CPU("AVX512-BF16", "avx512bf16")
#endif
#if defined(__AVX512F__)
  DPMP_ASK_CPU("AVX512F", "avx512f")
#endif
#if defined(__AVX512BW__)
  DPMP_ASK_CPU("AVX512BW", "avx512bw")
#endif
#if defined(__AVX512DQ__)
  DPMP_ASK_CPU("AVX512DQ", "avx512dq")
#endif
#if defined(__AVX512VL__)
  DPMP_ASK_CPU("AVX512VL", "avx512vl")
#endif
#if defined(__AVX512VBMI__)
  DPMP_ASK_CPU("AVX512-VBMI", "avx512vbmi")
#endif
#if defined(__AVX512VNNI__)
  DPMP_ASK_CPU("AVX512-VNNI", "avx512vnni")
#endif
#if defined(__AVX2__)
  DPMP_ASK_CPU("AVX2", "avx2")
#endif
#if defined(__FMA__)
  DPMP_ASK_CPU("FMA", "fma")
#endif
#if defined(__FMA4__)
  DPMP_ASK_CPU("FMA4", "fma4")
#endif
#if defined(__XOP__)
  DPMP_ASK_CPU("XOP", "xop")
#endif
#if defined(__BMI2__)
  DPMP_ASK_CPU("BMI2", "bmi2")
#endif
#if defined(__AVX__)
  DPMP_ASK_CPU("AVX", "avx")
#endif
#if defined(__SSE4_2__)
  DPMP_ASK_CPU("SSE4.2", "sse4.2")
#endif
#undef DPMP_ASK_CPU
#endif
  return nullptr;
}
__attribute__((noinline)) void report_unit(UnitReport& to, const char* what) {
  to.what = what;
  to.file = __BASE_FILE__;
}
#define DPMP_TEXT_(...) #__VA_ARGS__
#define DPMP_TEXT(...) DPMP_TEXT_(__VA_ARGS__)
/// Whether this CPU has what this unit is compiled for. Initialised before other variables of the unit.
[[maybe_unused]] const bool unit_runs_here = [] {
  if (const char* missing = missing_on_this_cpu()) {
    report_unit(unit_beyond_cpu, missing);
    return false;
  }
#if defined(DPMP_COMPILED) && !defined(DPMP_COMPILING)
  constexpr const char* name = DPMP_TEXT(DPMP_UNIT_ABI);
  if (!first_unit.file)
    report_unit(first_unit, name);
  else if (__builtin_strcmp(first_unit.what, name) != 0)
    report_unit(other_unit, name);
#endif
  return true;
}();
#undef DPMP_TEXT
#undef DPMP_TEXT_
}  // namespace
}  // namespace detail
#endif

namespace detail {
/// Throws where a unit of the program was compiled for what this CPU has not; in a program that links dpmp::compiled also
/// where two units were compiled for different instruction sets: they would share dpmp's small inline functions, so that one
/// of them computes with the other one's. Not seen: what nvcc compiled.
void check_units();
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::detail {
DPMP_KEPT_BODY inline void check_units() {
#if !defined(__CUDACC__)
  const char* beyond = unit_beyond_cpu.file;
  DPMP_CHECK(!beyond, "expected units compiled for what this CPU has, got ", unit_beyond_cpu.what, " for ", beyond);
  const char* other = other_unit.file;
  DPMP_CHECK(!other, "expected units of one instruction set in a program that links dpmp::compiled, got ",
             first_unit.what + 5, " for ", first_unit.file.load(), " and ", other_unit.what + 5, " for ", other,
             ": give the files that include dpmp the same flags, or do not link dpmp::compiled");
#endif
}
}  // namespace dpmp::inline DPMP_ABI::detail
#endif

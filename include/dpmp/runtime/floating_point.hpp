// SPDX-License-Identifier: Apache-2.0
// Refuses floating-point numbers that are not IEEE 754's. What GCC is told about them is refused in core/config.hpp; here is
// what only shows when a program runs: a library that was linked with -ffast-math sets the CPU to flush denormals for
// everybody (crtfastmath), some other code changed the rounding, clang got flags that it says nothing of, or GCC was given
// them by a pragma, which no macro tells.
#pragma once
#include <atomic>

#include "dpmp/runtime/parallel.hpp"
#include "dpmp/runtime/units.hpp"

namespace dpmp::inline DPMP_ABI {
/// What is not as IEEE 754 asks on the calling thread, and what is the likely reason; null: nothing.
inline const char* floating_point_fault() {
  volatile float smallest_normal = 0x1p-126f, two = 2, one = 1, three = 3;
  const float denormal = smallest_normal / two;
  if (!(denormal > 0 && denormal * two == smallest_normal))
    return "IEEE denormals, got a flush to zero: something in this program was linked with -ffast-math";
  // Upwards, downwards and towards zero give another number in one of three places.
  volatile double unit = 1, third_of_spacing = 0x1p-54, more_than_half = 0x1.8p-53;
  if (unit + third_of_spacing != 1 || -unit - third_of_spacing != -1 || unit + more_than_half != 0x1.0000000000001p+0)
    return "rounding to nearest, got another rounding mode (fesetround)";
  if (one / three != 0x1.555556p-2f) return "a correctly rounded division, got another 1/3";
  return nullptr;
}

#if !defined(__CUDACC__)
namespace detail {
/// The file of a unit whose flags change arithmetic; null: none. Written before main starts.
inline constinit std::atomic<const char*> unit_with_fault = nullptr;

// In each unit a copy of its own, compiled with its flags.
namespace {
// Written so that a compiler gets something else with -fassociative-math, with -freciprocal-math, with -fno-signed-zeros and
// with -ffinite-math-only.
__attribute__((noinline)) bool flags_change_arithmetic() {
  volatile float small = 1, large = 0x1p25f, five = 5, zero = -0.0f, infinite = __builtin_inff();
  const float shift = large, unsigned_zero = zero + 0.0f, no_number = infinite;
  return (small + shift) - shift != 0 || five / 3.0f != 0x1.aaaaaap+0f || __builtin_signbit(unsigned_zero) ||
         __builtin_isfinite(no_number);
}
[[maybe_unused]] const bool unit_is_probed = [] {
  if (unit_runs_here && flags_change_arithmetic()) unit_with_fault = __BASE_FILE__;
  return true;
}();
}  // namespace
}  // namespace detail
#endif

namespace detail {
/// Throws where numbers are not those of IEEE 754: on one of the team's threads, or in one of the program's units.
void check_floating_point(ThreadTeam& team);
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::detail {
DPMP_KEPT_BODY inline void check_floating_point(ThreadTeam& team) {
  team.run([](int) {
    const char* fault = floating_point_fault();
    DPMP_CHECK(!fault, "expected ", fault);
  });
#if !defined(__CUDACC__)
  const char* unit = unit_with_fault;
  DPMP_CHECK(!unit, "expected units compiled without a part of -ffast-math, got -fassociative-math, -freciprocal-math, ",
             "-fno-signed-zeros or -ffinite-math-only for ", unit);
#endif
}
}  // namespace dpmp::inline DPMP_ABI::detail
#endif

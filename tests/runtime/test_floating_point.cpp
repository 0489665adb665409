// SPDX-License-Identifier: Apache-2.0
// Floating-point numbers that are not those of IEEE 754 are refused when a Context is made, whoever changed them.
#include <doctest/doctest.h>

#include <cfenv>
#include <thread>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "dpmp/runtime/context.hpp"
#include "support/errors.hpp"

using namespace dpmp;
using test::refuses;

namespace {
void make_context() { const Context ctx(Device::cpu(), 2); }
/// f on a thread whose state ends with it.
template <class F>
void on_a_thread(F&& f) {
  std::thread(f).join();
}
}  // namespace

TEST_CASE("a context is made where numbers are those of IEEE 754") {
  CHECK(floating_point_fault() == nullptr);
  CHECK_NOTHROW(make_context());
}

TEST_CASE("another rounding mode is refused") {
  for (const int mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
    CAPTURE(mode);
    bool refused = false;
    on_a_thread([&] {
      std::fesetround(mode);
      refused = refuses(make_context, "expected rounding to nearest");
    });
    CHECK(refused);
  }
}

#if defined(__SSE2__)
TEST_CASE("flushing denormal results or operands is refused") {
  for (const unsigned flag : {0x8000u, 0x0040u}) {  // MXCSR: FTZ, DAZ
    CAPTURE(flag);
    bool refused = false;
    on_a_thread([&] {
      _mm_setcsr(_mm_getcsr() | flag);
      refused = refuses(make_context, "expected IEEE denormals, got a flush to zero");
    });
    CHECK(refused);
  }
}

TEST_CASE("a thread of the team that flushes is found") {
  ThreadTeam team(2);
  const auto set = [&](unsigned mask, unsigned flag) {
    team.run([&](int t) {
      if (t == 1) _mm_setcsr((_mm_getcsr() & ~mask) | flag);
    });
  };
  CHECK_NOTHROW(detail::check_floating_point(team));
  set(0x8000u, 0x8000u);
  CHECK(refuses([&] { detail::check_floating_point(team); }, "got a flush to zero"));
  set(0x8000u, 0);
  CHECK_NOTHROW(detail::check_floating_point(team));
}
#endif

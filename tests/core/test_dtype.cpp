// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <cmath>
#include <sstream>

#include "dpmp/core/dtype.hpp"
#include "support/errors.hpp"

using namespace dpmp;

namespace {
constexpr DType all[] = {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32};
constexpr auto unknown = DType(17);
}  // namespace

TEST_CASE("DType: names are unique, printed, and parsed back") {
  for (DType d : all) {
    CHECK(parse_dtype(name_of(d)) == d);
    std::ostringstream out;
    out << d;
    CHECK(out.str() == name_of(d));
  }
  for (const char* name : {"", "F32", "f3", "f321", "float"})
    CHECK(test::refuses([&] { parse_dtype(name); }, "expected a dtype name"));
}

TEST_CASE("DType: size, unit roundoff and dispatch agree with the storage type") {
  for (DType d : all) {
    if (!is_real(d)) continue;
    int calls = 0;
    dispatch_real(d, [&](auto tag) {
      using T = typename decltype(tag)::type;
      ++calls;
      CHECK(dtype_of<T> == d);
      CHECK(size_of(d) == index_t(sizeof(T)));
      // 1 + u is a tie and rounds to the even 1; the next larger number of the computing type rounds up.
      const double u = unit_roundoff(d);
      auto rounded = [](double x) { return double(to_float(from_float<T>(compute_t<T>(x)))); };
      CHECK(rounded(1 + u) == 1);
      CHECK(rounded(1 + 2 * u) == 1 + 2 * u);
      if (d == DType::bf16 || d == DType::f16) CHECK(rounded(1 + u + 0x1p-20) == 1 + 2 * u);
      CHECK(accumulate_dtype(d) == dtype_of<compute_t<T>>);
    });
    CHECK(calls == 1);
  }
  CHECK(size_of(DType::i32) == 4);
  CHECK(dtype_of<std::int32_t> == DType::i32);
}

TEST_CASE("DType: a dispatch returns what its function returns, and refuses i32 and unknown values") {
  CHECK(dispatch_real(DType::f16, [](auto tag) { return sizeof(typename decltype(tag)::type); }) == 2);
  auto nothing = [](auto) {};
  CHECK(test::refuses([&] { dispatch_real(DType::i32, nothing); },
                      "expected a floating dtype (f32, bf16, f16, f64), got i32"));
  CHECK(test::refuses([&] { unit_roundoff(DType::i32); }, "expected a floating dtype, got i32"));
  CHECK(test::refuses([&] { name_of(unknown); }, "got the value 17"));
  CHECK(test::refuses([&] { size_of(unknown); }, "got the value 17"));
  CHECK(test::refuses([&] { dispatch_real(unknown, nothing); }, "17"));
}

// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "dpmp/core/shape.hpp"
#include "support/errors.hpp"

TEST_CASE("Error: says what was expected, what was got, and where") {
  int line = 0;
  const std::string text = test::error_of([&] {
    line = __LINE__ + 1;
    DPMP_CHECK(1 + 1 == 3, "expected ", 3, ", got ", dpmp::Shape{1, 1});
  });
  const std::string place = "test_error.cpp:" + std::to_string(line) + "]";
  CHECK(text.starts_with("expected 3, got [1, 1] ["));
  CHECK(text.ends_with(place));
}

TEST_CASE("Error: message() is the text alone, and the place of a header begins with dpmp/") {
  try {
    dpmp::Shape{-1};
    FAIL("expected an Error");
  } catch (const dpmp::Error& e) {
    CHECK(e.message() == "expected an extent >= 0, got -1 for axis 0");
    CHECK(std::string(e.what()).find(e.message() + " [dpmp/core/shape.hpp:") == 0);
  }
}

TEST_CASE("DPMP_CHECK: evaluates its condition once and its arguments only on failure") {
  int conditions = 0, arguments = 0;
  auto condition = [&](bool value) { return ++conditions, value; };
  auto argument = [&] { return ++arguments; };
  DPMP_CHECK(condition(true), argument());
  CHECK(conditions == 1);
  CHECK(arguments == 0);
  CHECK_THROWS_AS(DPMP_CHECK(condition(false), argument()), dpmp::Error);
  CHECK(conditions == 2);
  CHECK(arguments == 1);
  // One statement: usable without braces.
  if (conditions == 0)
    DPMP_CHECK(false, "not reached");
  else
    CHECK(conditions == 2);
}

// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <limits>
#include <sstream>
#include <vector>

#include "dpmp/core/shape.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;

TEST_CASE("Shape: extents, products and printing for random shapes of every rank") {
  test::Rng rng(test::seed());
  for (int round = 0; round < 500; ++round) {
    std::vector<index_t> extents;
    for (auto rank = rng.integer(0, Shape::max_rank); rank > 0; --rank) extents.push_back(rng.integer(0, 9));
    Shape shape;
    std::string text = "[";
    index_t product = 1;
    for (std::size_t k = 0; k < extents.size(); ++k) {
      shape.push_back(extents[k]);
      text += (k ? ", " : "") + std::to_string(extents[k]);
      product *= extents[k];
    }
    const int rank = int(extents.size());
    CHECK(shape.rank() == rank);
    CHECK(shape.numel() == product);
    std::ostringstream out;
    out << shape;
    CHECK(out.str() == text + "]");
    for (int k = 0; k < rank; ++k) {
      CHECK(shape[k] == extents[std::size_t(k)]);
      CHECK(shape[k - rank] == extents[std::size_t(k)]);
      CHECK(shape.with(k, 11)[k] == 11);
      CHECK(shape.with(k - rank, shape[k]) == shape);
      CHECK_FALSE(shape.with(k, 11) == shape);
    }
    for (int first = 0; first <= rank; ++first)
      for (int last = first; last <= rank; ++last) {
        index_t part = 1;
        for (int k = first; k < last; ++k) part *= extents[std::size_t(k)];
        CHECK(shape.numel(first, last) == part);
      }
  }
}

TEST_CASE("Shape: equality looks at the rank too") {
  CHECK(Shape{2, 3} == Shape{2, 3});
  CHECK_FALSE(Shape{2, 3} == Shape{3, 2});
  CHECK_FALSE(Shape{} == Shape{0});
  CHECK_FALSE(Shape{1} == Shape{1, 0});
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{4, 5}.front() == 4);
  CHECK(Shape{4, 5}.back() == 5);
}

TEST_CASE("Shape: sizes beyond 2^63 - 1, negative extents, missing axes and a sixth axis are refused") {
  constexpr index_t largest = std::numeric_limits<index_t>::max(), big = index_t(1) << 32;
  CHECK(Shape{largest}.numel() == largest);
  CHECK(Shape{big, big / 2 - 1}.numel() == big * (big / 2 - 1));
  CHECK(test::refuses(
      [&] {
        Shape({big, big / 2});
      },
      "expected at most 2^63 - 1 elements, got the shape [4294967296, 2147483648]"));
  CHECK(test::refuses([&] { Shape({big, big}); }, "expected at most 2^63 - 1 elements"));  // 2^64 wraps to 0
  // An empty tensor may have huge other extents; what is left of it by with() is checked again.
  CHECK(Shape{big, 0, big}.numel() == 0);
  CHECK(test::refuses([&] { Shape({big, big, 0}); }, "expected at most 2^63 - 1 elements"));
  CHECK(test::refuses([&] { Shape({big, 0, big}).with(1, 1); }, "expected at most 2^63 - 1 elements"));
  CHECK(test::refuses([] { Shape({2, -1}); }, "expected an extent >= 0, got -1 for axis 1"));
  CHECK(test::refuses([] { Shape({1, 1, 1, 1, 1, 1}); }, "expected at most 5 axes, got 6"));
  Shape five{1, 2, 3, 4, 5};
  CHECK(test::refuses([&] { five.push_back(6); }, "got one more after [1, 2, 3, 4, 5]"));
  for (int axis : {5, -6, 100})
    CHECK(test::refuses([&] { five[axis]; }, "expected an axis of shape [1, 2, 3, 4, 5], got " + std::to_string(axis)));
  CHECK(test::refuses([] { Shape{}.front(); }, "expected an axis of shape [], got 0"));
  CHECK(test::refuses([] { Shape{}.with(0, 1); }, "expected an axis of shape []"));
}

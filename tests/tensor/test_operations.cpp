// SPDX-License-Identifier: Apache-2.0
// Operations on plain tensors against loops over the stored elements in double, on every axis and dtype; what shares data,
// and what is refused.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/tensor/arithmetic.hpp"
#include "dpmp/tensor/broadcast.hpp"
#include "dpmp/tensor/elementwise.hpp"
#include "dpmp/tensor/slices.hpp"
#include "dpmp/tensor/transpose.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

using namespace dpmp;
using test::refuses;

namespace {
using List = std::vector<double>;
using Places = std::array<index_t, Shape::max_rank>;

Shape random_shape(test::Rng& rng, int least_rank = 1) {
  Shape shape;
  const int rank = int(rng.integer(least_rank, Shape::max_rank));
  const bool empty = rng.integer(0, 9) == 0;
  for (int axis = 0; axis < rank; ++axis) shape.push_back(rng.integer(empty ? 0 : 1, axis < 2 ? 9 : 4));
  return shape;
}
int random_axis(test::Rng& rng, const Shape& shape) { return int(rng.integer(0, shape.rank() - 1)); }
/// Half of the time as it is counted from the back.
int counted(test::Rng& rng, const Shape& shape, int axis) { return rng.integer(0, 1) ? axis : axis - shape.rank(); }

/// Where element k is, and which element is there.
Places places_of(index_t k, const Shape& shape) {
  Places at{};
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    at[std::size_t(axis)] = k % shape[axis];
    k /= shape[axis];
  }
  return at;
}
std::size_t element_at(const Places& at, const Shape& shape) {
  index_t k = 0;
  for (int axis = 0; axis < shape.rank(); ++axis) k = k * shape[axis] + at[std::size_t(axis)];
  return std::size_t(k);
}
/// Calls f(k, places) for every element.
template <class F>
void for_elements(const Shape& shape, F&& f) {
  for (index_t k = 0; k < shape.numel(); ++k) f(std::size_t(k), places_of(k, shape));
}

/// Each element the rounding to the dtype of a number that is off by at most errors[k].
void check_near(const Tensor& found, const Shape& shape, DType dtype, const List& expected, const List& errors) {
  CHECK(found.shape() == shape);
  CHECK(found.dtype() == dtype);
  const List values = found.to_doubles();
  REQUIRE(values.size() == expected.size());
  const double least = dtype == DType::f16 ? 0x1p-24 : 0x1p-126;  // a multiple of it below the least normal number
  for (std::size_t k = 0; k < values.size(); ++k) {
    CAPTURE(k);
    CHECK(std::fabs(values[k] - expected[k]) <=
          errors[k] * 1.01 + unit_roundoff(dtype) * 1.01 * std::fabs(expected[k]) + least);
  }
}
double compute_roundoff(DType dtype) { return dtype == DType::f64 ? 0x1p-53 : 0x1p-24; }
/// The same for `roundings` in compute precision, relative to the result.
void check_rounded(const Tensor& found, const Shape& shape, DType dtype, const List& expected, double roundings = 1) {
  List errors;
  for (const double x : expected) errors.push_back(roundings * compute_roundoff(dtype) * std::fabs(x));
  check_near(found, shape, dtype, expected, errors);
}
}  // namespace

TEST_CASE("arithmetic of tensors is that of their elements, rounded once") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : real_dtypes)
    for (int round = 0; round < 20; ++round) {
      const Shape shape = random_shape(rng);
      const Tensor x = test::normal_tensor(ctx, rng, shape, dtype), y = test::normal_tensor(ctx, rng, shape, dtype);
      const List u = x.to_doubles(), v = y.to_doubles();
      const double given = rng.normal(), constant = dtype == DType::f64 ? given : double(float(given));
      List sums, differences, products, quotients, scaled, shifted;
      for (std::size_t k = 0; k < u.size(); ++k) {
        sums.push_back(u[k] + v[k]);
        differences.push_back(u[k] - v[k]);
        products.push_back(u[k] * v[k]);
        quotients.push_back(u[k] / v[k]);
        scaled.push_back(constant * u[k]);
        shifted.push_back(u[k] + constant);
      }
      check_rounded(add(ctx, x, y), shape, dtype, sums);
      check_rounded(subtract(ctx, x, y), shape, dtype, differences);
      check_rounded(multiply(ctx, x, y), shape, dtype, products);
      if (dtype != DType::f16) check_rounded(divide(ctx, x, y), shape, dtype, quotients);  // which may be too large for f16
      check_rounded(scale(ctx, x, given), shape, dtype, scaled);
      check_rounded(shift(ctx, x, given), shape, dtype, shifted);
      CHECK(x.to_doubles() == u);
      CHECK(y.to_doubles() == v);
      const Tensor total = x.clone(ctx), same = total;
      add_to(ctx, y, total);
      check_rounded(same, shape, dtype, sums);
    }
  CHECK(divide(ctx, Tensor::full(ctx, {1}, DType::f32, 1), Tensor::zeros(ctx, {1}, DType::f32)).item() == INFINITY);
}

TEST_CASE("a cast rounds to nearest even, and shares the data where nothing is to be rounded") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 1);
  for (const DType from : real_dtypes)
    for (const DType to : real_dtypes) {
      const Tensor x = test::normal_tensor(ctx, rng, {3, 1000}, from);
      const Tensor y = cast(ctx, x, to), z = Tensor::empty(ctx, x.shape(), to);
      cast_to(ctx, x, z);
      CHECK(y.dtype() == to);
      CHECK((y.raw() == x.raw()) == (from == to));
      CHECK(z.raw() != x.raw());
      // The numbers themselves through the C++ conversions that tests/core checks, past FP32 as documented.
      List expected = x.to_doubles();
      if (from == DType::f64 && size_of(to) == 2)
        for (double& v : expected) v = double(float(v));
      CHECK(y.to_doubles() == Tensor::from(ctx, x.shape(), to, expected).to_doubles());
      CHECK(z.to_doubles() == y.to_doubles());
    }
}

TEST_CASE("slice, pad, concat and transpose move every element to its place") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 2);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32})
    for (int round = 0; round < 40; ++round) {
      const Shape shape = random_shape(rng);
      const int axis = random_axis(rng, shape);
      const std::size_t a = std::size_t(axis);
      const auto random = [&](const Shape& s) {
        return dtype == DType::i32 ? test::id_tensor(ctx, rng, s, -1000, 1000) : test::normal_tensor(ctx, rng, s, dtype);
      };
      const Tensor x = random(shape);
      const List u = x.to_doubles();

      const index_t begin = rng.integer(0, shape[axis]), end = rng.integer(begin, shape[axis]);
      const Tensor part = slice(ctx, x, counted(rng, shape, axis), begin, end);
      REQUIRE(part.shape() == shape.with(axis, end - begin));
      CHECK(part.dtype() == dtype);
      const List of_part = part.to_doubles();
      for_elements(part.shape(), [&](std::size_t k, Places at) {
        at[a] += begin;
        CHECK(of_part[k] == u[element_at(at, shape)]);
      });

      const index_t before = rng.integer(0, 3), after = rng.integer(0, 3);
      const Tensor padded = pad(ctx, x, counted(rng, shape, axis), before, after);
      REQUIRE(padded.shape() == shape.with(axis, before + shape[axis] + after));
      CHECK(padded.dtype() == dtype);
      const List of_padded = padded.to_doubles();
      for_elements(padded.shape(), [&](std::size_t k, Places at) {
        at[a] -= before;
        CHECK(of_padded[k] == (at[a] >= 0 && at[a] < shape[axis] ? u[element_at(at, shape)] : 0));
      });

      std::vector<Tensor> parts{x};
      const index_t more = rng.integer(0, 3);
      for (index_t k = 0; k < more; ++k) parts.push_back(random(shape.with(axis, rng.integer(0, 3))));
      const Tensor whole = concat(ctx, parts, counted(rng, shape, axis));
      index_t start = 0;
      for (const Tensor& p : parts) {
        const Tensor found = slice(ctx, whole, axis, start, start + p.shape()[axis]);
        CHECK(found.shape() == p.shape());
        CHECK(found.to_doubles() == p.to_doubles());
        start += p.shape()[axis];
      }
      CHECK(whole.shape() == shape.with(axis, start));
      CHECK(whole.dtype() == dtype);

      if (dtype == DType::i32) continue;
      const int other = random_axis(rng, shape);
      const Tensor turned = transpose(ctx, x, counted(rng, shape, axis), counted(rng, shape, other));
      REQUIRE(turned.shape() == shape.with(axis, shape[other]).with(other, shape[axis]));
      CHECK(turned.dtype() == dtype);
      CHECK((turned.raw() == x.raw()) == (axis == other));
      const List of_turned = turned.to_doubles();
      for_elements(turned.shape(), [&](std::size_t k, Places at) {
        std::swap(at[a], at[std::size_t(other)]);
        CHECK(of_turned[k] == u[element_at(at, shape)]);
      });
    }
}

TEST_CASE("broadcast_to repeats axes in NumPy's way, and sum_to, sum and mean add what was repeated") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 3);
  for (const DType dtype : real_dtypes)
    for (int round = 0; round < 60; ++round) {
      const Shape full = random_shape(rng);
      // Some axes of extent 1, and some of the first ones missing; what broadcast_to says it cannot do is left as it is.
      Shape small;
      bool missing = rng.integer(0, 1) == 0;
      int runs = 0;
      bool in_run = false;
      for (int axis = 0; axis < full.rank(); ++axis) {
        missing = missing && rng.integer(0, 1) == 0;
        bool repeated = missing || rng.integer(0, 1) == 0;
        if (repeated && !in_run && full[axis] != 1 && runs == 2) missing = repeated = false;
        if (repeated && !in_run && full[axis] != 1) ++runs;
        in_run = repeated && full[axis] != 1;
        if (!missing) small.push_back(repeated ? 1 : full[axis]);
      }
      CAPTURE(full);
      CAPTURE(small);
      const int ahead = full.rank() - small.rank();
      const auto source = [&](const Places& at) {
        Places of_small{};
        for (int axis = 0; axis < small.rank(); ++axis)
          of_small[std::size_t(axis)] = small[axis] == 1 ? 0 : at[std::size_t(axis + ahead)];
        return element_at(of_small, small);
      };
      const Tensor x = test::normal_tensor(ctx, rng, small, dtype), g = test::normal_tensor(ctx, rng, full, dtype);
      const List u = x.to_doubles(), v = g.to_doubles();
      const double factor = rng.integer(0, 1) ? 1 : 0.75;  // exact in every dtype
      List copies(v.size()), sums(u.size(), 0.0), sizes(u.size(), 0.0);
      for_elements(full, [&](std::size_t k, const Places& at) {
        const std::size_t s = source(at);
        copies[k] = factor * u[s];
        sums[s] += factor * v[k];
        sizes[s] += factor * std::fabs(v[k]);
      });
      const double terms = double(full.numel()) / double(std::max<index_t>(1, small.numel()));
      check_rounded(broadcast_to(ctx, x, full, factor), full, dtype, copies);
      // As many additions as terms at most, and the factor: |error| <= (terms + 1) u sum |terms|.
      for (double& s : sizes) s *= (terms + 1) * compute_roundoff(dtype);
      check_near(sum_to(ctx, g, small, factor), small, dtype, sums, sizes);

      const int axis = random_axis(rng, full);
      const Shape kept = full.with(axis, 1);
      List of_axis(std::size_t(kept.numel()), 0.0), means = of_axis, errors = of_axis, of_means = of_axis;
      for_elements(full, [&](std::size_t k, Places at) {
        at[std::size_t(axis)] = 0;
        of_axis[element_at(at, kept)] += v[k];
        errors[element_at(at, kept)] += std::fabs(v[k]) * compute_roundoff(dtype) * double(full[axis] + 1);
      });
      check_near(sum(ctx, g, counted(rng, full, axis), ReducedAxis::kept), kept, dtype, of_axis, errors);
      Shape removed;
      for (int k = 0; k < full.rank(); ++k)
        if (k != axis) removed.push_back(full[k]);
      check_near(sum(ctx, g, counted(rng, full, axis)), removed, dtype, of_axis, errors);
      if (full[axis] == 0) continue;
      for (std::size_t k = 0; k < means.size(); ++k) {
        means[k] = of_axis[k] / double(full[axis]);
        of_means[k] = (errors[k] + std::fabs(of_axis[k]) * compute_roundoff(dtype)) / double(full[axis]);
      }
      check_near(mean(ctx, g, counted(rng, full, axis)), removed, dtype, means, of_means);
    }
  const Tensor x = test::normal_tensor(ctx, rng, {4, 3}, DType::f32);
  CHECK(broadcast_to(ctx, x, {1, 4, 3}).raw() == x.raw());
  CHECK(sum_to(ctx, broadcast_to(ctx, x, {1, 4, 3}), {4, 3}).raw() == x.raw());
  CHECK(sum(ctx, x.reshaped({4, 1, 3}), 1).raw() == x.raw());
}

TEST_CASE("operations on tensors refuse what does not fit") {
  Context ctx(Device::cpu(), 1);
  const Tensor x = Tensor::zeros(ctx, {4, 3}, DType::f32), half = Tensor::zeros(ctx, {4, 3}, DType::f16),
               other = Tensor::zeros(ctx, {3, 4}, DType::f32), ids = Tensor::zeros(ctx, {4, 3}, DType::i32);
  CHECK(refuses([&] { add(ctx, x, other); },
                "add: expected two values of one shape and dtype, got [4, 3] f32 and [3, 4] f32"));
  CHECK(refuses([&] { add_to(ctx, x, half); }, "add_to: expected two values of one shape and dtype"));
  CHECK(refuses([&] { multiply(ctx, x, half); }, "multiply: expected two values of one shape and dtype"));
  CHECK(refuses([&] { subtract(ctx, x, other); }, "subtract: expected two values of one shape and dtype"));
  CHECK(refuses([&] { divide(ctx, half, x); }, "divide: expected two values of one shape and dtype"));
  CHECK(refuses([&] { add(ctx, ids, ids); }, "expected a floating dtype"));
  CHECK(refuses([&] { scale(ctx, ids, 2); }, "expected a floating dtype"));
  CHECK(refuses([&] { shift(ctx, ids, 2); }, "expected a floating dtype"));
  CHECK(refuses([&] { cast(ctx, ids, DType::f32); }, "cast: expected two floating dtypes, got i32 to f32"));
  CHECK(refuses([&] { cast(ctx, ids, DType::i32); }, "cast: expected two floating dtypes"));
  CHECK(refuses([&] { cast(ctx, x, DType::i32); }, "cast: expected two floating dtypes, got f32 to i32"));
  CHECK(refuses([&] { cast_to(ctx, x, other); }, "expected the result of a cast of shape [4, 3], got [3, 4]"));
  CHECK(refuses([&] { slice(ctx, x, 2, 0, 1); }, "expected an axis of the shape [4, 3], got 2"));
  CHECK(refuses([&] { slice(ctx, x, 0, 0, 5); }, "slice: expected ends in [0, 4] of axis 0 of [4, 3], got [0, 5)"));
  CHECK(refuses([&] { slice(ctx, x, 0, 2, 1); }, "slice: expected ends in [0, 4]"));
  CHECK(refuses([&] { pad(ctx, x, -1, -1, 0); }, "pad: expected numbers of zeros >= 0 at the ends of axis 1"));
  CHECK(refuses([&] { concat(ctx, {}, 0); }, "concat: expected at least one part, got none"));
  const std::vector<Tensor> unlike{x, other}, mixed{x, half};
  CHECK(refuses([&] { concat(ctx, unlike, 0); }, "concat: expected parts that differ along axis 0 only"));
  CHECK(refuses([&] { concat(ctx, mixed, 0); }, "concat: expected parts that differ along axis 0 only"));
  CHECK(refuses([&] { transpose(ctx, x, 0, 2); }, "expected an axis of shape [4, 3], got 2"));
  CHECK(refuses([&] { transpose(ctx, ids, 0, 1); }, "expected a floating dtype"));
  CHECK(refuses([&] { broadcast_to(ctx, x, {4, 4}); }, "broadcast_to: expected a tensor whose axes, aligned at the back"));
  CHECK(refuses([&] { broadcast_to(ctx, x, {3}); }, "broadcast_to: expected a tensor whose axes"));
  CHECK(refuses(
      [&] {
        broadcast_to(ctx, Tensor::zeros(ctx, {1, 2, 1, 2, 1}, DType::f32), {2, 2, 2, 2, 2});
      },
      "at most two runs of them, got [1, 2, 1, 2, 1]"));
  CHECK(refuses([&] { sum_to(ctx, x, {2, 3}); }, "broadcast_to: expected a tensor whose axes"));
  CHECK(refuses([&] { sum(ctx, x, 2); }, "expected an axis of shape [4, 3], got 2"));
  CHECK(refuses([&] { mean(ctx, Tensor::zeros(ctx, {4, 0}, DType::f32), 1); }, "mean: expected an axis of at least one"));
}

// SPDX-License-Identifier: Apache-2.0
// Arithmetic with broadcasting, reductions, selection and parameters as values against plain loops in double, element by
// element of the stored operands; edges of domains; and what each operation refuses.
#include <doctest/doctest.h>
#include <cmath>

#include "autograd/ops_tensor.hpp"
#include "autograd/plain_loops.hpp"
#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/autograd/rules/stop_gradient.hpp"
#include "support/errors.hpp"

using namespace dpmp;
using test::check_rounded, test::refuses, test::source_of;

namespace {
using List = std::vector<double>;
constexpr DType dtypes[] = {DType::f32, DType::bf16, DType::f16, DType::f64};

Variable given(Tape& tape, const Shape& shape, const List& values, DType dtype = DType::f32, bool needs_gradient = false) {
  return tape.input(Tensor::from(tape.ctx(), shape, dtype, values), needs_gradient);
}
List random_list(test::Rng& rng, const Shape& shape, double low, double high) {
  List values(std::size_t(shape.numel()));
  for (double& v : values) v = rng.uniform(low, high);
  return values;
}
}  // namespace

TEST_CASE("add, subtract, multiply and divide broadcast every axis after the sample axis") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : dtypes)
    for (int round = 0; round < 40; ++round) {
      test::Draw draw(std::uint64_t(round), 1, {.samples = round % 4});
      const Shape full = test::detail::any_shape(draw), a = test::detail::narrowed(draw, full),
                  b = test::detail::narrowed(draw, full), both = test::detail::broadcast(a, b);
      Tape tape(ctx, full.front());
      const Variable x = given(tape, a, random_list(rng, a, -2, 2), dtype),
                     y = given(tape, b, random_list(rng, b, 0.5, 2), dtype);
      const List u = x.value().to_doubles(), v = y.value().to_doubles();
      List sums, differences, products, quotients, copies;
      for (index_t k = 0; k < both.numel(); ++k) {
        const double p = u[source_of(k, both, a)], q = v[source_of(k, both, b)];
        sums.push_back(p + q);
        differences.push_back(p - q);
        products.push_back(p * q);
        quotients.push_back(p / q);
        copies.push_back(p);
      }
      const auto check = [&](const Variable& z, const List& expected) {
        CHECK(z.shape() == both);
        CHECK(z.dtype() == dtype);
        check_rounded(z.value().to_doubles(), expected, dtype, 1);
      };
      check(x + y, sums);
      check(x - y, differences);
      check(x * y, products);
      check(x / y, quotients);
      CHECK(broadcast_to(x, both).value().to_doubles() == copies);
    }
}

TEST_CASE("the gradient of a broadcast operand is the sum over its copies, sample by sample") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : dtypes)
    for (int round = 0; round < 40; ++round) {
      // Four axes: every way to repeat one or two runs of them.
      test::Draw draw(100 + std::uint64_t(round));
      const Shape full{1 + round % 3, rng.integer(1, 4), rng.integer(1, 4), rng.integer(1, 4), rng.integer(1, 20)},
          small = test::detail::narrowed(draw, full);
      Tape tape(ctx, full.front());
      const Variable x = given(tape, small, random_list(rng, small, -2, 2), dtype, true);
      const List weights = random_list(rng, full, -1, 1);
      const Variable seed = weighted_sum(broadcast_to(x, full), weights);
      DefinitionSink sink;
      tape.backward(seed, sink);
      // What comes in is rounded to the dtype; each sum is then at most as many FP32 additions as there are copies.
      const List incoming = Tensor::from(ctx, full, dtype, weights).to_doubles();
      List expected(std::size_t(small.numel()), 0.0), magnitudes = expected;
      for (index_t k = 0; k < full.numel(); ++k) {
        expected[source_of(k, full, small)] += incoming[std::size_t(k)];
        magnitudes[source_of(k, full, small)] += std::fabs(incoming[std::size_t(k)]);
      }
      const List found = tape.gradient_of(x).to_doubles();
      const double copies = double(full.numel() / small.numel()), u = dtype == DType::f64 ? 0x1p-53 : 0x1p-24;
      for (std::size_t k = 0; k < found.size(); ++k)
        CHECK(std::fabs(found[k] - expected[k]) <=
              (1 + u) * unit_roundoff(dtype) * std::fabs(expected[k]) + 2 * copies * u * magnitudes[k] + 0x1p-24);
    }
}

TEST_CASE("operators with constants") {
  Context ctx(Device::cpu(), 1);
  Tape tape(ctx, 2);
  const Variable x = given(tape, {2, 2}, {1, -2, 4, 0.5});
  const auto values = [](const Variable& v) { return v.value().to_doubles(); };
  CHECK(values(-x) == List{-1, 2, -4, -0.5});
  CHECK(values(x + 2) == List{3, 0, 6, 2.5});
  CHECK(values(2 + x) == List{3, 0, 6, 2.5});
  CHECK(values(x - 1) == List{0, -3, 3, -0.5});
  CHECK(values(1 - x) == List{0, 3, -3, 0.5});
  CHECK(values(x * 3) == List{3, -6, 12, 1.5});
  CHECK(values(3 * x) == List{3, -6, 12, 1.5});
  CHECK(values(x / 4) == List{0.25, -0.5, 1, 0.125});
  CHECK(values(4 / x) == List{4, -2, 1, 8});
  CHECK(refuses([&] { x / 0.0; }, "divide: expected a constant divisor other than 0, got 0"));
}

TEST_CASE("exp, log, sqrt, square, reciprocal: values in every dtype, and the edges of their domains") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const DType dtype : dtypes) {
    const Shape shape{3, 1000};
    Tape tape(ctx, 3);
    List positive(std::size_t(shape.numel())), far_from_zero;
    for (double& v : positive) v = std::exp2(rng.uniform(-12, 12));
    for (const double v : positive) far_from_zero.push_back(rng.integer(0, 1) ? v : -v);  // 1 / v is finite in f16
    const Variable z = given(tape, shape, far_from_zero, dtype);
    const Variable x = given(tape, shape, positive, dtype), y = given(tape, shape, random_list(rng, shape, -9, 9), dtype);
    const auto check = [&](const Variable& found, const Variable& of, double (*f)(double), double roundings) {
      List expected;
      for (const double v : of.value().to_doubles()) expected.push_back(f(v));
      check_rounded(found.value().to_doubles(), expected, dtype, roundings);
    };
    // FP32: exp below 2^-22 and sqrt below 2^-21 (runtime/math.hpp), the C library's log below one unit in the last place.
    check(
        exp(y), y, [](double v) { return std::exp(v); }, 4);
    check(
        log(x), x, [](double v) { return std::log(v); }, 2);
    check(
        sqrt(x), x, [](double v) { return std::sqrt(v); }, 8);
    if (dtype != DType::f16)
      check(
          square(x), x, [](double v) { return v * v; }, 1);
    check(
        reciprocal(z), z, [](double v) { return 1 / v; }, 1);
    const Variable edges = given(tape, {3, 3}, {-1, 0, INFINITY, -INFINITY, NAN, 1, 4, 2, 0.25}, dtype);
    const List logs = log(edges).value().to_doubles(), roots = sqrt(edges).value().to_doubles();
    for (const std::size_t k : {0, 3, 4}) {
      CHECK(std::isnan(logs[k]));
      CHECK(std::isnan(roots[k]));
    }
    CHECK(logs[1] == -INFINITY);
    CHECK(logs[2] == INFINITY);
    CHECK(logs[5] == 0);
    CHECK(roots[1] == 0);
    CHECK(roots[2] == INFINITY);
    CHECK(reciprocal(edges).value().to_doubles()[1] == INFINITY);
    CHECK(exp(edges).value().to_doubles()[3] == 0);
  }
}

TEST_CASE("sum and mean over an axis, added up in compute precision") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : dtypes)
    for (const int axis : {1, 2, 3, -1, -2}) {
      const Shape shape{2, rng.integer(1, 5), rng.integer(1, 40), rng.integer(1, 9)};
      const int at = axis < 0 ? axis + 4 : axis;
      Tape tape(ctx, 2);
      const Variable x = given(tape, shape, random_list(rng, shape, -2, 2), dtype);
      const List values = x.value().to_doubles();
      const index_t extent = shape[at], inner = shape.numel(at + 1, 4);
      List sums(std::size_t(shape.numel() / extent)), magnitudes = sums;
      for (index_t k = 0; k < shape.numel(); ++k) {
        const std::size_t to = std::size_t(k / (extent * inner) * inner + k % inner);
        sums[to] += values[std::size_t(k)];
        magnitudes[to] += std::fabs(values[std::size_t(k)]);
      }
      const Variable s = sum(x, axis), m = mean(x, axis), kept = sum(x, axis, ReducedAxis::kept);
      CHECK(s.shape().rank() == 3);
      CHECK(kept.shape() == shape.with(at, 1));
      CHECK(mean(x, axis, ReducedAxis::kept).shape() == shape.with(at, 1));
      CHECK(kept.value().to_doubles() == s.value().to_doubles());
      const double u = dtype == DType::f64 ? 0x1p-53 : 0x1p-24;
      for (std::size_t k = 0; k < sums.size(); ++k) {
        const double error = double(extent) * u * magnitudes[k], round = 1.01 * unit_roundoff(dtype);
        CHECK(std::fabs(s.value().to_doubles()[k] - sums[k]) <= round * std::fabs(sums[k]) + 2 * error + 0x1p-24);
        CHECK(std::fabs(m.value().to_doubles()[k] - sums[k] / double(extent)) <=
              (round + 2 * u) * std::fabs(sums[k]) / double(extent) + 2 * error / double(extent) + 0x1p-24);
      }
    }
  // In f16 itself 4096 ones would stop at 2048, and their squares overflow; the mean of large numbers does not.
  Tape tape(ctx, 1);
  CHECK(sum(given(tape, {1, 4096}, List(4096, 1), DType::f16), 1).value().to_doubles() == List{4096});
  CHECK(mean(given(tape, {1, 64}, List(64, 60000), DType::f16), 1).value().to_doubles() == List{60000});
  CHECK(sum(given(tape, {1, 0, 2}, {}), 1).value().to_doubles() == List{0, 0});
  CHECK(sum(given(tape, {1, 2}, {3, 4}), -1).shape() == Shape{1});
  CHECK(refuses([&] { sum(given(tape, {1, 2}, {3, 4}), 0); }, "sum: expected an axis after the sample axis of [1, 2]"));
  CHECK(refuses([&] { mean(given(tape, {1, 2}, {3, 4}), 2); }, "mean: expected an axis of the shape [1, 2], got 2"));
  CHECK(refuses([&] { mean(given(tape, {1, 0, 2}, {}), 1); }, "mean: expected an axis of at least one element"));
}

TEST_CASE("where chooses elements or rows, and what is not chosen does not matter") {
  Context ctx(Device::cpu(), 1);
  for (const DType dtype : dtypes) {
    Tape tape(ctx, 2);
    const auto mask = [&](const Shape& shape, const std::vector<std::int32_t>& m) { return Tensor::from(ctx, shape, m); };
    const Variable x = given(tape, {2, 2, 2}, {1, 2, 3, NAN, 5, 6, 7, 8}, dtype, true),
                   y = given(tape, {2, 2, 2}, {-1, -2, -3, -4, NAN, -6, -7, INFINITY}, dtype, true);
    CHECK(where(mask({2, 2, 2}, {1, 0, -1, 0, 7, 1, 0, 1}), x, y).value().to_doubles() == List{1, -2, 3, -4, 5, 6, -7, 8});
    const Variable rows = where(mask({2, 2}, {1, 0, 1, 1}), x, y);
    CHECK(rows.value().to_doubles() == List{1, 2, -3, -4, 5, 6, 7, 8});
    CHECK(where(mask({2}, {0, 1}), y, x).value().to_doubles()[0] == 1);
    DefinitionSink sink;
    tape.backward(weighted_sum(rows, List{1, 2, 3, 4, 5, 6, 7, 8}), sink);
    CHECK(tape.gradient_of(x).to_doubles() == List{1, 2, 0, 0, 5, 6, 7, 8});
    CHECK(tape.gradient_of(y).to_doubles() == List{0, 0, 3, 4, 0, 0, 0, 0});
    CHECK(refuses(
        [&] {
          where(mask({2, 1}, {0, 1}), x, y);
        },
        "where: expected a mask i32 of the shape [2, 2, 2] or its leading axes, got i32 [2, 1]"));
    CHECK(refuses([&] { where(x.value(), x, y); }, "where: expected a mask i32"));
    CHECK(refuses(
        [&] {
          where(mask({2}, {0, 1}), x, given(tape, {2, 2}, {1, 2, 3, 4}, dtype));
        },
        "where: expected two values of one shape and dtype"));
  }
}

TEST_CASE("gather picks rows of its own sample; a row that is picked twice gets both gradients; bad ids make NaN") {
  Context ctx(Device::cpu(), 2);
  for (const DType dtype : dtypes) {
    Tape tape(ctx, 2), open(ctx, 2, TapeMode::training, RecordsAre::open);
    const auto ids = [&](const Shape& shape, const std::vector<std::int32_t>& m) { return Tensor::from(ctx, shape, m); };
    const List values{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    const Variable x = given(tape, {2, 3, 2}, values, dtype, true);
    const Variable y = gather(x, ids({2, 4}, {2, 0, 2, 2, 1, 1, 0, 1}));
    CHECK(y.value().to_doubles() == List{4, 5, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 6, 7, 8, 9});
    DefinitionSink sink;
    tape.backward(weighted_sum(y, List{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}), sink);
    CHECK(tape.gradient_of(x).to_doubles() == List{3, 4, 0, 0, 13, 16, 13, 14, 35, 38, 0, 0});

    Tape bad(ctx, 2);
    const Variable z = given(bad, {2, 3, 2}, values, dtype, true);
    const Variable w = gather(z, ids({2, 2}, {0, 3, 2, 1})), v = gather(z, ids({2, 1}, {-1, 1}));
    const List found = w.value().to_doubles();
    CHECK(std::isnan(found[2]));
    CHECK(std::isnan(found[3]));
    CHECK(List(found.begin() + 4, found.end()) == List{10, 11, 8, 9});
    CHECK(std::isnan(v.value().to_doubles()[0]));
    DefinitionSink other;
    bad.backward(weighted_sum(w, List{1, 2, 3, 4, 5, 6, 7, 8}), other);
    const List gradient = bad.gradient_of(z).to_doubles();
    CHECK(List(gradient.begin() + 6, gradient.end()) == List{0, 0, 7, 8, 5, 6});
    CHECK(gather(given(tape, {2, 3}, {0, 1, 2, 3, 4, 5}, dtype), ids({2, 2}, {2, 1, 0, 0})).value().to_doubles() ==
          List{2, 1, 3, 3});
    CHECK(refuses(
        [&] {
          gather(given(open, {2, 3, 2}, values, dtype), ids({2, 2}, {0, 1, 2, 3}));
        },
        "gather: expected ids in [0, 3), got 3 at sample 1, position 1"));
    CHECK(refuses(
        [&] {
          gather(x, ids({2}, {0, 1}));
        },
        "gather: expected x [B, T, ..] and ids i32 [B, K], got x [2, 3, 2]"));
    CHECK(refuses([&] { gather(given(tape, {2, 0}, {}, dtype), ids({2, 1}, {0, 0})); }, "at least one row a sample"));
  }
  // Gradients are added up in compute precision: in bf16 itself 300 ones would stop at 256.
  Tape tape(ctx, 1);
  const Variable x = given(tape, {1, 2}, {1, 2}, DType::bf16, true);
  DefinitionSink sink;
  tape.backward(weighted_sum(gather(x, Tensor::zeros(ctx, {1, 384}, DType::i32)), List(384, 1)), sink);
  CHECK(tape.gradient_of(x).to_doubles() == List{384, 0});
}

TEST_CASE("pad and slice along every axis but the sample axis") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const DType dtype : dtypes)
    for (int round = 0; round < 20; ++round) {
      const Shape shape{2, rng.integer(0, 3), rng.integer(1, 4), rng.integer(1, 20)};
      const int axis = int(rng.integer(1, 3));
      const index_t before = rng.integer(0, 3), after = rng.integer(0, 3);
      Tape tape(ctx, 2);
      List values(std::size_t(shape.numel()));
      for (double& v : values) v = double(rng.integer(1, 100));
      const Variable x = given(tape, shape, values, dtype), wide = pad(x, axis - 4, before, after);
      CHECK(wide.shape() == shape.with(axis, shape[axis] + before + after));
      CHECK(slice(wide, axis, before, before + shape[axis]).value().to_doubles() == values);
      double total = 0, of_x = 0;  // nothing but zeros besides
      for (const double v : wide.value().to_doubles()) total += v;
      for (const double v : values) of_x += v;
      CHECK(total == of_x);
    }
  Tape tape(ctx, 2);
  const Variable x = given(tape, {2, 3}, {1, 2, 3, 4, 5, 6});
  CHECK(pad(x, 1, 1, 2).value().to_doubles() == List{0, 1, 2, 3, 0, 0, 0, 4, 5, 6, 0, 0});
  CHECK(slice(x, -1, 1, 3).value().to_doubles() == List{2, 3, 5, 6});
  CHECK(slice(x, 1, 2, 2).shape() == Shape{2, 0});
  CHECK(refuses([&] { pad(x, 0, 1, 1); }, "pad: expected an axis after the sample axis"));
  CHECK(refuses([&] { pad(x, 1, -1, 1); },
                "pad: expected numbers of zeros >= 0 at the ends of axis 1 of [2, 3], got -1 and 1"));
  CHECK(refuses([&] { slice(x, 0, 0, 1); }, "slice: expected an axis after the sample axis"));
  for (const auto& [begin, end] : {std::pair{-1, 2}, {2, 1}, {0, 4}})
    CHECK(refuses([&] { slice(x, 1, begin, end); }, "slice: expected ends in [0, 3] of axis 1 of [2, 3], got ["));
}

TEST_CASE("cast rounds to the dtype and its gradient back; stop_gradient passes none") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const DType from : dtypes)
    for (const DType to : dtypes) {
      Tape tape(ctx, 2);
      const Shape shape{2, 37};
      const Variable x = given(tape, shape, random_list(rng, shape, -2, 2), from, true), y = cast(x, to);
      CHECK(y.dtype() == to);
      // From f64 to two bytes: rounded to FP32 first, which may move a number that is next to a tie.
      check_rounded(y.value().to_doubles(), x.value().to_doubles(), to, from == DType::f64 ? 1 : 0);
      if (unit_roundoff(to) <= unit_roundoff(from) && to != DType::f16)
        CHECK(y.value().to_doubles() == x.value().to_doubles());
      const List weights = random_list(rng, shape, -1, 1);
      const Variable losses = weighted_sum(y, weights);
      DefinitionSink sink;
      tape.backward(losses, sink);
      CHECK(tape.gradient_of(x).dtype() == from);
      check_rounded(tape.gradient_of(x).to_doubles(), Tensor::from(ctx, shape, to, weights).to_doubles(), from, 1);
    }
  Tape tape(ctx, 2);
  const Variable x = given(tape, {2, 1}, {3, 5}, DType::f32, true);
  CHECK(refuses([&] { cast(x, DType::i32); }, "cast: expected two floating dtypes, got f32 to i32"));
  CHECK(stop_gradient(x).value().to_doubles() == List{3, 5});
  DefinitionSink sink;
  tape.backward(weighted_sum(x * stop_gradient(x), List{1, 1}), sink);
  CHECK(tape.gradient_of(x).to_doubles() == List{3, 5});  // not 2 x
}

TEST_CASE("a parameter as a value: the same for every sample, and a gradient of each sample's own") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : dtypes) {
    const Shape shape{3, 1, 5};
    Parameter p(ctx, "token", Tensor::from(ctx, shape, accumulate_dtype(dtype), random_list(rng, shape, -2, 2)), dtype);
    Tape tape(ctx, 3), empty(ctx, 0);
    const Variable y = parameter(tape, p);
    CHECK(y.shape() == Shape{3, 3, 1, 5});
    const List value = p.value().to_doubles(), found = y.value().to_doubles();
    for (std::size_t k = 0; k < found.size(); ++k) CHECK(found[k] == value[k % 15]);
    CHECK(parameter(empty, p).shape() == Shape{0, 3, 1, 5});
    struct Keep final : GradientSink {
      std::vector<ParameterSite> sites;
      void accept(Context&, const ParameterSite& site) override { sites.push_back(site); }
    } kept;
    const List weights = random_list(rng, y.shape(), -1, 1);
    tape.backward(weighted_sum(y, weights), kept);
    REQUIRE(kept.sites.size() == 1);
    CHECK(kept.sites[0].parameter == &p);
    CHECK(kept.sites[0].form == SiteForm::vector);
    CHECK(kept.sites[0].b.shape() == Shape{3, 15});
    CHECK(kept.sites[0].b.to_doubles() == Tensor::from(ctx, y.shape(), dtype, weights).to_doubles());
  }
  Parameter wide(ctx, "wide", Tensor::zeros(ctx, {1, 1, 1, 1, 2}, DType::f32), DType::f32);
  Tape tape(ctx, 1);
  CHECK(refuses([&] { parameter(tape, wide); }, "parameter: expected at most 4 axes next to the sample axis, got wide"));
}

TEST_CASE("shapes that do not broadcast, dtypes and tapes that differ are refused") {
  Context ctx(Device::cpu(), 1);
  Tape tape(ctx, 2), other(ctx, 2);
  const auto zeros = [&](Tape& t, const Shape& shape, DType dtype = DType::f32) {
    return t.input(Tensor::zeros(ctx, shape, dtype));
  };
  const Variable x = zeros(tape, {2, 3, 4});
  const std::string text = "expected two values of one dtype whose axes after the sample axis are equal, 1 or missing";
  for (const Shape& shape : {Shape{2, 3}, Shape{2, 2, 4}, Shape{2, 3, 5}, Shape{2, 0, 4}}) {
    const Variable y = zeros(tape, shape);
    CHECK(refuses([&] { add(x, y); }, "add: " + text));
    CHECK(refuses([&] { subtract(x, y); }, "subtract: " + text));
    CHECK(refuses([&] { multiply(y, x); }, "multiply: " + text));
    CHECK(refuses([&] { divide(x, y); }, "divide: " + text));
    CHECK(refuses([&] { broadcast_to(x, shape); }, "broadcast_to: expected a value whose axes after the sample axis"));
  }
  CHECK(refuses([&] { add(x, zeros(tape, {2, 4}, DType::bf16)); }, "got [2, 3, 4] f32 and [2, 4] bf16"));
  CHECK(refuses([&] { divide(x, zeros(tape, {2, 3, 4}, DType::bf16)); }, "divide: " + text));
  CHECK(refuses([&] { add(x, zeros(other, {2, 4})); }, "variables of one tape"));
  CHECK(refuses([&] { broadcast_to(x, {3, 3, 4}); }, "broadcast_to: expected"));
  CHECK(refuses([&] { exp(zeros(tape, {2, 2}, DType::i32)); }, "expected a floating dtype"));
}

// SPDX-License-Identifier: Apache-2.0
// Initialisations: their distributions, that they are functions of seed and number alone, and what is refused.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/nn/embedding.hpp"
#include "dpmp/nn/recurrent.hpp"
#include "dpmp/nn/vision.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using test::refuses;
using List = std::vector<double>;
namespace init = nn::init;

namespace {
struct Moments {
  double mean = 0, deviation = 0, smallest = INFINITY, largest = -INFINITY;
};
Moments moments_of(const List& values) {
  Moments m;
  double squares = 0;
  for (const double v : values) {
    m.mean += v / double(values.size());
    squares += v * v / double(values.size());
    m.smallest = std::min(m.smallest, v);
    m.largest = std::max(m.largest, v);
  }
  m.deviation = std::sqrt(squares - m.mean * m.mean);
  return m;
}
/// Within six standard errors of mean and deviation; those of the deviation are the normal's, which are the largest here.
void check_moments(const List& values, double mean, double deviation) {
  const Moments m = moments_of(values);
  const double n = double(values.size());
  CHECK(std::fabs(m.mean - mean) <= 6 * deviation / std::sqrt(n));
  CHECK(std::fabs(m.deviation - deviation) <= 6 * deviation / std::sqrt(2 * n));
}
/// Largest difference of rows' products from gain^2 times the unit matrix.
double distance_from_orthonormal(const List& m, std::size_t rows, std::size_t columns, std::size_t row_step,
                                 std::size_t column_step, double gain) {
  double worst = 0;
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < rows; ++j) {
      double sum = 0;
      for (std::size_t c = 0; c < columns; ++c) sum += m[i * row_step + c * column_step] * m[j * row_step + c * column_step];
      worst = std::max(worst, std::fabs(sum - (i == j ? gain * gain : 0)));
    }
  return worst;
}
}  // namespace

TEST_CASE("initial values have the distribution asked for") {
  const nn::InitStream stream{test::seed(), 3};
  const Shape many{100, 1000};
  check_moments(init::normal(0.3).values(many, stream), 0, 0.3);
  check_moments(init::fan_in_normal().values(many, stream), 0, 1 / std::sqrt(1000.));
  check_moments(init::fan_in_normal().values({100, 10, 50}, stream), 0, 1 / std::sqrt(500.));
  check_moments(init::fan_in_normal().values({100000}, stream), 0, 1);
  const List uniform = init::uniform(-1, 3).values(many, stream);
  check_moments(uniform, 1, 4 / std::sqrt(12.));
  CHECK(moments_of(uniform).smallest > -1);
  CHECK(moments_of(uniform).largest < 3);
  // The variance of a normal cut at 2: 1 - 4 phi(2) / (1 - 2 Phi(-2)).
  const double density = std::exp(-2.) / std::sqrt(2 * std::acos(-1.)), inside = std::erf(2 / std::sqrt(2.));
  const List cut = init::truncated_normal(0.5).values(many, stream);
  check_moments(cut, 0, 0.5 * std::sqrt(1 - 4 * density / inside));
  CHECK(moments_of(cut).smallest >= -1);
  CHECK(moments_of(cut).largest <= 1);
  CHECK(moments_of(cut).largest > 0.95);
  CHECK(init::constant(-0.25).values({2, 2}, stream) == List(4, -0.25));
  CHECK(init::constant(7).values({}, stream) == List{7});
  CHECK(init::from_index([](index_t k) { return double(k * k); }).values({2, 2}, stream) == List{0, 1, 4, 9});
  CHECK(init::from_values({3, 1, 2}).values({3}, stream) == List{3, 1, 2});
  for (const nn::Init& empty : {init::normal(1), init::uniform(0, 1), init::truncated_normal(1), init::orthogonal()})
    CHECK(empty.values({0, 3}, stream).empty());
}

TEST_CASE("orthogonal: rows, or columns where there are fewer, are orthonormal to a few roundings") {
  test::Rng rng(test::seed(), 2);
  for (const auto& [rows, columns] :
       std::vector<std::pair<index_t, index_t>>{{1, 1}, {1, 9}, {9, 1}, {64, 64}, {13, 40}, {40, 13}}) {
    const nn::InitStream stream{rng.bits(), rng.bits()};
    const double gain = rng.uniform(0.5, 2);
    const List m = init::orthogonal(gain).values({rows, columns}, stream);
    const std::size_t r = std::size_t(rows), c = std::size_t(columns), few = std::min(r, c), long_side = std::max(r, c);
    const double bound = 0x1p-53 * gain * gain * double(8 + 4 * long_side);
    CHECK(distance_from_orthonormal(m, few, long_side, r <= c ? c : 1, r <= c ? 1 : c, gain) <= bound);
    CHECK(init::orthogonal(gain).values({rows, 1, columns, 1}, stream) == m);
  }
  // All orthogonal matrices alike: a coordinate of a random unit vector of 8 has variance 1 / 8, and both signs.
  List coordinates;
  for (std::uint64_t k = 0; k < 20000; ++k) coordinates.push_back(init::orthogonal().values({1, 8}, {test::seed(), k})[0]);
  check_moments(coordinates, 0, 1 / std::sqrt(8.));
}

TEST_CASE("initial values are functions of seed and number, and two of them never meet") {
  const std::vector<nn::Init> random{init::normal(1), init::fan_in_normal(), init::uniform(0, 1), init::truncated_normal(1),
                                     init::orthogonal()};
  const Shape shape{6, 11};
  for (const nn::Init& start : random) {
    const List values = start.values(shape, {5, 2});
    CHECK(start.values(shape, {5, 2}) == values);
    for (const nn::InitStream other : {nn::InitStream{6, 2}, nn::InitStream{5, 3}}) {
      const List others = start.values(shape, other);
      std::size_t equal = 0;
      for (std::size_t k = 0; k < values.size(); ++k) equal += values[k] == others[k];
      CHECK(equal == 0);
    }
  }
}

TEST_CASE("layers start as their options say, each parameter keyed by its number, rounded to its master's dtype") {
  Context ctx(Device::cpu(), 2);
  nn::Parameters parameters(ctx, DType::bf16, test::seed());
  nn::Linear(parameters / "linear", 3, 4, {.weight = init::truncated_normal(0.02), .bias_start = init::constant(-1)});
  nn::Embedding(parameters / "table", 5, 2, {.weight = init::uniform(-1, 1)});
  nn::Conv2d(parameters / "conv", 2, 4, {.kernel = {3, 3}}, {.bias = false, .weight = init::orthogonal(2)});
  nn::Gru(parameters / "gru", 3, 4, {.recurrent = init::orthogonal()});
  const auto check = [&](const char* name, std::uint64_t number, const nn::Init& start) {
    const Parameter& p = parameters.find(name);
    const List values = start.values(p.shape(), {test::seed(), number});
    CHECK(p.master().to_doubles() == Tensor::from(ctx, p.shape(), DType::f32, values).to_doubles());
  };
  check("linear.weight", 0, init::truncated_normal(0.02));
  check("linear.bias", 1, init::constant(-1));
  check("table.weight", 2, init::uniform(-1, 1));
  check("conv.weight", 3, init::orthogonal(2));
  check("gru.input.weight", 4, init::fan_in_normal());
  check("gru.recurrent.weight", 6, init::orthogonal());
  CHECK(parameters.all().size() == 8);
  const nn::Init own([](const Shape& shape, const nn::InitStream& stream, std::span<double> values) {
    for (double& v : values) v = double(shape.rank()) + double(stream.parameter);
  });
  CHECK(parameters.add("own", {2, 1}, own).master().to_doubles() == List{10, 10});
}

TEST_CASE("initialisations refuse numbers that are not finite, deviations below 0 and wrong counts") {
  const nn::InitStream stream;
  for (const double bad : {std::nan(""), double(INFINITY)}) {
    CHECK(refuses([&] { init::constant(bad); }, "finite initial value"));
    CHECK(refuses([&] { init::normal(bad); }, "finite standard deviation"));
    CHECK(refuses([&] { init::truncated_normal(bad); }, "finite standard deviation"));
    CHECK(refuses([&] { init::uniform(0, bad); }, "finite bounds"));
    CHECK(refuses([&] { init::orthogonal(bad); }, "finite gain"));
    CHECK(refuses([&] { init::from_values({1, bad}); }, "finite initial value"));
    CHECK(refuses([&] { init::from_index([=](index_t) { return bad; }).values({1}, stream); }, "finite initial value"));
  }
  CHECK(refuses([&] { init::normal(-1); }, "standard deviation >= 0, got -1"));
  CHECK(refuses([&] { init::truncated_normal(-1); }, "standard deviation >= 0, got -1"));
  CHECK(refuses([&] { init::uniform(2, 1); }, "low <= high, got 2 and 1"));
  CHECK(refuses(
      [&] {
        init::from_values({1, 2}).values({3}, stream);
      },
      "expected 3 initial values for the shape [3], got 2"));
  CHECK(refuses([&] { init::from_index({}); }, "got an empty one"));
  CHECK(refuses([&] { init::orthogonal().values({}, stream); }, "at least one axis"));
  // A refused parameter leaves no trace.
  Context ctx(Device::cpu(), 1);
  nn::Parameters parameters(ctx, DType::f32, 1);
  CHECK(refuses([&] { parameters.add("a", {3}, init::from_values({1})); }, "expected 3 initial values"));
  CHECK(parameters.all().empty());
}

// SPDX-License-Identifier: Apache-2.0
// Forward results of the sequence operations against plain loops in double, and what they refuse.
#include <doctest/doctest.h>
#include <cmath>

#include "autograd/ops.hpp"
#include "dpmp/autograd/gradcheck.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

using namespace dpmp;
using test::refuses;

namespace {
using List = std::vector<double>;
constexpr DType dtypes[] = {DType::f32, DType::bf16, DType::f16, DType::f64};

/// Largest |found - expected|, as a share of `roundings` roundings to dtype and FP32 work, both relative to the largest
/// value.
double share(const Tensor& found, const List& expected, double roundings) {
  const List values = found.to_doubles();
  if (values.size() != expected.size()) return INFINITY;
  double largest = 0, worst = 0;
  for (double v : expected) largest = std::max(largest, std::fabs(v));
  const double limit = roundings * (unit_roundoff(found.dtype()) + (found.dtype() == DType::f64 ? 0 : 8 * 0x1p-24));
  for (std::size_t k = 0; k < values.size(); ++k) {
    const double off = std::fabs(values[k] - expected[k]) / (limit * (1 + largest));
    if (!(off <= worst)) worst = off;
  }
  return worst;
}
double silu_of(double x) { return x / (1 + std::exp(-x)); }
}  // namespace

TEST_CASE("silu and swiglu: x / (1 + exp(-x)), and its product with the second half of a row; far values stay finite") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : dtypes) {
    const index_t samples = 3, tokens = 5, hidden = 21;
    Tape tape(ctx, samples);
    const Variable x = tape.input(test::normal_tensor(ctx, rng, {samples, tokens, 2 * hidden}, dtype, 3));
    const List in = x.value().to_doubles();
    List plain, gated;
    for (double v : in) plain.push_back(silu_of(v));
    for (std::size_t row = 0; row < std::size_t(samples * tokens); ++row)
      for (std::size_t k = 0; k < std::size_t(hidden); ++k)
        gated.push_back(silu_of(in[row * 2 * std::size_t(hidden) + k]) *
                        in[row * 2 * std::size_t(hidden) + std::size_t(hidden) + k]);
    CHECK(share(silu(x).value(), plain, 2) <= 1);
    CHECK(swiglu(x).shape() == Shape{samples, tokens, hidden});
    CHECK(share(swiglu(x).value(), gated, 4) <= 1);
  }
  Tape tape(ctx, 1);
  const Variable far = tape.input(Tensor::from(ctx, {1, 4}, DType::f32, List{-1e30, -200, 200, 1e30}), true);
  CHECK(silu(far).value().to_doubles()[2] == 200);
  CHECK(std::fabs(silu(far).value().to_doubles()[1]) < 1e-30);
  Tape walked(ctx, 1);
  const Variable y = walked.input(far.value(), true);
  DefinitionSink sink;
  walked.backward(dpmp::detail::gradient_check_losses(
                      walked, {y}, [](Tape&, const test::Variables& v) { return test::Variables{silu(v[0])}; },
                      {.weight = [](std::size_t, std::size_t) { return 1.0; }}),
                  sink);
  CHECK(walked.gradient_of(y).to_doubles() == List{0, 0, 1, 1});
  CHECK(refuses([&] { swiglu(tape.input(Tensor::zeros(ctx, {1, 3}, DType::f32))); }, "packed as [B, .., 2 h], got [1, 3]"));
}

TEST_CASE("rms_norm: a row over its root mean square, times the gain; scale-free, and zeros stay zeros") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : dtypes) {
    const index_t samples = 2, tokens = 3, width = 37;
    Tape tape(ctx, samples);
    Parameter gain(ctx, "gain", test::normal_tensor(ctx, rng, {width}, accumulate_dtype(dtype)), dtype);
    const Variable x = tape.input(test::normal_tensor(ctx, rng, {samples, tokens, width}, dtype, 5));
    const List in = x.value().to_doubles(), g = gain.value().to_doubles();
    List expected(in.size());
    for (std::size_t row = 0; row < std::size_t(samples * tokens); ++row) {
      double squares = 0;
      for (std::size_t k = 0; k < std::size_t(width); ++k) squares += in[row * 37 + k] * in[row * 37 + k];
      for (std::size_t k = 0; k < std::size_t(width); ++k)
        expected[row * 37 + k] = in[row * 37 + k] / std::sqrt(squares / double(width) + 1e-5) * g[k];
    }
    CHECK(share(rms_norm(x, gain).value(), expected, 4) <= 1);
    const Variable zeros = tape.input(Tensor::zeros(ctx, {samples, width}, dtype));
    CHECK(rms_norm(zeros, gain).value().to_doubles() == List(std::size_t(samples * width), 0));
    CHECK(refuses([&] { rms_norm(x, gain, 0); }, "rms_norm: expected epsilon > 0"));
    CHECK(refuses([&] { rms_norm(reshape(x, {samples, width * tokens}), gain); }, "rms_norm: expected gain [111]"));
  }
}

TEST_CASE("rope: pairs turned by position times frequency; lengths stay, and products see differences of positions only") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : dtypes) {
    const index_t samples = 2, tokens = 9, heads = 2, width = 22, rest = 7, columns = heads * width + rest;
    Tape tape(ctx, samples);
    const Variable x = tape.input(test::normal_tensor(ctx, rng, {samples, tokens, columns}, dtype));
    const List in = x.value().to_doubles();
    List expected = in;
    for (index_t row = 0; row < samples * tokens; ++row)
      for (index_t head = 0; head < heads; ++head)
        for (index_t k = 0; k < width / 2; ++k) {
          const double angle = double(row % tokens) * std::pow(500, -2 * double(k) / double(width));
          const std::size_t a = std::size_t(row * columns + head * width + k), b = a + std::size_t(width / 2);
          expected[a] = in[a] * std::cos(angle) - in[b] * std::sin(angle);
          expected[b] = in[b] * std::cos(angle) + in[a] * std::sin(angle);
        }
    const Variable y = rope(x, heads, width, 500);
    CHECK(share(y.value(), expected, 4) <= 1);
    for (index_t row = 0; row < samples * tokens; ++row)  // the columns behind the heads: the same bits
      for (index_t c = heads * width; c < columns; ++c)
        CHECK(y.value().to_doubles()[std::size_t(row * columns + c)] == in[std::size_t(row * columns + c)]);
  }
  // One query and one key at all positions: q_s . k_t is a function of s - t.
  Tape tape(ctx, 1);
  const index_t tokens = 12, width = 16;
  const List q = test::normal_tensor(ctx, rng, {width}, DType::f64).to_doubles(),
             k = test::normal_tensor(ctx, rng, {width}, DType::f64).to_doubles();
  List rows;
  for (index_t t = 0; t < tokens; ++t)
    for (const List* part : {&q, &k}) rows.insert(rows.end(), part->begin(), part->end());
  const List turned =
      rope(tape.input(Tensor::from(ctx, {1, tokens, 2 * width}, DType::f64, rows)), 2, width).value().to_doubles();
  const auto product = [&](index_t s, index_t t) {
    double sum = 0;
    for (index_t c = 0; c < width; ++c)
      sum += turned[std::size_t(s * 2 * width + c)] * turned[std::size_t(t * 2 * width + width + c)];
    return sum;
  };
  for (index_t s = 1; s < tokens; ++s)
    for (index_t t = 1; t < tokens; ++t) CHECK(std::fabs(product(s, t) - product(s - 1, t - 1)) < 1e-12);
  CHECK(std::fabs(product(5, 2) - product(5, 3)) > 1e-6);

  const Variable x = tape.input(Tensor::zeros(ctx, {1, 3, 12}, DType::f32));
  CHECK(refuses([&] { rope(x, 4, 3); }, "an even width >= 2"));
  CHECK(refuses([&] { rope(x, 4, 4); }, "at least heads * width"));
  CHECK(refuses([&] { rope(x, 0, 4); }, "heads >= 1"));
  CHECK(refuses([&] { rope(reshape(x, {1, 36}), 1, 4); }, "x [B, T"));
  for (const double base : {0.0, -1.0, double(NAN), double(INFINITY)})
    CHECK(refuses([&] { rope(x, 1, 4, base); }, "a finite base > 0"));
}

TEST_CASE("grouped attention equals attention with the shared keys and values written out for every query head") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : dtypes)
    for (const bool causal : {true, false}) {
      const index_t samples = 2, tokens = 6, groups = 2, group = 3, heads = groups * group,
                    width = 4;  // its root is exact: FP32 holds the factor of the scores
      const index_t columns = (heads + 2 * groups) * width;
      Tape tape(ctx, samples);
      const Variable x = tape.input(test::normal_tensor(ctx, rng, {samples, tokens, columns}, dtype));
      const List in = x.value().to_doubles();
      const auto at = [&](index_t row, index_t head, index_t c) {
        return in[std::size_t(row * columns + head * width + c)];
      };
      List expected;
      for (index_t i = 0; i < samples; ++i)
        for (index_t t = 0; t < tokens; ++t)
          for (index_t head = 0; head < heads; ++head) {
            const index_t key = heads + head / group, value = heads + groups + head / group;
            List p;
            double total = 0;
            for (index_t s = 0; s < (causal ? t + 1 : tokens); ++s) {
              double score = 0;
              for (index_t c = 0; c < width; ++c) score += at(i * tokens + t, head, c) * at(i * tokens + s, key, c);
              total += p.emplace_back(std::exp(score / std::sqrt(double(width))));
            }
            for (index_t c = 0; c < width; ++c) {
              double sum = 0;
              for (index_t s = 0; s < index_t(p.size()); ++s)
                sum += p[std::size_t(s)] / total * at(i * tokens + s, value, c);
              expected.push_back(sum);
            }
          }
      const Variable y = attention(x, {.heads = heads, .key_value_heads = groups, .causal = causal, .keep = {}});
      CHECK(y.shape() == Shape{samples, tokens, heads * width});
      CHECK(share(y.value(), expected, 8) <= 1);
    }
  Tape tape(ctx, 1);
  const Variable x = tape.input(test::normal_tensor(ctx, rng, {1, 4, 12}, DType::f32));
  CHECK(attention(x, {.heads = 2, .key_value_heads = 2, .causal = true, .keep = {}}).value().to_doubles() ==
        attention(x, {.heads = 2, .causal = true, .keep = {}}).value().to_doubles());
  CHECK(refuses([&] { attention(x, {.heads = 2, .key_value_heads = 3, .causal = true, .keep = {}}); },
                "divide them, got 2 and 3"));
  CHECK(refuses([&] { attention(x, {.heads = 2, .key_value_heads = -1, .causal = true, .keep = {}}); }, "got 2 and -1"));
  CHECK(refuses([&] { attention(x, {.heads = 3, .key_value_heads = 1, .causal = true, .keep = {}}); },
                "divisible by 3 heads + 2 * 1 key and value heads, got [1, 4, 12]"));
}

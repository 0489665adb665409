// SPDX-License-Identifier: Apache-2.0
// Tensor: what shares data and what does not, conversions from and to doubles, and what is refused.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/tensor/tensor.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using test::refuses;

TEST_CASE("tensor: values are rounded to the dtype and come back as they are stored") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const DType dtype : real_dtypes) {
    std::vector<double> values(60);
    for (double& x : values) x = rng.normal();
    const Tensor t = Tensor::from(ctx, {3, 4, 5}, dtype, values);
    CHECK(t.shape() == Shape{3, 4, 5});
    CHECK(t.dtype() == dtype);
    CHECK(t.device() == Device::cpu());
    CHECK(t.numel() == 60);
    CHECK(t.bytes() == 60 * size_of(dtype));
    const auto stored = t.to_doubles();
    for (std::size_t k = 0; k < 60; ++k)
      CHECK(std::abs(stored[k] - values[k]) <= unit_roundoff(dtype) * std::abs(values[k]));
    CHECK(Tensor::from(ctx, {60}, dtype, stored).to_doubles() == stored);
  }
  CHECK(Tensor::from(ctx, {2}, DType::bf16, std::vector<double>{1.00390625, 1e39}).to_doubles() ==
        std::vector<double>{1, INFINITY});
  CHECK(Tensor::from(ctx, {3}, std::vector<std::int32_t>{1, -2, 2147483647}).to_doubles() ==
        std::vector<double>{1, -2, 2147483647});
  CHECK(Tensor::from(ctx, {2}, DType::i32, std::vector<double>{3, -4}).to_doubles() == std::vector<double>{3, -4});
  CHECK(Tensor::full(ctx, {2, 1}, DType::f16, 0.5).to_doubles() == std::vector<double>{0.5, 0.5});
  CHECK(Tensor::zeros(ctx, {2}, DType::i32).to_doubles() == std::vector<double>{0, 0});
  CHECK(Tensor::full(ctx, {}, DType::f32, 7).item() == 7);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32})
    for (const index_t n : {0, 1, 2, 3, 1000})
      CHECK(Tensor::full(ctx, {n}, dtype, -6).to_doubles() == std::vector<double>(std::size_t(n), -6));
}

TEST_CASE("tensor: a copy, a reshaped and a range of rows share the data, a clone does not") {
  Context ctx(Device::cpu(), 1);
  const Tensor t = Tensor::from(ctx, {4, 2}, DType::f32, std::vector<double>{0, 1, 2, 3, 4, 5, 6, 7});
  CHECK_FALSE(t.shared());
  const Tensor copy = t.clone(ctx);
  CHECK_FALSE(t.shared());
  {
    const Tensor alias = t, flat = t.reshaped({8}), middle = t.rows(1, 3);
    Tensor last = middle.rows(1, 2);
    CHECK(t.shared());
    CHECK(alias.raw() == t.raw());
    CHECK(flat.shape() == Shape{8});
    CHECK(middle.shape() == Shape{2, 2});
    CHECK(middle.to_doubles() == std::vector<double>{2, 3, 4, 5});
    last.data<float>()[0] = -1;
    CHECK(last.clone(ctx).to_doubles() == std::vector<double>{-1, 5});
    CHECK(flat.data<float>()[4] == -1);
    CHECK(t.rows(4, 4).numel() == 0);
    last.set_zero();
    CHECK(t.to_doubles() == std::vector<double>{0, 1, 2, 3, 0, 0, 6, 7});
  }
  CHECK_FALSE(t.shared());
  CHECK(copy.to_doubles() == std::vector<double>{0, 1, 2, 3, 4, 5, 6, 7});
}

TEST_CASE("tensor: no elements are legal, no tensor is told apart from them") {
  Context ctx(Device::cpu(), 1);
  CHECK_FALSE(Tensor().defined());
  const Tensor t = Tensor::empty(ctx, {0, 3}, DType::bf16);
  CHECK(t.defined());
  CHECK(t.bytes() == 0);
  CHECK(t.to_doubles().empty());
  CHECK(t.clone(ctx).shape() == Shape{0, 3});
  CHECK(t.reshaped({5, 0}).shape() == Shape{5, 0});
  CHECK(t.rows(0, 0).defined());
}

TEST_CASE("tensor: refusals name what was expected and what was got") {
  Context ctx(Device::cpu(), 1);
  const Tensor t = Tensor::zeros(ctx, {2, 3}, DType::f32);
  CHECK(refuses(
      [&] {
        Tensor::from(ctx, {2, 3}, DType::f32, std::vector<double>(5));
      },
      "expected 6 values for the shape [2, 3], got 5"));
  CHECK(refuses([&] { Tensor::from(ctx, {2}, std::vector<std::int32_t>(3)); }, "expected 2 values"));
  CHECK(refuses([&] { Tensor::empty(ctx, {index_t(1) << 62}, DType::f32); }, "expected a size below 2^63 bytes"));
  CHECK(refuses([&] { t.data<double>(); }, "expected a tensor of f64, got f32 [2, 3]"));
  CHECK(refuses([&] { t.data<std::int32_t>(); }, "expected a tensor of i32, got f32"));
  CHECK(refuses([&] { t.reshaped({5}); }, "expected a shape of 6 elements"));
  for (const auto& range : {std::pair<index_t, index_t>{-1, 1}, {1, 3}, {2, 1}})
    CHECK(refuses([&] { t.rows(range.first, range.second); }, "expected rows within [0, 2)"));
  CHECK(refuses([&] { t.item(); }, "expected a tensor of one element, got [2, 3]"));
  CHECK(refuses([&] { check_shape("a gain", t, {3}); }, "expected a gain of shape [3], got [2, 3]"));
  CHECK(refuses([&] { check_dtype("a gain", t, DType::bf16); }, "expected a gain in bf16, got f32 [2, 3]"));
}

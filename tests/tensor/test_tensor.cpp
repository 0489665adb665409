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

TEST_CASE("tensor: floats and bytes are stored as the same numbers given as doubles are") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 1);
  std::vector<float> floats(101);
  for (float& x : floats) x = float(rng.normal(3));
  std::vector<std::uint8_t> bytes(256 + 45);
  for (std::size_t k = 0; k < bytes.size(); ++k) bytes[k] = std::uint8_t(k < 256 ? k : rng.integer(0, 255));
  const double scale = rng.normal(0.01), offset = rng.normal();
  std::vector<double> scaled;
  for (const std::uint8_t b : bytes) scaled.push_back(scale * b + offset);
  for (const DType dtype : real_dtypes) {
    const auto of_floats = Tensor::from(ctx, {101}, dtype, floats);
    CHECK(of_floats.dtype() == dtype);
    CHECK(of_floats.to_doubles() ==
          Tensor::from(ctx, {101}, dtype, std::vector<double>(floats.begin(), floats.end())).to_doubles());
    const auto of_bytes = Tensor::from(ctx, {7, 43}, dtype, bytes, scale, offset);
    CHECK(of_bytes.shape() == Shape{7, 43});
    const std::vector<double> stored = of_bytes.to_doubles();
    // Two roundings at most, of the double and to the dtype, of numbers that may cancel.
    for (std::size_t k = 0; k < stored.size(); ++k)
      CHECK(std::abs(stored[k] - scaled[k]) <= unit_roundoff(dtype) * (1 + 0x1p-12) * std::abs(scaled[k]) +
                                                   0x1p-51 * (std::abs(offset) + 255 * std::abs(scale)) +
                                                   (dtype == DType::f16 ? 0x1p-25 : 0));  // f16: half of its smallest number
    CHECK(Tensor::from(ctx, {7, 43}, dtype, bytes).to_doubles() == std::vector<double>(bytes.begin(), bytes.end()));
  }
  CHECK(Tensor::from(ctx, {2}, DType::f32, std::vector<std::uint8_t>{255, 51}, 1. / 255).to_doubles() ==
        std::vector<double>{1, double(51.f / 255)});
  CHECK(Tensor::from(ctx, {3}, DType::f32, std::vector<float>{INFINITY, -0.f, 1e-45f}).to_doubles() ==
        std::vector<double>{INFINITY, 0, double(1e-45f)});
}

TEST_CASE("tensor: 64-bit token ids become i32; one outside of its range is refused without being named") {
  Context ctx(Device::cpu(), 1);
  const std::vector<std::int64_t> fit{0, -1, 2147483647, -2147483648LL};
  const Tensor t = Tensor::from(ctx, {2, 2}, fit);
  CHECK(t.dtype() == DType::i32);
  CHECK(t.to_doubles() == std::vector<double>{0, -1, 2147483647, -2147483648.});
  for (const std::int64_t outside :
       {std::int64_t(2147483648LL), std::int64_t(-2147483649LL), std::int64_t(1) << 62, std::int64_t(1) << 32, INT64_MIN}) {
    const std::string text = test::error_of([&] { Tensor::from(ctx, {3}, std::vector<std::int64_t>{1, outside, 2}); });
    CHECK(text.find("expected values within the range of i32, got at least one outside of it") != std::string::npos);
    CHECK(text.find(std::to_string(outside)) == std::string::npos);
  }
}

TEST_CASE("tensor: host_data is what data is on the CPU") {
  Context ctx(Device::cpu(), 1);
  const Tensor t = Tensor::full(ctx, {3}, DType::f32, 2);
  CHECK(t.host_data<float>() == t.data<float>());
  CHECK(refuses([&] { t.host_data<double>(); }, "expected a tensor of f64, got f32 [3]"));
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
  CHECK(refuses([&] { Tensor::from(ctx, {2}, std::vector<std::int64_t>(3)); }, "expected 2 values"));
  CHECK(refuses([&] { Tensor::from(ctx, {2}, DType::f32, std::vector<float>(3)); }, "expected 2 values"));
  CHECK(refuses([&] { Tensor::from(ctx, {2}, DType::f32, std::vector<std::uint8_t>(1)); }, "expected 2 values"));
  CHECK(refuses([&] { Tensor::from(ctx, {1}, DType::f32, std::vector<std::uint8_t>(1), NAN); }, "a finite scale"));
  CHECK(refuses([&] { Tensor::from(ctx, {1}, DType::f32, std::vector<std::uint8_t>(1), 1, INFINITY); }, "and offset"));
  CHECK(refuses([&] { Tensor::from(ctx, {1}, DType::i32, std::vector<std::uint8_t>(1)); }, "a floating dtype"));
  CHECK(refuses([&] { Tensor::from(ctx, {1}, DType::i32, std::vector<float>(1)); }, "a floating dtype"));
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

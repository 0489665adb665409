// SPDX-License-Identifier: Apache-2.0
// Windows, convolutions, pooling and per-sample normalisation against plain loops in double; isolation of samples; what they
// refuse.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/autograd/rules/convolution.hpp"
#include "dpmp/autograd/rules/group_norm.hpp"
#include "dpmp/autograd/rules/pooling.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

using namespace dpmp;
using test::refuses;

namespace {
using List = std::vector<double>;
constexpr DType dtypes[] = {DType::f32, DType::bf16, DType::f16, DType::f64};

/// Images [B, H, W, C] in double, 0 outside.
struct Images {
  index_t samples, height, width, channels;
  List values;
  double at(index_t b, index_t y, index_t x, index_t c) const {
    if (!inside(y, x)) return 0;
    return values[std::size_t(((b * height + y) * width + x) * channels + c)];
  }
  bool inside(index_t y, index_t x) const { return y >= 0 && y < height && x >= 0 && x < width; }
};
index_t windows(index_t extent, index_t kernel, index_t stride, index_t padding, index_t dilation) {
  index_t count = 0;  // by trying, not by the formula
  for (index_t first = -padding; first + dilation * (kernel - 1) < extent + padding; first += stride) ++count;
  return count;
}

/// A random geometry whose windows fit, images for it, and both extents of the result.
struct Case {
  Convolution2dOptions o;
  Images images;
  index_t height, width;
  Variable x;
};
Case random_case(Tape& tape, test::Rng& rng, DType dtype, index_t channels, bool pool) {
  Case c;
  const auto axis = [&](index_t Size2d::*along) {
    c.o.kernel.*along = rng.integer(1, 4);
    c.o.stride.*along = rng.integer(1, 3);
    c.o.dilation.*along = pool ? 1 : rng.integer(1, 3);
    c.o.padding.*along = rng.integer(0, pool ? c.o.kernel.*along - 1 : 3);
    return std::max<index_t>(1, c.o.dilation.*along * (c.o.kernel.*along - 1) + 1 - 2 * c.o.padding.*along) +
           rng.integer(0, 5);
  };
  const index_t height = axis(&Size2d::height), width = axis(&Size2d::width);
  const Tensor x = test::normal_tensor(tape.ctx(), rng, {tape.samples(), height, width, channels}, dtype);
  c.images = {tape.samples(), height, width, channels, x.to_doubles()};
  c.height = windows(height, c.o.kernel.height, c.o.stride.height, c.o.padding.height, c.o.dilation.height);
  c.width = windows(width, c.o.kernel.width, c.o.stride.width, c.o.padding.width, c.o.dilation.width);
  c.x = tape.input(x, true);
  return c;
}
/// What the sites of the first samples hold.
class FirstRows : public GradientSink {
 public:
  explicit FirstRows(index_t samples) : samples_(samples) {}
  void accept(Context&, const ParameterSite& site) override {
    if (site.a.defined()) keep(site.a);
    keep(site.b);
  }
  void keep(const Tensor& x) {
    for (const double value : x.rows(0, samples_).to_doubles()) values.push_back(value);
  }
  List values;

 private:
  index_t samples_;
};
Parameter parameter(Context& ctx, test::Rng& rng, const Shape& shape, DType dtype) {
  return Parameter(ctx, "p", test::normal_tensor(ctx, rng, shape, accumulate_dtype(dtype)), dtype);
}
}  // namespace

TEST_CASE("unfold2d: every element is the pixel under its tap, 0 in the padding") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : dtypes)
    for (int round = 0; round < 25; ++round) {
      Tape tape(ctx, rng.integer(1, 3));
      const Case c = random_case(tape, rng, dtype, rng.integer(1, 20), false);
      const Tensor y = unfold2d(c.x, c.o.windows()).value();
      REQUIRE(y.shape() ==
              Shape{tape.samples(), c.height * c.width, c.o.kernel.height * c.o.kernel.width * c.images.channels});
      const List found = y.to_doubles();
      std::size_t k = 0, wrong = 0;
      for (index_t b = 0; b < tape.samples(); ++b)
        for (index_t oy = 0; oy < c.height; ++oy)
          for (index_t ox = 0; ox < c.width; ++ox)
            for (index_t ky = 0; ky < c.o.kernel.height; ++ky)
              for (index_t kx = 0; kx < c.o.kernel.width; ++kx)
                for (index_t ch = 0; ch < c.images.channels; ++ch)
                  wrong +=
                      found[k++] != c.images.at(b, oy * c.o.stride.height - c.o.padding.height + ky * c.o.dilation.height,
                                                ox * c.o.stride.width - c.o.padding.width + kx * c.o.dilation.width, ch);
      CHECK(wrong == 0);
    }
}

TEST_CASE("conv2d: one group, several, depthwise, against the sum over taps and channels; conv1d is its one-row case") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : dtypes)
    for (int round = 0; round < 24; ++round) {
      Tape tape(ctx, rng.integer(1, 3));
      const index_t groups = round % 3 == 0 ? 1 : rng.integer(2, 19), inputs = round % 3 == 2 ? 1 : rng.integer(1, 3),
                    outputs = rng.integer(1, 3);
      Case c = random_case(tape, rng, dtype, groups * inputs, false);
      c.o.groups = groups;
      const index_t taps = c.o.kernel.height * c.o.kernel.width;
      Parameter weight = parameter(ctx, rng, {groups * outputs, taps * inputs}, dtype),
                bias = parameter(ctx, rng, {groups * outputs}, dtype);
      const Tensor y = conv2d(c.x, weight, round % 2 ? &bias : nullptr, c.o).value();
      REQUIRE(y.shape() == Shape{tape.samples(), c.height, c.width, groups * outputs});
      const List found = y.to_doubles(), w = weight.value().to_doubles(), b0 = bias.value().to_doubles();
      double worst = 0;  // as a share of the bound: one rounding to storage, the products' and sums' roundings in FP32
      std::size_t k = 0;
      for (index_t b = 0; b < tape.samples(); ++b)
        for (index_t oy = 0; oy < c.height; ++oy)
          for (index_t ox = 0; ox < c.width; ++ox)
            for (index_t o = 0; o < groups * outputs; ++o, ++k) {
              double sum = round % 2 ? b0[std::size_t(o)] : 0, size = std::fabs(sum);
              for (index_t ky = 0; ky < c.o.kernel.height; ++ky)
                for (index_t kx = 0; kx < c.o.kernel.width; ++kx)
                  for (index_t j = 0; j < inputs; ++j) {
                    const double term =
                        w[std::size_t(o * taps * inputs + (ky * c.o.kernel.width + kx) * inputs + j)] *
                        c.images.at(b, oy * c.o.stride.height - c.o.padding.height + ky * c.o.dilation.height,
                                    ox * c.o.stride.width - c.o.padding.width + kx * c.o.dilation.width,
                                    o / outputs * inputs + j);
                    sum += term;
                    size += std::fabs(term);
                  }
              const double bound = unit_roundoff(dtype) * std::fabs(sum) +
                                   double(taps * inputs + 4) * unit_roundoff(accumulate_dtype(dtype)) * size +
                                   0x1p-25;  // f16 denormals are 2^-24 apart
              worst = std::max(worst, std::fabs(found[k] - sum) / (1.01 * bound));
            }
      CHECK(worst <= 1);
    }
  for (const index_t groups : {1, 4}) {
    Tape tape(ctx, 2);
    const Convolution1dOptions o{.kernel = 3, .stride = 2, .padding = 1, .dilation = 2, .groups = groups};
    const Tensor x = test::normal_tensor(ctx, rng, {2, 11, 8}, DType::f32);
    Parameter weight = parameter(ctx, rng, {12, 3 * 8 / groups}, DType::f32), bias = parameter(ctx, rng, {12}, DType::f32);
    const Tensor y = conv1d(tape.input(x), weight, &bias, o).value();
    CHECK(y.shape() == Shape{2, 5, 12});
    const Variable rows = conv2d(tape.input(x.reshaped({2, 1, 11, 8})), weight, &bias, o.on_rows());
    CHECK(rows.value().to_doubles() == y.to_doubles());
  }
}

TEST_CASE("pooling: the mean over the kernel's taps and the largest pixel of each window") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : dtypes)
    for (int round = 0; round < 20; ++round) {
      Tape tape(ctx, rng.integer(1, 3));
      const Case c = random_case(tape, rng, dtype, rng.integer(1, 20), true);
      const PoolOptions o{c.o.kernel, c.o.stride, c.o.padding};
      const List mean = average_pool2d(c.x, o).value().to_doubles(), most = max_pool2d(c.x, o).value().to_doubles();
      const index_t taps = o.kernel.height * o.kernel.width;
      REQUIRE(index_t(most.size()) == tape.samples() * c.height * c.width * c.images.channels);
      REQUIRE(mean.size() == most.size());
      std::size_t k = 0;
      for (index_t b = 0; b < tape.samples(); ++b)
        for (index_t oy = 0; oy < c.height; ++oy)
          for (index_t ox = 0; ox < c.width; ++ox)
            for (index_t ch = 0; ch < c.images.channels; ++ch, ++k) {
              double sum = 0, size = 0, largest = -INFINITY;
              for (index_t ky = 0; ky < o.kernel.height; ++ky)
                for (index_t kx = 0; kx < o.kernel.width; ++kx) {
                  const index_t y = oy * o.stride.height - o.padding.height + ky,
                                x = ox * o.stride.width - o.padding.width + kx;
                  const double v = c.images.at(b, y, x, ch);
                  sum += v;
                  size += std::fabs(v);
                  if (c.images.inside(y, x)) largest = std::max(largest, v);
                }
              const double u = unit_roundoff(accumulate_dtype(dtype)), t = double(taps);
              const double bound = unit_roundoff(dtype) * std::fabs(sum / t) + (t + 4) * u * size / t;
              CHECK(std::fabs(mean[k] - sum / t) <= 1.01 * bound + 0x1p-25);  // f16 denormals are 2^-24 apart
              CHECK(most[k] == largest);
            }
    }
  Tape tape(ctx, 1);
  const Variable x = tape.input(Tensor::from(ctx, {1, 2, 3, 2}, DType::f32, List{1, 10, 2, 20, 3, 30, 4, 40, 5, 50, 6, 60}));
  CHECK(global_average_pool(x).value().to_doubles() == List{3.5, 35});
  CHECK(global_average_pool(reshape(x, {1, 6, 2})).value().to_doubles() == List{3.5, 35});
}

TEST_CASE("max_pool2d: of equal pixels the first gets the gradient; NaN in a window is seen; padding never wins") {
  Context ctx(Device::cpu(), 1);
  const auto gradient = [&](const List& values, const PoolOptions& o, List* y = nullptr) {
    Tape tape(ctx, 1);
    const Variable x = tape.input(Tensor::from(ctx, {1, 3, 3, 1}, DType::f32, values), true);
    const Variable m = max_pool2d(x, o);
    if (y) *y = m.value().to_doubles();
    DefinitionSink sink;
    List weights(std::size_t(m.value().numel()));
    for (std::size_t k = 0; k < weights.size(); ++k) weights[k] = double(index_t(1) << k);
    tape.backward(weighted_sum(m, weights), sink);
    return tape.gradient_of(x).to_doubles();
  };
  List y;
  CHECK(gradient(List(9, -2), {.kernel = {3, 3}}, &y) == List{1, 0, 0, 0, 0, 0, 0, 0, 0});
  CHECK(y == List{-2});
  // Windows of 2 x 2, stride 1, and weights 1, 2, 4, 8: each pixel collects the windows it wins.
  CHECK(gradient({5, 5, 1, 1, 5, 1, 1, 1, 5}, {.kernel = {2, 2}}) == List{1, 2, 0, 0, 4 + 8, 0, 0, 0, 0});
  CHECK(gradient({-1, -2, -3, -4, -5, -6, -7, -8, -9}, {.kernel = {2, 2}, .stride = {2, 2}, .padding = {1, 1}}, &y) ==
        List{1, 2, 0, 4, 8, 0, 0, 0, 0});
  CHECK(y == List{-1, -2, -4, -5});
  for (int place : {0, 1, 4}) {
    List values{1, 2, 3, 4, 5, 6, 7, 8, 9};
    values[std::size_t(place)] = std::nan("");
    gradient(values, {.kernel = {2, 2}}, &y);
    CHECK(std::isnan(y[0]));
    CHECK(std::isnan(y[3]) == (place == 4));
  }
  gradient({-INFINITY, INFINITY, 0, 0, 0, 0, 0, 0, 0}, {.kernel = {3, 3}}, &y);
  CHECK(y == List{INFINITY});
}

TEST_CASE("group_norm: mean and variance of each sample and group, also far from zero; instance_norm has C groups") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : dtypes)
    for (int round = 0; round < 20; ++round) {
      const index_t most = round % 4 == 3 ? 40 : 5;  // positions that a team does or does not walk all side by side
      const index_t samples = rng.integer(1, 3), height = rng.integer(1, most), width = rng.integer(1, most),
                    groups = round % 2 ? rng.integer(1, 20) : rng.integer(1, 3), size = round % 2 ? 1 : rng.integer(1, 9),
                    channels = groups * size, positions = height * width;
      Tape tape(ctx, samples);
      Tensor x = test::normal_tensor(ctx, rng, {samples, height, width, channels}, dtype);
      List values = x.to_doubles();
      const double shift = round % 3 == 0 ? 100 : 0;
      for (double& v : values) v += shift;
      x = Tensor::from(ctx, x.shape(), dtype, values);
      values = x.to_doubles();
      Parameter gain = parameter(ctx, rng, {channels}, dtype), bias = parameter(ctx, rng, {channels}, dtype);
      const double epsilon = 1e-2;
      const Variable v = tape.input(x);
      const List y = (round % 2 ? instance_norm(v, gain, bias, epsilon) : group_norm(v, gain, bias, groups, epsilon))
                         .value()
                         .to_doubles(),
                 gains = gain.value().to_doubles(), biases = bias.value().to_doubles();
      double worst = 0;
      for (index_t b = 0; b < samples; ++b)
        for (index_t g = 0; g < groups; ++g) {
          const auto each = [&](auto f) {
            for (index_t t = 0; t < positions; ++t)
              for (index_t c = g * size; c < (g + 1) * size; ++c)
                f(std::size_t((b * positions + t) * channels + c), std::size_t(c));
          };
          const double n = double(positions * size), u = unit_roundoff(accumulate_dtype(dtype));
          double mean = 0, variance = 0;
          each([&](std::size_t k, std::size_t) { mean += values[k] / n; });
          each([&](std::size_t k, std::size_t) { variance += (values[k] - mean) * (values[k] - mean) / n; });
          const double scale = 1 / std::sqrt(variance + epsilon);
          each([&](std::size_t k, std::size_t c) {
            const double h = (values[k] - mean) * scale, expected = h * gains[c] + biases[c];
            // The mean is off by n u max|x|; the rest is relative to a few standard deviations.
            const double bound = unit_roundoff(dtype) * std::fabs(expected) +
                                 (n + 8) * u * ((shift + 6) * scale + 8) * (1 + std::fabs(gains[c]));
            worst = std::max(worst, std::fabs(y[k] - expected) / bound);
          });
        }
      CHECK(worst <= 1);
    }
}

TEST_CASE("P15: another sample's pixels change no bit of a sample's result, input gradient or parameter gradients") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const Tensor x = test::normal_tensor(ctx, rng, {3, 9, 8, 6}, DType::f32), changed = x.clone(ctx);
  for (index_t k = 2 * 432; k < 3 * 432; ++k) changed.data<float>()[k] = k % 7 ? float(rng.normal(1e3)) : NAN;
  Parameter dense = parameter(ctx, rng, {6, 9 * 6}, DType::f32), grouped = parameter(ctx, rng, {6, 9 * 2}, DType::f32),
            gain = parameter(ctx, rng, {6}, DType::f32), bias = parameter(ctx, rng, {6}, DType::f32);
  const auto run = [&](const Tensor& images) {
    Tape tape(ctx, 3);
    const Variable v = tape.input(images, true);
    const Convolution2dOptions o{.kernel = {3, 3}, .padding = {1, 1}};
    Convolution2dOptions in_groups = o;
    in_groups.groups = 3;
    Variable y = conv2d(v, dense, nullptr, o);
    y = group_norm(max_pool2d(y, {.kernel = {2, 2}}), gain, bias, 2);
    y = average_pool2d(conv2d(y, grouped, nullptr, in_groups), {.kernel = {2, 3}, .stride = {2, 1}});
    FirstRows rows(2);
    tape.backward(weighted_sum(y, List(std::size_t(y.value().numel()), 0.5)), rows);
    rows.keep(y.value());
    rows.keep(tape.gradient_of(v));
    return rows.values;
  };
  const List before = run(x);
  CHECK(before.size() > 9000);
  CHECK(before == run(changed));
}

TEST_CASE("bad input: shapes, options and parameters that do not fit are refused, with the numbers") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  Tape tape(ctx, 2);
  const Variable x = tape.input(Tensor::zeros(ctx, {2, 5, 6, 4}, DType::f32)),
                 flat = tape.input(Tensor::zeros(ctx, {2, 30, 4}, DType::f32)),
                 none = tape.input(Tensor::zeros(ctx, {2, 0, 6, 4}, DType::f32));
  CHECK(refuses([&] { unfold2d(flat, {}); }, "expected images x [B, H, W, C], channels last, got [2, 30, 4]"));
  CHECK(refuses([&] { unfold2d(x, {.kernel = {0, 1}}); }, "along the height, got 0, 1 and 1"));
  CHECK(refuses([&] { unfold2d(x, {.kernel = {1, -1}}); }, "along the width, got -1"));
  CHECK(refuses([&] { unfold2d(x, {.stride = {0, 1}}); }, "got 1, 0 and 1"));
  CHECK(refuses([&] { unfold2d(x, {.dilation = {1, 0}}); }, "got 1, 1 and 0"));
  CHECK(refuses([&] { unfold2d(x, {.kernel = {index_t(1) << 62, 1}}); }, "[1, 2^20]"));
  CHECK(refuses([&] { unfold2d(x, {.padding = {-1, 0}}); }, "expected a padding in [0, 2^20] along the height, got -1"));
  CHECK(refuses([&] { unfold2d(x, {.kernel = {6, 1}}); }, "got a span of 6 positions (kernel 6, dilation 1) and 5"));
  CHECK(refuses([&] { unfold2d(x, {.kernel = {1, 3}, .padding = {0, 1}, .dilation = {1, 4}}); }, "a span of 9"));
  CHECK(unfold2d(none, {.kernel = {3, 3}}).shape() == Shape{2, 0, 36});

  Parameter weight = parameter(ctx, rng, {8, 36}, DType::f32), wrong = parameter(ctx, rng, {8, 35}, DType::f32),
            low = parameter(ctx, rng, {8, 36}, DType::bf16), bias = parameter(ctx, rng, {7}, DType::f32),
            odd = parameter(ctx, rng, {7, 18}, DType::f32);
  const Convolution2dOptions o{.kernel = {3, 3}};
  CHECK(conv2d(x, weight, nullptr, o).shape() == Shape{2, 3, 4, 8});
  CHECK(refuses([&] { conv2d(flat, weight, nullptr, o); }, "conv2d: expected images"));
  CHECK(refuses([&] { conv2d(x, wrong, nullptr, o); }, "expected a weight [C_out, 36] for a kernel of 3 x 3"));
  CHECK(refuses([&] { conv2d(x, low, nullptr, o); }, "in f32 like x, got bf16"));
  CHECK(refuses([&] { conv2d(x, weight, &bias, o); }, "expected a bias [8]"));
  for (const index_t groups : {0, 3, 8})
    CHECK(refuses([&] { conv2d(x, weight, nullptr, {.kernel = {3, 3}, .groups = groups}); }, "groups that divide the 4"));
  CHECK(refuses([&] { conv2d(x, odd, nullptr, {.kernel = {3, 3}, .groups = 2}); }, "2 groups that divide C_out, got p [7"));
  CHECK(refuses([&] { conv1d(x, weight, nullptr, {.kernel = 3}); }, "conv1d: expected sequences x [B, T, C]"));

  for (const bool maximum : {false, true}) {
    const auto pool = [&](const Variable& v, const PoolOptions& p) {
      return maximum ? max_pool2d(v, p) : average_pool2d(v, p);
    };
    CHECK(refuses([&] { pool(x, {.kernel = {2, 2}, .padding = {2, 0}}); }, "padding below the kernel 2 x 2, got 2 x 0"));
    CHECK(refuses([&] { pool(x, {.kernel = {2, 7}}); }, "along the width, got a span of 7"));
    CHECK(refuses([&] { pool(flat, {}); }, "pool2d: expected images"));
    CHECK(pool(none, {.kernel = {2, 2}}).shape() == Shape{2, 0, 5, 4});
  }
  CHECK(refuses([&] { global_average_pool(none); }, "at least one position"));

  Parameter gain = parameter(ctx, rng, {4}, DType::f32);
  for (const index_t groups : {0, 3, -1})
    CHECK(refuses([&] { group_norm(x, gain, gain, groups); }, "groups that divide the 4"));
  CHECK(refuses([&] { group_norm(x, gain, bias, 2); }, "expected p [4] in f32, got [7] f32"));
  CHECK(refuses([&] { group_norm(x, gain, gain, 2, 0); }, "epsilon > 0"));
  CHECK(refuses([&] { instance_norm(x, bias, bias); }, "expected p [4]"));
}

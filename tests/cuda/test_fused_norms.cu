// SPDX-License-Identifier: Apache-2.0
// The backward passes of layer and RMS norm, which read x and the output gradient once, on a CUDA device against plain loops
// in double: the gradient of x, and the per-sample vectors that are summed slice by slice. And the forward passes that form
// the sum before the norm: the bits of both apart.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "autograd/add_norm_bits.hpp"
#include "dpmp/runtime/cuda_backend.cuh"
#include "dpmp/runtime/launch_cuda.cuh"
#include "support/random.hpp"

using namespace dpmp;

namespace {
using Numbers = std::vector<double>;

struct Vectors final : GradientSink {
  std::map<std::string, Numbers> of;
  void accept(Context&, const ParameterSite& site) override { of[site.parameter->name()] = site.b.to_doubles(); }
};
/// Puts a gradient behind the norm whatever the losses are and, where there is one, another into its input beside it.
struct Seed {
  static constexpr std::string_view name = "seed";
  Variable x, y;
  Tensor gradient, beside;
  void backward(BackwardPass& pass, const Tensor&) const {
    pass.accumulate(y.slot(), gradient);
    if (beside.defined()) pass.accumulate(x.slot(), beside.clone(pass.ctx));
  }
};
struct Case {
  Shape shape;
  bool centred, input = true, trained = true, residual = false;
};
struct Result {
  Numbers x, g, gain, beside, input_gradient;
  std::map<std::string, Numbers> vectors;
};

/// spoiled: sample 0 holds NaN.
Result on_device(Context& ctx, DType dtype, const Case& c, bool spoiled = false) {
  test::Rng rng(test::seed(), std::uint64_t(c.shape.numel()));
  const auto random = [&](const Shape& shape, double std, double mean) {
    Numbers values(std::size_t(shape.numel()));
    for (double& v : values) v = mean + rng.normal(std);
    return values;
  };
  const Shape vector{c.shape[2]};
  const DType master = accumulate_dtype(dtype);
  Parameter gain(ctx, "gain", Tensor::from(ctx, vector, master, random(vector, 0.3, 1)), dtype),
      bias(ctx, "bias", Tensor::from(ctx, vector, master, random(vector, 0.3, 0)), dtype);
  gain.set_trainable(c.trained), bias.set_trainable(c.trained);
  Numbers values = random(c.shape, 2, 1), gradient = random(c.shape, 0.1, 0.02);
  if (spoiled) values[0] = std::numeric_limits<double>::quiet_NaN();
  Tape tape(ctx, c.shape[0]);
  const Variable x = tape.input(Tensor::from(ctx, c.shape, dtype, values), c.input);
  const Variable y = c.centred ? layer_norm(x, gain, bias) : rms_norm(x, gain);
  const Tensor g = Tensor::from(ctx, c.shape, dtype, gradient);
  const Tensor beside = c.residual ? Tensor::from(ctx, c.shape, dtype, random(c.shape, 0.1, 0)) : Tensor();
  const Variable losses = tape.record(Tensor::zeros(ctx, {c.shape[0]}, DType::f32), true, Seed{x, y, g, beside});
  Vectors sink;
  tape.backward(losses, sink);
  return {x.value().to_doubles(),
          g.to_doubles(),
          gain.value().to_doubles(),
          c.residual ? beside.to_doubles() : Numbers(std::size_t(g.numel()), 0.0),
          c.input ? tape.gradient_of(x).to_doubles() : Numbers{},
          sink.of};
}

/// The largest error as a share of its bound: a sum of n terms has n + 30 roundings of terms whose absolute values add up to
/// what is gathered beside it; statistics carry n + 30 of their own.
double error_share(const Case& c, const Result& r, double u, double stored) {
  const index_t samples = c.shape[0], tokens = c.shape[1], width = c.shape[2];
  double worst = 0;
  const auto check = [&](double got, double want, double scale, double roundings, double rounded = 0) {
    worst = std::max(worst, std::fabs(got - want) / (roundings * u * scale + rounded * std::fabs(want) + 1e-30));
  };
  for (index_t i = 0; i < samples; ++i) {
    Numbers gain(std::size_t(width), 0.0), bias = gain, size = gain, bias_size = gain;
    for (index_t t = i * tokens; t < (i + 1) * tokens; ++t) {
      const double *x = &r.x[std::size_t(t * width)], *g = &r.g[std::size_t(t * width)];
      double mean = 0, square = 0, w = 0, wh = 0, w_size = 0, wh_size = 0;
      for (index_t j = 0; j < width; ++j) mean += c.centred ? x[j] / double(width) : 0;
      for (index_t j = 0; j < width; ++j) square += (x[j] - mean) * (x[j] - mean) / double(width);
      const double scale = 1 / std::sqrt(square + 1e-5), n = double(width) + 30;
      const auto h = [&](index_t j) { return (x[j] - mean) * scale; };
      const auto h_size = [&](index_t j) { return (std::fabs(x[j]) + std::fabs(mean)) * scale + std::fabs(mean) * scale; };
      for (index_t j = 0; j < width; ++j) {
        const double v = g[j] * r.gain[std::size_t(j)];
        w += v / double(width), wh += v * h(j) / double(width);
        w_size += std::fabs(v) / double(width), wh_size += std::fabs(v) * h_size(j) / double(width);
      }
      for (index_t j = 0; j < width; ++j) {
        const auto at = std::size_t(j);
        gain[at] += g[j] * h(j), size[at] += std::fabs(g[j]) * h_size(j);
        bias[at] += g[j], bias_size[at] += std::fabs(g[j]);
        if (!c.input) continue;
        const double beside = r.beside[std::size_t(t * width + j)];
        const double want = (g[j] * r.gain[at] - (c.centred ? w : 0) - h(j) * wh) * scale + beside;
        check(r.input_gradient[std::size_t(t * width + j)], want,
              (std::fabs(g[j] * r.gain[at]) + w_size + h_size(j) * wh_size) * scale + std::fabs(beside), 4 * n, stored);
      }
    }
    if (!c.trained) continue;
    for (index_t j = 0; j < width; ++j) {
      const auto at = std::size_t(i * width + j);
      check(r.vectors.at("gain")[at], gain[std::size_t(j)], size[std::size_t(j)], 2 * double(width + tokens) + 60);
      if (c.centred) check(r.vectors.at("bias")[at], bias[std::size_t(j)], bias_size[std::size_t(j)], double(tokens) + 10);
    }
  }
  return worst;
}
bool same(const double* a, const double* b, index_t n) { return std::memcmp(a, b, std::size_t(n) * sizeof(double)) == 0; }
}  // namespace

TEST_CASE("one pass for the gradient of x and the per-sample vectors of gain and bias, whatever the slices") {
  Context ctx(Device::cuda(0));
  for (bool centred : {true, false})
    for (const Shape& shape : {Shape{3, 1, 5}, Shape{2, 9, 64}, Shape{1, 70, 40}, Shape{1, 3, 4100}, Shape{40, 13, 8},
                               Shape{2, 0, 8}, Shape{0, 4, 8}}) {
      CAPTURE(centred);
      CAPTURE(shape[1]);
      CAPTURE(shape[2]);
      const Case c{.shape = shape, .centred = centred, .residual = shape[1] % 2 == 1};
      CHECK(error_share(c, on_device(ctx, DType::bf16, c), 0x1p-24, 0x1.02p-8) <= 1);
    }
  for (bool centred : {true, false}) {
    const Case c{{2, 21, 33}, centred};
    CHECK(error_share(c, on_device(ctx, DType::f32, c), 0x1p-24, 0) <= 1);
  }
}

TEST_CASE("only what is asked for: no vectors of frozen parameters, no gradient of an input that needs none") {
  Context ctx(Device::cuda(0));
  for (bool centred : {true, false}) {
    const Case frozen{{2, 19, 40}, centred, true, false}, first{{2, 19, 40}, centred, false, true};
    const Result input = on_device(ctx, DType::bf16, frozen), vectors = on_device(ctx, DType::bf16, first);
    CHECK(input.vectors.empty());
    CHECK(error_share(frozen, input, 0x1p-24, 0x1.02p-8) <= 1);
    CHECK(vectors.input_gradient.empty());
    CHECK(error_share(first, vectors, 0x1p-24, 0x1.02p-8) <= 1);
  }
}

TEST_CASE("P8: NaN in one sample leaves every bit of the others") {
  Context ctx(Device::cuda(0));
  for (bool centred : {true, false}) {
    const Case c{{3, 19, 40}, centred};
    const Result clean = on_device(ctx, DType::bf16, c), spoiled = on_device(ctx, DType::bf16, c, true);
    CHECK(std::isnan(spoiled.input_gradient[0]));
    CHECK(std::isnan(spoiled.vectors.at("gain")[0]));
    const index_t rest = 2 * 19 * 40;
    CHECK(same(&clean.input_gradient[19 * 40], &spoiled.input_gradient[19 * 40], rest));
    CHECK(same(&clean.vectors.at("gain")[40], &spoiled.vectors.at("gain")[40], 80));
  }
}

TEST_CASE("an addition and the norm behind it in one pass: the bits of both apart, a warp or a block to a row") {
  Context ctx(Device::cuda(0));
  const auto check = [&](DType dtype, const test::AddNormCase& c) {
    CAPTURE(name_of(dtype));
    CAPTURE(c.centred);
    CAPTURE(c.shape[2]);
    CHECK(test::differing(test::run_add_norm(ctx, dtype, c, true), test::run_add_norm(ctx, dtype, c, false)) == "");
  };
  for (bool centred : {true, false}) {
    for (const Shape& shape : {Shape{2, 9, 64}, Shape{3, 5, 37}, Shape{1, 3, 4100}, Shape{2, 0, 8}, Shape{0, 4, 8}})
      check(DType::bf16, {shape, centred});
    check(DType::bf16, {.shape = {2, 9, 40}, .centred = centred, .sum_used = false});
    check(DType::bf16, {.shape = {2, 9, 40}, .centred = centred, .normed_used = false});
    for (DType dtype : {DType::f32, DType::f16}) check(dtype, {{2, 5, 40}, centred});
  }
}

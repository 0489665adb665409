// SPDX-License-Identifier: Apache-2.0
// Layers for images and sequences: their parameters, a small network's norms and sums against the oracle, and the refusal of
// batch normalisation.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/autograd/rules/cross_entropy.hpp"
#include "dpmp/nn/vision.hpp"
#include "dpmp/per_sample/group_pass.hpp"
#include "support/errors.hpp"
#include "support/oracle.hpp"
#include "support/tensors.hpp"

using namespace dpmp;

namespace {
/// One of every layer, from images [B, 9, 9, 2] to 5 classes.
struct Net {
  nn::Parameters parameters;
  nn::Conv2d first, depthwise;
  nn::GroupNorm norm;
  nn::Conv1d rows;
  nn::InstanceNorm last_norm;
  nn::Linear head;
  Net(Context& ctx, DType dtype)
      : parameters(ctx, dtype, test::seed()),
        first(parameters / "first", 2, 6, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}),
        depthwise(parameters / "depthwise", 6, 12, {.kernel = {3, 3}, .dilation = {1, 2}, .groups = 6}),
        norm(parameters / "norm", 12, 3),
        rows(parameters / "rows", 12, 8, {.kernel = 2, .groups = 2}, {.bias = false}),
        last_norm(parameters / "last_norm", 8),
        head(parameters / "head", 8, 5) {}
  Variable operator()(const Variable& images) const {
    Variable x = max_pool2d(tanh(first(images)), {.kernel = {2, 2}, .padding = {1, 1}});
    x = norm(depthwise(x));
    const Shape s = x.shape();
    x = last_norm(rows(reshape(x, {s[0], s[1] * s[2], s[3]})));
    return head(global_average_pool(tanh(x)));
  }
};
}  // namespace

TEST_CASE("layers: names, shapes and initial values of their parameters") {
  Context ctx(Device::cpu(), 1);
  const Net net(ctx, DType::f32);
  const auto shape = [&](const char* name) { return net.parameters.find(name).shape(); };
  CHECK(shape("first.weight") == Shape{6, 18});
  CHECK(shape("first.bias") == Shape{6});
  CHECK(shape("depthwise.weight") == Shape{12, 9});
  CHECK(shape("rows.weight") == Shape{8, 12});
  CHECK(test::refuses([&] { shape("rows.bias"); }, "rows.bias"));
  for (const char* name : {"norm", "last_norm"})
    for (const bool gain : {true, false})
      for (double v : net.parameters.find(name + std::string(gain ? ".gain" : ".bias")).master().to_doubles())
        CHECK(v == (gain ? 1 : 0));
  nn::Parameters many(ctx, DType::f32, test::seed());
  nn::Conv2d(many / "wide", 16, 400, {.kernel = {5, 5}});
  nn::Conv1d(many / "chosen", 40, 400, {.kernel = 10}, {.weight = nn::init::normal(3)});
  const auto deviation = [&](const char* name) {
    double squares = 0;
    for (double v : many.find(name).master().to_doubles()) squares += v * v;
    return std::sqrt(squares / double(many.find(name).numel()));
  };
  // 160000 draws: six standard errors of a standard deviation are 1.1 %.
  CHECK(deviation("wide.weight") == doctest::Approx(0.05).epsilon(0.011));
  CHECK(deviation("chosen.weight") == doctest::Approx(3).epsilon(0.011));
  for (double v : many.find("wide.bias").master().to_doubles()) CHECK(v == 0);
}

TEST_CASE(
    "P13: a network of all layers: book-keeping and materialised norms and sums agree with the oracle in every dtype") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const index_t samples = 3;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    const Net net(ctx, dtype);
    const Tensor images = test::normal_tensor(ctx, rng, {samples, 9, 9, 2}, dtype),
                 classes = test::id_tensor(ctx, rng, {samples}, 0, 4);
    per_sample::BookKeepingSink book;
    per_sample::MaterialisedSink materialised;
    for (GradientSink* sink : {static_cast<GradientSink*>(&book), static_cast<GradientSink*>(&materialised)}) {
      Tape tape(ctx, samples);
      tape.backward(cross_entropy(net(tape.input(images)), classes), *sink);
    }
    CHECK(book.lists().size() == net.parameters.all().size());
    const per_sample::NormBounds bounds = book.norms(ctx, samples), others = materialised.norms(ctx, samples);
    const std::vector<float> factors{0.5f, 0, 0.25f};
    per_sample::GradientSums sums(ctx, net.parameters.all());
    book.weighted_sum(ctx, factors, sums);
    std::vector<double> squares(std::size_t(samples), 0.0);
    for (const auto& sites : book.lists()) {
      const bool dense = sites[0].parameter->name() == "first.weight" || sites[0].parameter->name() == "head.weight";
      CHECK((sites[0].form == SiteForm::outer_product) == dense);
      std::vector<double> expected(std::size_t(sites[0].parameter->numel()), 0.0);
      double size = 0;
      for (index_t i = 0; i < samples; ++i) {
        const std::vector<double> g = test::oracle_gradient(sites, i);
        const double norm = test::norm(g);
        squares[std::size_t(i)] += norm * norm;
        size += norm;
        for (std::size_t k = 0; k < g.size(); ++k) expected[k] += double(factors[std::size_t(i)]) * g[k];
      }
      CHECK(test::distance(sums.of(*sites[0].parameter).to_doubles(), expected) <= 1e-5 * size);
    }
    for (index_t i = 0; i < samples; ++i) {
      const double norm = std::sqrt(squares[std::size_t(i)]);
      CHECK(norm > 1e-3);
      CHECK(bounds.norm(i) == doctest::Approx(norm).epsilon(1e-5));
      CHECK(bounds.upper(i) >= norm * (1 - 1e-5));  // the exact gradient's: what is released may be rounded below it
      CHECK(others.upper(i) >= norm * (1 - 1e-5));
      CHECK(bounds.upper(i) <= 1.01 * norm);
    }
  }
}

TEST_CASE("batch normalisation is refused with the reason and what to use instead") {
  Context ctx(Device::cpu(), 1);
  nn::Parameters parameters(ctx, DType::f32, 1);
  const std::string text = test::error_of([&] { nn::BatchNorm(parameters / "stem.norm", 8); });
  for (const char* part : {"stem.norm", "over all samples", "no per-sample gradient", "nn::GroupNorm"})
    CHECK(text.find(part) != std::string::npos);
  CHECK(parameters.all().empty());
}

TEST_CASE("bad input: layers with groups, kernels or channels that fit nothing, and data of another kind") {
  Context ctx(Device::cpu(), 1);
  nn::Parameters parameters(ctx, DType::f32, 1);
  using test::refuses;
  CHECK(refuses([&] { nn::Conv2d(parameters / "a", 4, 6, {.groups = 3}); }, "channels of a, got kernel 1 x 1, groups 3"));
  CHECK(refuses([&] { nn::Conv2d(parameters / "a", 4, 6, {.groups = 4}); }, "channels 4 and 6"));
  CHECK(refuses([&] { nn::Conv2d(parameters / "a", 4, 6, {.groups = 0}); }, "groups 0"));
  CHECK(refuses([&] { nn::Conv2d(parameters / "a", 4, 6, {.kernel = {0, 3}}); }, "got kernel 0 x 3"));
  CHECK(refuses([&] { nn::Conv2d(parameters / "a", -4, 6, {}); }, "channels -4"));
  CHECK(refuses([&] { nn::Conv1d(parameters / "a", 4, 6, {.kernel = -1}); }, "got kernel 1 x -1"));
  CHECK(refuses([&] { nn::GroupNorm(parameters / "a", 6, 4); }, "channels of a, got 6 channels and 4 groups"));
  CHECK(refuses([&] { nn::GroupNorm(parameters / "a", 6, 0); }, "0 groups"));
  CHECK(refuses([&] { nn::InstanceNorm(parameters / "a", 0); }, "0 channels"));
  CHECK(parameters.all().empty());
  const nn::Conv2d conv(parameters / "conv", 3, 2, {.kernel = {3, 3}});
  Tape tape(ctx, 1);
  CHECK(refuses([&] { conv(tape.input(Tensor::zeros(ctx, {1, 5, 5, 4}, DType::f32))); }, "4 input channels"));
  CHECK(refuses([&] { conv(tape.input(Tensor::zeros(ctx, {1, 2, 5, 3}, DType::f32))); }, "a span of 3 positions"));
  // The layer casts, the operation does not.
  const Variable half = tape.input(Tensor::zeros(ctx, {1, 5, 5, 3}, DType::f16));
  CHECK(conv(half).dtype() == DType::f32);
  CHECK(refuses(
      [&] {
        conv2d(half, parameters.find("conv.weight"), nullptr, {.kernel = {3, 3}});
      },
      "in f16 like x, got f32"));
  CHECK(refuses([&] { conv(tape.input(Tensor::zeros(ctx, {1, 5, 5, 3}, DType::i32))); }, "two floating dtypes, got i32"));
}

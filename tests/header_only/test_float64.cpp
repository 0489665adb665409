// SPDX-License-Identifier: Apache-2.0
// A header-only program without DPMP_F64: what it refuses, and that no private step needs a kernel for float64 models.
#include <doctest/doctest.h>

#include <dpmp/dpmp.hpp>

#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;

static_assert(!DPMP_F64);

TEST_CASE("models in float64 are refused, with what to do about it") {
  Context ctx(Device::cpu(), 2);
  CHECK(test::refuses(
      [&] {
        nn::Parameters parameters(ctx, DType::f64, 1);
        const nn::Linear layer(parameters / "layer", 3, 2);
      },
      "expected f32, bf16 or f16, got f64: models in float64 need a program that defines DPMP_F64=1"));
  CHECK(test::refuses(
      [&] {
        Tape tape(ctx, 2);
        relu(tape.input(Tensor::zeros(ctx, {2, 3}, DType::f64)));
      },
      "got f64: models in float64 need"));
}

TEST_CASE("what the library keeps in double is there: tensors, products and their reference") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const index_t n = 9;
  const auto numbers = [&] {
    std::vector<double> x(std::size_t(n * n));
    for (double& v : x) v = rng.normal();
    return Tensor::from(ctx, {n, n}, DType::f64, x);
  };
  const Tensor a = numbers(), b = numbers(), c = Tensor::full(ctx, {n, n}, DType::f64, 0.5), want = c.clone(ctx);
  GemmSpec spec{.m = n,
                .n = n,
                .k = n,
                .a = {.data = a.raw(), .dtype = DType::f64, .row_stride = n},
                .b = {.data = b.raw(), .dtype = DType::f64, .row_stride = n},
                .out = {.data = c.raw(), .dtype = DType::f64, .row_stride = n},
                .accumulate = true};
  gemm(ctx, spec);
  spec.out.data = want.raw();
  gemm_reference(spec);
  // Sums of nine products of normal numbers, in double, in two orders.
  for (index_t k = 0; k < n * n; ++k)
    CHECK(std::abs(c.to_doubles()[std::size_t(k)] - want.to_doubles()[std::size_t(k)]) < 1e-12);
}

TEST_CASE("private training of a GPT, in every strategy and dtype, launches no kernel for float64") {
  Context ctx(Device::cpu(), 2);
  const index_t samples = 4;
  for (const DType dtype : real_dtypes)
    for (const auto strategy : {per_sample::Strategy::automatic, per_sample::Strategy::book_keeping,
                                per_sample::Strategy::two_pass, per_sample::Strategy::materialised}) {
      const nn::Transformer model(ctx, {.vocabulary = 7, .width = 8, .layers = 1, .heads = 2, .context = 5}, dtype);
      const auto plan =
          dp::Plan::calibrate({.epsilon = 3, .delta = 1e-5, .sampling_rate = 0.5, .steps = 3, .dataset_size = samples});
      train::Trainer trainer(ctx, model.parameters(), plan, dp::StreamKeys(dp::random_key()), samples,
                             {.strategy = {.strategy = strategy}});
      const std::vector<double> before = model.parameters().all()[0]->master().to_doubles();
      while (trainer.steps() < plan.steps())
        trainer.step([&](const train::Batch& batch) {
          const Shape shape{index_t(batch.records.size()), 5};
          const Tensor ids = Tensor::from(ctx, shape, std::vector<std::int32_t>(std::size_t(shape.numel()), 3));
          return cross_entropy(model(batch.tape, ids), ids, {.divisor = 5});
        });
      CHECK(model.parameters().all()[0]->master().to_doubles() != before);
    }
}

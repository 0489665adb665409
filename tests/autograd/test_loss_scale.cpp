// SPDX-License-Identifier: Apache-2.0
// Where a scaled backward pass starts: the largest FP32 gradient of each sample's losses, and the exponent it leads to.
#include <doctest/doctest.h>

#include "dpmp/autograd/loss_scale.hpp"
#include "dpmp/autograd/rules/arithmetic.hpp"
#include "dpmp/autograd/rules/cast.hpp"
#include "dpmp/autograd/rules/elementwise.hpp"
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/autograd/rules/reduce.hpp"
#include "dpmp/autograd/rules/wide_linear.hpp"
#include "dpmp/kernels/loss_scale.hpp"
#include "support/errors.hpp"
#include "support/row_losses.hpp"
#include "support/tensors.hpp"

namespace {
using namespace dpmp;

/// Losses of random logits with ignored rows; a divisor of the order of a long text.
struct Logits {
  Tensor x, targets;
  CrossEntropyOptions options{.divisor = 1024};
};
Logits random_logits(Context& ctx, test::Rng& rng, DType dtype, index_t samples, index_t tokens, int classes) {
  return {test::normal_tensor(ctx, rng, {samples, tokens, classes}, dtype, 4),
          test::id_tensor(ctx, rng, {samples, tokens}, -1, classes - 1)};
}
/// max over a sample's rows and classes of |gradient|, from the definition in extended precision; and the bound of its
/// relative error that test_exact_losses.cpp derives.
struct Largest {
  double value = 0, relative = 0;
};
Largest largest_of(const Logits& l, index_t sample) {
  const index_t tokens = l.x.shape()[1], classes = l.x.shape()[2];
  const std::vector<double> x = l.x.to_doubles();
  Largest most;
  for (index_t t = 0; t < tokens; ++t) {
    const std::int32_t target = l.targets.data<std::int32_t>()[sample * tokens + t];
    if (target == l.options.ignore_index) continue;
    const test::RowLoss row =
        test::row_loss(x.data() + (sample * tokens + t) * classes, std::size_t(classes), std::size_t(target));
    for (const double g : row.gradient) most.value = std::max(most.value, std::fabs(g) / l.options.divisor);
    most.relative = std::max(most.relative, (20 + row.distance) * 0x1p-24);
  }
  return most;
}
std::vector<double> largest(Tape& tape, const Variable& losses, const std::vector<double>& weights = {}) {
  Context& ctx = tape.ctx();
  const Tensor w = weights.empty() ? Tensor::full(ctx, {tape.samples()}, losses.dtype(), 1)
                                   : Tensor::from(ctx, {tape.samples()}, losses.dtype(), weights);
  return largest_loss_gradients(tape, losses, w).to_doubles();
}
/// Of an op in FP32 without parameters, y = 3 x^2.
Variable three_squares(const Variable& x) { return scale(multiply(x, x), 3); }
Variable sum_over_all(const Variable& x) { return sum(x.shape().rank() == 3 ? sum(x, 2) : x, 1); }
}  // namespace

TEST_CASE("a sample's exponent is 15 - headroom - ceil(log2 of its largest loss gradient), within its range") {
  test::Rng rng(test::seed(), 7800);
  for (int k = 0; k < 20000; ++k) {
    const int top = int(rng.integer(-15, 15));
    double x = std::ldexp(rng.integer(0, 3) ? rng.uniform(0.5, 1) : 0.5, int(rng.integer(-70, 70)));
    if (rng.integer(0, 1)) x = double(float(x));
    int wanted = top - int(std::ceil(std::log2(static_cast<long double>(x))));
    wanted = std::clamp(wanted, -24, 40);
    CAPTURE(x);
    REQUIRE(kernels::scale_exponent(x, top) == wanted);
    if (wanted > -24 && wanted < 40) {
      REQUIRE(std::ldexp(x, wanted) <= std::ldexp(1, top));
      REQUIRE(std::ldexp(x, wanted) > std::ldexp(1, top - 1));
    }
  }
  for (const double none : {0.0, double(INFINITY), double(NAN)}) CHECK(kernels::scale_exponent(none, 9) == 0);
  CHECK(kernels::scale_exponent(0x1p-1074, 9) == 40);
  CHECK(kernels::scale_exponent(0x1p1023, 9) == -24);
  CHECK(LossScaling::per_sample(4).exponent() == 11);
  CHECK(LossScaling::fixed(1024).exponent() == 10);
  CHECK(LossScaling::fixed(1024).public_scale() == 1024);
  CHECK(LossScaling::per_sample().public_scale() == 1);
  for (const double bad : {0.0, -2.0, 3.0, 0x1p41, 0x1p-25, double(NAN), double(INFINITY)})
    CHECK(test::refuses([&] { LossScaling::fixed(bad); }, "a power of two in [2^-24, 2^40]"));
  CHECK(test::refuses([] { LossScaling::per_sample(31); }, "headroom"));
}

TEST_CASE("factors are moved by powers of two exactly or are 0") {
  test::Rng rng(test::seed(), 7801);
  for (int k = 0; k < 20000; ++k) {
    const float c = float(std::ldexp(rng.uniform(0.5, 1), int(rng.integer(-140, 128))));
    const int exponent = int(rng.integer(-24, 40));
    const double exact = std::ldexp(double(c), -exponent);
    const bool normal = double(c) >= 0x1p-126 && exact >= 0x1p-126 && exact <= double(std::numeric_limits<float>::max());
    CAPTURE(c);
    CAPTURE(exponent);
    REQUIRE(double(kernels::unscaled_factor(c, exponent)) == (exponent == 0 ? double(c) : normal ? exact : 0));
  }
  CHECK(kernels::unscaled_factor(0, 5) == 0);
}

TEST_CASE("the largest loss gradient of a cross-entropy is that of FP32, in every dtype of logits") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 7802);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    CAPTURE(name_of(dtype));
    Logits l = random_logits(ctx, rng, dtype, 5, 37, 23);
    std::fill_n(l.targets.data<std::int32_t>(), 37, -1);  // sample 0: all rows are ignored
    Tape tape(ctx, 5);
    const Variable x = tape.input(l.x, true), losses = cross_entropy(x, l.targets, l.options);
    const std::vector<double> found = largest(tape, losses, {1, 1, 0, 1, -0.5});
    for (index_t i = 0; i < 5; ++i) {
      const Largest expected = largest_of(l, i);
      const double weight = i == 2 ? 0 : i == 4 ? 0.5 : 1;
      CAPTURE(i);
      CHECK(std::fabs(found[std::size_t(i)] - weight * expected.value) <= weight * expected.relative * expected.value);
    }
    CHECK(found[0] == 0);
    CHECK(found[1] > 0);
  }
}

TEST_CASE("P9: what an ignored row holds does not count, and what is not finite makes no exponent") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 7803);
  Logits l = random_logits(ctx, rng, DType::f32, 4, 9, 11);
  for (index_t i = 0; i < 4; ++i) l.targets.data<std::int32_t>()[i * 9 + 3] = i == 0 ? -1 : 2;
  const auto exponents = [&] {
    Tape tape(ctx, 4);
    const Variable losses = cross_entropy(tape.input(l.x, true), l.targets, l.options);
    return scaled_seed(tape, losses, Tensor(), LossScaling::per_sample()).exponents.to_doubles();
  };
  const std::vector<double> before = exponents();
  std::fill_n(l.x.data<float>() + 3 * 11, 11, NAN);        // sample 0, ignored
  std::fill_n(l.x.data<float>() + (9 + 3) * 11, 11, NAN);  // sample 1, not ignored
  l.targets.data<std::int32_t>()[2 * 9 + 3] = 11;          // sample 2: no class
  const std::vector<double> after = exponents();
  CHECK(after == std::vector<double>{before[0], 0, 0, before[3]});
  CHECK(before[1] > 0);
}

TEST_CASE("the largest loss gradient of a mean squared error, of chains of losses, and where the FP32 part ends") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 7804);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    CAPTURE(name_of(dtype));
    const Tensor x = test::normal_tensor(ctx, rng, {3, 5, 7}, dtype);
    const Tensor target = test::normal_tensor(ctx, rng, {3, 5, 7}, accumulate_dtype(dtype));
    const std::vector<double> p = x.to_doubles(), t = target.to_doubles();
    const Logits l = random_logits(ctx, rng, dtype, 3, 5, 7);
    Parameter w(ctx, "w", test::normal_tensor(ctx, rng, {4, 7}, accumulate_dtype(dtype)), dtype);
    const double u = 0x1p-24;
    const auto check = [&](const char* what, auto&& losses, auto&& of_sample, double relative) {
      CAPTURE(what);
      Tape tape(ctx, 3);
      const std::vector<double> found = largest(tape, losses(tape));
      for (std::size_t i = 0; i < 3; ++i) CHECK(std::fabs(found[i] - of_sample(i)) <= relative * std::fabs(of_sample(i)));
    };
    const auto squared = [&](std::size_t i) {
      double most = 0;
      for (std::size_t k = 35 * i; k < 35 * (i + 1); ++k) most = std::max(most, std::fabs(2. / 35 * (p[k] - t[k])));
      return most;
    };
    const auto entropy = [&](std::size_t i) { return largest_of(l, index_t(i)).value; };
    double of_entropy = 0;
    for (index_t i = 0; i < 3; ++i) of_entropy = std::max(of_entropy, largest_of(l, i).relative);
    const auto record_squared = [&](Tape& tape) { return mean_squared_error(tape.input(x, true), target); };
    const auto record_entropy = [&](Tape& tape) { return cross_entropy(tape.input(l.x, true), l.targets, l.options); };
    check("squared error", record_squared, squared, 6 * u);
    check(
        "a sum of two losses, one of them scaled",
        [&](Tape& tape) { return record_squared(tape) + 0x1p-7 * record_entropy(tape); },
        [&](std::size_t i) { return std::max(squared(i), 0x1p-7 * entropy(i)); }, of_entropy + 6 * u);
    if (dtype != DType::f64) {
      // sum 3 cast(x)^2: the FP32 part ends with the cast, whose result's gradient is 6 x.
      check(
          "FP32 operations after a cast",
          [&](Tape& tape) { return sum_over_all(three_squares(cast(tape.input(x, true), DType::f32))); },
          [&](std::size_t i) {
            double most = 0;
            for (std::size_t k = 35 * i; k < 35 * (i + 1); ++k) most = std::max(most, std::fabs(6 * p[k]));
            return dtype == DType::f32 ? 0 : most;  // f32: no cast is recorded, and an input is no parameter's gradient
          },
          4 * u);
    }
    // sum 3 y^2 of a product's FP32 results: it ends where a parameter is met.
    const Tensor y = [&] {
      Tape tape(ctx, 3);
      return wide_linear(tape.input(x, true), w).value();
    }();
    const std::vector<double> values = y.to_doubles();
    check(
        "FP32 results of a product",
        [&](Tape& tape) { return sum_over_all(three_squares(wide_linear(tape.input(x, true), w))); },
        [&](std::size_t i) {
          double most = 0;
          for (std::size_t k = 20 * i; k < 20 * (i + 1); ++k) most = std::max(most, std::fabs(6 * values[k]));
          return most;
        },
        4 * u);
  }
}

TEST_CASE("looking for the largest loss gradient leaves the tape as it was") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 7805);
  for (const DType dtype : {DType::f32, DType::f16}) {
    const Logits l = random_logits(ctx, rng, dtype, 3, 5, 7);
    const Tensor x = test::normal_tensor(ctx, rng, {3, 5, 7}, dtype);
    const auto walk = [&](bool look) {
      const Tensor logits = Tensor::empty(ctx, l.x.shape(), dtype);  // may be overwritten by the walk
      std::memcpy(logits.raw(), l.x.raw(), std::size_t(l.x.bytes()));
      Tape tape(ctx, 3);
      const Variable in = tape.input(x, true);
      const Variable losses = cross_entropy(add(in, tape.input(logits)), l.targets, l.options) +
                              sum_over_all(three_squares(cast(in, DType::f32)));
      if (look) largest(tape, losses);
      test::NoSites sink;
      tape.backward(losses, sink);
      return tape.gradient_of(in).to_doubles();
    };
    CHECK(walk(true) == walk(false));
  }
}

TEST_CASE("a scaled seed is the weights times powers of two, exactly") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 7806);
  const Logits l = random_logits(ctx, rng, DType::f16, 6, 5, 7);
  Tape tape(ctx, 6);
  const Variable losses = cross_entropy(tape.input(l.x, true), l.targets, l.options);
  const std::vector<double> weights{1, 0, 0.75, -3, 1, 1e-3f};
  const Tensor w = Tensor::from(ctx, {6}, DType::f32, weights);
  for (const LossScaling& scaling : {LossScaling::per_sample(3), LossScaling::fixed(0x1p-20), LossScaling::fixed(0x1p17)}) {
    CAPTURE(scaling.text());
    const ScaledSeed seed = scaled_seed(tape, losses, w, scaling);
    const std::vector<double> k = seed.exponents.to_doubles(), scaled = seed.weights.to_doubles();
    for (std::size_t i = 0; i < 6; ++i) {
      CHECK(scaled[i] == std::ldexp(weights[i], int(k[i])));
      if (scaling.kind() == LossScaling::Kind::fixed) CHECK(k[i] == scaling.exponent());
      if (scaling.kind() == LossScaling::Kind::per_sample) CHECK((k[i] == 0) == (i == 1));
    }
  }
  const ScaledSeed none = scaled_seed(tape, losses, w, {});
  CHECK(!none.exponents.defined());
  CHECK(none.weights.raw() == w.raw());
  CHECK(test::refuses([&] { scaled_seed(tape, losses, Tensor::full(ctx, {5}, DType::f32, 1), LossScaling::fixed(2)); },
                      "loss weights"));
}

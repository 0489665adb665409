// SPDX-License-Identifier: Apache-2.0
// On a GPU as on a CPU: losses of large logits, sums of many elements, gradients of values that are used often, limits at
// infinity, and what contributes nothing.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "autograd/shared_gradients.hpp"
#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/autograd/rules/attention.hpp"
#include "dpmp/autograd/rules/embedding.hpp"
#include "dpmp/autograd/rules/reduce.hpp"
#include "dpmp/autograd/rules/select.hpp"
#include "dpmp/autograd/rules/softmax.hpp"
#include "dpmp/dpmp.cuh"
#include "support/errors.hpp"
#include "support/row_losses.hpp"

using namespace dpmp;
using test::refuses;

namespace {
using List = std::vector<double>;
constexpr double infinity = std::numeric_limits<double>::infinity();
}  // namespace

TEST_CASE("cross-entropy on a GPU is as exact for logits of 10^4 as for small ones, and for a loss near 0") {
  Context gpu(Device::cuda(0), 1);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const double offset : {0.0, -1e4, 1e4})
      for (const index_t classes : {2, 333, 5000}) test::check_cross_entropy(gpu, dtype, offset, 4, classes, rng);
}

TEST_CASE("ignored targets on a GPU contribute nothing, whatever their logits are") {
  Context gpu(Device::cuda(0), 1);
  for (const std::int32_t ignored : {-1, -100}) {
    const List logits{1, 2, 3, NAN, INFINITY, 0};
    const test::LossAndGradient found =
        test::cross_entropy_of(gpu, Tensor::from(gpu, {1, 2, 3}, DType::f32, logits),
                               Tensor::from(gpu, {1, 2}, std::vector<std::int32_t>{1, ignored}), {.ignore_index = ignored});
    CHECK(std::fabs(found.losses[0] - std::log(std::exp(1.0) + std::exp(-1.0) + 1)) <= 0x1p-21);
    for (std::size_t k = 3; k < 6; ++k) CHECK(found.gradient[k] == 0.0);
  }
}

TEST_CASE("A8: a bad target, token or row makes its sample NaN on a GPU, and is named where records are open") {
  Context gpu(Device::cuda(0), 1);
  test::Rng rng;
  Parameter table(gpu, "table", Tensor::zeros(gpu, {5, 4}, DType::f32), DType::f32);
  const auto ids = [&](std::int32_t bad) { return Tensor::from(gpu, {2, 2}, std::vector<std::int32_t>{0, 1, bad, 2}); };
  const auto losses = [&](RecordsAre records, std::int32_t bad) {
    Tape tape(gpu, 2, TapeMode::training, records);
    return cross_entropy(tape.input(Tensor::zeros(gpu, {2, 2, 5}, DType::f32)), ids(bad)).value().to_doubles();
  };
  CHECK(refuses([&] { losses(RecordsAre::open, -100); }, "targets in [0, 5) or -1 (ignored), got -100 at sample 1"));
  CHECK_NOTHROW(losses(RecordsAre::open, -1));
  CHECK(std::isnan(losses(RecordsAre::confidential, -100)[1]));
  CHECK(std::isfinite(losses(RecordsAre::confidential, -100)[0]));
  CHECK(samples_with_bad_targets(ids(-100), 5) == 1);
  Tape open(gpu, 2, TapeMode::training, RecordsAre::open);
  CHECK(refuses([&] { embedding(open, ids(5), table); }, "token ids in [0, 5) for table, got 5 at sample 1, position 0"));
  const Variable rows = open.input(Tensor::zeros(gpu, {2, 3, 4}, DType::f32));
  CHECK(refuses([&] { gather(rows, ids(3)); }, "ids in [0, 3), got 3 at sample 1, position 0"));
}

TEST_CASE("the gradient of a value of 16 bits on a GPU is the rounded sum of its shares") {
  Context gpu(Device::cuda(0), 1);
  test::Rng rng;
  for (const DType dtype : {DType::bf16, DType::f32})
    for (const index_t uses : {1, 2, 3, 5, 64}) test::check_shared_gradient(gpu, dtype, uses, rng);
  CHECK(test::gradient_of_half(gpu, DType::bf16, 512) == 1.0);
}

TEST_CASE("sums and losses over many elements on a GPU are off by roundings that do not add up") {
  Context gpu(Device::cuda(0), 1);
  test::Rng rng;
  const index_t many = 300007, columns = 3;
  const Tensor data = Tensor::from(gpu, {1, many, columns}, DType::f32, [&] {
    List values(std::size_t(many * columns));
    for (double& v : values) v = rng.uniform(0.1, 1.3);
    return values;
  }());
  const List stored = data.to_doubles();
  Tape tape(gpu, 1, TapeMode::inference);
  const Variable x = tape.input(data), flat = tape.input(data.reshaped({1, many * columns}));
  const List of_columns = mean(x, 1).value().to_doubles();
  double all = 0, squares = 0;
  List sums(std::size_t(columns), 0.0);
  for (std::size_t k = 0; k < stored.size(); ++k) {
    all += stored[k];
    squares += stored[k] * stored[k];
    sums[k % std::size_t(columns)] += stored[k];
  }
  for (std::size_t c = 0; c < sums.size(); ++c) CHECK(std::fabs(of_columns[c] * double(many) / sums[c] - 1) <= 4 * 0x1p-24);
  // A pack's four elements are added in FP32: three roundings that do not grow with the number of packs.
  CHECK(std::fabs(sum(flat, 1).value().item() / all - 1) <= 6 * 0x1p-24);
  const double loss =
      mean_squared_error(flat, Tensor::zeros(gpu, {1, many * columns}, DType::f32)).value().item() * double(many * columns);
  CHECK(std::fabs(loss / squares - 1) <= 4 * 0x1p-24);
}

TEST_CASE("activations have their limits at infinity on a GPU, and a softmax in which nothing is visible is zeros") {
  Context gpu(Device::cuda(0), 1);
  const List ends{-infinity, infinity};
  const auto check = [&](Variable (*f)(const Variable&), const List& values, const List& slopes) {
    Tape tape(gpu, 2);
    const Variable x = tape.input(Tensor::from(gpu, {2}, DType::f32, ends), true), y = f(x);
    // In a block of its own: the losses may be infinite, their gradients are the slopes.
    test::NoSites sink;
    tape.backward(y, sink);
    CHECK(y.value().to_doubles() == values);
    CHECK(tape.gradient_of(x).to_doubles() == slopes);
  };
  check(relu, {0, infinity}, {0, 1});
  check(silu, {0, infinity}, {0, 1});
  check(gelu, {0, infinity}, {0, 1});
  check(gelu_tanh, {0, infinity}, {0, 1});
  check(dpmp::tanh, {-1, 1}, {0, 0});
  check(sigmoid, {0, 1}, {0, 0});

  Tape tape(gpu, 2);
  const Variable x = tape.input(
                     Tensor::from(gpu, {2, 3}, DType::f32, List{-infinity, -infinity, -infinity, 0, 0, -infinity}), true),
                 y = softmax(x);
  test::NoSites sink;
  tape.backward(weighted_sum(y, List{1, 2, 3, 1, 2, 3}), sink);
  CHECK(y.value().to_doubles() == List{0, 0, 0, 0.5, 0.5, 0});
  CHECK(tape.gradient_of(x).to_doubles() == List{0, 0, 0, -0.25, 0.25, 0});

  for (const DType dtype : {DType::f32, DType::bf16}) {
    Tape padded(gpu, 1);
    const Variable qkv = padded.input(Tensor::full(gpu, {1, 3, 48}, dtype, 1), true);
    const Variable a =
        attention(qkv, {.heads = 1, .causal = false, .keep = Tensor::from(gpu, {1, 3}, std::vector<std::int32_t>{0, 0, 0})});
    padded.backward(weighted_sum(a, List(48, 1)), sink);
    CHECK(a.value().to_doubles() == List(48, 0));
    CHECK(padded.gradient_of(qkv).to_doubles() == List(144, 0));
  }
}

// SPDX-License-Identifier: Apache-2.0
// Forward results of single ops against plain loops, and what each op refuses.
#include <doctest/doctest.h>
#include <cmath>

#include "autograd/ops.hpp"
#include "support/errors.hpp"

using namespace dpmp;
using test::refuses;

namespace {
/// A variable of `values` counted up from 0 on a tape, or of one value.
Variable counted(Tape& tape, const Shape& shape, DType dtype = DType::f32) {
  std::vector<double> values(std::size_t(shape.numel()));
  for (std::size_t k = 0; k < values.size(); ++k) values[k] = double(k);
  return tape.input(Tensor::from(tape.ctx(), shape, dtype, values));
}
Variable given(Tape& tape, const Shape& shape, const std::vector<double>& values, DType dtype = DType::f32) {
  return tape.input(Tensor::from(tape.ctx(), shape, dtype, values));
}
using List = std::vector<double>;
}  // namespace

TEST_CASE("softmax: shifted rows, huge values and -Inf give probabilities; NaN stays in its row") {
  Context ctx(Device::cpu(), 1);
  Tape tape(ctx, 4);
  const double inf = INFINITY, nan = std::nan("");
  const Variable x = given(tape, {4, 1, 3}, {0, 0, 0, 1e30, -1e30, 1e30, -inf, 2, -inf, 0, nan, 0});
  const List y = softmax(x).value().to_doubles();
  for (int k : {0, 1, 2}) CHECK(std::fabs(y[std::size_t(k)] - 1.0 / 3) < 0x1p-23);
  CHECK(List(y.begin() + 3, y.begin() + 9) == List{0.5, 0, 0.5, 0, 1, 0});
  for (int k : {9, 10, 11}) CHECK(std::isnan(y[std::size_t(k)]));

  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    test::Rng rng;
    const index_t width = 1000;
    List values(std::size_t(4 * width));
    for (double& v : values) v = rng.normal(4);
    const Variable p = softmax(given(tape, {4, width}, values, dtype));
    for (std::size_t r = 0; r < 4; ++r) {
      double sum = 0;
      for (std::size_t k = 0; k < 1000; ++k) sum += p.value().to_doubles()[r * 1000 + k];
      CHECK(std::fabs(sum - 1) < unit_roundoff(dtype) + 0x1p-21);
    }
  }
  CHECK(refuses([&] { softmax(counted(tape, {4})); }, "mixes samples"));
  CHECK(refuses([&] { softmax(tape.input(Tensor::zeros(ctx, {4, 2}, DType::i32))); }, "expected a floating dtype"));
}

TEST_CASE("transpose, split, concat and reshape move every element to its place") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
    for (int round = 0; round < 20; ++round) {
      const index_t n[5] = {rng.integer(1, 3), rng.integer(1, 4), rng.integer(1, 3), rng.integer(1, 4),
                            round % 2 ? 1 : rng.integer(1, 40)};
      const Shape shape{n[0], n[1], n[2], n[3], n[4]};
      Tape tape(ctx, n[0]);
      List values(std::size_t(shape.numel()));
      for (double& v : values) v = double(rng.integer(-100, 100));
      const Variable x = given(tape, shape, values, dtype);
      const int i = int(rng.integer(1, 4)), j = int(rng.integer(1, 4));
      const Variable t = transpose(x, i, j - 5);
      const List moved = t.value().to_doubles();
      CHECK(t.shape() == shape.with(i, shape[j]).with(j, shape[i]));
      index_t at[5], wrong = 0;
      for (index_t k = 0; k < shape.numel(); ++k) {
        index_t rest = k, target = 0;
        for (int axis = 4; axis >= 0; --axis) at[axis] = rest % n[axis], rest /= n[axis];
        std::swap(at[i], at[j]);
        for (int axis = 0; axis < 5; ++axis) target = target * t.shape()[axis] + at[axis];
        wrong += moved[std::size_t(target)] != values[std::size_t(k)];
      }
      CHECK(wrong == 0);
      CHECK(transpose(t, j, i).value().to_doubles() == values);

      const index_t first = rng.integer(0, shape[i]);
      const auto parts = split(x, std::vector<index_t>{first, shape[i] - first}, i);
      REQUIRE(parts.size() == 2);
      CHECK(parts[0].shape() == shape.with(i, first));
      CHECK(parts[1].shape() == shape.with(i, shape[i] - first));
      CHECK(concat(parts, i - 5).value().to_doubles() == values);
      CHECK(concat({x}, i).value().to_doubles() == values);
      CHECK(reshape(x, {n[0], n[4], n[3] * n[2] * n[1]}).value().to_doubles() == values);
    }
  Tape tape(ctx, 2);
  const auto halves = split(counted(tape, {2, 4}), 2, -1);
  CHECK(halves[0].value().to_doubles() == List{0, 1, 4, 5});
  CHECK(halves[1].value().to_doubles() == List{2, 3, 6, 7});
  CHECK(concat({halves[1], halves[0]}, 1).value().to_doubles() == List{2, 3, 0, 1, 6, 7, 4, 5});
  CHECK(transpose(counted(tape, {2, 2, 2}), 1, 2).value().to_doubles() == List{0, 2, 1, 3, 4, 6, 5, 7});
}

TEST_CASE("shape operations refuse the sample axis, axes that do not exist and sizes that do not fit") {
  Context ctx(Device::cpu(), 1);
  Tape tape(ctx, 2), empty(ctx, 0), other(ctx, 2);
  const Variable x = counted(tape, {2, 6, 4});
  CHECK(refuses([&] { reshape(x, {4, 12}); }, "keeps the sample axis (2 samples)"));
  CHECK(refuses([&] { reshape(x, {}); }, "keeps the sample axis"));
  CHECK(refuses([&] { reshape(x, {2, 23}); }, "as many elements a sample as [2, 6, 4], got [2, 23]"));
  CHECK(refuses([&] { reshape(counted(empty, {0, 6}), {0, 7}); }, "as many elements a sample"));
  for (const int axis : {0, -3}) {
    CHECK(refuses([&] { transpose(x, axis, 1); }, "mix samples"));
    CHECK(refuses([&] { transpose(x, 1, axis); }, "mix samples"));
    CHECK(refuses([&] { split(x, 2, axis); }, "mix samples"));
    CHECK(refuses([&] { split(x, std::vector<index_t>{1, 1}, axis); }, "mix samples"));
    CHECK(refuses([&] { concat({x, x}, axis); }, "mix samples"));
  }
  for (const int axis : {3, -4})
    CHECK(refuses([&] { transpose(x, axis, 1); }, "transpose: expected an axis of the shape [2, 6, 4]"));
  for (const index_t parts : {-1, 0, 4, 5}) CHECK(refuses([&] { split(x, parts, 1); }, "a number of parts that divides"));
  const index_t huge = index_t(1) << 62;
  for (const std::vector<index_t>& sizes : {std::vector<index_t>{}, {5}, {3, 4}, {-1, 7}, {huge, huge, huge, huge, 6}})
    CHECK(refuses([&] { split(x, sizes, 1); }, "sizes >= 0 that add up"));
  CHECK(refuses([&] { concat({}, 1); }, "at least one part"));
  CHECK(refuses([&] { concat({x, counted(tape, {2, 6})}, 1); }, "differ along axis 1 only"));
  CHECK(refuses(
      [&] {
        concat({x, counted(tape, {2, 6, 5})}, 1);
      },
      "differ along axis 1 only, got [2, 6, 4] f32 and [2, 6, 5] f32"));
  CHECK(refuses([&] { concat({x, counted(tape, {2, 6, 4}, DType::bf16)}, 1); }, "differ along axis 1 only"));
  CHECK(refuses([&] { concat({x, counted(other, {2, 6, 4})}, 1); }, "variables of one tape"));
}

TEST_CASE("matmul: products of each sample's matrices, read as they are or transposed; wrong shapes are refused") {
  Context ctx(Device::cpu(), 1);
  Tape tape(ctx, 2);
  const Variable x = counted(tape, {2, 2, 3}), y = counted(tape, {2, 3, 1});
  CHECK(matmul(x, y).value().to_doubles() == List{5, 14, 86, 122});
  CHECK(matmul(y, x, true, true).value().to_doubles() == List{5, 14, 86, 122});
  CHECK(matmul(transpose(x, 1, 2), transpose(y, 1, 2), true, true).value().to_doubles() == List{5, 14, 86, 122});
  CHECK(matmul(counted(tape, {2, 2, 0}), counted(tape, {2, 0, 2})).value().to_doubles() == List(8, 0));
  CHECK(refuses([&] { matmul(x, x); },
                "matmul: expected op(x) [.., m, k] and op(y) [.., k, n], got x [2, 2, 3] and y [2, 2, 3]"));
  CHECK(refuses([&] { matmul(counted(tape, {2, 3}), counted(tape, {2, 3})); }, "equal leading axes"));
  CHECK(refuses([&] { matmul(counted(tape, {2, 1, 2, 3}), y); }, "equal leading axes"));
  CHECK(refuses([&] { matmul(counted(tape, {2, 4, 2, 3}), counted(tape, {2, 5, 3, 1})); }, "equal leading axes"));
  CHECK(refuses([&] { matmul(x, counted(tape, {2, 3, 1}, DType::bf16)); }, "values of one dtype, got f32 and bf16"));
}

TEST_CASE("mean squared error: one loss a sample, divided by its number of elements") {
  Context ctx(Device::cpu(), 1);
  Tape tape(ctx, 2);
  const Variable x = counted(tape, {2, 2, 2}, DType::bf16);
  const Variable loss = mean_squared_error(x, Tensor::from(ctx, {2, 2, 2}, DType::f32, List{0, 0, 0, 1, 4, 5, 6, 7.5}));
  CHECK(loss.dtype() == DType::f32);
  CHECK(loss.shape() == Shape{2});
  CHECK(loss.value().to_doubles() == List{(1 + 4 + 4) / 4.0, 0.25 / 4});
  CHECK(mean_squared_error(counted(tape, {2, 0}), Tensor::zeros(ctx, {2, 0}, DType::f32)).value().to_doubles() ==
        List{0, 0});
  CHECK(mean_squared_error(counted(tape, {2}), Tensor::zeros(ctx, {2}, DType::f32)).value().to_doubles() == List{0, 1});
  CHECK(refuses(
      [&] {
        mean_squared_error(x, Tensor::zeros(ctx, {2, 4}, DType::f32));
      },
      "target of shape [2, 2, 2], got [2, 4]"));
  CHECK(refuses([&] { mean_squared_error(x, Tensor::zeros(ctx, {2, 2, 2}, DType::bf16)); }, "target in f32, got bf16"));
}

TEST_CASE("element-wise ops, layers and look-ups refuse wrong shapes, dtypes and ids") {
  Context ctx(Device::cpu(), 1);
  Tape tape(ctx, 2);
  const auto parameter = [&](const char* name, const Shape& shape, DType dtype = DType::f32) {
    return std::make_unique<Parameter>(ctx, name, Tensor::zeros(ctx, shape, DType::f32), dtype);
  };
  const Variable x = counted(tape, {2, 3, 4}), narrow = counted(tape, {2, 3, 3}),
                 low = counted(tape, {2, 3, 4}, DType::bf16);
  CHECK(refuses(
      [&] { add(x, narrow); },
      "add: expected two values of one dtype whose axes after the sample axis are equal, 1 or missing, got [2, 3, 4] "
      "f32 and [2, 3, 3] f32"));
  CHECK(refuses([&] { multiply(x, low); }, "multiply: expected two values of one dtype"));
  CHECK(refuses([&] { relu(tape.input(Tensor::zeros(ctx, {2}, DType::i32))); }, "expected a floating dtype"));

  const auto w = parameter("w", {5, 4}), wide = parameter("wide", {5, 6}), w16 = parameter("w16", {5, 4}, DType::bf16);
  const auto v4 = parameter("v4", {4}), v5 = parameter("v5", {5}), v16 = parameter("v16", {4}, DType::f16);
  CHECK(refuses([&] { linear(x, *wide); },
                "linear: expected x [B, .., d] and a weight [p, d], got [2, 3, 4] and wide [5, 6]"));
  CHECK(refuses([&] { linear(x, *v4); }, "linear: expected"));
  CHECK(refuses([&] { linear(counted(tape, {2}), *w); }, "linear: expected"));
  CHECK(refuses([&] { linear(x, *w16); }, "weight w16 in f32 like x, got bf16"));
  CHECK(refuses([&] { linear(x, *w, v4.get()); }, "linear: expected a bias [5]"));
  CHECK(refuses([&] { layer_norm(x, *v4, *v5); }, "layer_norm: expected v5 [4] in f32"));
  CHECK(refuses([&] { layer_norm(x, *v16, *v4); }, "layer_norm: expected v16 [4] in f32"));
  CHECK(refuses([&] { layer_norm(x, *v4, *v4, 0); }, "epsilon > 0"));
  CHECK(refuses([&] { layer_norm(counted(tape, {2}), *v4, *v4); }, "layer_norm: expected x [B, .., width]"));
  CHECK(refuses([&] { add_layer_norm(x, narrow, *v4, *v4); },
                "add_layer_norm: expected two values of one shape and dtype, got [2, 3, 4] f32 and [2, 3, 3] f32"));
  CHECK(refuses([&] { add_layer_norm(x, x, *v4, *v5); }, "add_layer_norm: expected v5 [4] in f32"));
  CHECK(refuses([&] { add_rms_norm(x, x, *v16); }, "add_rms_norm: expected v16 [4] in f32"));
  CHECK(refuses([&] { add_rms_norm(x, x, *v4, 0); }, "add_rms_norm: expected epsilon > 0"));

  const auto ids = [&](const Shape& shape, const std::vector<std::int32_t>& values) {
    return Tensor::from(ctx, shape, values);
  };
  Tape open(ctx, 2, TapeMode::training, RecordsAre::open);
  CHECK(refuses(
      [&] {
        embedding(open, ids({2, 1}, {0, 5}), *w);
      },
      "token ids in [0, 5) for w, got 5 at sample 1, position 0"));
  CHECK(refuses([&] { embedding(open, ids({2, 1}, {-1, 0}), *w); }, "got -1 at sample 0"));
  CHECK(refuses([&] { embedding(tape, ids({2}, {0, 0}), *w); }, "ids i32 [B, T]"));
  CHECK(refuses([&] { embedding(tape, Tensor::zeros(ctx, {2, 1}, DType::f32), *w); }, "ids i32 [B, T], got f32"));
  CHECK(refuses([&] { embedding(tape, ids({2, 1}, {0, 0}), *v4); }, "a table [vocabulary, width]"));
  CHECK(refuses([&] { embedding(tape, ids({1, 2}, {0, 0}), *w); }, "sample axis (2 samples)"));
  CHECK(refuses([&] { position_embedding(x, *wide); }, "position_embedding: expected"));
  CHECK(refuses([&] { position_embedding(counted(tape, {2, 6, 4}), *w); }, "a table [at least T, width]"));
  CHECK(refuses([&] { position_embedding(x, *w16); }, "expected w16 in f32, got bf16"));

  CHECK(refuses([&] { attention(x, {.heads = 1, .causal = true, .keep = {}}); }, "packed as [B, T, C]"));
  CHECK(refuses(
      [&] {
        attention(counted(tape, {2, 3, 12}), {.heads = 3, .causal = true, .keep = {}});
      },
      "divisible by 3 heads"));
  CHECK(refuses(
      [&] {
        attention(counted(tape, {2, 3, 12}), {.heads = 0, .causal = true, .keep = {}});
      },
      "attention: expected"));
  CHECK(refuses(
      [&] {
        attention(counted(tape, {2, 3, 12}), {.heads = 2, .causal = true, .keep = ids({2, 1}, {1, 1})});
      },
      "padding mask of shape [2, 3]"));
  CHECK(refuses(
      [&] {
        cross_entropy(counted(open, {2, 3, 4}), ids({2, 3}, {0, 1, 2, 3, 4, 0}));
      },
      "targets in [0, 4) or -1 (ignored), got 4 at sample 1"));
  CHECK(refuses([&] { cross_entropy(x, ids({2, 2}, {0, 1, 2, 3})); }, "cross_entropy: expected logits"));
  CHECK(refuses([&] { cross_entropy(x, ids({3, 2}, {0, 1, 2, 3, 0, 0})); }, "cross_entropy: expected logits"));
  CHECK(refuses(
      [&] {
        cross_entropy(x, ids({2, 3}, {0, 1, 2, 3, 0, 0}), {.ignore_index = -1, .divisor = 0});
      },
      "divisor > 0"));
}

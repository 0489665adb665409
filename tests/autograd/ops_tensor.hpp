// SPDX-License-Identifier: Apache-2.0
// The op table's arithmetic with broadcasting, elementary functions, reductions, selection, and parameters as values.
#pragma once
#include "autograd/op.hpp"
#include "dpmp/autograd/rules/arithmetic.hpp"
#include "dpmp/autograd/rules/broadcast.hpp"
#include "dpmp/autograd/rules/cast.hpp"
#include "dpmp/autograd/rules/parameter_value.hpp"
#include "dpmp/autograd/rules/reduce.hpp"
#include "dpmp/autograd/rules/select.hpp"
#include "dpmp/autograd/rules/shape_ops.hpp"

namespace test {
namespace detail {
/// The shape with some of the axes after the sample axis of extent 1, and some of the first ones among them missing.
inline Shape narrowed(Draw& draw, const Shape& full) {
  Shape shape{full.front()};
  bool missing = draw.coin();
  for (int axis = 1; axis < full.rank(); ++axis) {
    missing = missing && draw.coin();
    if (!missing) shape.push_back(draw.coin() ? 1 : full[axis]);
  }
  return shape;
}
/// A shape of up to five axes, small where many of them are there.
inline Shape any_shape(Draw& draw) {
  Shape shape = draw.shape();
  if (shape.rank() == 4 && shape.back() <= 8) shape.push_back(draw.integer(1, 4));
  return shape;
}
/// What sums of n terms of random signs of up to `largest` are of the order of, each of them rounded.
inline double order_of_sum(const Shape& shape, double largest) {
  return largest * std::sqrt(double(shape.numel(1, shape.rank())));
}
/// The extents that two shapes are broadcast to.
inline Shape broadcast(const Shape& x, const Shape& y) {
  Shape both{x.front()};
  for (int back = std::max(x.rank(), y.rank()) - 1; back >= 1; --back) {
    const index_t m = back < x.rank() ? x[-back] : 1, n = back < y.rank() ? y[-back] : 1;
    both.push_back(m == 1 ? n : m);
  }
  return both;
}

/// Two operands that are broadcast against each other. largest: of the terms of a gradient.
template <class F>
Op broadcast_pair(std::string name, F forward, double largest, double away_from_zero = 0) {
  return {std::move(name), [=](Draw& draw) {
            const Shape full = any_shape(draw), x = narrowed(draw, full), y = narrowed(draw, full);
            return Problem{.samples = full.front(),
                           .inputs = {draw.values(x), draw.values(y, away_from_zero)},
                           .parameters = {},
                           .forward = [=](dpmp::Tape&, const Variables& v,
                                          const Parameters&) { return Variables{forward(v[0], v[1])}; },
                           .scale = order_of_sum(broadcast(x, y), largest)};
          }};
}

/// Several roundings, one after the other, in an elementwise expression.
template <class F>
Op expression(std::string name, int inputs, F forward, double roundings) {
  const Op op = elementwise(name, inputs, forward);
  return {std::move(name), [=](Draw& draw) {
            Problem p = op.make(draw);
            p.amplification = roundings;
            return p;
          }};
}

inline Problem broadcast_to(Draw& draw) {
  const Shape full = any_shape(draw);
  return {full.front(), {draw.values(narrowed(draw, full))}, {}, [=](dpmp::Tape&, const Variables& x, const Parameters&) {
            return Variables{dpmp::broadcast_to(x[0], full)};
          }};
}

inline Problem reduce(Draw& draw, bool mean) {
  Shape shape = any_shape(draw);
  const int axis = int(draw.integer(1, shape.rank() - 1)), given = axis - (draw.coin() ? shape.rank() : 0);
  if (mean) shape = shape.with(axis, std::max<index_t>(1, shape[axis]));
  const auto reduced = draw.coin() ? dpmp::ReducedAxis::kept : dpmp::ReducedAxis::removed;
  return {shape.front(), {draw.values(shape)}, {}, [=](dpmp::Tape&, const Variables& x, const Parameters&) {
            return Variables{mean ? dpmp::mean(x[0], given, reduced) : dpmp::sum(x[0], given, reduced)};
          }};
}

inline Problem where(Draw& draw) {
  const Shape shape = draw.shape();
  Shape mask_shape{shape.front()};
  for (index_t k = draw.integer(1, shape.rank()); k > mask_shape.rank();) mask_shape.push_back(shape[mask_shape.rank()]);
  const Held mask = draw.held_ids(mask_shape.numel(), -1, 1);
  return Problem{shape.front(),
                 {draw.values(shape), draw.values(shape)},
                 {},
                 [=](dpmp::Tape& tape, const Variables& x, const Parameters&) {
                   return Variables{dpmp::where(dpmp::Tensor::from(tape.ctx(), mask_shape, mask->ids), x[0], x[1])};
                 }}
      .holding({mask});
}

inline Problem gather(Draw& draw) {
  Shape shape{draw.samples(), std::max<index_t>(1, draw.tokens())};
  for (index_t k = draw.integer(0, 2); k > 0; --k) shape.push_back(k == 1 ? draw.width() : draw.integer(1, 3));
  const index_t picked = draw.tokens();
  const Held ids = draw.held_ids(shape.front() * picked, 0, shape[1] - 1);
  return Problem{shape.front(),
                 {draw.values(shape)},
                 {},
                 [=](dpmp::Tape& tape, const Variables& x, const Parameters&) {
                   return Variables{dpmp::gather(x[0], dpmp::Tensor::from(tape.ctx(), {shape.front(), picked}, ids->ids))};
                 }}
      .holding({ids});
}

inline Problem pad(Draw& draw) {
  const Shape shape = any_shape(draw);
  const int axis = int(draw.integer(1, shape.rank() - 1)) - (draw.coin() ? shape.rank() : 0);
  const index_t before = draw.integer(0, 3), after = draw.integer(0, 3);
  return {shape.front(), {draw.values(shape)}, {}, [=](dpmp::Tape&, const Variables& x, const Parameters&) {
            return Variables{dpmp::pad(x[0], axis, before, after)};
          }};
}

inline Problem slice(Draw& draw) {
  const Shape shape = any_shape(draw);
  const int axis = int(draw.integer(1, shape.rank() - 1));
  const index_t begin = draw.integer(0, shape[axis]), end = draw.integer(begin, shape[axis]);
  return {shape.front(), {draw.values(shape)}, {}, [=](dpmp::Tape&, const Variables& x, const Parameters&) {
            return Variables{dpmp::slice(x[0], axis, begin, end)};
          }};
}

/// Into a dtype that holds the table's values exactly, and another one than x's unless that is f64.
inline Variable recast(const Variable& x) {
  using dpmp::DType;
  return cast(x, x.dtype() == DType::f64 ? DType::f64 : x.dtype() == DType::f32 ? DType::bf16 : DType::f32);
}

inline Problem parameter(Draw& draw) {
  Shape shape;
  for (index_t k = draw.integer(0, 2); k > 0; --k) shape.push_back(draw.tokens());
  if (draw.coin()) shape.push_back(draw.width());
  return {draw.samples(), {}, {draw.values(shape)}, [](dpmp::Tape& tape, const Variables&, const Parameters& p) {
            return Variables{dpmp::parameter(tape, *p[0])};
          }};
}

/// A parameter that is repeated over the tokens of a value, and used twice.
inline Problem parameter_broadcast(Draw& draw) {
  const index_t samples = draw.samples(), tokens = draw.tokens(), width = draw.width();
  const Shape x{samples, tokens, width};
  return {samples,
          {draw.values(x)},
          {draw.values({width})},
          [](dpmp::Tape& tape, const Variables& v, const Parameters& p) {
            return Variables{v[0] * dpmp::parameter(tape, *p[0]), v[0] + dpmp::parameter(tape, *p[0])};
          },
          1,
          order_of_sum(x, 2)};
}
}  // namespace detail

inline std::vector<Op> tensor_ops() {
  using detail::broadcast_pair, detail::elementwise, detail::expression;
  using V = Variable;
  return {
      elementwise("subtract", 2, [](const Variables& x) { return subtract(x[0], x[1]); }),
      elementwise(
          "divide", 2, [](const Variables& x) { return divide(x[0], x[1]); }, 1),
      {"broadcast_to", detail::broadcast_to},
      broadcast_pair(
          "add (broadcast)", [](const V& x, const V& y) { return add(x, y); }, 1),
      broadcast_pair(
          "subtract (broadcast)", [](const V& x, const V& y) { return subtract(x, y); }, 1),
      broadcast_pair(
          "multiply (broadcast)", [](const V& x, const V& y) { return multiply(x, y); }, 2),
      broadcast_pair(
          "divide (broadcast)", [](const V& x, const V& y) { return divide(x, y); }, 2, 1),
      // Ten operators, each of which rounds.
      expression(
          "operators", 2,
          [](const Variables& x) {
            return -(x[0] - 0.5) * x[1] / 4 + 3.0 / (x[0] * x[0] + 1.0) + (2 - x[1]) / (1 + x[1] * x[1]) - 0.25 * x[0];
          },
          10),
      elementwise("exp", 1, [](const Variables& x) { return exp(x[0]); }),
      // Of something that is positive whatever x is: three roundings.
      expression(
          "log", 1, [](const Variables& x) { return log(square(x[0]) + 1); }, 3),
      expression(
          "sqrt", 1, [](const Variables& x) { return sqrt(square(x[0]) + 1); }, 3),
      elementwise("square", 1, [](const Variables& x) { return square(x[0]); }),
      elementwise(
          "reciprocal", 1, [](const Variables& x) { return reciprocal(x[0]); }, 1),
      {"sum", [](Draw& draw) { return detail::reduce(draw, false); }},
      {"mean", [](Draw& draw) { return detail::reduce(draw, true); }},
      {"where", detail::where},
      {"gather", detail::gather},
      {"pad", detail::pad},
      {"slice", detail::slice},
      elementwise("cast", 1, [](const Variables& x) { return detail::recast(x[0]); }),
      {"parameter", detail::parameter},
      {"parameter, broadcast", detail::parameter_broadcast},
  };
}
}  // namespace test

// SPDX-License-Identifier: Apache-2.0
// Recurrent layers [B, T, d] -> [B, T, h], built from linear, split, sigmoid, tanh, multiply and add. The input projection
// of all tokens is one product and one parameter site; the recurrent weight is used T times, so it has T sites of one row
// each, and the per-sample gradient is their sum.
#pragma once
#include <optional>
#include <vector>

#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/autograd/rules/elementwise.hpp"
#include "dpmp/autograd/rules/shape_ops.hpp"
#include "dpmp/nn/linear.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// The T tokens of x [B, T, d], each [B, 1, d]. Halved again and again: the backward of a split writes the whole it was
/// taken from, so T parts of one split would write T^2 tokens, halves write T log2 T.
std::vector<Variable> tokens_of(const Variable& x);

namespace detail {
/// What the two cells share: the input projection before the loop, the loop, and the stacking of the hidden states after
/// it. Cell: h' = step(projected token, recurrent projection of h, h), all in the dtype of the input projection.
template <class Step>
Variable recur(const Linear& input, const Linear& recurrent, const Variable& x, Step&& step) {
  const index_t hidden = recurrent.weight().shape()[1];
  DPMP_CHECK(x.shape().rank() == 3 && x.shape()[1] >= 1, "expected a sequence [B, T >= 1, d], got ", x.shape());
  Tape& tape = x.tape();
  Variable h = tape.input(Tensor::zeros(tape.ctx(), {x.shape()[0], 1, hidden}, input.dtype()));
  std::vector<Variable> states;
  for (const Variable& token : tokens_of(input(x))) states.push_back(h = step(token, cast(recurrent(h), input.dtype()), h));
  return concat(states, 1);
}
}  // namespace detail

/// How the weights of a recurrent layer start; init::orthogonal() for the recurrent ones keeps the size of the state over
/// many tokens: its packed matrix has orthonormal columns.
struct RecurrentOptions {
  Init input = init::fan_in_normal();
  Init recurrent = init::fan_in_normal();
};

/// Gated recurrent unit (Cho et al. 2014, arXiv 1406.1078), with the reset gate after the recurrent product:
/// r = sigmoid(Wr x + br + Ur h + cr), z = sigmoid(Wz x + bz + Uz h + cz), n = tanh(Wn x + bn + r * (Un h + cn)),
/// h' = n + z * (h - n), from h = 0. `input` packs W, b [3 hidden, inputs] and `recurrent` U, c in the order r, z,
/// n.
class Gru {
 public:
  Gru(const Scope& scope, index_t inputs, index_t hidden, const RecurrentOptions& options = {});
  /// x [B, T >= 1, inputs] -> the hidden state after each token [B, T, hidden].
  Variable operator()(const Variable& x) const {
    return detail::recur(input_, recurrent_, x, [](const Variable& token, const Variable& projected, const Variable& h) {
      const std::vector<Variable> w = split(token, 3, 2), u = split(projected, 3, 2);
      const Variable reset = sigmoid(add(w[0], u[0])), keep = sigmoid(add(w[1], u[1]));
      const Variable fresh = tanh(add(w[2], multiply(reset, u[2])));
      return add(fresh, multiply(keep, add(h, scale(fresh, -1))));
    });
  }

 private:
  Linear input_, recurrent_;
};

/// Long short-term memory (Hochreiter, Schmidhuber 1997; forget gate: Gers et al. 2000): i, f, o = sigmoid(W x + b + U h +
/// c), g = tanh(..), c' = f * c + i * g, h' = o * tanh(c'), from h = c = 0. `input` packs W, b [4 hidden, inputs] and
/// `recurrent` U, c in the order i, f, g, o.
class Lstm {
 public:
  Lstm(const Scope& scope, index_t inputs, index_t hidden, const RecurrentOptions& options = {});
  /// x [B, T >= 1, inputs] -> the hidden state after each token [B, T, hidden].
  Variable operator()(const Variable& x) const {
    std::optional<Variable> cell;  // empty: zeros
    return detail::recur(input_, recurrent_, x, [&](const Variable& token, const Variable& projected, const Variable&) {
      const std::vector<Variable> gates = split(add(token, projected), 4, 2);
      const Variable entered = multiply(sigmoid(gates[0]), tanh(gates[2]));
      cell = cell ? add(multiply(sigmoid(gates[1]), *cell), entered) : entered;
      return multiply(sigmoid(gates[3]), tanh(*cell));
    });
  }

 private:
  Linear input_, recurrent_;
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline Gru::Gru(const Scope& scope, index_t inputs, index_t hidden, const RecurrentOptions& options)
    : input_(scope / "input", inputs, 3 * hidden, {.weight = options.input}),
      recurrent_(scope / "recurrent", hidden, 3 * hidden, {.weight = options.recurrent}) {}

DPMP_KEPT_BODY inline Lstm::Lstm(const Scope& scope, index_t inputs, index_t hidden, const RecurrentOptions& options)
    : input_(scope / "input", inputs, 4 * hidden, {.weight = options.input}),
      recurrent_(scope / "recurrent", hidden, 4 * hidden, {.weight = options.recurrent}) {}

DPMP_KEPT_BODY inline std::vector<Variable> tokens_of(const Variable& x) {
  const index_t tokens = x.shape()[1];
  if (tokens == 0) return {};
  if (tokens == 1) return {x};
  const std::vector<Variable> halves = split(x, std::vector<index_t>{tokens / 2, tokens - tokens / 2}, 1);
  std::vector<Variable> all = tokens_of(halves[0]);
  for (const Variable& token : tokens_of(halves[1])) all.push_back(token);
  return all;
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif

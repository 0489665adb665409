// SPDX-License-Identifier: Apache-2.0
// The general operations of the op table, and weights that are used several times.
#pragma once
#include "autograd/op.hpp"
#include "autograd/ops_tensor.hpp"
#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/autograd/rules/add_norm.hpp"
#include "dpmp/autograd/rules/attention.hpp"
#include "dpmp/autograd/rules/cross_entropy.hpp"
#include "dpmp/autograd/rules/dropout.hpp"
#include "dpmp/autograd/rules/elementwise.hpp"
#include "dpmp/autograd/rules/embedding.hpp"
#include "dpmp/autograd/rules/feed_forward.hpp"
#include "dpmp/autograd/rules/linear.hpp"
#include "dpmp/autograd/rules/linear_cross_entropy.hpp"
#include "dpmp/autograd/rules/matmul.hpp"
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/autograd/rules/shape_ops.hpp"
#include "dpmp/autograd/rules/softmax.hpp"
#include "dpmp/autograd/rules/wide_linear.hpp"

namespace test {
namespace detail {
inline Problem layer_norm(Draw& draw) {
  const Shape shape = draw.shape(), width{shape.back()};
  // A large epsilon: with the usual one, a nearly constant row makes derivatives that differences cannot follow.
  return {
      shape.front(),
      {draw.values(shape)},
      {draw.values(width), draw.values(width)},
      [](dpmp::Tape&, const Variables& x, const Parameters& p) { return Variables{layer_norm(x[0], *p[0], *p[1], 0.25)}; },
      2};
}

/// Values of which every dtype holds the sums of two exactly: the norm behind an addition then rounds as it does alone.
inline Values halves(Values v) {
  for (double& x : v.values) x /= 2;
  return v;
}
/// Both results of an addition and the norm behind it, or the norm alone.
inline Variables some_results(const dpmp::SumAndNorm& results, bool both) {
  return both ? Variables{results.sum, results.normed} : Variables{results.normed};
}

inline Problem add_layer_norm(Draw& draw) {
  const Shape shape = draw.shape(), width{shape.back()};
  const bool both = draw.coin();
  return {shape.front(),
          {halves(draw.values(shape)), halves(draw.values(shape))},
          {draw.values(width), draw.values(width)},
          [=](dpmp::Tape&, const Variables& x, const Parameters& p) {
            return some_results(add_layer_norm(x[0], x[1], *p[0], *p[1], 0.25), both);
          },
          2};
}

inline Problem add_rms_norm(Draw& draw) {
  const Shape shape = draw.shape();
  const bool both = draw.coin();
  return {shape.front(),
          {halves(draw.values(shape)), halves(draw.values(shape))},
          {draw.values({shape.back()})},
          [=](dpmp::Tape&, const Variables& x, const Parameters& p) {
            return some_results(add_rms_norm(x[0], x[1], *p[0], 0.25), both);
          },
          2};
}

inline Problem embedding(Draw& draw) {
  const index_t samples = draw.samples(), tokens = draw.tokens(), vocabulary = draw.integer(1, 9);
  const Held ids = draw.held_ids(samples * tokens, 0, vocabulary - 1);
  const bool padding = draw.coin();  // then id 0 is padding
  return Problem{
      samples,
      {},
      {draw.values({vocabulary, draw.width()})},
      [=](dpmp::Tape& tape, const Variables&, const Parameters& p) {
        const auto pad = padding ? std::optional<std::int32_t>(0) : std::nullopt;
        return Variables{embedding(tape, dpmp::Tensor::from(tape.ctx(), {samples, tokens}, ids->ids), *p[0], pad)};
      }}
      .holding({ids});
}

inline Problem position_embedding(Draw& draw) {
  const index_t samples = draw.samples(), tokens = draw.tokens(), width = draw.width();
  return {samples,
          {draw.values({samples, tokens, width})},
          {draw.values({tokens + draw.integer(0, 2), width})},
          [](dpmp::Tape&, const Variables& x, const Parameters& p) { return Variables{position_embedding(x[0], *p[0])}; }};
}

inline Problem attention(Draw& draw, bool causal, bool padding) {
  const index_t samples = draw.samples(), tokens = draw.tokens(), heads = draw.integer(1, 3), width = draw.head_width();
  const Held keep = draw.held_ids(samples * tokens, 0, 1);
  return Problem{samples,
                 {draw.values({samples, tokens, 3 * heads * width})},
                 {},
                 [=](dpmp::Tape& tape, const Variables& x, const Parameters&) {
                   dpmp::AttentionOptions options{.heads = heads, .causal = causal, .keep = {}};
                   if (padding) options.keep = dpmp::Tensor::from(tape.ctx(), {samples, tokens}, keep->ids);
                   return Variables{attention(x[0], options)};
                 },
                 2}
      .holding({keep});
}

/// wide: with results in compute precision.
inline Problem linear(Draw& draw, bool with_bias, bool wide = false) {
  const Shape x = draw.shape();
  const index_t outputs = draw.width();
  Problem p{x.front(),
            {draw.values(x)},
            {draw.values({outputs, x.back()})},
            [=](dpmp::Tape&, const Variables& v, const Parameters& w) {
              const auto apply = wide ? dpmp::wide_linear : dpmp::linear;
              return Variables{apply(v[0], *w[0], with_bias ? w[1] : nullptr)};
            }};
  if (with_bias) p.parameters.push_back(draw.values({outputs}));
  return p;
}

inline Problem gelu_feed_forward(Draw& draw, dpmp::GemmActivation form) {
  const Shape x = draw.shape();
  const index_t hidden = draw.width(), outputs = draw.width();
  const bool biases = draw.coin();
  Problem p{x.front(),
            {draw.values(x)},
            {draw.values({hidden, x.back()}), draw.values({outputs, hidden})},
            [=](dpmp::Tape&, const Variables& v, const Parameters& w) {
              return Variables{
                  dpmp::gelu_feed_forward(v[0], *w[0], biases ? w[2] : nullptr, *w[1], biases ? w[3] : nullptr, form)};
            },
            // Three products one behind the other, each rounded in its sum and when it is stored, and GELU and its slope
            // between them: eight roundings. Of sums of random signs, whose terms are up to 2 * 2: where GELU is next to 0
            // it is the difference of two of its order, and so is a gradient behind it.
            8,
            2 * std::sqrt(double(x.back() * std::max(hidden, outputs)))};
  if (biases) p.parameters.push_back(draw.values({hidden})), p.parameters.push_back(draw.values({outputs}));
  return p;
}

inline Problem matmul(Draw& draw) {
  const index_t m = draw.tokens(), n = draw.tokens(), k = draw.width();
  const bool transpose_x = draw.coin(), transpose_y = draw.coin();
  Shape x{draw.samples()};
  if (draw.coin()) x.push_back(draw.integer(0, 3));
  Shape y = x;
  for (index_t extent : {transpose_x ? k : m, transpose_x ? m : k}) x.push_back(extent);
  for (index_t extent : {transpose_y ? n : k, transpose_y ? k : n}) y.push_back(extent);
  return {x.front(), {draw.values(x), draw.values(y)}, {}, [=](dpmp::Tape&, const Variables& v, const Parameters&) {
            return Variables{matmul(v[0], v[1], transpose_x, transpose_y)};
          }};
}

inline Problem reshape(Draw& draw) {
  const index_t samples = draw.samples(), a = draw.tokens(), b = draw.tokens(), c = draw.integer(1, 3);
  return {samples, {draw.values({samples, a, b * c})}, {}, [=](dpmp::Tape&, const Variables& x, const Parameters&) {
            return Variables{reshape(x[0], {samples, c, b, a})};
          }};
}

inline Problem transpose(Draw& draw) {
  Shape shape{draw.samples()};
  for (index_t k = draw.integer(1, 4); k > 0; --k) shape.push_back(k == 1 ? draw.width() : draw.tokens());
  const int last = shape.rank() - 1, i = int(draw.integer(1, last)),
            j = int(draw.integer(1, last)) - (draw.coin() ? shape.rank() : 0);
  return {shape.front(), {draw.values(shape)}, {}, [=](dpmp::Tape&, const Variables& x, const Parameters&) {
            return Variables{transpose(x[0], i, j)};
          }};
}

/// used: how many of the parts reach the losses at most.
inline Problem split(Draw& draw, std::size_t used) {
  Shape shape = draw.shape();
  const int axis = int(draw.integer(1, shape.rank() - 1));
  std::vector<index_t> sizes;
  index_t total = 0;
  for (index_t k = draw.integer(1, 3); k > 0; --k) total += sizes.emplace_back(draw.tokens());
  shape = shape.with(axis, total);
  return {shape.front(), {draw.values(shape)}, {}, [=](dpmp::Tape&, const Variables& x, const Parameters&) {
            Variables parts = split(x[0], sizes, axis);
            parts.erase(parts.begin(), parts.end() - std::min(parts.end() - parts.begin(), std::ptrdiff_t(used)));
            return parts;
          }};
}

inline Problem concat(Draw& draw) {
  const Shape shape = draw.shape();
  const int axis = int(draw.integer(1, shape.rank() - 1)) - (draw.coin() ? shape.rank() : 0);
  Problem p{
      shape.front(), {}, {}, [=](dpmp::Tape&, const Variables& x, const Parameters&) { return Variables{concat(x, axis)}; }};
  for (index_t k = draw.integer(1, 3); k > 0; --k) p.inputs.push_back(draw.values(shape.with(axis, draw.tokens())));
  return p;
}

inline Problem dropout(Draw& draw) {
  const Shape shape = draw.shape();
  const Held ids = draw.held_ids(shape.front(), 0, 1 << 30);
  const double rate = double(draw.integer(0, 3)) / 4;
  dpmp::DropoutKey key{.secret = {}, .step = 3, .layer = 2};
  key.secret.words[0] = std::uint32_t(draw.integer(0, 1 << 30));
  return Problem{shape.front(),
                 {draw.values(shape)},
                 {},
                 [=](dpmp::Tape& tape, const Variables& x, const Parameters&) {
                   std::vector<dpmp::RecordId> records;
                   for (const std::int32_t name : ids->ids)
                     records.push_back(dpmp::stable_id(dpmp::Key256{}, std::uint64_t(name)));
                   return Variables{dropout(x[0], rate, key, dpmp::SampleIdentities(tape.ctx(), records))};
                 }}
      .holding({ids});
}

inline Problem cross_entropy(Draw& draw) {
  const Shape shape = draw.shape();
  Shape target_shape{shape.front()};
  for (int k = 1; k < shape.rank() - 1; ++k) target_shape.push_back(shape[k]);
  const Held targets = draw.held_ids(target_shape.numel(), -1, shape.back() - 1);  // -1: ignored
  const double divisor = double(draw.integer(1, 4));
  return Problem{shape.front(),
                 {draw.values(shape)},
                 {},
                 [=](dpmp::Tape& tape, const Variables& x, const Parameters&) {
                   const auto ids = dpmp::Tensor::from(tape.ctx(), target_shape, targets->ids);
                   return Variables{cross_entropy(x[0], ids, {.ignore_index = -1, .divisor = divisor})};
                 }}
      .holding({targets});
}

/// An output layer and its loss in chunks of any size. tied: its weight is the table of an embedding, too.
inline Problem linear_cross_entropy(Draw& draw, bool with_bias, bool tied) {
  const auto quarters = [&](const Shape& shape) {  // so that logits are of order 1
    Values v = draw.values(shape);
    for (double& x : v.values) x /= 4;
    return v;
  };
  const index_t samples = draw.samples(), tokens = draw.tokens(), width = draw.integer(1, 9), classes = draw.integer(1, 9);
  const Held targets = draw.held_ids(samples * tokens, -1, classes - 1),
             ids = draw.held_ids(samples * tokens, 0, classes - 1);
  const double divisor = double(draw.integer(1, 4));
  const index_t bytes = draw.integer(1, 4 * classes * std::max<index_t>(1, tokens) * (samples + 1));
  // The gradient of a logit is rounded, and so are the sums of up to nine of them and of tokens.
  Problem p{samples,
            {quarters({samples, tokens, width})},
            {quarters({classes, width})},
            [=](dpmp::Tape& tape, const Variables& x, const Parameters& w) {
              const auto tensor = [&](const Held& held) {
                return dpmp::Tensor::from(tape.ctx(), {samples, tokens}, held->ids);
              };
              Variables results{dpmp::linear_cross_entropy(x[0], *w[0], with_bias ? w[1] : nullptr, tensor(targets),
                                                           {.ignore_index = -1, .divisor = divisor}, bytes)};
              if (tied) results.push_back(embedding(tape, tensor(ids), *w[0]));
              return results;
            },
            4};
  if (with_bias) p.parameters.push_back(quarters({classes}));
  return std::move(p).holding({targets, ids});
}

inline Problem mean_squared_error(Draw& draw) {
  const Shape shape = draw.shape();
  const auto target = std::make_shared<HeldRows>(HeldRows{.numbers = draw.values(shape).values});
  return Problem{shape.front(),
                 {draw.values(shape)},
                 {},
                 [=](dpmp::Tape& tape, const Variables& x, const Parameters&) {
                   const auto t = dpmp::Tensor::from(tape.ctx(), shape, accumulate_dtype(x[0].dtype()), target->numbers);
                   return Variables{mean_squared_error(x[0], t)};
                 }}
      .holding({target});
}
/// One table as an embedding and as the weight of an output layer, and as the latter once more: tied weights.
inline Problem tied(Draw& draw) {
  const index_t samples = draw.samples(), tokens = draw.tokens(), vocabulary = draw.integer(1, 9), width = draw.width();
  const Held ids = draw.held_ids(samples * tokens, 0, vocabulary - 1);
  return Problem{samples,
                 {draw.values({samples, tokens, width}), draw.values({samples, tokens, width})},
                 {draw.values({vocabulary, width})},
                 [=](dpmp::Tape& tape, const Variables& x, const Parameters& p) {
                   return Variables{embedding(tape, dpmp::Tensor::from(tape.ctx(), {samples, tokens}, ids->ids), *p[0], 0),
                                    dpmp::linear(x[0], *p[0]), dpmp::linear(x[1], *p[0])};
                 }}
      .holding({ids});
}

/// A weight and its bias used once for each of three inputs of different length.
inline Problem reused(Draw& draw) {
  const index_t samples = draw.samples(), width = draw.width(), outputs = draw.width();
  Problem p{samples, {}, {draw.values({outputs, width}), draw.values({outputs})}, {}};
  for (int k = 0; k < 3; ++k) p.inputs.push_back(draw.values({samples, draw.tokens(), width}));
  p.forward = [](dpmp::Tape&, const Variables& x, const Parameters& w) {
    Variables outputs_;
    for (const Variable& v : x) outputs_.push_back(dpmp::linear(v, *w[0], w[1]));
    return outputs_;
  };
  return p;
}
}  // namespace detail

inline std::vector<Op> general_ops() {
  std::vector<Op> ops = {
      detail::elementwise("add", 2, [](const Variables& x) { return add(x[0], x[1]); }),
      detail::elementwise("multiply", 2, [](const Variables& x) { return multiply(x[0], x[1]); }),
      detail::elementwise("scale", 1, [](const Variables& x) { return scale(x[0], -1.75); }),
      detail::elementwise("gelu", 1, [](const Variables& x) { return gelu(x[0]); }),
      detail::elementwise("gelu_tanh", 1, [](const Variables& x) { return gelu_tanh(x[0]); }),
      detail::elementwise(
          "relu", 1, [](const Variables& x) { return relu(x[0]); }, 0.015),
      detail::elementwise("tanh", 1, [](const Variables& x) { return tanh(x[0]); }),
      detail::elementwise("sigmoid", 1, [](const Variables& x) { return sigmoid(x[0]); }),
      detail::elementwise("softmax", 1, [](const Variables& x) { return softmax(x[0]); }),
      {"layer_norm", detail::layer_norm},
      {"add_layer_norm", detail::add_layer_norm},
      {"add_rms_norm", detail::add_rms_norm},
      {"embedding", detail::embedding},
      {"position_embedding", detail::position_embedding},
      {"attention (causal)", [](Draw& draw) { return detail::attention(draw, true, false); }},
      {"attention (bidirectional)", [](Draw& draw) { return detail::attention(draw, false, false); }},
      {"attention (causal, padding)", [](Draw& draw) { return detail::attention(draw, true, true); }},
      {"attention (bidirectional, padding)", [](Draw& draw) { return detail::attention(draw, false, true); }},
      {"linear", [](Draw& draw) { return detail::linear(draw, false); }},
      {"linear (bias)", [](Draw& draw) { return detail::linear(draw, true); }},
      {"wide_linear", [](Draw& draw) { return detail::linear(draw, false, true); }},
      {"wide_linear (bias)", [](Draw& draw) { return detail::linear(draw, true, true); }},
      {"gelu_feed_forward", [](Draw& draw) { return detail::gelu_feed_forward(draw, dpmp::GemmActivation::gelu_erf); }},
      {"gelu_feed_forward (tanh)",
       [](Draw& draw) { return detail::gelu_feed_forward(draw, dpmp::GemmActivation::gelu_tanh); }},
      {"embedding and linear, tied", detail::tied},
      {"linear, used three times", detail::reused},
      {"matmul", detail::matmul},
      {"reshape", detail::reshape},
      {"transpose", detail::transpose},
      {"split", [](Draw& draw) { return detail::split(draw, 3); }},
      {"split (some parts used)", [](Draw& draw) { return detail::split(draw, 1); }},
      {"concat", detail::concat},
      {"dropout", detail::dropout},
      {"cross_entropy", detail::cross_entropy},
      {"linear_cross_entropy", [](Draw& draw) { return detail::linear_cross_entropy(draw, false, false); }},
      {"linear_cross_entropy (bias)", [](Draw& draw) { return detail::linear_cross_entropy(draw, true, false); }},
      {"embedding and linear_cross_entropy, tied",
       [](Draw& draw) { return detail::linear_cross_entropy(draw, false, true); }},
      {"mean_squared_error", detail::mean_squared_error},
  };
  for (Op& op : tensor_ops()) ops.push_back(std::move(op));
  return ops;
}
}  // namespace test

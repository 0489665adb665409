// SPDX-License-Identifier: Apache-2.0
// The op table's operations of sequence models: SiLU and its gate, RMS norm, rotary positions, shared key heads.
#pragma once
#include "autograd/op.hpp"
#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/autograd/rules/attention.hpp"
#include "dpmp/autograd/rules/layer_norm.hpp"
#include "dpmp/autograd/rules/rope.hpp"
#include "dpmp/autograd/rules/swiglu.hpp"

namespace test {
namespace detail {
inline Problem rms_norm(Draw& draw) {
  const Shape shape = draw.shape();
  // A large epsilon, as in layer_norm.
  return {shape.front(),
          {draw.values(shape)},
          {draw.values({shape.back()})},
          [](dpmp::Tape&, const Variables& x, const Parameters& p) { return Variables{rms_norm(x[0], *p[0], 0.25)}; },
          2};
}

inline Problem swiglu(Draw& draw) {
  const Shape shape = draw.shape();
  return {shape.front(),
          {draw.values(shape.with(-1, 2 * shape.back()))},
          {},
          [](dpmp::Tape&, const Variables& x, const Parameters&) { return Variables{swiglu(x[0])}; }};
}

inline Problem rope(Draw& draw) {
  const index_t samples = draw.samples(), tokens = draw.tokens(), heads = draw.integer(1, 3), half = draw.integer(1, 20),
                rest = draw.width();
  const double base = double(draw.integer(1, 100));
  return {samples,
          {draw.values({samples, tokens, heads * 2 * half + rest})},
          {},
          [=](dpmp::Tape&, const Variables& x, const Parameters&) { return Variables{rope(x[0], heads, 2 * half, base)}; }};
}

inline Problem grouped_attention(Draw& draw, bool causal, bool padding) {
  const index_t samples = draw.samples(), tokens = draw.tokens(), groups = draw.integer(1, 2), group = draw.integer(2, 3),
                width = draw.head_width();
  const Held keep = draw.held_ids(samples * tokens, 0, 1);
  return Problem{samples,
                 {draw.values({samples, tokens, (groups * group + 2 * groups) * width})},
                 {},
                 [=](dpmp::Tape& tape, const Variables& x, const Parameters&) {
                   dpmp::AttentionOptions options{
                       .heads = groups * group, .key_value_heads = groups, .causal = causal, .keep = {}};
                   if (padding) options.keep = dpmp::Tensor::from(tape.ctx(), {samples, tokens}, keep->ids);
                   return Variables{attention(x[0], options)};
                 },
                 2}
      .holding({keep});
}
}  // namespace detail

inline std::vector<Op> sequence_ops() {
  return {
      detail::elementwise("silu", 1, [](const Variables& x) { return silu(x[0]); }),
      {"swiglu", detail::swiglu},
      {"rms_norm", detail::rms_norm},
      {"rope", detail::rope},
      {"attention (grouped, causal)", [](Draw& draw) { return detail::grouped_attention(draw, true, false); }},
      {"attention (grouped, bidirectional, padding)",
       [](Draw& draw) { return detail::grouped_attention(draw, false, true); }},
  };
}
}  // namespace test

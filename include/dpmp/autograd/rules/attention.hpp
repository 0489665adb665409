// SPDX-License-Identifier: Apache-2.0
// attention: multi-head scaled dot-product attention (Vaswani et al. 2017) on packed projections, causal or bidirectional,
// with a key padding mask. Nothing of size T x T is kept: the backward forms the probabilities again, by the same code.
#pragma once
#include <cmath>

#include "dpmp/autograd/tape.hpp"
#include "dpmp/gemm/gemm.hpp"
#include "dpmp/kernels/masked_softmax.hpp"

namespace dpmp::inline DPMP_ABI {
struct AttentionOptions {
  index_t heads = 1;
  /// Token t sees tokens 0..t only.
  bool causal = true;
  /// i32 [B, T], 0: the token is padding: nobody sees it, its output is 0, and what its projections hold does not matter.
  /// Not defined: no padding.
  Tensor keep = {};
};

namespace rules {
/// One sample's one head on one thread, in buffers of that thread. T: storage type.
template <class T>
class AttentionHead {
 public:
  using R = compute_t<T>;
  AttentionHead(Context& ctx, index_t tokens, index_t width, const AttentionOptions& options)
      : ctx_(ctx), tokens_(tokens), width_(width), options_(options) {
    const index_t rows = tokens * width * index_t(sizeof(T)), square = tokens * tokens;
    rows_ = ctx.allocate(4 * rows);
    squares_ = ctx.allocate((2 * square + tokens) * index_t(sizeof(R)));
    rounded_ = ctx.allocate(square * index_t(sizeof(T)));
  }

  /// qkv: this sample's [tokens, 3, heads, width]; output: its [tokens, heads, width]; keep: its i32 [tokens] or null.
  void forward(const T* qkv, const std::int32_t* keep, index_t head, T* output) {
    load(qkv, keep, head);
    probabilities(keep);
    multiply(tokens_, width_, tokens_, {rounded(), false, tokens_}, {part(2), false, width_}, output + head * width_,
             options_.heads * width_);
  }
  void backward(const T* qkv, const std::int32_t* keep, index_t head, const T* output_gradient, T* qkv_gradient) {
    load(qkv, keep, head);
    probabilities(keep);
    const index_t packed = 3 * options_.heads * width_;
    copy_rows(output_gradient + head * width_, options_.heads * width_, keep, part(3));
    // dV = P^T dO, dP = dO V^T, dS = softmax'(dP), dQ = dS K, dK = dS^T Q.
    multiply(tokens_, width_, tokens_, {rounded(), true, tokens_}, {part(3), false, width_}, slice(qkv_gradient, 2, head),
             packed);
    multiply(tokens_, tokens_, width_, {part(3), false, width_}, {part(2), true, width_}, second_square(), tokens_);
    run_rows(0, tokens_, kernels::MaskedSoftmaxBackward<T>{first_square(), second_square(), rounded(), tokens_, R(scale())});
    multiply(tokens_, width_, tokens_, {rounded(), false, tokens_}, {part(1), false, width_}, slice(qkv_gradient, 0, head),
             packed);
    multiply(tokens_, width_, tokens_, {rounded(), true, tokens_}, {part(0), false, width_}, slice(qkv_gradient, 1, head),
             packed);
  }

 private:
  struct Operand {
    const T* data;
    bool transposed;
    index_t row_stride;
  };
  // FP32 in every dtype, so that forward and backward use the same number.
  float scale() const { return float(1 / std::sqrt(double(width_))); }
  T* part(int k) { return static_cast<T*>(rows_.data()) + k * tokens_ * width_; }  // Q, K, V, dO, contiguous
  R* first_square() const { return static_cast<R*>(squares_.data()); }
  R* second_square() const { return first_square() + tokens_ * tokens_; }
  R* keep_row() const { return second_square() + tokens_ * tokens_; }
  T* rounded() { return static_cast<T*>(rounded_.data()); }
  template <class P>
  P* slice(P* qkv, int which, index_t head) const {
    return qkv + (which * options_.heads + head) * width_;
  }
  void copy_rows(const T* from, index_t stride, const std::int32_t* keep, T* to) const {
    for (index_t t = 0; t < tokens_; ++t) std::memcpy(to + t * width_, from + t * stride, std::size_t(width_) * sizeof(T));
    if (keep) run_rows(0, tokens_, kernels::KeepRows<T>{to, keep_row(), width_});
  }
  // The projections are packed, and a strided product loses the matrix units of some CPUs: copy the head's part first.
  void load(const T* qkv, const std::int32_t* keep, index_t head) {
    if (keep)
      for (index_t t = 0; t < tokens_; ++t) keep_row()[t] = keep[t] ? R(1) : R(0);
    for (int k = 0; k < 3; ++k) copy_rows(slice(qkv, k, head), 3 * options_.heads * width_, keep, part(k));
  }
  void probabilities(const std::int32_t* keep) {
    multiply(tokens_, tokens_, width_, {part(0), false, width_}, {part(1), true, width_}, first_square(), tokens_, scale());
    run_rows(0, tokens_,
             kernels::MaskedSoftmaxForward<T>{first_square(), keep ? keep_row() : nullptr, first_square(), rounded(),
                                              tokens_, options_.causal});
  }
  template <class Out>
  void multiply(index_t m, index_t n, index_t k, Operand a, Operand b, Out* out, index_t out_stride, float alpha = 1) {
    gemm(ctx_, {.m = m,
                .n = n,
                .k = k,
                .a = {.data = a.data, .dtype = dtype_of<T>, .row_stride = a.row_stride, .transposed = a.transposed},
                .b = {.data = b.data, .dtype = dtype_of<T>, .row_stride = b.row_stride, .transposed = b.transposed},
                .out = {.data = out, .dtype = dtype_of<Out>, .row_stride = out_stride},
                .alpha = alpha});
  }
  Context& ctx_;
  index_t tokens_, width_;
  const AttentionOptions& options_;
  Buffer rows_, squares_, rounded_;
};

/// Calls f(AttentionHead&, sample, head) for all of them, spread over the threads.
template <class T, class F>
void for_each_head(Context& ctx, const Shape& qkv, const AttentionOptions& options, F&& f) {
  const index_t tokens = qkv[1], width = qkv[2] / (3 * options.heads);
  ctx.team().parallel_for(qkv[0] * options.heads, [&](index_t begin, index_t end) {
    AttentionHead<T> head(ctx, tokens, width, options);
    for (index_t k = begin; k < end; ++k) f(head, k / options.heads, k % options.heads);
  });
}

struct Attention {
  static constexpr std::string_view name = "attention";
  Variable qkv;
  AttentionOptions options;

  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const Tensor g = Tensor::empty(pass.ctx, qkv.shape(), qkv.dtype());
    const index_t tokens = qkv.shape()[1], packed = qkv.shape()[2];
    dispatch_real(qkv.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      for_each_head<T>(pass.ctx, qkv.shape(), options, [&](AttentionHead<T>& work, index_t sample, index_t head) {
        const index_t at = sample * tokens * packed;
        work.backward(qkv.value().data<T>() + at,
                      options.keep.defined() ? options.keep.data<std::int32_t>() + sample * tokens : nullptr, head,
                      gradient.data<T>() + at / 3, g.data<T>() + at);
      });
    });
    pass.accumulate(qkv.slot(), g);
  }
};
}  // namespace rules

/// qkv [B, T, 3 C] (queries, keys, values; each [heads, C / heads]) -> [B, T, C]. Scores are divided by sqrt(C / heads).
inline Variable attention(const Variable& qkv, const AttentionOptions& options) {
  Tape& tape = qkv.tape();
  DPMP_CHECK(
      qkv.shape().rank() == 3 && options.heads >= 1 && qkv.shape()[2] % (3 * options.heads) == 0 && qkv.shape()[2] > 0,
      "attention: expected queries, keys and values packed as [B, T, 3 C] with C divisible by ", options.heads,
      " heads, got ", qkv.shape());
  if (options.keep.defined()) {
    check_shape("attention's padding mask", options.keep, {qkv.shape()[0], qkv.shape()[1]});
    check_dtype("attention's padding mask", options.keep, DType::i32);
  }
  const Tensor y = Tensor::empty(tape.ctx(), qkv.shape().with(2, qkv.shape()[2] / 3), qkv.dtype());
  const index_t tokens = qkv.shape()[1], packed = qkv.shape()[2];
  dispatch_real(qkv.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    rules::for_each_head<T>(
        tape.ctx(), qkv.shape(), options, [&](rules::AttentionHead<T>& work, index_t sample, index_t head) {
          const index_t at = sample * tokens * packed;
          work.forward(qkv.value().data<T>() + at,
                       options.keep.defined() ? options.keep.data<std::int32_t>() + sample * tokens : nullptr, head,
                       y.data<T>() + at / 3);
        });
  });
  return tape.record(y, tape.needs_gradient(qkv), rules::Attention{qkv, options});
}
}  // namespace dpmp::inline DPMP_ABI

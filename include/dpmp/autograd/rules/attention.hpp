// SPDX-License-Identifier: Apache-2.0
// attention: multi-head scaled dot-product attention (Vaswani et al. 2017) on packed projections, causal or bidirectional,
// with a key padding mask; several query heads may share a key and value head (Ainslie et al. 2023, arXiv 2305.13245).
// Nothing of size T x T is kept: the backward forms the probabilities again, by the same code.
#pragma once
#include <cmath>

#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
struct AttentionOptions {
  index_t heads = 1;
  /// Heads of keys and values; query heads k * heads / key_value_heads .. share head k. Divides heads; 0: as many as heads.
  index_t key_value_heads = 0;
  /// Token t sees tokens 0..t only.
  bool causal = true;
  /// i32 [B, T], 0: the token is padding: nobody sees it, its output is 0, and what its projections hold does not matter.
  /// Not defined: no padding.
  Tensor keep = {};

  index_t key_heads() const { return key_value_heads == 0 ? heads : key_value_heads; }
  /// Heads in a packed row: queries, keys, values.
  index_t packed_heads() const { return heads + 2 * key_heads(); }
};
/// qkv [B, T, (heads + 2 key_value_heads) * width]: queries [heads, width], keys and values [key_value_heads, width] ->
/// [B, T, heads * width]. Scores are divided by sqrt(width). With key_value_heads = heads that is [B, T, 3 C] -> [B, T, C].
Variable attention(const Variable& qkv, const AttentionOptions& options);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/gemm/gemm.hpp"
#include "dpmp/kernels/masked_softmax.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
/// One sample's one key head, with all query heads that share it, on one thread, in buffers of that thread. The scores of
/// the group are stacked, so that dK and dV are single products, summed over the group before they are rounded.
/// T: storage type.
template <class T>
class AttentionGroup {
 public:
  using R = compute_t<T>;
  AttentionGroup(Context& ctx, index_t tokens, index_t width, const AttentionOptions& options)
      : ctx_(ctx), tokens_(tokens), width_(width), group_(options.heads / options.key_heads()), options_(options) {
    const index_t rows = tokens * width * index_t(sizeof(T)), square = tokens * tokens;
    rows_ = ctx.allocate((2 * group_ + 2) * rows);
    squares_ = ctx.allocate((2 * group_ * square + tokens) * index_t(sizeof(R)));
    rounded_ = ctx.allocate(group_ * square * index_t(sizeof(T)));
  }

  /// qkv: this sample's [tokens, packed heads, width]; output: its [tokens, heads, width]; keep: its i32 [tokens] or null.
  void forward(const T* qkv, const std::int32_t* keep, index_t key_head, T* output) {
    load(qkv, keep, key_head);
    probabilities(keep);
    for (index_t j = 0; j < group_; ++j)
      multiply(tokens_, width_, tokens_, {rounded(j), false, tokens_}, {values(), false, width_},
               output + (key_head * group_ + j) * width_, options_.heads * width_);
  }
  void backward(const T* qkv, const std::int32_t* keep, index_t key_head, const T* output_gradient, T* qkv_gradient) {
    load(qkv, keep, key_head);
    probabilities(keep);
    const index_t packed = options_.packed_heads() * width_, all = group_ * tokens_;
    for (index_t j = 0; j < group_; ++j)
      copy_rows(output_gradient + (key_head * group_ + j) * width_, options_.heads * width_, keep, output_gradients(j));
    // dV = P^T dO, dP = dO V^T, dS = softmax'(dP), dQ = dS K, dK = dS^T Q.
    multiply(tokens_, width_, all, {rounded(0), true, tokens_}, {output_gradients(0), false, width_},
             qkv_gradient + value_column(key_head), packed);
    multiply(all, tokens_, width_, {output_gradients(0), false, width_}, {values(), true, width_}, second_square(), tokens_);
    run_library_rows(0, all,
                     kernels::MaskedSoftmaxBackward<T>{first_square(), second_square(), rounded(0), tokens_, R(scale())});
    for (index_t j = 0; j < group_; ++j)
      multiply(tokens_, width_, tokens_, {rounded(j), false, tokens_}, {keys(), false, width_},
               qkv_gradient + query_column(key_head, j), packed);
    multiply(tokens_, width_, all, {rounded(0), true, tokens_}, {queries(0), false, width_},
             qkv_gradient + key_column(key_head), packed);
  }

 private:
  struct Operand {
    const T* data;
    bool transposed;
    index_t row_stride;
  };
  double scale() const { return 1 / std::sqrt(double(width_)); }
  // Contiguous copies [tokens, width]: K, V, then the group's queries, then its output gradients.
  T* part(index_t k) const { return static_cast<T*>(rows_.data()) + k * tokens_ * width_; }
  T* keys() const { return part(0); }
  T* values() const { return part(1); }
  T* queries(index_t j) const { return part(2 + j); }
  T* output_gradients(index_t j) const { return part(2 + group_ + j); }
  R* first_square() const { return static_cast<R*>(squares_.data()); }
  R* second_square() const { return first_square() + group_ * tokens_ * tokens_; }
  R* keep_row() const { return second_square() + group_ * tokens_ * tokens_; }
  T* rounded(index_t j) const { return static_cast<T*>(rounded_.data()) + j * tokens_ * tokens_; }
  // Columns of a packed row.
  index_t query_column(index_t key_head, index_t j) const { return (key_head * group_ + j) * width_; }
  index_t key_column(index_t key_head) const { return (options_.heads + key_head) * width_; }
  index_t value_column(index_t key_head) const { return (options_.heads + options_.key_heads() + key_head) * width_; }

  void copy_rows(const T* from, index_t stride, const std::int32_t* keep, T* to) const {
    for (index_t t = 0; t < tokens_; ++t) std::memcpy(to + t * width_, from + t * stride, std::size_t(width_) * sizeof(T));
    if (keep) run_library_rows(0, tokens_, kernels::KeepRows<T>{to, keep_row(), width_});
  }
  // The projections are packed, and a strided product loses the matrix units of some CPUs: copy the heads' parts first.
  void load(const T* qkv, const std::int32_t* keep, index_t key_head) {
    if (keep)
      for (index_t t = 0; t < tokens_; ++t) keep_row()[t] = keep[t] ? R(1) : R(0);
    const index_t packed = options_.packed_heads() * width_;
    for (index_t j = 0; j < group_; ++j) copy_rows(qkv + query_column(key_head, j), packed, keep, queries(j));
    copy_rows(qkv + key_column(key_head), packed, keep, keys());
    copy_rows(qkv + value_column(key_head), packed, keep, values());
  }
  void probabilities(const std::int32_t* keep) {
    multiply(group_ * tokens_, tokens_, width_, {queries(0), false, width_}, {keys(), true, width_}, first_square(), tokens_,
             scale());
    for (index_t j = 0; j < group_; ++j) {
      R* scores = first_square() + j * tokens_ * tokens_;
      run_library_rows(0, tokens_,
                       kernels::MaskedSoftmaxForward<T>{scores, keep ? keep_row() : nullptr, scores, rounded(j), tokens_,
                                                        options_.causal});
    }
  }
  template <class Out>
  void multiply(index_t m, index_t n, index_t k, Operand a, Operand b, Out* out, index_t out_stride, double alpha = 1) {
    gemm(ctx_, {.m = m,
                .n = n,
                .k = k,
                .a = {.data = a.data, .dtype = dtype_of<T>, .row_stride = a.row_stride, .transposed = a.transposed},
                .b = {.data = b.data, .dtype = dtype_of<T>, .row_stride = b.row_stride, .transposed = b.transposed},
                .out = {.data = out, .dtype = dtype_of<Out>, .row_stride = out_stride},
                .alpha = alpha});
  }
  Context& ctx_;
  index_t tokens_, width_, group_;
  const AttentionOptions& options_;
  Buffer rows_, squares_, rounded_;
};

/// Calls f(AttentionGroup&, sample, key head) for all of them, spread over the threads: no two of them write to one place.
template <class T, class F>
void for_each_group(Context& ctx, const Shape& qkv, const AttentionOptions& options, F&& f) {
  const index_t tokens = qkv[1], width = qkv[2] / options.packed_heads(), groups = options.key_heads();
  ctx.team().parallel_for(qkv[0] * groups, [&](index_t begin, index_t end) {
    AttentionGroup<T> work(ctx, tokens, width, options);
    for (index_t k = begin; k < end; ++k) f(work, k / groups, k % groups);
  });
}

// Defined in autograd/rules/attention.cuh. The forward pass gives what the backward pass needs in addition to qkv and the
// output.
template <class T>
DPMP_KEPT Tensor attention_forward_on_cuda(Context& ctx, const Tensor& qkv, const AttentionOptions& options,
                                           const Tensor& output);
template <class T>
DPMP_KEPT void attention_backward_on_cuda(Context& ctx, const Tensor& qkv, const AttentionOptions& options,
                                          const Tensor& output, const Tensor& log_sum_exp, const Tensor& output_gradient,
                                          const Tensor& qkv_gradient);

struct Attention {
  static constexpr std::string_view name = "attention";
  Variable qkv;
  AttentionOptions options;
  Tensor output, log_sum_exp;  // on a GPU

  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const Tensor g = Tensor::empty(pass.ctx, qkv.shape(), qkv.dtype());
    DPMP_IF_CUDA (pass.ctx.on_cuda()) {
      dispatch_real(qkv.dtype(), [&](auto tag) {
        attention_backward_on_cuda<typename decltype(tag)::type>(pass.ctx, qkv.value(), options, output, log_sum_exp,
                                                                 gradient, g);
      });
      return pass.accumulate(qkv.slot(), g);
    }
    const index_t packed = qkv.shape().numel(1, 3), plain = gradient.shape().numel(1, 3);
    dispatch_real(qkv.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      for_each_group<T>(pass.ctx, qkv.shape(), options, [&](AttentionGroup<T>& work, index_t sample, index_t key_head) {
        work.backward(qkv.value().data<T>() + sample * packed, keep_of(sample), key_head,
                      gradient.data<T>() + sample * plain, g.data<T>() + sample * packed);
      });
    });
    pass.accumulate(qkv.slot(), g);
  }
  /// This sample's padding mask or null.
  const std::int32_t* keep_of(index_t sample) const {
    return options.keep.defined() ? options.keep.data<std::int32_t>() + sample * qkv.shape()[1] : nullptr;
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable attention(const Variable& qkv, const AttentionOptions& options) {
  Tape& tape = qkv.tape();
  DPMP_CHECK(options.heads >= 1 && options.key_value_heads >= 0 && options.heads % options.key_heads() == 0,
             "attention: expected heads >= 1 and key and value heads that divide them, got ", options.heads, " and ",
             options.key_value_heads);
  DPMP_CHECK(qkv.shape().rank() == 3 && qkv.shape()[2] % options.packed_heads() == 0 && qkv.shape()[2] > 0,
             "attention: expected queries, keys and values packed as [B, T, C] with C divisible by ", options.heads,
             " heads + 2 * ", options.key_heads(), " key and value heads, got ", qkv.shape());
  if (options.keep.defined()) {
    check_shape("attention's padding mask", options.keep, {qkv.shape()[0], qkv.shape()[1]});
    check_dtype("attention's padding mask", options.keep, DType::i32);
    check_device("attention's padding mask", options.keep, tape.ctx());
  }
  const index_t width = qkv.shape()[2] / options.packed_heads();
  const Tensor y = Tensor::empty(tape.ctx(), qkv.shape().with(2, options.heads * width), qkv.dtype());
  const index_t packed = qkv.shape().numel(1, 3), plain = y.shape().numel(1, 3);
  rules::Attention rule{qkv, options, Tensor(), Tensor()};
  DPMP_IF_CUDA (tape.ctx().on_cuda()) {
    rule.output = y;
    rule.log_sum_exp = dispatch_real(qkv.dtype(), [&](auto tag) {
      return rules::attention_forward_on_cuda<typename decltype(tag)::type>(tape.ctx(), qkv.value(), options, y);
    });
    return tape.record(y, tape.needs_gradient(qkv), std::move(rule));
  }
  dispatch_real(qkv.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    rules::for_each_group<T>(tape.ctx(), qkv.shape(), options,
                             [&](rules::AttentionGroup<T>& work, index_t sample, index_t key_head) {
                               work.forward(qkv.value().data<T>() + sample * packed, rule.keep_of(sample), key_head,
                                            y.data<T>() + sample * plain);
                             });
  });
  return tape.record(y, tape.needs_gradient(qkv), rule);
}
}  // namespace dpmp::inline DPMP_ABI
#endif

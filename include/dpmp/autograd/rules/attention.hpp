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
/// R: what is computed in; dtype: of what is stored.
template <class R>
class AttentionGroup {
 public:
  AttentionGroup(Context& ctx, DType dtype, index_t tokens, index_t width, const AttentionOptions& options)
      : ctx_(ctx),
        dtype_(dtype),
        bytes_(size_of(dtype)),
        tokens_(tokens),
        width_(width),
        group_(options.heads / options.key_heads()),
        options_(options) {
    const index_t rows = tokens * width * bytes_, square = tokens * tokens;
    rows_ = ctx.allocate((2 * group_ + 2) * rows);
    squares_ = ctx.allocate((2 * group_ * square + tokens) * index_t(sizeof(R)));
    rounded_ = ctx.allocate(group_ * square * bytes_);
  }

  /// qkv: this sample's [tokens, packed heads, width]; output: its [tokens, heads, width]; keep: its i32 [tokens] or null.
  void forward(const void* qkv, const std::int32_t* keep, index_t key_head, void* output) {
    load(qkv, keep, key_head);
    probabilities(keep);
    for (index_t j = 0; j < group_; ++j)
      multiply(tokens_, width_, tokens_, {rounded(j), false, tokens_}, {values(), false, width_},
               {at(output, (key_head * group_ + j) * width_), dtype_, options_.heads * width_});
  }
  void backward(const void* qkv, const std::int32_t* keep, index_t key_head, const void* output_gradient,
                void* qkv_gradient) {
    load(qkv, keep, key_head);
    probabilities(keep);
    const index_t packed = options_.packed_heads() * width_, all = group_ * tokens_;
    for (index_t j = 0; j < group_; ++j)
      copy_rows(at(output_gradient, (key_head * group_ + j) * width_), options_.heads * width_, keep, output_gradients(j));
    // dV = P^T dO, dP = dO V^T, dS = softmax'(dP), dQ = dS K, dK = dS^T Q.
    multiply(tokens_, width_, all, {rounded(0), true, tokens_}, {output_gradients(0), false, width_},
             {at(qkv_gradient, value_column(key_head)), dtype_, packed});
    multiply(all, tokens_, width_, {output_gradients(0), false, width_}, {values(), true, width_},
             {second_square(), dtype_of<R>, tokens_});
    by_type([&](auto tag) {
      using T = typename decltype(tag)::type;
      run_library_rows(0, all,
                       kernels::MaskedSoftmaxBackward<T>{first_square(), second_square(), static_cast<T*>(rounded(0)),
                                                         tokens_, R(scale())});
    });
    for (index_t j = 0; j < group_; ++j)
      multiply(tokens_, width_, tokens_, {rounded(j), false, tokens_}, {keys(), false, width_},
               {at(qkv_gradient, query_column(key_head, j)), dtype_, packed});
    multiply(tokens_, width_, all, {rounded(0), true, tokens_}, {queries(0), false, width_},
             {at(qkv_gradient, key_column(key_head)), dtype_, packed});
  }

 private:
  struct Operand {
    const void* data;
    bool transposed;
    index_t row_stride;
  };
  struct Result {
    void* data;
    DType dtype;
    index_t row_stride;
  };
  /// f(TypeTag<T>{}), T the storage type.
  template <class F>
  void by_type(F&& f) const {
    dispatch_real(dtype_, [&](auto tag) {
      if constexpr (std::is_same_v<compute_t<typename decltype(tag)::type>, R>) f(tag);
    });
  }
  /// Element k of what is stored.
  const void* at(const void* data, index_t k) const { return static_cast<const char*>(data) + k * bytes_; }
  void* at(void* data, index_t k) const { return static_cast<char*>(data) + k * bytes_; }
  double scale() const { return 1 / std::sqrt(double(width_)); }
  // Contiguous copies [tokens, width]: K, V, then the group's queries, then its output gradients.
  void* part(index_t k) const { return at(rows_.data(), k * tokens_ * width_); }
  void* keys() const { return part(0); }
  void* values() const { return part(1); }
  void* queries(index_t j) const { return part(2 + j); }
  void* output_gradients(index_t j) const { return part(2 + group_ + j); }
  R* first_square() const { return static_cast<R*>(squares_.data()); }
  R* second_square() const { return first_square() + group_ * tokens_ * tokens_; }
  R* keep_row() const { return second_square() + group_ * tokens_ * tokens_; }
  void* rounded(index_t j) const { return at(rounded_.data(), j * tokens_ * tokens_); }
  // Columns of a packed row.
  index_t query_column(index_t key_head, index_t j) const { return (key_head * group_ + j) * width_; }
  index_t key_column(index_t key_head) const { return (options_.heads + key_head) * width_; }
  index_t value_column(index_t key_head) const { return (options_.heads + options_.key_heads() + key_head) * width_; }

  void copy_rows(const void* from, index_t stride, const std::int32_t* keep, void* to) const {
    for (index_t t = 0; t < tokens_; ++t)
      std::memcpy(at(to, t * width_), at(from, t * stride), std::size_t(width_ * bytes_));
    if (keep)
      by_type([&](auto tag) {
        using T = typename decltype(tag)::type;
        run_library_rows(0, tokens_, kernels::KeepRows<T>{static_cast<T*>(to), keep_row(), width_});
      });
  }
  // The projections are packed, and a strided product loses the matrix units of some CPUs: copy the heads' parts first.
  void load(const void* qkv, const std::int32_t* keep, index_t key_head) {
    if (keep)
      for (index_t t = 0; t < tokens_; ++t) keep_row()[t] = keep[t] ? R(1) : R(0);
    const index_t packed = options_.packed_heads() * width_;
    for (index_t j = 0; j < group_; ++j) copy_rows(at(qkv, query_column(key_head, j)), packed, keep, queries(j));
    copy_rows(at(qkv, key_column(key_head)), packed, keep, keys());
    copy_rows(at(qkv, value_column(key_head)), packed, keep, values());
  }
  void probabilities(const std::int32_t* keep) {
    multiply(group_ * tokens_, tokens_, width_, {queries(0), false, width_}, {keys(), true, width_},
             {first_square(), dtype_of<R>, tokens_}, scale());
    by_type([&](auto tag) {
      using T = typename decltype(tag)::type;
      for (index_t j = 0; j < group_; ++j) {
        R* scores = first_square() + j * tokens_ * tokens_;
        run_library_rows(0, tokens_,
                         kernels::MaskedSoftmaxForward<T>{scores, keep ? keep_row() : nullptr, scores,
                                                          static_cast<T*>(rounded(j)), tokens_, options_.causal});
      }
    });
  }
  void multiply(index_t m, index_t n, index_t k, Operand a, Operand b, Result out, double alpha = 1) {
    gemm(ctx_, {.m = m,
                .n = n,
                .k = k,
                .a = {.data = a.data, .dtype = dtype_, .row_stride = a.row_stride, .transposed = a.transposed},
                .b = {.data = b.data, .dtype = dtype_, .row_stride = b.row_stride, .transposed = b.transposed},
                .out = {.data = out.data, .dtype = out.dtype, .row_stride = out.row_stride},
                .alpha = alpha});
  }
  Context& ctx_;
  DType dtype_;
  index_t bytes_, tokens_, width_, group_;
  const AttentionOptions& options_;
  Buffer rows_, squares_, rounded_;
};

/// Calls f(AttentionGroup&, sample, key head) for all of them, spread over the threads: no two of them write to one place.
template <class F>
void for_each_group(Context& ctx, const Variable& qkv, const AttentionOptions& options, const F& f) {
  const index_t tokens = qkv.shape()[1], width = qkv.shape()[2] / options.packed_heads(), groups = options.key_heads();
  dispatch_computed(qkv.dtype(), [&](auto tag) {
    using R = typename decltype(tag)::type;
    ctx.team().parallel_for(qkv.shape()[0] * groups, [&](index_t begin, index_t end) {
      AttentionGroup<R> work(ctx, qkv.dtype(), tokens, width, options);
      for (index_t k = begin; k < end; ++k) f(work, k / groups, k % groups);
    });
  });
}
/// What is stored of a sample.
inline void* sample_of(const Tensor& x, index_t sample) {
  return static_cast<char*>(x.raw()) + sample * x.shape().numel(1, 3) * size_of(x.dtype());
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
    for_each_group(pass.ctx, qkv, options, [&](auto& work, index_t sample, index_t key_head) {
      work.backward(sample_of(qkv.value(), sample), keep_of(sample), key_head, sample_of(gradient, sample),
                    sample_of(g, sample));
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
  rules::Attention rule{qkv, options, Tensor(), Tensor()};
  DPMP_IF_CUDA (tape.ctx().on_cuda()) {
    rule.output = y;
    rule.log_sum_exp = dispatch_real(qkv.dtype(), [&](auto tag) {
      return rules::attention_forward_on_cuda<typename decltype(tag)::type>(tape.ctx(), qkv.value(), options, y);
    });
    return tape.record(y, tape.needs_gradient(qkv), std::move(rule));
  }
  rules::for_each_group(tape.ctx(), qkv, options, [&](auto& work, index_t sample, index_t key_head) {
    work.forward(rules::sample_of(qkv.value(), sample), rule.keep_of(sample), key_head, rules::sample_of(y, sample));
  });
  return tape.record(y, tape.needs_gradient(qkv), rule);
}
}  // namespace dpmp::inline DPMP_ABI
#endif

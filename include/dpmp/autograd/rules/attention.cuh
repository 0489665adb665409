// SPDX-License-Identifier: Apache-2.0
// The GPU's half of autograd/rules/attention.hpp: the flash kernels of kernels/cuda/attention. Between forward and backward
// only the log-sum-exp of the scores is kept.
#pragma once
#include "dpmp/autograd/rules/attention.hpp"
#include "dpmp/kernels/cuda/attention/backward.cuh"
#include "dpmp/kernels/cuda/attention/forward.cuh"
#include "dpmp/runtime/launch_cuda.cuh"

namespace dpmp::inline DPMP_ABI::rules {
inline kernels::AttentionShape attention_shape(const Shape& qkv, const AttentionOptions& options) {
  return {qkv[0], qkv[1], options.heads, options.key_heads(), qkv[2] / options.packed_heads(), options.causal};
}
inline const std::int32_t* keep_or_null(const AttentionOptions& options) {
  return options.keep.defined() ? options.keep.data<std::int32_t>() : nullptr;
}
[[noreturn]] inline void refuse_attention_in_double() {
  throw Error("attention: expected f32, bf16 or f16 on a GPU, got f64: use a context on the CPU");
}

template <class T>
Tensor attention_forward_on_cuda(Context& ctx, const Tensor& qkv, const AttentionOptions& options, const Tensor& output) {
  if constexpr (std::is_same_v<T, double>) {
    refuse_attention_in_double();
  } else {
    const kernels::AttentionShape shape = attention_shape(qkv.shape(), options);
    const Tensor log_sum_exp = Tensor::empty(ctx, {shape.samples, shape.heads, shape.tokens}, DType::f32);
    kernels::attention_forward<T>(
        detail::stream_of(ctx), {qkv.data<T>(), keep_or_null(options), output.data<T>(), log_sum_exp.data<float>(), shape});
    return log_sum_exp;
  }
}
template <class T>
void attention_backward_on_cuda(Context& ctx, const Tensor& qkv, const AttentionOptions& options, const Tensor& output,
                                const Tensor& log_sum_exp, const Tensor& output_gradient, const Tensor& qkv_gradient) {
  if constexpr (std::is_same_v<T, double>) {
    refuse_attention_in_double();
  } else {
    const Tensor row_sums = Tensor::empty(ctx, log_sum_exp.shape(), DType::f32);
    kernels::attention_backward<T>(
        detail::stream_of(ctx),
        {qkv.data<T>(), keep_or_null(options), output.data<T>(), log_sum_exp.data<float>(), output_gradient.data<T>(),
         qkv_gradient.data<T>(), row_sums.data<float>(), attention_shape(qkv.shape(), options)});
  }
}
}  // namespace dpmp::inline DPMP_ABI::rules

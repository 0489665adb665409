// SPDX-License-Identifier: Apache-2.0
// add_layer_norm and add_rms_norm: a residual and the norm after it, read and written in one pass. On the tape they are the
// two steps that they stand for: the norm's backward adds what the sum got elsewhere while it writes its own share, and the
// addition's hands that one tensor to both terms, so that there is no third kernel to fuse.
#pragma once
#include "dpmp/autograd/rules/elementwise.hpp"
#include "dpmp/autograd/rules/layer_norm.hpp"

namespace dpmp::inline DPMP_ABI {
/// A residual stream and its normalised rows, one shape and dtype. Either may be left unused.
struct SumAndNorm {
  Variable sum, normed;
};
/// sum = x + branch and layer_norm(sum, gain, bias, epsilon) with their very bits; the shapes and errors are those of add
/// and layer_norm.
SumAndNorm add_layer_norm(const Variable& x, const Variable& branch, Parameter& gain, Parameter& bias,
                          double epsilon = 1e-5);
/// sum = x + branch and rms_norm(sum, gain, epsilon) with their very bits; the shapes and errors are those of add and
/// rms_norm.
SumAndNorm add_rms_norm(const Variable& x, const Variable& branch, Parameter& gain, double epsilon = 1e-5);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/add_norm.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
template <bool centred>
SumAndNorm add_norm(std::string_view name, const Variable& x, const Variable& branch, Parameter& gain, Parameter* bias,
                    double epsilon) {
  dpmp::detail::check_alike(name, x.value(), branch.value());
  Tape::common(x, branch);
  const LayerNormPass<centred> norm(name, x, gain, bias, epsilon);
  Tape& tape = x.tape();
  const Tensor sum = Tensor::empty(tape.ctx(), x.shape(), x.dtype());
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_rows(tape.ctx(), x.shape().numel(0, x.shape().rank() - 1), x.shape().back(),
                        kernels::AddNormForward<T, centred>{x.value().data<T>(), branch.value().data<T>(), sum.data<T>(),
                                                            norm.template kernel<T>(sum)});
  });
  const Variable recorded = tape.record(sum, tape.needs_gradient(x) || tape.needs_gradient(branch), Add{x, branch});
  return {recorded, norm.recorded(recorded)};
}
}  // namespace rules

DPMP_KEPT_BODY inline SumAndNorm add_layer_norm(const Variable& x, const Variable& branch, Parameter& gain, Parameter& bias,
                                                double epsilon) {
  return rules::add_norm<true>("add_layer_norm", x, branch, gain, &bias, epsilon);
}
DPMP_KEPT_BODY inline SumAndNorm add_rms_norm(const Variable& x, const Variable& branch, Parameter& gain, double epsilon) {
  return rules::add_norm<false>("add_rms_norm", x, branch, gain, nullptr, epsilon);
}
}  // namespace dpmp::inline DPMP_ABI
#endif

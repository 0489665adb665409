// SPDX-License-Identifier: Apache-2.0
// Layers for images [B, H, W, C] and sequences [B, T, C], channels last. Normalisation is per sample: a layer that mixes
// samples has no per-sample gradients. Each casts its input to its scope's dtype, norms to Precision::norms().
#pragma once
#include "dpmp/autograd/rules/convolution.hpp"
#include "dpmp/autograd/rules/group_norm.hpp"
#include "dpmp/autograd/rules/pooling.hpp"
#include "dpmp/nn/linear.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// weight [outputs, kernel height * kernel width * inputs / groups], a row for each output, and bias [outputs].
class ConvolutionParameters {
 public:
  ConvolutionParameters(const Scope& scope, index_t inputs, index_t outputs, const Convolution2dOptions& o,
                        const Linear::Options& start);
  Parameter* weight = nullptr;
  Parameter* bias = nullptr;  // null: none
};

/// Images [B, H, W, inputs] -> [B, OH, OW, outputs]: see conv2d and ConvolutionParameters.
class Conv2d {
 public:
  Conv2d(const Scope& scope, index_t inputs, index_t outputs, const Convolution2dOptions& options,
         const Linear::Options& start = {});
  Variable operator()(const Variable& x) const {
    return conv2d(cast(x, parameters_.weight->dtype()), *parameters_.weight, parameters_.bias, options_);
  }

 private:
  Convolution2dOptions options_;
  ConvolutionParameters parameters_;
};

/// Sequences [B, T, inputs] -> [B, T', outputs]: see conv1d. Parameters as in Conv2d, with a kernel of height 1.
class Conv1d {
 public:
  Conv1d(const Scope& scope, index_t inputs, index_t outputs, const Convolution1dOptions& options,
         const Linear::Options& start = {});
  Variable operator()(const Variable& x) const {
    return conv1d(cast(x, parameters_.weight->dtype()), *parameters_.weight, parameters_.bias, options_);
  }

 private:
  Convolution1dOptions options_;
  ConvolutionParameters parameters_;
};

/// Normalises each sample's groups of channels over all positions of [B, .., channels]; gain starts at 1, bias at 0.
class GroupNorm {
 public:
  GroupNorm(const Scope& scope, index_t channels, index_t groups);
  Variable operator()(const Variable& x) const { return group_norm(cast(x, gain_->dtype()), *gain_, *bias_, groups_); }

 private:
  static index_t checked(const Scope& scope, index_t channels, index_t groups);
  index_t groups_;
  Parameter* gain_;
  Parameter* bias_;
};

/// Every channel of every sample normalised by itself over all positions; gain starts at 1, bias at 0.
class InstanceNorm {
 public:
  InstanceNorm(const Scope& scope, index_t channels) : norm_(scope, channels, channels) {}
  Variable operator()(const Variable& x) const { return norm_(x); }

 private:
  GroupNorm norm_;
};

/// There is no private batch normalisation: making one throws, and says what to use.
class BatchNorm {
 public:
  BatchNorm(const Scope& scope, index_t);
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline ConvolutionParameters::ConvolutionParameters(const Scope& scope, index_t inputs, index_t outputs,
                                                                   const Convolution2dOptions& o,
                                                                   const Linear::Options& start) {
  DPMP_CHECK(inputs >= 0 && outputs >= 0 && o.kernel.height >= 1 && o.kernel.width >= 1 && o.groups >= 1 &&
                 inputs % o.groups == 0 && outputs % o.groups == 0,
             "expected a kernel of at least 1 x 1 and groups that divide the input and output channels of ", scope,
             ", got kernel ", o.kernel, ", groups ", o.groups, ", channels ", inputs, " and ", outputs);
  const index_t seen = o.kernel.height * o.kernel.width * (inputs / o.groups);
  weight = &scope.add("weight", {outputs, seen}, start.weight);
  if (start.bias) bias = &scope.add("bias", {outputs}, start.bias_start);
}

DPMP_KEPT_BODY inline Conv2d::Conv2d(const Scope& scope, index_t inputs, index_t outputs,
                                     const Convolution2dOptions& options, const Linear::Options& start)
    : options_(options), parameters_(scope, inputs, outputs, options, start) {}

DPMP_KEPT_BODY inline Conv1d::Conv1d(const Scope& scope, index_t inputs, index_t outputs,
                                     const Convolution1dOptions& options, const Linear::Options& start)
    : options_(options), parameters_(scope, inputs, outputs, options.on_rows(), start) {}

DPMP_KEPT_BODY inline GroupNorm::GroupNorm(const Scope& scope, index_t channels, index_t groups)
    : groups_(checked(scope, channels, groups)),
      gain_(&scope.for_norm().constant("gain", {channels}, 1)),
      bias_(&scope.for_norm().constant("bias", {channels}, 0)) {}

DPMP_KEPT_BODY inline index_t GroupNorm::checked(const Scope& scope, index_t channels, index_t groups) {
  DPMP_CHECK(channels >= 1 && groups >= 1 && channels % groups == 0,
             "expected at least one channel and groups that divide the channels of ", scope, ", got ", channels,
             " channels and ", groups, " groups");
  return groups;
}

DPMP_KEPT_BODY inline BatchNorm::BatchNorm(const Scope& scope, index_t) {
  throw Error(dpmp::detail::concat(
      scope, ": batch normalisation computes its statistics over all samples of a batch, so that one sample's ",
      "output depends on the others and no per-sample gradient exists; use nn::GroupNorm, whose statistics are ",
      "those of each sample alone"));
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif

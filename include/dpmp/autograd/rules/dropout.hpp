// SPDX-License-Identifier: Apache-2.0
// dropout keyed per sample: a sample's mask depends on the key and the sample's id alone, not on its place in the batch, the
// other samples or the threads, so a private step's result does not depend on how records are dealt to physical batches.
#pragma once
#include "dpmp/autograd/tape.hpp"
#include "dpmp/kernels/dropout.hpp"

namespace dpmp::inline DPMP_ABI {
/// One use of dropout: the run's seed, the training step, and a number for the place in the model.
struct DropoutKey {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  std::uint32_t layer = 0;
};

namespace rules {
struct Dropout {
  static constexpr std::string_view name = "dropout";
  GradientSlot x;
  Tensor sample_ids;
  double rate;
  DropoutKey key;

  /// The same mask is drawn again: dropout is its own backward.
  void backward(BackwardPass& pass, const Tensor& gradient) const { pass.accumulate(x, masked(pass.ctx, gradient)); }

  Tensor masked(Context& ctx, const Tensor& input) const {
    ctx.backend().refuse_in_capture("dropout of a fixed step");
    const Tensor output = Tensor::empty(ctx, input.shape(), input.dtype());
    const index_t samples = input.shape().front(), width = input.shape().numel(1, input.shape().rank());
    // A key of its own, so that a run may use one seed for initialisation and dropout without sharing Philox blocks.
    const std::uint64_t seed = key.seed ^ 0x64726f706f757421u, stream = std::uint64_t(key.step) << 32 | key.layer;
    dispatch_real(input.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      constexpr index_t elements_of_a_block_cost = 8;
      launch_rows(ctx, samples, width * elements_of_a_block_cost,
                  kernels::Dropout<T>{input.data<T>(), sample_ids.data<std::int32_t>(), output.data<T>(), width, seed,
                                      stream, std::uint32_t(rate * 0x1p32), compute_t<T>(1 / (1 - rate))});
    });
    return output;
  }
};
}  // namespace rules

/// x [B, ..] with each element zeroed with probability `rate` in [0, 1), the others scaled by 1 / (1 - rate); x itself on a
/// tape for inference. sample_ids i32 [B]: a stable number of each record (its index in the data set).
inline Variable dropout(const Variable& x, double rate, const DropoutKey& key, const Tensor& sample_ids) {
  Tape& tape = x.tape();
  DPMP_CHECK(rate >= 0 && rate < 1, "dropout: expected a rate in [0, 1), got ", rate);
  check_dtype("dropout: sample ids", sample_ids, DType::i32);
  check_device("dropout: sample ids", sample_ids, tape.ctx());
  check_shape("dropout: sample ids", sample_ids, {tape.samples()});
  DPMP_CHECK(x.shape().numel(1, x.shape().rank()) <= index_t(1) << 34,
             "dropout: expected at most 2^34 elements a sample, got ", x.shape());
  if (tape.mode() == TapeMode::inference || rate == 0) return x;
  const rules::Dropout rule{x.slot(), sample_ids, rate, key};
  return tape.record(rule.masked(tape.ctx(), x.value()), tape.needs_gradient(x), rule);
}
}  // namespace dpmp::inline DPMP_ABI

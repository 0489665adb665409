// SPDX-License-Identifier: Apache-2.0
// dropout keyed per record: a record's mask depends on a secret, the step, the layer and the record's identity alone, not on
// its place in the batch or the data set, the other records or the threads. So removing a record changes no other mask, and
// a private step's result does not depend on how records are dealt to physical batches.
#pragma once
#include "dpmp/autograd/sample_identities.hpp"
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// One use of dropout: a secret of the run (dp::Stream::dropout), the training step, and a number for the place in the
/// model.
struct DropoutKey {
  SecretKey secret;
  index_t step = 0;
  std::uint32_t layer = 0;

  /// Philox's key of this step and layer: the first 64 bits of ChaCha20 block {key: secret, counter: layer, nonce: step}.
  std::uint64_t seed() const {
    const ChaChaBlock block = chacha20_block(secret, layer, std::uint64_t(step));
    return block[0] | std::uint64_t(block[1]) << 32;
  }
};
/// x [B, ..] with each element zeroed with probability `rate` in [0, 1), the others scaled by 1 / (1 - rate); x itself on a
/// tape for inference. records: one identity a sample.
Variable dropout(const Variable& x, double rate, const DropoutKey& key, const SampleIdentities& records);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/dropout.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Dropout {
  static constexpr std::string_view name = "dropout";
  GradientSlot x;
  Tensor records;
  double rate;
  DropoutKey key;

  /// The same mask is drawn again: dropout is its own backward.
  void backward(BackwardPass& pass, const Tensor& gradient) const { pass.accumulate(x, masked(pass.ctx, gradient)); }

  Tensor masked(Context& ctx, const Tensor& input) const {
    ctx.backend().refuse_in_capture("dropout of a fixed step");
    const Tensor output = Tensor::empty(ctx, input.shape(), input.dtype());
    const index_t samples = input.shape().front(), width = input.shape().numel(1, input.shape().rank());
    dispatch_real(input.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      constexpr index_t elements_of_a_block_cost = 8;
      launch_library_rows(ctx, samples, width * elements_of_a_block_cost,
                          kernels::Dropout<T>{input.data<T>(), records.data<std::int32_t>(), output.data<T>(), width,
                                              key.seed(), std::uint32_t(rate * 0x1p32), compute_t<T>(1 / (1 - rate))});
    });
    return output;
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable dropout(const Variable& x, double rate, const DropoutKey& key,
                                       const SampleIdentities& records) {
  Tape& tape = x.tape();
  DPMP_CHECK(rate >= 0 && rate < 1, "dropout: expected a rate in [0, 1), got ", rate);
  check_device("dropout: identities", records.values(), tape.ctx());
  check_shape("dropout: identities", records.values(), {tape.samples(), 2});
  DPMP_CHECK(x.shape().numel(1, x.shape().rank()) <= index_t(1) << 34,
             "dropout: expected at most 2^34 elements a sample, got ", x.shape());
  if (tape.mode() == TapeMode::inference || rate == 0) return x;
  const rules::Dropout rule{x.slot(), records.values(), rate, key};
  return tape.record(rule.masked(tape.ctx(), x.value()), tape.needs_gradient(x), rule);
}
}  // namespace dpmp::inline DPMP_ABI
#endif

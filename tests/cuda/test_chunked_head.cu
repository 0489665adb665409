// SPDX-License-Identifier: Apache-2.0
// An output layer in chunks on a CUDA device: the numbers of one with all logits stored there, and the same contribution in
// every slot.
#include <doctest/doctest.h>

#include "dpmp/cuda.cuh"
#include "dpmp/per_sample/sum_sink.hpp"
#include "support/chunked_head.hpp"
#include "support/oracle.hpp"

namespace {
using namespace dpmp;
using per_sample::Strategy;
using per_sample::StrategyOptions;
using test::different_bits;
using test::head_outcome;
using test::HeadKind;
using test::HeadModel;
using test::HeadOutcome;
using test::Tokens;

std::vector<double> contribution(Context& ctx, const HeadModel& model, const Tokens& data, index_t slot, index_t bytes,
                                 const StrategyOptions& options) {
  std::vector<float> factors(std::size_t(data.samples()), 0.0f);
  factors[std::size_t(slot)] = 0.37f;
  return head_outcome(ctx, model, data, bytes, options, factors).sums;
}
}  // namespace

TEST_CASE("a head in chunks on CUDA: losses, norms, certificates and contributions of stored logits, in every slot") {
  Context ctx(Device::cuda(0), 1);
  test::Rng rng;
  const index_t samples = 4;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const HeadKind& kind :
         {HeadKind{9, 16, 40}, HeadKind{9, 16, 40, true}, HeadKind{5, 24, 40, false, true}, HeadKind{1, 16, 40}}) {
      const HeadModel model(ctx, kind, dtype);
      // A target of the record that is moved is none that is ignored.
      const Tokens data =
          test::with_target(ctx, test::random_tokens(ctx, rng, samples, kind.tokens, int(kind.classes)), 3 * kind.tokens, 2);
      const Tokens moved{concat(ctx, std::vector<Tensor>{data.ids.rows(3, 4), data.ids.rows(0, 3)}, 0),
                         concat(ctx, std::vector<Tensor>{data.targets.rows(3, 4), data.targets.rows(0, 3)}, 0)};
      const std::vector<float> factors{0.5f, 0, 1, 0.25f};
      CAPTURE(name_of(dtype));
      CAPTURE(kind.tokens);
      CAPTURE(kind.tied);
      CAPTURE(kind.bias);
      for (const StrategyOptions& options :
           {StrategyOptions{.strategy = Strategy::book_keeping}, StrategyOptions{.strategy = Strategy::materialised},
            StrategyOptions{.byte_budget = 0}}) {
        CAPTURE(per_sample::name_of(options.strategy));
        const HeadOutcome whole = head_outcome(ctx, model, data, 0, options, factors);
        double scale = 0;
        for (index_t i = 0; i < samples; ++i) scale += whole.norms[std::size_t(4 * i)];
        for (const index_t bytes : model.chunks()) {
          CAPTURE(bytes);
          const HeadOutcome chunked = head_outcome(ctx, model, data, bytes, options, factors);
          CHECK(different_bits(chunked.losses, whole.losses) == 0);
          for (index_t i = 0; i < samples; ++i) {
            const double *x = &chunked.norms[std::size_t(4 * i)], *y = &whole.norms[std::size_t(4 * i)];
            // Kernels of fewer samples may share their work out in another way: both norms are within their certificates.
            CHECK(std::fabs(x[0] - y[0]) <= (x[2] - x[0]) + (y[2] - y[0]));
            CHECK(std::fabs(x[2] - y[2]) <= 2e-5 * y[2]);
            CHECK(x[3] == 1);
          }
          // FP32 sums over at most 9 tokens and their slices, and samples in double.
          CHECK(test::distance(chunked.sums, whole.sums) <= 64 * 0x1p-24 * scale);
          const std::vector<double> alone = contribution(ctx, model, data, 3, bytes, options);
          CHECK(test::norm(alone) > 0);
          CHECK(different_bits(contribution(ctx, model, moved, 0, bytes, options), alone) == 0);
        }
      }
    }
}

TEST_CASE("a head in chunks on CUDA: plain sums, and a peak that follows the chunk") {
  Context ctx(Device::cuda(0), 1);
  test::Rng rng;
  const HeadKind kind{16, 8, 512};
  const index_t samples = 16, one = kind.tokens * kind.classes * 4;
  const HeadModel model(ctx, kind, DType::f32);
  const Tokens data = test::random_tokens(ctx, rng, samples, kind.tokens, int(kind.classes));
  std::vector<std::vector<double>> sums;
  std::vector<index_t> peaks;
  for (const index_t bytes : {index_t(0), one}) {
    per_sample::GradientSums plain(ctx, model.parameters.all());
    per_sample::SumSink sink(plain);
    const index_t before = ctx.memory().live_bytes;
    ctx.reset_peak_memory();
    {
      Tape tape(ctx, samples);
      tape.backward(model.losses(tape, data, bytes), sink);
    }
    peaks.push_back(ctx.memory().peak_bytes - before);
    sums.push_back(test::flat(plain));
  }
  // FP32 sums of 256 rows of one sign or another, in another order.
  CHECK(test::distance(sums[0], sums[1]) <= 2 * 256 * 0x1p-24 * test::norm(sums[0]) * 16);
  CHECK(peaks[0] >= samples * one);
  CHECK(peaks[1] <= samples * one / 2);
  CHECK(head_outcome(ctx, model, data, one, {.byte_budget = 0}, std::vector<float>(16, 1.0f)).peak <= samples * one / 2);
}

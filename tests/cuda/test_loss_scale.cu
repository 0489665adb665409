// SPDX-License-Identifier: Apache-2.0
// Loss scales on a GPU: the host's exponents, sums that an exact scale does not change, and f16 sums that would vanish.
#include <doctest/doctest.h>

#include "cuda/clipped_sums.hpp"
#include "cuda/device_mlp.hpp"
#include "dpmp/dpmp.cuh"

namespace {
using namespace dpmp;
constexpr index_t none = train::masked_slot;
constexpr double C = 0.4;
const std::vector<index_t> slots{0, none, 1, 2, 3};

/// The MLP's losses by a factor, through an operation in FP32, so that they are walked back before anything is known.
auto scaled_losses(const test::DeviceMlp& mlp, double factor) {
  return [losses = mlp.losses(), factor](const train::Batch& batch) { return scale(losses(batch), factor); };
}
struct Start {
  std::vector<double> largest, exponents, weights;
};
Start start_of(Context& ctx, DType dtype, double factor) {
  const test::DeviceMlp mlp(ctx, dtype);
  Tape tape(ctx, index_t(slots.size()));
  const std::vector<index_t> records = train::records_of(slots);
  const Variable losses = scaled_losses(mlp, factor)({tape, records, 0});
  const Tensor weights = train::slot_weights(ctx, slots, losses.dtype());
  const ScaledSeed seed = scaled_seed(tape, losses, weights, LossScaling::per_sample());
  return {largest_loss_gradients(tape, losses, weights).to_doubles(), seed.exponents.to_doubles(),
          seed.weights.to_doubles()};
}
}  // namespace

TEST_CASE("P11: on CUDA exponents are those of the host, and seeds the weights times powers of two") {
  Context gpu(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  for (const DType dtype : {DType::f32, DType::f16}) {
    const Start there = start_of(gpu, dtype, 1e-4), here = start_of(cpu, dtype, 1e-4);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      CAPTURE(i);
      // 1 - p of logits that differ by roundings of the two devices' products: 40 of them, and exp multiplies by their size.
      CHECK(std::fabs(there.largest[i] - here.largest[i]) <= 40 * unit_roundoff(dtype) * 10 * here.largest[i]);
      const double k = there.exponents[i];
      if (slots[i] == none) {
        CHECK(k == 0);
        CHECK(there.weights[i] == 0);
      } else {
        CHECK(std::ldexp(there.largest[i], int(k)) <= 0x1p9);
        CHECK(std::ldexp(there.largest[i], int(k)) > 0x1p8);
        CHECK(there.weights[i] == std::ldexp(1, int(k)));
      }
    }
  }
}

TEST_CASE("P13: on CUDA an f32 sum is the same bits with and without a loss scale, by every strategy") {
  Context gpu(Device::cuda(0), 1);
  const test::DeviceMlp mlp(gpu, DType::f32);
  for (const test::SumCase& c : test::sum_cases()) {
    CAPTURE(c.name);
    const auto sum = [&](const LossScaling& scaling) {
      return test::clipped_sum(gpu, mlp.parameters.all(), mlp.losses(), slots, c, C, 0, scaling);
    };
    const std::vector<double> plain = sum({});
    CHECK(test::norm(plain) > 0.1 * C);
    CHECK(sum(LossScaling::per_sample()) == plain);
    CHECK(sum(LossScaling::fixed(0x1p14)) == plain);
  }
}

TEST_CASE("P9: on CUDA f16 gradients that vanish are kept by a scale, and samples that overflow contribute 0") {
  Context gpu(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  const test::DeviceMlp there(gpu, DType::f16), here(cpu, DType::f16);
  const double factor = 0x1p-22, threshold = C * factor;
  const auto sum = [&](Context& ctx, const test::DeviceMlp& mlp, const test::SumCase& c, const LossScaling& scaling) {
    return test::clipped_sum(ctx, mlp.parameters.all(), scaled_losses(mlp, factor), slots, c, threshold, 0, scaling);
  };
  for (const test::SumCase& c : test::sum_cases()) {
    CAPTURE(c.name);
    const std::vector<double> expected = sum(cpu, here, c, LossScaling::per_sample()),
                              found = sum(gpu, there, c, LossScaling::per_sample());
    // As in test_training_sums.cu: 40 roundings of stored values on either side, and certificates within 0.5 %.
    const double limit = 4 * threshold * (2 * std::sqrt(40.0) * unit_roundoff(DType::f16) + 5e-3);
    CHECK(test::distance(expected, found) <= limit);
    CHECK(test::norm(found) > 0.1 * threshold);
    CHECK(test::norm(found) <= 4 * threshold);
    const std::vector<double> lost = sum(gpu, there, c, {}), overflowed = sum(gpu, there, c, LossScaling::fixed(0x1p40));
    CHECK(test::distance(lost, found) > 10 * limit);
    CHECK(std::all_of(overflowed.begin(), overflowed.end(), [](double v) { return v == 0; }));
  }
}

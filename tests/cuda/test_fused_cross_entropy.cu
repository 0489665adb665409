// SPDX-License-Identifier: Apache-2.0
// Cross-entropy's gradient in the place of the logits on a CUDA device: the bits of one written beside them, and the host's
// numbers to rounding.
#include <doctest/doctest.h>

#include <cmath>

#include "dpmp/autograd/rules/cross_entropy.hpp"
#include "dpmp/runtime/cuda_backend.cuh"
#include "dpmp/runtime/launch_cuda.cuh"
#include "support/random.hpp"

using namespace dpmp;

namespace {
struct NoSink final : GradientSink {
  void accept(Context&, const ParameterSite&) override {}
};
struct Probe {
  static constexpr std::string_view name = "probe";
  const void** place;
  std::vector<double>* values;
  void backward(BackwardPass&, const Tensor& gradient) const {
    *place = gradient.raw();
    *values = gradient.to_doubles();
  }
};
struct Walk {
  const void *logits = nullptr, *gradient = nullptr;
  std::vector<double> losses, values;
};

Walk walk(Context& ctx, DType dtype, const Shape& shape, Variable* held = nullptr) {
  test::Rng rng(test::seed(), 3);
  Walk result;
  const index_t samples = shape[0], tokens = shape[1], classes = shape[2];
  std::vector<std::int32_t> targets(std::size_t(samples * tokens));
  for (auto& t : targets) t = std::int32_t(rng.integer(-1, classes - 1));
  Tape tape(ctx, samples);
  const Variable losses = [&] {
    std::vector<double> values(std::size_t(shape.numel()));
    for (double& v : values) v = rng.normal(3);
    const Variable logits =
        tape.record(Tensor::from(ctx, shape, dtype, values), true, Probe{&result.gradient, &result.values});
    result.logits = logits.value().raw();
    if (held) *held = logits;
    return cross_entropy(logits, Tensor::from(ctx, {samples, tokens}, targets));
  }();
  result.losses = losses.value().to_doubles();
  NoSink sink;
  tape.backward(losses, sink);
  return result;
}
}  // namespace

TEST_CASE("the gradient takes the place of the logits on the device too, with the same bits as beside them") {
  Context host(Device::cpu(), 1), device(Device::cuda(0));
  for (DType dtype : {DType::bf16, DType::f32})
    for (const Shape& shape : {Shape{2, 3, 5}, Shape{3, 4, 64}, Shape{1, 2, 1201}}) {
      CAPTURE(name_of(dtype));
      CAPTURE(shape[2]);
      Variable held;
      const Walk alone = walk(device, dtype, shape), shared = walk(device, dtype, shape, &held),
                 want = walk(host, dtype, shape);
      CHECK(alone.gradient == alone.logits);
      CHECK(shared.gradient != shared.logits);
      CHECK(alone.values == shared.values);
      // Both round to bf16, a neighbour apart at most. log sum exp: a sum of `classes` terms; exp of the distance to it:
      // that error and the one of exp itself.
      const double u = 0x1p-24, chain = 4 * (double(shape[2]) + 40) * u, stored = dtype == DType::bf16 ? 0x1.02p-7 : 0;
      double worst = 0;
      for (std::size_t k = 0; k < want.values.size(); ++k)
        worst = std::max(worst, std::fabs(alone.values[k] - want.values[k]) / (chain + stored * std::fabs(want.values[k])));
      CHECK(worst <= 1);
      for (std::size_t i = 0; i < want.losses.size(); ++i)
        CHECK(std::fabs(alone.losses[i] - want.losses[i]) <= chain * (std::fabs(want.losses[i]) + 10 * double(shape[1])));
    }
}

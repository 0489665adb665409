// SPDX-License-Identifier: Apache-2.0
// Cross-entropy writes its gradient over the logits when nobody can read them any more, and only then; norms add what their
// input got elsewhere in its place, on the same terms.
#include <doctest/doctest.h>

#include "dpmp/autograd/rules/cross_entropy.hpp"
#include "dpmp/autograd/rules/layer_norm.hpp"
#include "support/tensors.hpp"

using namespace dpmp;

namespace {
struct NoSink final : GradientSink {
  void accept(Context&, const ParameterSite&) override {}
};
/// Notes where the gradient of its result lies and what it is.
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
  std::vector<double> values;
};
constexpr index_t samples = 3, tokens = 5, classes = 37;

/// One walk over logits that `held` shares, if it is given; two of them where the tape is kept.
Walk walk(Context& ctx, DType dtype, AfterWalk after, Variable* held = nullptr) {
  test::Rng rng(test::seed(), 3);
  Walk result;
  std::vector<std::int32_t> targets(std::size_t(samples * tokens));
  for (auto& t : targets) t = std::int32_t(rng.integer(-1, classes - 1));
  Tape tape(ctx, samples);
  const Variable losses = [&] {
    std::vector<double> values(std::size_t(samples * tokens * classes));
    for (double& v : values) v = rng.normal(3);
    const Variable logits = tape.record(Tensor::from(ctx, {samples, tokens, classes}, dtype, values), true,
                                        Probe{&result.gradient, &result.values});
    result.logits = logits.value().raw();
    if (held) *held = logits;
    return cross_entropy(logits, Tensor::from(ctx, {samples, tokens}, targets));
  }();
  NoSink sink;
  tape.backward(losses, sink, {}, after);
  if (after == AfterWalk::release) return result;
  const std::vector<double> first = result.values;
  tape.backward(losses, sink);
  CHECK(result.values == first);
  return result;
}
}  // namespace

TEST_CASE("the gradient of the logits takes their place in memory, with the same bits as beside them") {
  Context ctx(Device::cpu(), 2);
  for (DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    CAPTURE(name_of(dtype));
    Variable held;
    const Walk alone = walk(ctx, dtype, AfterWalk::release);
    CHECK(alone.gradient == alone.logits);
    const Walk shared = walk(ctx, dtype, AfterWalk::release, &held);
    CHECK(shared.gradient != shared.logits);
    CHECK(shared.values == alone.values);
    // The logits that somebody holds are still logits: 3 standard deviations wide, where gradients stay within 1.
    double largest = 0;
    for (double v : held.value().to_doubles()) largest = std::max(largest, std::fabs(v));
    CHECK(largest > 3);
  }
}

TEST_CASE("a kept tape keeps its logits: the first walk writes beside them, the last one in their place") {
  Context ctx(Device::cpu(), 1);
  const Walk once = walk(ctx, DType::bf16, AfterWalk::release), twice = walk(ctx, DType::bf16, AfterWalk::keep);
  CHECK(once.values == twice.values);
  CHECK(twice.gradient == twice.logits);
}

namespace {
/// Behind a norm: gives `through` to its result and, where there is one, `beside` to its input; unless kept, as a copy that
/// nobody else holds.
struct Residual {
  static constexpr std::string_view name = "residual";
  Variable x, y;
  Tensor through, beside;
  bool kept;
  const void** place;
  void backward(BackwardPass& pass, const Tensor&) const {
    pass.accumulate(y.slot(), through);
    if (!beside.defined()) return;
    const Tensor given = kept ? beside : beside.clone(pass.ctx);
    *place = given.raw();
    pass.accumulate(x.slot(), given);
  }
};
}  // namespace

TEST_CASE("a norm adds its share to what its input got as a residual: the sum of both, in place where nobody holds it") {
  Context ctx(Device::cpu(), 2);
  const Shape shape{samples, tokens, classes};
  test::Rng rng(test::seed(), 5);
  const auto random = [&](const Shape& s, DType dtype) {
    std::vector<double> values(std::size_t(s.numel()));
    for (double& v : values) v = rng.normal(1);
    return Tensor::from(ctx, s, dtype, values);
  };
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const bool centred : {true, false}) {
      CAPTURE(name_of(dtype));
      CAPTURE(centred);
      Parameter gain(ctx, "gain", random({classes}, DType::f32), dtype),
          bias(ctx, "bias", random({classes}, DType::f32), dtype);
      const Tensor values = random(shape, dtype), through = random(shape, dtype), beside = random(shape, dtype);
      const auto gradient = [&](const Tensor& other, bool kept, bool& in_place) {
        Tape tape(ctx, samples);
        const Variable x = tape.input(values, true);
        const Variable y = centred ? layer_norm(x, gain, bias) : rms_norm(x, gain);
        const void* place = nullptr;
        const Variable losses =
            tape.record(Tensor::zeros(ctx, {samples}, DType::f32), true, Residual{x, y, through, other, kept, &place});
        NoSink sink;
        tape.backward(losses, sink);
        in_place = tape.gradient_of(x).raw() == place;
        return tape.gradient_of(x).to_doubles();
      };
      bool in_place = false;
      const std::vector<double> alone = gradient(Tensor(), false, in_place), held = gradient(beside, true, in_place);
      CHECK(!in_place);
      const std::vector<double> other = beside.to_doubles();
      CHECK(gradient(beside, false, in_place) == held);
      CHECK(in_place);
      CHECK(beside.to_doubles() == other);
      // The share alone is rounded once more than in the sum.
      const double u = 1.01 * unit_roundoff(dtype);
      for (std::size_t k = 0; k < other.size(); ++k)
        CHECK(std::fabs(held[k] - (alone[k] + other[k])) <= u * (std::fabs(alone[k]) + std::fabs(held[k])));
    }
}

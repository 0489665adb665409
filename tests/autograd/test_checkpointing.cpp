// SPDX-License-Identifier: Apache-2.0
// Parts of a tape that are recorded again in the walk: the same sites, gradients and order as without, once each; what is
// kept and computed meanwhile; what is refused.
#include <doctest/doctest.h>
#include <cmath>
#include <numeric>

#include "dpmp/autograd/checkpointing.hpp"
#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/autograd/rules/add_norm.hpp"
#include "dpmp/autograd/rules/attention.hpp"
#include "dpmp/autograd/rules/cross_entropy.hpp"
#include "dpmp/autograd/rules/dropout.hpp"
#include "dpmp/autograd/rules/feed_forward.hpp"
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/autograd/rules/shape_ops.hpp"
#include "dpmp/autograd/rules/swiglu.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

using namespace dpmp;
using test::normal_tensor;
using test::refuses;

namespace {
constexpr Checkpointing every_choice[] = {Checkpointing::none, Checkpointing::selective, Checkpointing::block};
constexpr index_t samples = 3, tokens = 5, width = 12;

/// All that a walk hands over, in order.
struct TracingSink final : GradientSink {
  explicit TracingSink(bool with_biases = false) : biases(with_biases) {}
  bool biases;
  std::string order;
  std::vector<std::vector<double>> numbers;
  bool takes_biases(const Context&) const override { return biases; }
  void accept(Context&, const ParameterSite& site) override {
    order += site.parameter->name() + (site.bias ? "+" + site.bias->name() : "") + " ";
    if (site.a.defined()) numbers.push_back(site.a.to_doubles());
    numbers.push_back(site.b.to_doubles());
  }
  void finish(Context&, Parameter& p) override { order += "end of " + p.name() + "; "; }
};

/// A rule whose products are counted.
struct Counted {
  static constexpr std::string_view name = "counted";
  GradientSlot x;
  void backward(BackwardPass& pass, const Tensor& gradient) const { pass.accumulate(x, gradient); }
};
Variable counted(const Variable& x, int& products) {
  Tape& tape = x.tape();
  const Tensor y = tape.product(x.shape(), x.dtype(), [&](const Tensor& result) {
    ++products;
    Tensor(result).copy_from(x.value());
  });
  return tape.record(y, tape.needs_gradient(x), Counted{x.slot()});
}

struct Model {
  std::vector<std::unique_ptr<Parameter>> all;
  Parameter &gain, &shift, &qkv, &qkv_bias, &projection, &up, &up_bias, &down, &gate, &shared;
  Model(Context& ctx, test::Rng& rng, DType dtype)
      : gain(made(ctx, rng, dtype, "gain", {width})),
        shift(made(ctx, rng, dtype, "shift", {width})),
        qkv(made(ctx, rng, dtype, "qkv", {3 * width, width})),
        qkv_bias(made(ctx, rng, dtype, "qkv_bias", {3 * width})),
        projection(made(ctx, rng, dtype, "projection", {width, width})),
        up(made(ctx, rng, dtype, "up", {20, width})),
        up_bias(made(ctx, rng, dtype, "up_bias", {20})),
        down(made(ctx, rng, dtype, "down", {width, 20})),
        gate(made(ctx, rng, dtype, "gate", {2 * width, width})),
        shared(made(ctx, rng, dtype, "shared", {width, width})) {}
  Parameter& made(Context& ctx, test::Rng& rng, DType dtype, const char* name, const Shape& shape) {
    all.push_back(
        std::make_unique<Parameter>(ctx, name, normal_tensor(ctx, rng, shape, accumulate_dtype(dtype), 0.15), dtype));
    return *all.back();
  }
  /// x and its branch, which ends with a product. `shared` is used here and by every other call.
  Variable branch(const Variable& x, GemmActivation form) const {
    const Variable attended = attention(linear(layer_norm(x, gain, shift), qkv, &qkv_bias), {.heads = 2});
    const SumAndNorm y = add_layer_norm(x, linear(attended, projection), gain, shift);
    const Variable fed = gelu_feed_forward(y.normed, up, &up_bias, down, nullptr, form);
    return linear(add(swiglu(linear(add(fed, y.sum), gate)), silu(linear(fed, shared))), shared);
  }
};

/// Three parts one after the other, or a part of two parts.
enum class Layout { flat, nested };
struct Pass {
  std::vector<double> losses, inputs;
  TracingSink sites, again;
  bool operator==(const Pass& o) const {
    return losses == o.losses && inputs == o.inputs && sites.order == o.sites.order && sites.numbers == o.sites.numbers &&
           again.order == o.again.order && again.numbers == o.again.numbers;
  }
};
SampleRandomness randomness(Context& ctx) {
  std::vector<RecordId> ids;
  for (index_t i = 0; i < samples; ++i) ids.push_back(stable_id(Key256{}, std::uint64_t(i)));
  return {Key256{}, 3, SampleIdentities(ctx, ids)};
}
Pass pass_of(Context& ctx, const Model& model, const Tensor& value, const Tensor& targets, Checkpointing how, Layout layout,
             GemmActivation form, bool biases) {
  Tape tape(ctx, samples);
  const SampleRandomness random = randomness(ctx);
  Variable x = tape.input(value, true);
  const Variable start = x;
  const auto dropped = [&model, random, form](const Variable& in, std::uint32_t layer) {
    const DropoutKey key{.secret = random.secret, .step = random.step, .layer = layer};
    return dropout(model.branch(in, form), 0.3, key, random.records);
  };
  if (layout == Layout::flat) {
    for (const std::uint32_t layer : {0u, 1u, 2u}) x = add(x, checkpointed(how, tape, dropped, x, layer));
  } else {
    const Checkpointing inner = how == Checkpointing::none ? how : Checkpointing::block;
    const auto two = [&tape, dropped, how, inner](const Variable& in) {
      const Variable once = add(in, checkpointed(how, tape, dropped, in, 0u));
      return add(once, checkpointed(inner, tape, dropped, once, 1u));
    };
    x = checkpointed(how, tape, two, x);
  }
  const Variable loss = checkpointed(
      how, tape, [&model, targets](const Variable& in) { return cross_entropy(linear(in, model.qkv), targets); }, x);
  Pass pass{loss.value().to_doubles(), {}, TracingSink(biases), TracingSink(biases)};
  tape.backward(loss, pass.sites, Tensor(), AfterWalk::keep);
  tape.backward(loss, pass.again);
  pass.inputs = tape.gradient_of(start).to_doubles();
  return pass;
}
}  // namespace

TEST_CASE("P34: losses, sites, their order and gradients have the bits of a tape without checkpointing, in both walks") {
  for (const int threads : {1, 2})
    for (DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
      for (const GemmActivation form : {GemmActivation::gelu_erf, GemmActivation::gelu_tanh})
        for (const Layout layout : {Layout::flat, Layout::nested})
          for (const bool biases : {false, true}) {
            Context ctx(Device::cpu(), threads);
            test::Rng rng;
            const Model model(ctx, rng, dtype);
            const Tensor value = normal_tensor(ctx, rng, {samples, tokens, width}, dtype),
                         targets = test::id_tensor(ctx, rng, {samples, tokens}, 0, 3 * int(width) - 1);
            if (rng.integer(0, 1)) model.up.set_trainable(false);
            if (rng.integer(0, 1)) model.down.set_trainable(false);
            const auto pass = [&](Checkpointing how) {
              return pass_of(ctx, model, value, targets, how, layout, form, biases);
            };
            const Pass expected = pass(Checkpointing::none);
            CHECK(std::isfinite(std::accumulate(expected.inputs.begin(), expected.inputs.end(), 0.0)));
            CHECK(expected.sites.numbers == expected.again.numbers);  // of a NaN they would not be
            CAPTURE(dtype);
            CAPTURE(int(layout));
            CHECK(pass(Checkpointing::selective) == expected);
            CHECK(pass(Checkpointing::block) == expected);
          }
}

TEST_CASE("a part is recorded once more in each walk, seen once by observers and not at all at inference") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const Tensor value = normal_tensor(ctx, rng, {2, 4}, DType::f32);
  for (Checkpointing how : every_choice) {
    int calls = 0, products = 0;
    const auto part = [&](const Variable& x) {
      ++calls;
      return counted(gelu(counted(gelu(counted(gelu(x), products)), products)), products);
    };
    TracingSink sink;
    Tape inference(ctx, 2, TapeMode::inference);
    checkpointed(how, inference, part, inference.input(value, true));
    CHECK(calls == 1);
    CHECK(products == 3);

    calls = products = 0;
    Tape tape(ctx, 2);
    std::vector<std::string> seen;
    tape.observe([&](std::string_view operation, const Tensor&) { seen.emplace_back(operation); });
    const Variable x = tape.input(value, true);
    const Variable losses = weighted_sum(gelu(checkpointed(how, tape, part, x)), std::vector<double>(8, 1));
    const std::vector<std::string> all_seen = seen;
    const std::size_t recorded = tape.recorded().size();
    for (const AfterWalk after : {AfterWalk::keep, AfterWalk::keep, AfterWalk::release})
      tape.backward(losses, sink, Tensor(), after);
    CHECK(calls == (how == Checkpointing::none ? 1 : 4));
    // Its last result is what nobody looks at again.
    CHECK(products == (how == Checkpointing::block ? 3 + 3 * 2 : 3));
    CHECK(seen == all_seen);
    CHECK(tape.recorded().size() == recorded);
  }
}

TEST_CASE("a part keeps its input, or in addition the results of products, and nothing after the walk") {
  Context ctx(Device::cpu(), 1);
  const index_t bytes = 1024 * 4;
  for (Checkpointing how : every_choice) {
    int products = 0;
    const index_t before = ctx.memory().live_bytes;
    Tape tape(ctx, 1);
    const auto losses = [&] {
      // 5 values that a GELU saves, of which 2 are results of products, and a result that is not saved.
      const auto part = [&](Variable h) {
        for (int k = 0; k < 2; ++k) h = gelu(counted(gelu(h), products));
        return counted(gelu(h), products);
      };
      const Variable x = tape.input(Tensor::full(ctx, {1, 1024}, DType::f32, 1), true);
      return mean_squared_error(checkpointed(how, tape, part, x), Tensor::zeros(ctx, {1, 1024}, DType::f32));
    };
    const Variable loss = losses();
    // The loss keeps its prediction and target.
    const index_t kept = how == Checkpointing::none ? 5 : how == Checkpointing::selective ? 1 + 2 : 1;
    const index_t live = ctx.memory().live_bytes - before;
    CHECK(live >= (kept + 2) * bytes);
    CHECK(live < (kept + 2) * bytes + 1024);
    TracingSink sink;
    tape.backward(loss, sink);
    CHECK(ctx.memory().live_bytes <= before + bytes + 1024);  // the input's gradient is what is left
  }
}

TEST_CASE("what escapes from a part, and what enters it by the back door, gets its gradient") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const Tensor a = normal_tensor(ctx, rng, {2, 4}, DType::bf16), b = normal_tensor(ctx, rng, {2, 4}, DType::bf16),
               c = normal_tensor(ctx, rng, {2, 4}, DType::bf16);
  std::vector<std::vector<double>> expected;
  for (Checkpointing how : every_choice) {
    Tape tape(ctx, 2);
    const Variable x = tape.input(a, true), y = tape.input(b, true);
    const auto part = [y, c](const Variable& in) {
      // A leaf of its own, a captured variable, and two results.
      const Variable z = in.tape().input(c, true), product = multiply(multiply(in, y), z);
      return std::vector<Variable>{product, add(gelu(product), y), z};
    };
    const std::vector<Variable> out = checkpointed(how, tape, part, x);
    TracingSink sink;
    tape.backward(weighted_sum(add(multiply(out[0], out[1]), multiply(x, out[0])), std::vector<double>(8, 1)), sink);
    std::vector<std::vector<double>> gradients;
    for (const Variable& v : {x, y, out[2]}) gradients.push_back(tape.gradient_of(v).to_doubles());
    if (how == Checkpointing::none) expected = gradients;
    CHECK(gradients == expected);
  }
}

TEST_CASE("a part that records something else the second time is refused, and so is a walk inside of a part") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const Tensor value = normal_tensor(ctx, rng, {2, 4}, DType::f32);
  Parameter v(ctx, "v", normal_tensor(ctx, rng, {4, 4}, DType::f32), DType::f32),
      w(ctx, "w", normal_tensor(ctx, rng, {4, 4}, DType::f32), DType::f32),
      wide(ctx, "wide", normal_tensor(ctx, rng, {6, 4}, DType::f32), DType::f32);
  TracingSink sink;
  const auto walked = [&](Checkpointing how, auto part) {
    v.set_trainable(true);
    Tape tape(ctx, 2);
    const Variable y = checkpointed(how, tape, part, tape.input(value, true), std::make_shared<int>(0));
    const Variable losses = mean_squared_error(y, Tensor::zeros(ctx, y.shape(), DType::f32));
    tape.backward(losses, sink);
  };
  using Calls = std::shared_ptr<int>;
  for (Checkpointing how : {Checkpointing::selective, Checkpointing::block}) {
    CHECK(refuses([&] { walked(how, [](const Variable& x, const Calls& n) { return (*n)++ ? silu(x) : gelu(x); }); },
                  "a checkpointed part to record every time what it recorded first, got another operation in the place of "
                  "gelu"));
    CHECK(refuses([&] { walked(how, [](const Variable& x, const Calls& n) { return (*n)++ ? gelu(gelu(x)) : gelu(x); }); },
                  "got more operations"));
    CHECK(refuses([&] { walked(how, [](const Variable& x, const Calls& n) { return (*n)++ ? gelu(x) : gelu(gelu(x)); }); },
                  "got fewer operations"));
    CHECK(refuses(
        [&] {
          walked(how,
                 [](const Variable& x, const Calls& n) { return gelu((*n)++ ? slice(x, 1, 0, 3) : slice(x, 1, 0, 2)); });
        },
        "got another size of axis 1 in the place of slice"));
    CHECK(refuses([&] { walked(how, [&](const Variable& x, const Calls& n) { return linear(x, (*n)++ ? v : w); }); },
                  "got other parameters"));
    CHECK(refuses(
        [&] {
          walked(how, [&](const Variable& x, const Calls& n) {
            v.set_trainable((*n)++ == 0);
            return linear(linear(x.tape().input(x.value()), v), w);
          });
        },
        "got one with other trained parameters or inputs in the place of linear"));
    // A product that is kept is no excuse for another shape.
    CHECK(
        refuses([&] { walked(how, [&](const Variable& x, const Calls& n) { return gelu(linear(x, (*n)++ ? wide : w)); }); },
                how == Checkpointing::selective ? "got a product of another shape or dtype" : "got another size of axis 1"));
    CHECK(refuses(
        [&] {
          walked(how, [&](const Variable& x, const Calls&) {
            const Variable y = linear(x, v);
            y.tape().backward(mean_squared_error(y, Tensor::zeros(ctx, y.shape(), DType::f32)), sink);
            return y;
          });
        },
        "got one inside of it"));
  }
  // What a part throws the first time leaves a tape that can be used.
  Tape tape(ctx, 2);
  const Variable x = tape.input(value, true);
  const auto throws = [](const Variable& in) -> Variable {
    gelu(in);
    throw Error("no luck");
  };
  CHECK(refuses([&] { checkpointed(Checkpointing::block, tape, throws, x); }, "no luck"));
  tape.backward(weighted_sum(gelu(x), std::vector<double>(8, 1)), sink);
  CHECK(tape.gradient_of(x).defined());
}

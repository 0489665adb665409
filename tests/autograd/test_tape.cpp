// SPDX-License-Identifier: Apache-2.0
// The tape: gradients gathered over fan-out, buffers that are shared and never corrupted, and everything it refuses.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/autograd/rules/embedding.hpp"
#include "dpmp/autograd/rules/layer_norm.hpp"
#include "dpmp/autograd/rules/linear.hpp"
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/autograd/rules/unary.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using test::refuses;

namespace {
std::vector<double> normals(test::Rng& rng, const Shape& shape) {
  std::vector<double> values(std::size_t(shape.numel()));
  for (double& x : values) x = rng.normal();
  return values;
}
Tensor random(Context& ctx, test::Rng& rng, const Shape& shape, DType dtype = DType::f32) {
  return Tensor::from(ctx, shape, dtype, normals(rng, shape));
}
/// Takes nothing.
struct NoSink final : GradientSink {
  void accept(Context&, const ParameterSite&) override {}
};
/// Keeps every site as it came, and a copy of its b made at once.
struct KeepingSink final : GradientSink {
  std::vector<ParameterSite> sites;
  std::vector<std::vector<double>> as_emitted;
  void accept(Context&, const ParameterSite& site) override {
    sites.push_back(site);
    as_emitted.push_back(site.b.to_doubles());
  }
};
/// Which sites came, each as "parameter" or "parameter + bias", in order.
struct NamingSink final : GradientSink {
  explicit NamingSink(bool with_biases) : takes(with_biases) {}
  bool takes;
  std::string came;
  bool takes_biases(const Context&) const override { return takes; }
  void accept(Context&, const ParameterSite& site) override {
    came += (came.empty() ? "" : ", ") + site.parameter->name() + (site.bias ? " + " + site.bias->name() : "");
  }
};
/// A rule that keeps nothing of the samples: its result has another axis 0.
struct Mixing {
  static constexpr std::string_view name = "batch_mean";
  void backward(BackwardPass&, const Tensor&) const {}
};
/// Passes on a gradient of another shape or dtype than its input's.
struct Broken {
  static constexpr std::string_view name = "broken";
  GradientSlot x;
  Shape shape;
  DType dtype;
  void backward(BackwardPass& pass, const Tensor&) const { pass.accumulate(x, Tensor::zeros(pass.ctx, shape, dtype)); }
};
}  // namespace

TEST_CASE("fan-out: the gradients of all uses are added, in any order of uses") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const Tensor value = random(ctx, rng, {3, 5}, DType::f64);
  const auto all_uses = [&](Tape&, const std::vector<Variable>& in) {
    const Variable& x = in[0];
    const Variable twice = add(x, x), square = multiply(x, x), chain = add(x, gelu(x)), again = add(chain, tanh(chain));
    return std::vector<Variable>{add(add(twice, square), multiply(again, x)), x};
  };
  CHECK(check_gradients(ctx, 3, {value}, {}, all_uses).error < 1e-9);

  Tape tape(ctx, 3);
  const Variable x = tape.input(value, true);
  const Variable y = add(add(x, x), add(x, x));
  NoSink sink;
  tape.backward(weighted_sum(y, std::vector<double>(15, 0.5)), sink);
  CHECK(tape.gradient_of(x).to_doubles() == std::vector<double>(15, 2.0));
}

TEST_CASE("shared buffers are not corrupted: kept sites, the caller's weights and both inputs of an add") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  Parameter table(ctx, "positions", random(ctx, rng, {4, 6}), DType::f32),
      gain(ctx, "gain", random(ctx, rng, {6}), DType::f32), bias(ctx, "bias", random(ctx, rng, {6}), DType::f32);
  const Tensor value = random(ctx, rng, {2, 4, 6}),
               weights = Tensor::from(ctx, {2}, DType::f32, std::vector<double>{0.5, 3});
  Tape tape(ctx, 2);
  const Variable x = tape.input(value, true), z = tape.input(random(ctx, rng, {2, 4, 6}), true);
  // position_embedding hands its output gradient to the sink and passes the same buffer on to x, which has later uses.
  Variable h = add(x, gelu(x));
  for (int block = 0; block < 2; ++block) h = add(position_embedding(h, table), layer_norm(h, gain, bias));
  h = add(add(h, x), z);
  const Variable loss = mean_squared_error(h, Tensor::zeros(ctx, {2, 4, 6}, DType::f32));
  KeepingSink sink;
  tape.backward(add(loss, loss), sink, weights);
  CHECK(weights.to_doubles() == std::vector<double>{0.5, 3});
  REQUIRE(sink.sites.size() == 6);
  for (std::size_t k = 0; k < sink.sites.size(); ++k) CHECK(sink.sites[k].b.to_doubles() == sink.as_emitted[k]);
  // z's gradient is the gradient of h itself, whatever happened to the buffer on its way to x.
  const auto found = tape.gradient_of(z).to_doubles(), values = h.value().to_doubles();
  for (std::size_t k = 0; k < found.size(); ++k) {
    const double expected = (k < 24 ? 0.5 : 3) * 4 * values[k] / 24;
    CHECK(std::fabs(found[k] - expected) <= 0x1p-20 * std::fabs(expected));
  }
}

TEST_CASE("loss weights are factors of the per-sample losses, and an input that is not used has a gradient of zeros") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  Tape tape(ctx, 3);
  const Variable x = tape.input(random(ctx, rng, {3, 2}), true), unused = tape.input(random(ctx, rng, {3, 2, 2}), true);
  NoSink sink;
  tape.backward(weighted_sum(x, std::vector<double>(6, 1)), sink,
                Tensor::from(ctx, {3}, DType::f32, std::vector<double>{0, 1, -2}));
  CHECK(tape.gradient_of(x).to_doubles() == std::vector<double>{0, 0, 1, 1, -2, -2});
  CHECK(tape.gradient_of(unused).to_doubles() == std::vector<double>(12, 0));
}

TEST_CASE("P9, P15: what one sample holds, NaN included, leaves the others' gradients bit-identical") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  Parameter gain(ctx, "gain", random(ctx, rng, {7}), DType::f32), bias(ctx, "bias", random(ctx, rng, {7}), DType::f32);
  const Shape shape{4, 3, 7};
  const auto values = normals(rng, shape);
  const auto run = [&](double sample_2) {
    auto changed = values;
    for (std::size_t k = 42; k < 63; ++k) changed[k] = sample_2;
    Tape tape(ctx, 4);
    const Variable x = tape.input(Tensor::from(ctx, shape, DType::f32, changed), true);
    const Variable y = add(x, gelu(layer_norm(x, gain, bias)));
    KeepingSink sink;
    tape.backward(mean_squared_error(y, Tensor::zeros(ctx, shape, DType::f32)), sink);
    std::vector<double> kept = tape.gradient_of(x).to_doubles();
    kept.erase(kept.begin() + 42, kept.begin() + 63);
    for (auto& b : sink.as_emitted) {
      b.erase(b.begin() + 14, b.begin() + 21);
      kept.insert(kept.end(), b.begin(), b.end());
    }
    return kept;
  };
  const auto expected = run(1);
  CHECK(run(-1e30) == expected);
  CHECK(run(std::nan("")) == expected);
}

TEST_CASE("an empty batch goes through") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  Parameter table(ctx, "table", random(ctx, rng, {4, 6}), DType::f32);
  Tape tape(ctx, 0);
  const Variable x = embedding(tape, Tensor::from(ctx, {0, 3}, std::vector<std::int32_t>{}), table);
  const Variable loss = mean_squared_error(gelu(position_embedding(x, table)), Tensor::zeros(ctx, {0, 3, 6}, DType::f32));
  KeepingSink sink;
  tape.backward(loss, sink);
  REQUIRE(sink.sites.size() == 2);
  CHECK(sink.sites[0].samples() == 0);
}

TEST_CASE("an operation that mixes samples cannot be recorded") {
  Context ctx(Device::cpu(), 1);
  Tape tape(ctx, 3);
  CHECK(refuses(
      [&] {
        tape.record(Tensor::zeros(ctx, {1, 4}, DType::f32), true, Mixing{});
      },
      "batch_mean: expected a result with the sample axis"));
  CHECK(refuses([&] { tape.record(Tensor::zeros(ctx, {}, DType::f32), true, Mixing{}); }, "mixes samples"));
  CHECK(refuses(
      [&] {
        tape.input(Tensor::zeros(ctx, {4, 3}, DType::f32));
      },
      "expected a value with the sample axis (3 samples) first, got [4, 3]"));
  CHECK(refuses([&] { tape.input(Tensor::zeros(ctx, {}, DType::f32)); }, "sample axis"));
  CHECK(refuses([&] { tape.input(Tensor()); }, "sample axis"));
  CHECK(refuses([&] { Tape(ctx, -1); }, "number of samples >= 0"));
}

TEST_CASE("activations and elementary functions are recorded by their own names") {
  Context ctx(Device::cpu(), 1);
  struct Function {
    std::string_view name;
    Variable (*of)(const Variable&);
  };
  const Function functions[] = {{"gelu", gelu},
                                {"gelu_tanh", gelu_tanh},
                                {"silu", silu},
                                {"relu", relu},
                                {"tanh", tanh},
                                {"sigmoid", sigmoid},
                                {"exp", exp},
                                {"log", log},
                                {"sqrt", sqrt},
                                {"square", square},
                                {"reciprocal", reciprocal}};
  for (const Function& f : functions) {
    Tape tape(ctx, 2);
    std::vector<std::string_view> observed;
    tape.observe([&](std::string_view operation, const Tensor&) { observed.push_back(operation); });
    f.of(tape.input(Tensor::full(ctx, {2, 3}, DType::f32, 0.5)));
    CHECK(tape.recorded().back().name == f.name);
    CHECK(observed == std::vector<std::string_view>{"input", f.name});
  }
}

TEST_CASE("the backward pass refuses what has no meaning") {
  Context ctx(Device::cpu(), 1);
  NoSink sink;
  const Tensor value = Tensor::full(ctx, {3, 2}, DType::f32, 1), ones = Tensor::full(ctx, {3}, DType::f32, 1);
  const std::vector<double> weights(6, 1);
  Tape inference(ctx, 3, TapeMode::inference);
  const Variable unrecorded = weighted_sum(inference.input(value, true), weights);
  CHECK(refuses([&] { inference.backward(unrecorded, sink); }, "training mode"));

  Tape tape(ctx, 3);
  const Variable x = tape.input(value, true), fixed = tape.input(value), loss = weighted_sum(x, weights);
  CHECK(refuses([&] { tape.gradient_of(x); }, "after a backward pass"));
  CHECK(refuses([&] { tape.backward(x, sink); }, "expected per-sample losses of shape [3], got [3, 2]"));
  CHECK(refuses([&] { tape.backward(unrecorded, sink); }, "another tape's"));
  CHECK(refuses([&] { tape.backward(Variable(), sink); }, "expected a recorded variable"));
  CHECK(refuses([&] { tape.backward(loss, sink, value); }, "loss weights of shape [3]"));
  CHECK(refuses([&] { tape.backward(loss, sink, Tensor::zeros(ctx, {3}, DType::bf16)); }, "loss weights in f32, got bf16"));
  tape.backward(loss, sink, ones);
  CHECK(refuses([&] { tape.backward(loss, sink); }, "not walked yet"));
  CHECK(refuses([&] { tape.gradient_of(fixed); }, "an input that needs a gradient"));
  CHECK(refuses([&] { tape.gradient_of(loss); }, "an input that needs a gradient"));
  CHECK(refuses([&] { tape.gradient_of(unrecorded); }, "another tape's"));
  CHECK(refuses([&] { add(x, inference.input(value)); }, "variables of one tape"));
  CHECK(refuses([&] { add(x, Variable()); }, "expected"));
  CHECK(refuses([&] { gelu(Variable()); }, "expected a recorded variable"));

  for (const auto& [shape, dtype] : {std::pair{Shape{3, 3}, DType::f32}, std::pair{Shape{3, 2}, DType::bf16}}) {
    Tape broken(ctx, 3);
    const Variable y = broken.input(value, true);
    const Variable result = broken.record(value, true, Broken{y.slot(), shape, dtype});
    const Variable losses = weighted_sum(result, weights);
    CHECK(refuses([&] { broken.backward(losses, sink); }, "expected a gradient "));
  }
}

TEST_CASE("inference keeps no history and training frees it on the walk") {
  Context ctx(Device::cpu(), 1);
  const index_t before = ctx.memory().live_bytes, bytes = 1024 * 4;
  const auto deep = [&](Tape& tape, bool needs_gradient) {
    Variable h = tape.input(Tensor::full(ctx, {1, 1024}, DType::f32, 1), needs_gradient);
    for (int k = 0; k < 10; ++k) h = gelu(h);
    return mean_squared_error(h, Tensor::zeros(ctx, {1, 1024}, DType::f32));
  };
  {
    Tape tape(ctx, 1, TapeMode::inference);
    const Variable loss = deep(tape, true);
    CHECK(ctx.memory().live_bytes <= before + bytes);
  }
  {
    Tape tape(ctx, 1);
    const Variable loss = deep(tape, false);  // nothing asks for a gradient
    CHECK(ctx.memory().live_bytes <= before + bytes);
  }
  Tape tape(ctx, 1);
  const Variable loss = deep(tape, true);
  CHECK(ctx.memory().live_bytes >= before + 10 * bytes);
  NoSink sink;
  tape.backward(loss, sink);
  CHECK(ctx.memory().live_bytes <= before + 2 * bytes);  // the input's gradient is what is left
}

TEST_CASE("a bias comes along with its weight where the sink takes it, both are trained and each has one use on the tape") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const auto came = [&](bool takes, bool same_weight, bool same_bias, bool weight_trained, bool bias_trained) {
    const auto parameter = [&](const char* name, const Shape& shape) {
      return std::make_unique<Parameter>(ctx, name, random(ctx, rng, shape), DType::f32);
    };
    const auto v = parameter("v", {4, 4}), w = parameter("w", {4, 4}), b = parameter("b", {4}), c = parameter("c", {4});
    w->set_trainable(weight_trained);
    b->set_trainable(bias_trained);
    Tape tape(ctx, 3);
    const Variable x = tape.input(random(ctx, rng, {3, 2, 4}), true);
    const Variable y = linear(linear(x, *w, b.get()), same_weight ? *w : *v, same_bias ? b.get() : c.get());
    NamingSink sink(takes);
    tape.backward(mean_squared_error(y, Tensor::zeros(ctx, y.shape(), DType::f32)), sink);
    return sink.came;
  };
  CHECK(came(true, false, false, true, true) == "v + c, w + b");
  CHECK(came(false, false, false, true, true) == "v, c, w, b");
  CHECK(came(true, true, false, true, true) == "w, c, w, b");
  CHECK(came(true, false, true, true, true) == "v, b, w, b");
  CHECK(came(true, false, false, false, true) == "v + c, b");
  CHECK(came(true, false, false, true, false) == "v + c, w");
  CHECK(came(true, false, true, true, false) == "v, w");
}

TEST_CASE("a bias that does not fit its weight's rows is refused") {
  Context ctx(Device::cpu(), 1);
  Parameter w(ctx, "w", Tensor::zeros(ctx, {4, 6}, DType::f32), DType::f32),
      wide(ctx, "wide", Tensor::zeros(ctx, {5}, DType::f32), DType::f32),
      bias(ctx, "bias", Tensor::zeros(ctx, {4}, DType::f32), DType::f32);
  const Tensor a = Tensor::zeros(ctx, {2, 3, 6}, DType::f32), b = Tensor::zeros(ctx, {2, 3, 4}, DType::f32);
  CHECK(ParameterSite::outer_product(w, a, b, &bias).bias == &bias);
  CHECK(refuses([&] { ParameterSite::outer_product(w, a, b, &wide); }, "to have p elements, got [5]"));
  CHECK(refuses([&] { ParameterSite::outer_product(w, a, Tensor::zeros(ctx, {2, 3}, DType::i32), &bias); }, "dense rows"));
}

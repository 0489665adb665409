// SPDX-License-Identifier: Apache-2.0
// Rotary angles stretched to longer contexts, and biases of SwiGLU: what published models of LLaMA's form set.
#include <doctest/doctest.h>
#include <cmath>
#include <numbers>

#include "dpmp/nn/transformer.hpp"
#include "support/errors.hpp"
#include "support/gpt.hpp"
#include "support/sites.hpp"
#include "support/tensors.hpp"

using namespace dpmp;
using List = std::vector<double>;
using Kind = RopeScaling::Kind;
using test::refuses;

namespace {
/// The rule in the words of its release: wavelengths, not turns.
double by_wavelength(double frequency, double factor, double low, double high, double original) {
  const double wavelength = 2 * std::numbers::pi / frequency;
  if (wavelength < original / high) return frequency;
  if (wavelength > original / low) return frequency / factor;
  const double smooth = (original / wavelength - low) / (high - low);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}
}  // namespace

TEST_CASE("rope scaling: a rotation by the scaled angle, of each kind, against loops in double") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (int round = 0; round < 10; ++round) {
    const index_t tokens = rng.integer(2, 40), width = 2 * rng.integer(1, 12);
    const double base = std::exp(rng.uniform(2, 14)), factor = rng.uniform(1, 40), low = rng.uniform(0.5, 2),
                 high = low + rng.uniform(0.5, 6), original = double(rng.integer(4, 9000));
    Tape tape(ctx, 1);
    const Variable x = tape.input(test::normal_tensor(ctx, rng, {1, tokens, width}, DType::f64));
    const List in = x.value().to_doubles();
    for (const Kind kind : {Kind::none, Kind::linear, Kind::llama3}) {
      const RopeScaling scaling{
          .kind = kind, .factor = factor, .low_frequency = low, .high_frequency = high, .original_context = original};
      const List y = rope(x, 1, width, base, scaling).value().to_doubles();
      double worst = 0;
      for (index_t t = 0; t < tokens; ++t)
        for (index_t k = 0; k < width / 2; ++k) {
          const double plain = std::pow(base, -2 * double(k) / double(width));
          const double frequency = kind == Kind::none     ? plain
                                   : kind == Kind::linear ? plain / factor
                                                          : by_wavelength(plain, factor, low, high, original);
          const double angle = double(t) * frequency;
          const std::size_t a = std::size_t(t * width + k), b = a + std::size_t(width / 2);
          worst = std::max({worst, std::abs(y[a] - in[a] * std::cos(angle) + in[b] * std::sin(angle)),
                            std::abs(y[b] - in[b] * std::cos(angle) - in[a] * std::sin(angle))});
        }
      // An angle of at most 40 with some ten roundings of 2^-53, twice, times values that are below 10.
      CHECK(worst <= 40 * 20 * 0x1p-53 * 10);
    }
  }
}

TEST_CASE("rope scaling: a model with it generates through its cache what it computes without one") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const auto logits = [&](const RopeScaling& scaling, bool cached, const Tensor& ids) {
    const nn::Transformer model(ctx,
                                {.vocabulary = 20,
                                 .width = 24,
                                 .layers = 2,
                                 .heads = 2,
                                 .context = 30,
                                 .seed = test::seed(),
                                 .positions = nn::Positions::rotary,
                                 .rope_base = 50,
                                 .rope_scaling = scaling},
                                DType::f64);
    Tape tape(ctx, 1, cached ? TapeMode::inference : TapeMode::training);
    if (!cached) return model(tape, ids).value().to_doubles();
    nn::KeyValueCache cache = model.make_cache(1);
    return model(tape, ids, cache).value().to_doubles();
  };
  const Tensor ids = test::id_tensor(ctx, rng, {1, 25}, 0, 19);
  const RopeScaling stretched{.kind = Kind::llama3, .factor = 8, .original_context = 12};
  const List plain = logits({}, false, ids), whole = logits(stretched, false, ids), cached = logits(stretched, true, ids);
  double difference = 0, change = 0;
  for (std::size_t k = 0; k < whole.size(); ++k) {
    difference = std::max(difference, std::abs(whole[k] - cached[k]));
    change = std::max(change, std::abs(whole[k] - plain[k]));
  }
  // The same numbers in other orders of addition: sums of at most 100 values of order 1 through two blocks.
  CHECK(difference <= 1e-11);
  CHECK(change > 1e-6);
}

TEST_CASE("rope scaling: what no angles can be scaled by is refused when the model is built") {
  Context ctx(Device::cpu(), 1);
  const auto refused = [&](const RopeScaling& scaling, const std::string& part) {
    return refuses([&] { nn::Transformer(ctx, {.positions = nn::Positions::rotary, .rope_scaling = scaling}, DType::f32); },
                   part);
  };
  for (const double bad : {0.0, -1.0, double(INFINITY), double(NAN)}) {
    CHECK(refused({.kind = Kind::linear, .factor = bad}, "a finite factor > 0"));
    CHECK(refused({.kind = Kind::llama3, .original_context = bad}, "an original context > 0"));
  }
  CHECK(refused({.kind = Kind::llama3, .low_frequency = 4, .high_frequency = 4}, "low_frequency < high_frequency"));
}

TEST_CASE("SwiGLU with biases is its pieces, and has none unless they are asked for") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::Parameters parameters(ctx, DType::f64, test::seed()), without(ctx, DType::f64, 1);
  const nn::Block block(
      parameters, {.width = 8, .heads = 2, .hidden = 12, .swiglu_bias = true, .feed_forward = nn::FeedForward::swiglu});
  CHECK(parameters.find("mlp.gate_up.bias").shape() == Shape{24});
  CHECK(parameters.find("mlp.down.bias").shape() == Shape{8});
  const nn::Block plain(without, {.width = 8, .heads = 2, .feed_forward = nn::FeedForward::swiglu});
  CHECK(refuses([&] { without.find("mlp.gate_up.bias"); }, "mlp.gate_up.bias"));
  nn::Parameters alone(ctx, DType::f64, test::seed());
  const nn::SwiGlu mlp(alone, 8, 12, {.bias = true});
  test::randomise(alone, rng, 0.5);
  Tape tape(ctx, 2);
  const Variable x = tape.input(test::normal_tensor(ctx, rng, {2, 5, 8}, DType::f64));
  const Variable hidden = swiglu(linear(x, alone.find("gate_up.weight"), &alone.find("gate_up.bias")));
  CHECK(mlp(x).value().to_doubles() ==
        linear(hidden, alone.find("down.weight"), &alone.find("down.bias")).value().to_doubles());
}

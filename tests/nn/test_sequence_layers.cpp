// SPDX-License-Identifier: Apache-2.0
// Layers of sequence models: recurrent cells, the gated feed-forward block, low-rank adapters.
#include <doctest/doctest.h>
#include <cmath>
#include <set>
#include <variant>

#include "dpmp/nn/feed_forward.hpp"
#include "dpmp/nn/recurrent.hpp"
#include "dpmp/per_sample/group_pass.hpp"
#include "support/errors.hpp"
#include "support/oracle.hpp"
#include "support/sites.hpp"

using namespace dpmp;
using test::CountingSink;
using test::losses_of;
using test::randomise;
using test::refuses;

namespace {
using List = std::vector<double>;

List values_of(const nn::Parameters& parameters, const std::string& name) {
  return parameters.find(name).value().to_doubles();
}
double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

/// W [p, d] x + b.
List affine(const List& w, const List& b, const double* x, std::size_t d) {
  List y = b;
  for (std::size_t r = 0; r < y.size(); ++r)
    for (std::size_t c = 0; c < d; ++c) y[r] += w[r * d + c] * x[c];
  return y;
}

/// The formulas of the two cells for one sample, with weights named as the layer names them.
List recurrent_reference(const nn::Parameters& parameters, bool lstm, const List& x, std::size_t d, std::size_t n) {
  const List w = values_of(parameters, "cell.input.weight"), b = values_of(parameters, "cell.input.bias"),
             u = values_of(parameters, "cell.recurrent.weight"), c = values_of(parameters, "cell.recurrent.bias");
  List h(n, 0.0), cell(n, 0.0), all;
  for (std::size_t t = 0; t < x.size() / d; ++t) {
    const List in = affine(w, b, x.data() + t * d, d), back = affine(u, c, h.data(), n);
    const auto sum = [&](std::size_t gate, std::size_t k) { return in[gate * n + k] + back[gate * n + k]; };
    for (std::size_t k = 0; k < n; ++k)
      if (lstm) {
        cell[k] = sigmoid_of(sum(1, k)) * cell[k] + sigmoid_of(sum(0, k)) * std::tanh(sum(2, k));
        h[k] = sigmoid_of(sum(3, k)) * std::tanh(cell[k]);
      } else {
        const double r = sigmoid_of(sum(0, k)), z = sigmoid_of(sum(1, k)),
                     fresh = std::tanh(in[2 * n + k] + r * back[2 * n + k]);
        h[k] = (1 - z) * fresh + z * h[k];
      }
    all.insert(all.end(), h.begin(), h.end());
  }
  return all;
}

/// Either cell under one name.
struct Cell {
  Cell(nn::Parameters& parameters, bool lstm, index_t inputs, index_t hidden) {
    if (lstm)
      layer.emplace<nn::Lstm>(parameters / "cell", inputs, hidden);
    else
      layer.emplace<nn::Gru>(parameters / "cell", inputs, hidden);
  }
  Variable operator()(const Variable& x) const {
    if (const auto* lstm = std::get_if<nn::Lstm>(&layer)) return (*lstm)(x);
    return std::get<nn::Gru>(layer)(x);
  }
  std::variant<std::monostate, nn::Gru, nn::Lstm> layer;
};

}  // namespace

TEST_CASE("gru and lstm: the hidden states of a plain loop, in every dtype") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const bool lstm : {false, true})
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
      for (const index_t tokens : {1, 2, 7}) {
        const index_t samples = 3, inputs = 5, hidden = 6;
        nn::Parameters parameters(ctx, dtype, test::seed());
        const Cell cell(parameters, lstm, inputs, hidden);
        randomise(parameters, rng, 0.5);
        Tape tape(ctx, samples);
        const Variable x = tape.input(test::normal_tensor(ctx, rng, {samples, tokens, inputs}, dtype));
        const Variable y = cell(x);
        REQUIRE(y.shape() == Shape{samples, tokens, hidden});
        // A token's state passes some ten roundings, and each later token sees it through gates of slope < 1.
        const double limit = dtype == DType::f64 ? 1e-14 : 40 * unit_roundoff(dtype) + 0x1p-18;
        for (index_t i = 0; i < samples; ++i) {
          const List expected = recurrent_reference(parameters, lstm, x.value().rows(i, i + 1).to_doubles(),
                                                    std::size_t(inputs), std::size_t(hidden)),
                     found = y.value().rows(i, i + 1).to_doubles();
          for (std::size_t k = 0; k < found.size(); ++k) CHECK(std::fabs(found[k] - expected[k]) <= limit);
        }
      }
}

TEST_CASE("gru and lstm: gradients equal differences; the recurrent weight has a site a token, the input weight one") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const bool lstm : {false, true}) {
    const index_t samples = 2, tokens = 5, inputs = 3, hidden = 4;
    nn::Parameters parameters(ctx, DType::f64, test::seed());
    const Cell cell(parameters, lstm, inputs, hidden);
    randomise(parameters, rng, 0.7);
    const Tensor x = test::normal_tensor(ctx, rng, {samples, tokens, inputs}, DType::f64);
    const auto forward = [&](Tape&, const std::vector<Variable>& v) { return std::vector<Variable>{cell(v[0])}; };
    const std::vector<Parameter*> all(parameters.all().begin(), parameters.all().end());
    const auto result = check_gradients(ctx, samples, {x}, all, forward, {.elements = 20, .weight = {}});
    CHECK_MESSAGE(result.error < 1e-8, result.where);
    CHECK(result.compared > 60);
    Tape tape(ctx, samples);
    CountingSink sink;
    tape.backward(losses_of(tape, cell(tape.input(x))), sink);
    CHECK(sink.sites == std::map<std::string, int>{{"cell.input.weight", 1},
                                                   {"cell.input.bias", 1},
                                                   {"cell.recurrent.weight", int(tokens)},
                                                   {"cell.recurrent.bias", int(tokens)}});
    CHECK(refuses([&] { cell(tape.input(Tensor::zeros(ctx, {samples, 0, inputs}, DType::f64))); }, "[B, T >= 1, d]"));
    CHECK(refuses([&] { cell(tape.input(Tensor::zeros(ctx, {samples, inputs}, DType::f64))); }, "got [2, 3]"));
  }
}

TEST_CASE("gru and lstm: per-sample gradients over many sites are those of batches of one") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const bool lstm : {false, true}) {
    const index_t samples = 4, tokens = 6, inputs = 3, hidden = 5;
    nn::Parameters parameters(ctx, DType::f64, test::seed());
    const Cell cell(parameters, lstm, inputs, hidden);
    randomise(parameters, rng, 0.7);
    const Tensor x = test::normal_tensor(ctx, rng, {samples, tokens, inputs}, DType::f64);
    const List weights = test::normal_tensor(ctx, rng, {samples, tokens, hidden}, DType::f64).to_doubles();
    per_sample::MaterialisedSink together;
    Tape tape(ctx, samples);
    tape.backward(weighted_sum(cell(tape.input(x)), weights), together);
    const per_sample::NormBounds norms = together.norms(ctx, samples);
    per_sample::BookKeepingSink book;
    Tape again(ctx, samples);
    again.backward(weighted_sum(cell(again.input(x)), weights), book);
    const per_sample::NormBounds booked = book.norms(ctx, samples);
    for (index_t i = 0; i < samples; ++i) {
      DefinitionSink alone;
      Tape one(ctx, 1);
      one.backward(weighted_sum(cell(one.input(x.rows(i, i + 1))),
                                std::span(weights).subspan(std::size_t(i * tokens * hidden), std::size_t(tokens * hidden))),
                   alone);
      double squares = 0;
      for (const Parameter* p : parameters.all()) {
        const List expected = alone.gradient_of(*p), found = together.gradients(ctx, *p).rows(i, i + 1).to_doubles();
        CHECK(test::distance(found, expected) <= 1e-12 * (1 + test::norm(expected)));
        squares += test::norm(expected) * test::norm(expected);
      }
      CHECK(norms.norm(i) == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
      CHECK(booked.norm(i) == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
    }
  }
}

TEST_CASE("tokens_of: every token in its place; swiglu's block: gate first, one site for gate and up") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  Tape tape(ctx, 2);
  for (const index_t tokens : {0, 1, 2, 5, 8}) {
    const Variable x = tape.input(test::normal_tensor(ctx, rng, {2, tokens, 3}, DType::f32));
    const std::vector<Variable> parts = nn::tokens_of(x);
    REQUIRE(index_t(parts.size()) == tokens);
    for (const Variable& part : parts) CHECK(part.shape() == Shape{2, 1, 3});
    if (tokens > 0) CHECK(concat(parts, 1).value().to_doubles() == x.value().to_doubles());
  }
  const std::size_t width = 4, hidden = 6;
  nn::Parameters parameters(ctx, DType::f64, test::seed());
  const nn::SwiGlu block(parameters / "mlp", index_t(width), index_t(hidden));
  CHECK(parameters.all().size() == 2);
  const List packed = values_of(parameters, "mlp.gate_up.weight"), down = values_of(parameters, "mlp.down.weight");
  const Variable x = tape.input(test::normal_tensor(ctx, rng, {2, 3, index_t(width)}, DType::f64));
  const Variable y = block(x);
  for (std::size_t row = 0; row < 6; ++row) {
    const List both = affine(packed, List(2 * hidden, 0.0), x.value().to_doubles().data() + row * width, width);
    List inner(hidden);
    for (std::size_t k = 0; k < hidden; ++k) inner[k] = both[k] * sigmoid_of(both[k]) * both[hidden + k];
    const List expected = affine(down, List(width, 0.0), inner.data(), hidden);
    for (std::size_t k = 0; k < width; ++k)
      CHECK(y.value().to_doubles()[row * width + k] == doctest::Approx(expected[k]).epsilon(1e-12));
  }
  CountingSink sink;
  tape.backward(losses_of(tape, y), sink);
  CHECK(sink.sites == std::map<std::string, int>{{"mlp.gate_up.weight", 1}, {"mlp.down.weight", 1}});
}

TEST_CASE("lora: starts as its base, then adds (alpha / r) B A x; only the adapter has sites; dropout needs a run") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const std::size_t inputs = 7, outputs = 5, rank = 3;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    nn::Parameters parameters(ctx, dtype, test::seed());
    nn::LoraLinear layer(parameters / "layer", index_t(inputs), index_t(outputs));
    Tape tape(ctx, 2);
    const Variable x = tape.input(test::normal_tensor(ctx, rng, {2, 3, index_t(inputs)}, dtype), true);
    const List before = layer(x).value().to_doubles();
    layer.adapt({.rank = index_t(rank), .alpha = 6});
    CHECK(layer(x).value().to_doubles() == before);
    for (double v : values_of(parameters, "layer.lora_b")) CHECK(v == 0);
    CHECK(parameters.find("layer.lora_a").shape() == Shape{index_t(rank), index_t(inputs)});
    CHECK(test::norm(values_of(parameters, "layer.lora_a")) > 0);

    randomise(parameters, rng, 0.5);
    const Variable y = layer(x);
    const List w = values_of(parameters, "layer.weight"), b = values_of(parameters, "layer.bias"),
               a = values_of(parameters, "layer.lora_a"), up = values_of(parameters, "layer.lora_b");
    for (std::size_t row = 0; row < 6; ++row) {
      const List all = x.value().to_doubles();
      const double* in = all.data() + row * inputs;
      List inner = affine(a, List(rank, 0.0), in, inputs);
      for (double& v : inner) v *= 6.0 / double(rank);
      const List base = affine(w, b, in, inputs), added = affine(up, List(outputs, 0.0), inner.data(), rank);
      for (std::size_t k = 0; k < outputs; ++k)
        CHECK(std::fabs(y.value().to_doubles()[row * outputs + k] - base[k] - added[k]) <=
              (dtype == DType::f64 ? 1e-12 : 60 * unit_roundoff(dtype)));
    }
    CountingSink sink;
    tape.backward(losses_of(tape, y), sink);
    CHECK(sink.sites == std::map<std::string, int>{{"layer.lora_a", 1}, {"layer.lora_b", 1}});
    CHECK(test::norm(tape.gradient_of(x).to_doubles()) > 0);
    CHECK(refuses([&] { layer.adapt({.rank = 1}); }, "layer already"));
  }
  nn::Parameters parameters(ctx, DType::f32, test::seed());
  nn::LoraLinear layer(parameters / "layer", 4, 4, {.bias = false});
  CHECK(refuses([&] { layer.adapt({.rank = -1}); }, "rank >= 0"));
  for (const double alpha : {0.0, -1.0, double(NAN), double(INFINITY)})
    CHECK(refuses([&] { layer.adapt({.rank = 1, .alpha = alpha}); }, "alpha > 0"));
  CHECK(refuses([&] { layer.adapt({.rank = 1, .alpha = 1, .dropout = 1}); }, "dropout rate in [0, 1)"));
  CHECK(parameters.all().size() == 1);
  CHECK(parameters.find("layer.weight").trainable());
  layer.adapt({.rank = 0});
  CHECK(parameters.all().size() == 1);
  CHECK(parameters.find("layer.weight").trainable());
  layer.adapt({.rank = 2, .alpha = 1, .dropout = 0.5}, 9);
  randomise(parameters, rng, 1);
  const Tensor x = Tensor::full(ctx, {1, 4}, DType::f32, 1);
  Tape tape(ctx, 1), inference(ctx, 1, TapeMode::inference);
  CHECK(refuses([&] { layer(tape.input(x)); }, "identities (TrainerOptions::identity) for dropout 0.5"));
  layer(inference.input(x));
  std::set<List> seen;
  const std::vector<RecordId> record{stable_id({}, 3)};
  for (index_t step = 0; step < 16; ++step) {
    tape.key_randomness({{}, step, SampleIdentities(ctx, record)});
    seen.insert(layer(tape.input(x)).value().to_doubles());
  }
  CHECK(seen.size() > 4);
}

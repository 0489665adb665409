// SPDX-License-Identifier: Apache-2.0
// Parameters: names, order, sizes, scopes, and initial values that are a function of the seed alone.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/nn/layer_norm.hpp"
#include "dpmp/nn/linear.hpp"
#include "dpmp/nn/lora.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using nn::Parameters;

namespace {
void make(Parameters& parameters) {
  parameters.normal("a", {5, 7}, 0.5);
  parameters.constant("b", {9}, -2);
  parameters.normal("c", {3, 2, 2}, 1);
}
std::vector<double> values(const Parameters& parameters) {
  std::vector<double> all;
  for (const Parameter* p : parameters.all())
    for (double v : p->master().to_doubles()) all.push_back(v);
  return all;
}
}  // namespace

TEST_CASE("initial values are a function of the seed: the same for every number of threads, others for another seed") {
  Context one(Device::cpu(), 1), three(Device::cpu(), 3);
  Parameters a(one, DType::f32, test::seed()), b(three, DType::bf16, test::seed()), c(one, DType::f32, test::seed() + 1);
  make(a);
  make(b);
  make(c);
  CHECK(values(a) == values(b));
  CHECK(values(a) != values(c));
  CHECK(a.find("a").master().to_doubles()[0] != a.find("c").master().to_doubles()[0] * 0.5);  // a stream of their own each
}

TEST_CASE("normal values have the standard deviation asked for, constants their value") {
  Context ctx(Device::cpu(), 2);
  Parameters parameters(ctx, DType::f32, test::seed());
  const index_t n = 200003;
  const double s = 0.3;
  double sum = 0, squares = 0;
  for (double v : parameters.normal("x", {n}, s).master().to_doubles()) sum += v, squares += v * v;
  // Six standard errors of a mean and of a standard deviation.
  CHECK(std::fabs(sum / double(n)) <= 6 * s / std::sqrt(double(n)));
  CHECK(std::fabs(std::sqrt(squares / double(n)) - s) <= 6 * s / std::sqrt(2 * double(n)));
  for (double v : parameters.constant("y", {5}, 0.25).master().to_doubles()) CHECK(v == 0.25);
}

TEST_CASE("parameters keep the order of their creation, are found by name, and count their values") {
  Context ctx(Device::cpu(), 1);
  Parameters parameters(ctx, DType::f16, 1);
  CHECK(parameters.numel() == 0);
  make(parameters);
  REQUIRE(parameters.all().size() == 3);
  CHECK(parameters.all()[1]->name() == "b");
  CHECK(&parameters.find("c") == parameters.all()[2]);
  CHECK(parameters.numel() == 35 + 9 + 12);
  CHECK(parameters.find("a").dtype() == DType::f16);
  CHECK(parameters.find("a").master().dtype() == DType::f32);
  CHECK(parameters.find("a").trainable());
}

TEST_CASE("parameters refuse a name twice, a name that is none, and a dtype that is no floating one") {
  Context ctx(Device::cpu(), 1);
  Parameters parameters(ctx, DType::f32, 1);
  make(parameters);
  CHECK(test::refuses([&] { parameters.constant("b", {1}, 0); }, "'b' twice"));
  CHECK(parameters.all().size() == 3);
  CHECK(test::refuses([&] { parameters.find("d"); }, "'d'"));
  CHECK(test::refuses([&] { Parameters(ctx, DType::i32, 1); }, "floating dtype"));
  nn::Linear(parameters / "layer", 2, 3);
  CHECK(test::refuses([&] { nn::Linear(parameters / "layer", 2, 3); }, "'layer.weight' twice"));
}

TEST_CASE("layers: a linear layer has its weight, and a bias unless it is turned off; a normalisation starts as one") {
  Context ctx(Device::cpu(), 1);
  Parameters parameters(ctx, DType::f64, test::seed());
  const nn::Linear with(parameters / "with", 2, 3), without(parameters / "without", 2, 3, {.bias = false});
  const nn::LayerNorm norm(parameters / "norm", 2);
  CHECK(parameters.find("with.weight").shape() == Shape{3, 2});
  CHECK(parameters.find("with.bias").shape() == Shape{3});
  CHECK(test::refuses([&] { parameters.find("without.bias"); }, "without.bias"));
  CHECK(parameters.find("norm.gain").master().to_doubles() == std::vector<double>{1, 1});
  CHECK(parameters.find("norm.bias").master().to_doubles() == std::vector<double>{0, 0});
  // y = W x + bias, by hand.
  const std::vector<double> w = parameters.find("with.weight").master().to_doubles(), x{0.5, -2};
  for (int r = 0; r < 3; ++r) parameters.find("with.bias").master().data<double>()[r] = r;
  Tape tape(ctx, 1);
  const std::vector<double> y = with(tape.input(Tensor::from(ctx, {1, 2}, DType::f64, x))).value().to_doubles();
  for (std::size_t r = 0; r < 3; ++r)
    CHECK(y[r] == doctest::Approx(w[2 * r] * x[0] + w[2 * r + 1] * x[1] + double(r)).epsilon(1e-14));
}

TEST_CASE("scopes join names with dots; the root is the parameters themselves") {
  Context ctx(Device::cpu(), 1);
  Parameters parameters(ctx, DType::bf16, test::seed());
  const nn::Scope block = parameters / "block0", attention = block / "attention";
  CHECK(nn::Scope(parameters).path() == "");
  CHECK(attention.path() == "block0.attention");
  CHECK(&attention.parameters() == &parameters);
  const nn::Linear inner(attention, 2, 3), outer(parameters, 3, 1);
  std::vector<std::string> names;
  for (const Parameter* p : parameters.all()) names.push_back(p->name());
  CHECK(names == std::vector<std::string>{"block0.attention.weight", "block0.attention.bias", "weight", "bias"});
  CHECK(nn::is_bias(*outer.bias()));
}

TEST_CASE("what is made in a scope has the values of the same parameter made without one") {
  Context ctx(Device::cpu(), 1);
  Parameters plain(ctx, DType::f32, test::seed()), scoped(ctx, DType::f32, test::seed());
  plain.normal("a.b", {5, 7}, 0.5);
  plain.constant("a.c", {9}, -2);
  plain.normal("d", {3, 2, 2}, 1);
  (scoped / "a").normal("b", {5, 7}, 0.5);
  (scoped / "a").frozen().constant("c", {9}, -2);
  nn::Scope(scoped).normal("d", {3, 2, 2}, 1);
  CHECK(values(scoped) == values(plain));
  for (std::size_t k = 0; k < 3; ++k) CHECK(scoped.all()[k]->name() == plain.all()[k]->name());
}

TEST_CASE("a scope gives its dtype and its trainability to everything in it, and changes no other scope") {
  Context ctx(Device::cpu(), 1);
  Parameters parameters(ctx, DType::bf16, test::seed());
  const nn::Scope model = parameters / "model", head = (model / "head").in(DType::f32), base = (model / "base").frozen(),
                  wide = (parameters / "wide").in(DType::f64);
  nn::Linear(head / "inner", 2, 3);
  nn::LayerNorm(base / "norm", 4);
  nn::LayerNorm((base / "again").frozen(false), 4);
  nn::Linear(model / "plain", 2, 3);
  nn::LayerNorm(wide, 4);
  for (const Parameter* p : parameters.all()) {
    const std::string name = p->name();
    CHECK(p->dtype() == (name.starts_with("model.head.") ? DType::f32
                         : name.starts_with("wide.")     ? DType::f64
                                                         : DType::bf16));
    CHECK(p->master().dtype() == (name.starts_with("wide.") ? DType::f64 : DType::f32));
    CHECK(p->trainable() == !name.starts_with("model.base.norm."));
  }
  CHECK(parameters.all().size() == 10);
}

TEST_CASE("an adapter is trained though its layer is made in a frozen scope") {
  Context ctx(Device::cpu(), 1);
  Parameters parameters(ctx, DType::f32, test::seed());
  nn::LoraLinear layer((parameters / "layer").frozen(), 4, 3);
  layer.adapt({.rank = 2});
  for (const Parameter* p : parameters.all()) CHECK(p->trainable() == nn::is_lora(*p));
  CHECK(parameters.all().size() == 4);
}

TEST_CASE("scopes refuse an empty name and a dtype that is no floating one") {
  Context ctx(Device::cpu(), 1);
  Parameters parameters(ctx, DType::f32, 1);
  CHECK(test::refuses([&] { parameters / "a" / ""; }, "a name inside of a, got an empty one"));
  CHECK(test::refuses([&] { nn::Scope(parameters).constant("", {1}, 0); }, "inside of the root scope"));
  CHECK(test::refuses([&] { (parameters / "a").in(DType::i32); }, "floating dtype for the parameters of a, got i32"));
}

// SPDX-License-Identifier: Apache-2.0
// Whole models: every sink against a float64 batch-of-one computation, micro-batches, masks, isolation.
#include <doctest/doctest.h>

#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/dp/clipping.hpp"
#include "support/gpt.hpp"

namespace {
using namespace dpmp;
using per_sample::BookKeepingSink;
using per_sample::GradientSums;
using per_sample::MaterialisedSink;
using per_sample::NormBounds;
using per_sample::SumSink;

nn::TransformerConfig config(bool tied) {
  return {.vocabulary = 23, .width = 24, .layers = 2, .heads = 3, .context = 12, .tied = tied, .seed = test::seed()};
}

std::vector<float> random_factors(test::Rng& rng, index_t samples) {
  std::vector<float> factors(static_cast<std::size_t>(samples));
  for (float& f : factors) f = float(rng.uniform(0.1, 1));
  return factors;
}
/// The oracle on the operands that a bf16 or f16 pass stored: [samples][all parameters of the model].
std::vector<std::vector<double>> stored_oracle(const nn::Transformer& model, const BookKeepingSink& sink, index_t samples) {
  std::vector<std::vector<double>> gradients(static_cast<std::size_t>(samples));
  for (index_t i = 0; i < samples; ++i)
    for (const Parameter* p : model.parameters().all())
      for (const auto& sites : sink.lists())
        if (sites[0].parameter == p) {
          const std::vector<double> g = test::oracle_gradient(sites, i);
          gradients[std::size_t(i)].insert(gradients[std::size_t(i)].end(), g.begin(), g.end());
        }
  return gradients;
}
std::vector<double> weighted_oracle(const std::vector<std::vector<double>>& gradients, std::span<const float> factors) {
  std::vector<double> sum(gradients[0].size(), 0.0);
  for (std::size_t i = 0; i < gradients.size(); ++i)
    for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += double(factors[i]) * gradients[i][j];
  return sum;
}
}  // namespace

TEST_CASE("P13, P14: GPT norms and clipped sums in f32 equal a float64 batch-of-one computation to 1e-5") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (bool tied : {false, true}) {
    CAPTURE(tied);
    nn::Transformer model(ctx, config(tied), DType::f32), exact(ctx, config(tied), DType::f64);
    test::copy_weights(model, exact);
    const test::Tokens data = test::random_tokens(ctx, rng, 5, 12, 23);
    const auto oracle = test::batch_of_one(ctx, exact, data);
    BookKeepingSink book;
    MaterialisedSink materialised;
    test::backward(ctx, model, data, book);
    test::backward(ctx, model, data, materialised);
    const std::vector<float> factors = random_factors(rng, 5);
    const std::vector<double> expected = weighted_oracle(oracle, factors);
    for (per_sample::GroupPass* sink :
         {static_cast<per_sample::GroupPass*>(&book), static_cast<per_sample::GroupPass*>(&materialised)}) {
      const NormBounds bounds = sink->norms(ctx, 5);
      for (index_t i = 0; i < 5; ++i) {
        const double norm = test::norm(oracle[std::size_t(i)]);
        CHECK(std::fabs(bounds.norm(i) - norm) <= 1e-5 * norm);
        CHECK(bounds.upper(i) <= norm * 1.005);
      }
      CHECK(test::distance(test::weighted(ctx, model, *sink, factors), expected) <= 1e-5 * test::norm(expected));
    }
  }
}

TEST_CASE("P13: GPT in bf16 and f16: 1e-5 on the same stored operands, and the certificate is above them") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : {DType::bf16, DType::f16})
    for (bool tied : {false, true}) {
      CAPTURE(name_of(dtype));
      CAPTURE(tied);
      nn::Transformer model(ctx, config(tied), dtype);
      const test::Tokens data = test::random_tokens(ctx, rng, 4, 12, 23);
      BookKeepingSink book;
      test::backward(ctx, model, data, book);
      const auto oracle = stored_oracle(model, book, 4);
      const NormBounds bounds = book.norms(ctx, 4);
      for (index_t i = 0; i < 4; ++i) {
        const double norm = test::norm(oracle[std::size_t(i)]);
        CHECK(std::fabs(bounds.norm(i) - norm) <= 1e-5 * norm);
        CHECK(bounds.upper(i) >= norm * (1 - 1e-5));  // what is released may be rounded below it
        CHECK(bounds.upper(i) <= norm * 1.005);
      }
      const std::vector<float> factors = random_factors(rng, 4);
      const std::vector<double> expected = weighted_oracle(oracle, factors);
      CHECK(test::distance(test::weighted(ctx, model, book, factors), expected) <= 1e-5 * test::norm(expected));
    }
}

TEST_CASE("P1: the released contribution of every sample of a GPT, over all parameters, is at most C") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    nn::Transformer model(ctx, config(true), dtype);
    const test::Tokens data = test::random_tokens(ctx, rng, 6, 12, 23);
    BookKeepingSink book;
    test::backward(ctx, model, data, book);
    const NormBounds bounds = book.norms(ctx, 6);
    const double threshold = 0.3 * bounds.norm(0);
    std::vector<float> factors(6);
    dp::FlatClipping(threshold).factors(bounds.upper(), bounds.finite(), factors);
    for (std::size_t i = 0; i < 6; ++i) {
      std::vector<float> alone(6, 0.0f);
      alone[i] = factors[i];
      const double released = test::norm(test::weighted(ctx, model, book, alone));
      CHECK(released <= threshold);
      CHECK(released >= 0.99 * std::min(threshold, bounds.norm(index_t(i))));
    }
  }
}

TEST_CASE("no noise, no threshold: the private sum is the plain gradient sum to rounding") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    CAPTURE(name_of(dtype));
    nn::Transformer model(ctx, config(true), dtype);
    const index_t samples = 6;
    const test::Tokens data = test::random_tokens(ctx, rng, samples, 12, 23);
    BookKeepingSink book;
    test::backward(ctx, model, data, book);
    const NormBounds bounds = book.norms(ctx, samples);
    std::vector<float> factors(static_cast<std::size_t>(samples));
    dp::FlatClipping(INFINITY).factors(bounds.upper(), bounds.finite(), factors);
    CHECK(factors == std::vector<float>(static_cast<std::size_t>(samples), 1.0f));
    GradientSums plain(ctx, model.parameters().all());
    SumSink sink(plain);
    test::backward(ctx, model, data, sink);
    // Both sum the same stored operands; the plain sum has chains of B T products in compute precision.
    double scale = 0;
    for (const auto& sites : book.lists())
      for (index_t i = 0; i < samples; ++i)
        scale += sites[0].form == SiteForm::vector ? test::norm(test::oracle_gradient(sites, i))
                                                   : per_sample::RowNorms(ctx, sites).product_sum(i);
    const double u = unit_roundoff(accumulate_dtype(dtype));
    CHECK(test::distance(test::weighted(ctx, model, book, factors), test::flat(plain)) <=
          2 * double(samples * 24 + 4) * u * scale);
  }
}

TEST_CASE("P12: micro-batches of 1..B give the same sum") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const index_t samples = 6;
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    CAPTURE(name_of(dtype));
    nn::Transformer model(ctx, config(false), dtype);
    const test::Tokens data = test::random_tokens(ctx, rng, samples, 12, 23);
    const std::vector<float> factors = random_factors(rng, samples);
    std::vector<double> whole;
    for (index_t micro = samples; micro >= 1; --micro) {
      GradientSums sums(ctx, model.parameters().all());
      for (index_t first = 0; first < samples; first += micro) {
        const index_t last = std::min(first + micro, samples);
        BookKeepingSink book;
        test::backward(ctx, model, data.rows(first, last), book);
        book.weighted_sum(ctx, std::span<const float>(factors).subspan(std::size_t(first), std::size_t(last - first)), sums);
      }
      const std::vector<double> sum = test::flat(sums);
      if (micro == samples) whole = sum;
      // Low precision: products may sum in another order at another batch size, and each stored activation then differs by
      // up to an ulp; the network of 2 blocks has about 40 such roundings between input and gradient (docs/numerics.md).
      const double bound = dtype == DType::f32 ? 1e-6 : 40 * unit_roundoff(dtype);
      CAPTURE(micro);
      CHECK(test::distance(sum, whole) <= bound * test::norm(whole));
    }
  }
}

namespace {
/// A two-layer network on real inputs with layer norm; its per-sample sites.
struct Network {
  Network(Context& ctx, DType dtype)
      : parameters(ctx, dtype, test::seed()),
        first(parameters / "first", 7, 9),
        norm(parameters / "norm", 9),
        second(parameters / "second", 9, 3) {}
  Variable losses(Tape& tape, const Tensor& x, const Tensor& y) const {
    return mean_squared_error(second(gelu(norm(first(tape.input(x))))), y);
  }
  void backward(Context& ctx, const Tensor& x, const Tensor& y, GradientSink& sink, const Tensor& weights = {}) const {
    Tape tape(ctx, x.shape().front());
    tape.backward(losses(tape, x, y), sink, weights);
  }
  nn::Parameters parameters;
  nn::Linear first;
  nn::LayerNorm norm;
  nn::Linear second;
};
}  // namespace

TEST_CASE("P8: a masked row may hold anything, NaN too, without changing a bit of the sum") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const Network network(ctx, dtype);
    const Tensor x = test::normal_tensor(ctx, rng, {4, 5, 7}, dtype),
                 y = test::normal_tensor(ctx, rng, {4, 5, 3}, DType::f32);
    const Tensor weights = Tensor::from(ctx, {4}, DType::f32, std::vector<double>{1, 0, 1, 1});
    const auto released = [&](const Tensor& inputs) {
      BookKeepingSink book;
      network.backward(ctx, inputs, y, book, weights);
      const NormBounds bounds = book.norms(ctx, 4);
      std::vector<std::uint8_t> ok = bounds.finite();
      ok[1] = 0;
      std::vector<float> factors(4);
      dp::FlatClipping(0.05).factors(bounds.upper(), ok, factors);
      GradientSums sums(ctx, network.parameters.all());
      book.weighted_sum(ctx, factors, sums);
      return test::flat(sums);
    };
    const std::vector<double> clean = released(x);
    CHECK(test::norm(clean) > 0.05);
    for (double garbage : {1e4, -3.0, double(INFINITY), double(NAN)}) {
      Tensor changed = x.clone(ctx);
      dispatch_real(dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        for (index_t k = 35; k < 70; ++k) changed.data<T>()[k] = from_float<T>(compute_t<T>(garbage));
      });
      CHECK(released(changed) == clean);
    }
  }
}

TEST_CASE("P15: changing one sample leaves every other sample's contribution bit-identical") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    nn::Transformer model(ctx, config(true), dtype);
    test::Tokens data = test::random_tokens(ctx, rng, 5, 12, 23);
    const index_t j = rng.integer(0, 4);
    const auto contributions = [&] {
      BookKeepingSink book;
      test::backward(ctx, model, data, book);
      const NormBounds bounds = book.norms(ctx, 5);
      std::vector<std::vector<double>> all;
      for (index_t i = 0; i < 5; ++i) {
        std::vector<float> factors(5), alone(5, 0.0f);
        dp::FlatClipping(0.1).factors(bounds.upper(), bounds.finite(), factors);
        alone[std::size_t(i)] = factors[std::size_t(i)];
        all.push_back(test::weighted(ctx, model, book, alone));
      }
      return all;
    };
    const auto before = contributions();
    for (index_t t = 0; t < 12; ++t) data.ids.data<std::int32_t>()[j * 12 + t] = std::int32_t(rng.integer(0, 22));
    const auto after = contributions();
    for (index_t i = 0; i < 5; ++i) CHECK((after[std::size_t(i)] == before[std::size_t(i)]) == (i != j));
  }
}

TEST_CASE("frozen parameters hand over nothing, and the others keep their gradients") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::Transformer model(ctx, config(false), DType::f32);
  const test::Tokens data = test::random_tokens(ctx, rng, 3, 12, 23);
  MaterialisedSink all, some;
  test::backward(ctx, model, data, all);
  const Parameter& kept = model.parameters().find("block0.mlp.up.weight");
  const std::vector<double> before = all.gradients(ctx, kept).to_doubles();
  for (Parameter* p : model.parameters().all()) p->set_trainable(p == &kept);
  test::backward(ctx, model, data, some);
  CHECK(some.lists().size() == 1);
  CHECK(some.gradients(ctx, kept).to_doubles() == before);
}

TEST_CASE("P32: several views of a record, averaged inside its loss, are one gradient that is clipped once") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Network network(ctx, dtype);
    const index_t samples = 4;
    const int views = 3;
    const Tensor y = test::normal_tensor(ctx, rng, {samples, 5, 3}, DType::f32);
    std::vector<Tensor> x;
    for (int k = 0; k < views; ++k) x.push_back(test::normal_tensor(ctx, rng, {samples, 5, 7}, dtype));
    // The mean of the views' gradients, view by view.
    std::vector<std::vector<double>> mean(std::size_t(samples),
                                          std::vector<double>(std::size_t(network.parameters.numel())));
    for (const Tensor& view : x) {
      MaterialisedSink sink;
      network.backward(ctx, view, y, sink);
      for (index_t i = 0; i < samples; ++i) {
        std::size_t at = 0;
        for (const Parameter* p : network.parameters.all())
          for (const double g : sink.gradients(ctx, *p).rows(i, i + 1).to_doubles()) mean[std::size_t(i)][at++] += g / views;
      }
    }
    Tape tape(ctx, samples);
    Variable losses = scale(network.losses(tape, x[0], y), 1.0 / views);
    for (int k = 1; k < views; ++k) losses = add(losses, scale(network.losses(tape, x[std::size_t(k)], y), 1.0 / views));
    BookKeepingSink book;
    tape.backward(losses, book);
    const NormBounds bounds = book.norms(ctx, samples);
    const double threshold = 0.5 * test::norm(mean[0]);
    for (index_t i = 0; i < samples; ++i) {
      // Forward, backward and the two scalings round a stored value about 12 times between an input and its gradient.
      const double norm = test::norm(mean[std::size_t(i)]),
                   tolerance = dtype == DType::f32 ? 1e-5 : 12 * unit_roundoff(dtype);
      CHECK(bounds.norm(i) == doctest::Approx(norm).epsilon(tolerance));
      std::vector<float> alone(std::size_t(samples), 0.0f), factors(alone);
      dp::FlatClipping(threshold).factors(bounds.upper(), bounds.finite(), factors);
      alone[std::size_t(i)] = factors[std::size_t(i)];
      GradientSums sums(ctx, network.parameters.all());
      book.weighted_sum(ctx, alone, sums);
      CHECK(test::norm(test::flat(sums)) <= threshold);
    }
  }
}

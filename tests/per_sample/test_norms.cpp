// SPDX-License-Identifier: Apache-2.0
// Squared norms, per-sample gradients and weighted sums of every form and method against triple loops in double.
#include <doctest/doctest.h>

#include "dpmp/per_sample/per_sample.hpp"
#include "per_sample/many_vectors.hpp"
#include "support/oracle.hpp"
#include "support/tensors.hpp"

namespace {
using namespace dpmp;
using per_sample::NormBounds;
using per_sample::NormMethod;
using per_sample::SiteList;

constexpr DType dtypes[] = {DType::f32, DType::bf16, DType::f16, DType::f64};

struct Case {
  std::string name;
  std::unique_ptr<Parameter> parameter;
  SiteList sites;
};

Parameter* make(Context& ctx, Case& c, const Shape& shape, DType dtype) {
  c.parameter = std::make_unique<Parameter>(ctx, c.name, Tensor::zeros(ctx, shape, accumulate_dtype(dtype)), dtype);
  return c.parameter.get();
}

/// One parameter with `dense` dense uses and `one_hot` uses by id (padding among the ids), random sizes.
Case outer_case(Context& ctx, test::Rng& rng, DType dtype, int dense, int one_hot, index_t samples, index_t tokens) {
  Case c;
  c.name = dpmp::detail::concat(dense, " dense, ", one_hot, " one-hot, B ", samples, ", T ", tokens, ", ", dtype);
  const index_t p = rng.integer(1, 40), d = rng.integer(1, 40);
  Parameter* w = make(ctx, c, {p, d}, dtype);
  for (int k = 0; k < dense; ++k)
    c.sites.push_back(ParameterSite::outer_product(*w, test::normal_tensor(ctx, rng, {samples, tokens, d}, dtype),
                                                   test::normal_tensor(ctx, rng, {samples, tokens, p}, dtype)));
  for (int k = 0; k < one_hot; ++k)
    c.sites.push_back(ParameterSite::outer_product(*w, test::normal_tensor(ctx, rng, {samples, tokens, d}, dtype),
                                                   test::id_tensor(ctx, rng, {samples, tokens}, -1, int(p) - 1)));
  return c;
}

/// What a factor of 1 releases of one sample, in float64.
double released_norm(Context& ctx, const Case& c, index_t sample) {
  std::vector<float> alone(std::size_t(c.sites[0].samples()), 0.0f);
  alone[std::size_t(sample)] = 1;
  const Tensor sum = Tensor::zeros(ctx, c.parameter->shape(), DType::f64);
  per_sample::weighted_sum(ctx, c.sites, alone, sum);
  return test::norm(sum.to_doubles());
}

/// Computed and certified norms against the float64 norm of the stored operands, and of what is released of them, which is
/// what the certificate is about. S: sum_t |a_t||b_t|; what rounding may do is proportional to it, and it is far above the
/// norm where random rows happen to cancel.
void check_bounds(Context& ctx, const Case& c, const NormBounds& bounds) {
  for (index_t i = 0; i < bounds.samples(); ++i) {
    CAPTURE(i);
    const double exact = test::norm(test::oracle_gradient(c.sites, i));
    double S = exact;
    for (const ParameterSite& site : c.sites)
      if (site.form == SiteForm::outer_product) S += per_sample::RowNorms(ctx, {site}).product_sum(i);
    CHECK(bounds.finite()[std::size_t(i)] == 1);
    CHECK(std::fabs(bounds.norm(i) * bounds.norm(i) - exact * exact) <= 1e-5 * S * S);
    CHECK(bounds.upper(i) >= released_norm(ctx, c, i));
    double terms = 4;  // roundings between a product and its element of a released tile
    for (const ParameterSite& site : c.sites) terms += site.form == SiteForm::vector ? 1.0 : double(site.b.shape()[1]);
    CHECK(bounds.upper(i) >= exact - per_sample::gamma(terms, 0x1p-24) * S);
    CHECK(bounds.upper(i) * bounds.upper(i) <= exact * exact + 1e-4 * S * S + 1e-30);  // 1e-30: the underflow terms
    if (S < 10 * exact) CHECK(std::fabs(bounds.norm(i) - exact) <= 1e-5 * exact);
  }
}
}  // namespace

TEST_CASE("P13: every method's norm is the float64 norm of the stored operands") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : dtypes)
    for (auto [dense, one_hot] : {std::pair{1, 0}, {0, 1}, {1, 1}, {2, 0}, {3, 0}, {0, 2}, {2, 2}})
      for (index_t tokens : {index_t(1), index_t(2), rng.integer(3, 30)}) {
        const Case c = outer_case(ctx, rng, dtype, dense, one_hot, rng.integer(1, 5), tokens);
        CAPTURE(c.name);
        std::vector<NormMethod> methods{NormMethod::instantiate, NormMethod::gram};
        if (dense == 0) methods = {NormMethod::instantiate, NormMethod::gram, NormMethod::segments};
        if (dense == 1 && one_hot == 0 && tokens == 1) methods.push_back(NormMethod::rank_one);
        for (NormMethod method : methods) {
          CAPTURE(int(method));
          NormBounds bounds(c.sites[0].samples());
          per_sample::squared_norms_outer(ctx, c.sites, bounds, method);
          check_bounds(ctx, c, bounds);
        }
        NormBounds bounds(c.sites[0].samples());
        per_sample::squared_norm(ctx, c.sites, bounds);
        check_bounds(ctx, c, bounds);
      }
}

TEST_CASE("P13: per-sample gradients and weighted sums of the same operands, empty batches and no tokens included") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : dtypes)
    for (auto [dense, one_hot] : {std::pair{1, 0}, {0, 1}, {1, 1}, {2, 1}})
      for (index_t samples : {index_t(0), index_t(1), index_t(4)})
        for (index_t tokens : {index_t(0), index_t(1), rng.integer(2, 30)}) {
          const Case c = outer_case(ctx, rng, dtype, dense, one_hot, samples, tokens);
          CAPTURE(c.name);
          const std::vector<double> gradients = per_sample::per_sample_gradient(ctx, c.sites).to_doubles();
          std::vector<float> factors(std::size_t(samples), 0.0f);
          for (float& f : factors) f = float(rng.uniform());
          const Tensor sum = Tensor::zeros(ctx, c.parameter->shape(), DType::f64);
          per_sample::weighted_sum(ctx, c.sites, factors, sum);
          const std::size_t n = std::size_t(c.parameter->numel());
          std::vector<double> expected(n, 0.0);
          double scale = 0;
          for (index_t i = 0; i < samples; ++i) {
            const std::vector<double> g = test::oracle_gradient(c.sites, i);
            const per_sample::RowNorms rows(ctx, c.sites);
            // The released tile is within gamma_R S of the exact gradient; u for the factor's product.
            const double S = rows.product_sum(i), u = unit_roundoff(accumulate_dtype(dtype));
            const double bound = per_sample::gamma(double(per_sample::total_tokens(c.sites)) + 4, u) * S;
            scale += bound * double(factors[std::size_t(i)]);
            CHECK(test::distance({gradients.data() + std::size_t(i) * n, n}, g) <= bound);
            for (std::size_t j = 0; j < n; ++j) expected[j] += double(factors[std::size_t(i)]) * g[j];
          }
          CHECK(test::distance(sum.to_doubles(), expected) <= scale + 1e-14 * test::norm(expected));
        }
}

TEST_CASE("P14: tied and reused weights: the norm is that of the sum, not the sum of squares") {
  Context ctx(Device::cpu(), 1);
  // Two uses with the same rows: the gradient doubles, its square is 4 times one use's, twice the naive sum of squares.
  Case c;
  c.name = "aligned";
  Parameter* w = make(ctx, c, {3, 2}, DType::f32);
  const Tensor a = Tensor::from(ctx, {1, 2, 2}, DType::f32, std::vector<double>{1, 2, -1, 0.5}),
               b = Tensor::from(ctx, {1, 2, 3}, DType::f32, std::vector<double>{1, 0, 2, 0.5, 1, -1});
  c.sites = {ParameterSite::outer_product(*w, a, b)};
  const double single = test::norm(test::oracle_gradient(c.sites, 0));
  c.sites.push_back(c.sites[0]);
  for (NormMethod method : {NormMethod::gram, NormMethod::instantiate}) {
    NormBounds bounds(1);
    per_sample::squared_norms_outer(ctx, c.sites, bounds, method);
    CHECK(bounds.norm(0) == doctest::Approx(2 * single).epsilon(1e-6));
    CHECK(bounds.norm(0) > 1.4 * std::sqrt(2 * single * single) * 0.99);
  }
}

TEST_CASE("P13: vectors, several vectors of one parameter, and vectors mixed with outer products") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : dtypes) {
    Case c;
    c.name = "vectors";
    const index_t p = rng.integer(1, 30), d = rng.integer(1, 30), samples = 3;
    Parameter* w = make(ctx, c, {p, d}, dtype);
    const ParameterSite prefix =
        ParameterSite::vector(*w, test::normal_tensor(ctx, rng, {samples, rng.integer(1, p * d)}, dtype));
    const ParameterSite whole = ParameterSite::vector(*w, test::normal_tensor(ctx, rng, {samples, p * d}, dtype));
    const ParameterSite outer = ParameterSite::outer_product(*w, test::normal_tensor(ctx, rng, {samples, 4, d}, dtype),
                                                             test::normal_tensor(ctx, rng, {samples, 4, p}, dtype));
    for (const SiteList& sites : {SiteList{prefix}, SiteList{whole}, SiteList{prefix, whole}, SiteList{outer, prefix}}) {
      c.sites = sites;
      NormBounds bounds(samples);
      per_sample::squared_norm(ctx, c.sites, bounds);
      check_bounds(ctx, c, bounds);
      const Tensor sum = Tensor::zeros(ctx, w->shape(), DType::f64);
      per_sample::weighted_sum(ctx, c.sites, std::vector<float>{1, 0, 0.5f}, sum);
      const std::vector<double> g0 = test::oracle_gradient(c.sites, 0), g2 = test::oracle_gradient(c.sites, 2);
      std::vector<double> expected(g0.size());
      for (std::size_t j = 0; j < g0.size(); ++j) expected[j] = g0[j] + 0.5 * g2[j];
      CHECK(test::distance(sum.to_doubles(), expected) <= 1e-5 * (test::norm(g0) + test::norm(g2)));
    }
  }
}

TEST_CASE("biases of many parameters: their vectors, norms and weighted sums") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const index_t samples : {0, 1, 6, 9}) test::check_many_vectors(ctx, rng, samples);
}

TEST_CASE("the method is chosen by public shapes") {
  Context ctx(Device::cpu(), 1);
  const auto method = [&](index_t p, index_t d, index_t tokens, bool one_hot) {
    Parameter w(ctx, "w", Tensor::zeros(ctx, {p, d}, DType::f32), DType::f32);
    const Tensor b = one_hot ? Tensor::zeros(ctx, {1, tokens}, DType::i32) : Tensor::zeros(ctx, {1, tokens, p}, DType::f32);
    return per_sample::choose_norm_method(
        {ParameterSite::outer_product(w, Tensor::zeros(ctx, {1, tokens, d}, DType::f32), b)});
  };
  CHECK(method(256, 64, 1, false) == NormMethod::rank_one);
  CHECK(method(256, 64, 1, true) == NormMethod::segments);
  CHECK(method(768, 768, 128, false) == NormMethod::gram);
  CHECK(method(96, 96, 128, false) == NormMethod::instantiate);
}

TEST_CASE("sites that do not fit together are refused") {
  Context ctx(Device::cpu(), 1);
  Parameter w(ctx, "w", Tensor::zeros(ctx, {3, 2}, DType::f32), DType::f32),
      v(ctx, "v", Tensor::zeros(ctx, {3, 2}, DType::f32), DType::f32);
  const Tensor a = Tensor::zeros(ctx, {2, 4, 2}, DType::f32), b = Tensor::zeros(ctx, {2, 4, 3}, DType::f32);
  NormBounds bounds(2), other(3);
  CHECK_THROWS_AS(per_sample::squared_norm(ctx, {}, bounds), Error);
  CHECK_THROWS_AS(
      per_sample::squared_norm(ctx, {ParameterSite::outer_product(w, a, b), ParameterSite::outer_product(v, a, b)}, bounds),
      Error);
  CHECK_THROWS_AS(per_sample::squared_norm(ctx, {ParameterSite::outer_product(w, a, b)}, other), Error);
  CHECK_THROWS_AS(ParameterSite::outer_product(w, b, a), Error);
  CHECK_THROWS_AS(ParameterSite::vector(w, Tensor::zeros(ctx, {2, 7}, DType::f32)), Error);
  const Tensor f32_sum = Tensor::zeros(ctx, {3, 2}, DType::f32), sum = Tensor::zeros(ctx, {3, 2}, DType::f64);
  CHECK_THROWS_AS(
      per_sample::weighted_sum(ctx, {ParameterSite::outer_product(w, a, b)}, std::vector<float>(2, 1.0f), f32_sum), Error);
  CHECK_THROWS_AS(per_sample::weighted_sum(ctx, {ParameterSite::outer_product(w, a, b)}, std::vector<float>(3, 1.0f), sum),
                  Error);
}

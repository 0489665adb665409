// SPDX-License-Identifier: Apache-2.0
// Certified clipping on adversarial operands: what is released of a sample has a float64 norm of at most C. No tolerance.
#include <doctest/doctest.h>

#include "dpmp/dp/clipping.hpp"
#include "dpmp/per_sample/per_sample.hpp"
#include "dpmp/tensor/elementwise.hpp"
#include "support/oracle.hpp"
#include "support/tensors.hpp"

namespace {
using namespace dpmp;
using per_sample::NormBounds;
using per_sample::NormMethod;
using per_sample::SiteList;

/// Fills a [T, d] and b [T, p] of one sample.
using Filler = void (*)(test::Rng&, index_t tokens, index_t d, index_t p, std::vector<double>& a, std::vector<double>& b);

void random_rows(test::Rng& rng, index_t, index_t, index_t, std::vector<double>& a, std::vector<double>& b) {
  for (double& v : a) v = rng.normal();
  for (double& v : b) v = rng.normal();
}
void equal_tokens(test::Rng& rng, index_t tokens, index_t d, index_t p, std::vector<double>& a, std::vector<double>& b) {
  random_rows(rng, tokens, d, p, a, b);
  for (std::size_t k = std::size_t(d); k < a.size(); ++k) a[k] = a[k - std::size_t(d)];
  for (std::size_t k = std::size_t(p); k < b.size(); ++k) b[k] = b[k - std::size_t(p)];
}
/// Neighbouring tokens cancel up to a small remainder: S^2 / |G|^2 is about 1e6.
void cancelling(test::Rng& rng, index_t tokens, index_t d, index_t p, std::vector<double>& a, std::vector<double>& b) {
  equal_tokens(rng, tokens, d, p, a, b);
  for (double& v : a) v *= 1 + 1e-3 * rng.normal();
  for (index_t t = 1; t < tokens; t += 2)
    for (index_t k = 0; k < p; ++k) b[std::size_t(t * p + k)] *= -1;
}
void one_huge_token(test::Rng& rng, index_t tokens, index_t d, index_t p, std::vector<double>& a, std::vector<double>& b) {
  random_rows(rng, tokens, d, p, a, b);
  const index_t t = rng.integer(0, tokens - 1);
  for (index_t k = 0; k < d; ++k) a[std::size_t(t * d + k)] *= 200;
  for (index_t k = 0; k < p; ++k) b[std::size_t(t * p + k)] *= 200;
}
/// FP32 squares of b underflow to 0 although the gradient is far above C.
void underflowing_squares(test::Rng& rng, index_t, index_t, index_t, std::vector<double>& a, std::vector<double>& b) {
  for (double& v : a) v = 5e17 * (1 + 0.1 * rng.normal());
  for (double& v : b) v = 1e-23 * (1 + 0.1 * rng.normal());
}
void denormals(test::Rng& rng, index_t, index_t, index_t, std::vector<double>& a, std::vector<double>& b) {
  for (double& v : a) v = 1e30 * rng.normal();
  for (double& v : b) v = 0x1p-130 * rng.normal();
}
void large(test::Rng& rng, index_t, index_t, index_t, std::vector<double>& a, std::vector<double>& b) {
  for (double& v : a) v = 6e4 * rng.uniform(-1, 1);
  for (double& v : b) v = 6e4 * rng.uniform(-1, 1);
}

struct Adversary {
  const char* name;
  Filler fill;
};
constexpr Adversary adversaries[] = {{"random", random_rows},
                                     {"equal tokens", equal_tokens},
                                     {"cancelling", cancelling},
                                     {"one huge token", one_huge_token},
                                     {"underflowing squares", underflowing_squares},
                                     {"denormals", denormals},
                                     {"large", large}};

SiteList sites_of(Context& ctx, test::Rng& rng, Parameter& w, DType dtype, index_t samples, index_t tokens, Filler fill) {
  const index_t p = w.shape()[0], d = w.shape()[1];
  std::vector<double> a, b;
  for (index_t i = 0; i < samples; ++i) {
    std::vector<double> ai(std::size_t(tokens * d)), bi(std::size_t(tokens * p));
    fill(rng, tokens, d, p, ai, bi);
    a.insert(a.end(), ai.begin(), ai.end());
    b.insert(b.end(), bi.begin(), bi.end());
  }
  const auto stored = [&](const Shape& shape, const std::vector<double>& values) {
    // Through a store of the library, which flushes bf16 denormals.
    return cast(ctx, Tensor::from(ctx, shape, DType::f32, values), dtype);
  };
  return {ParameterSite::outer_product(w, stored({samples, tokens, d}, a), stored({samples, tokens, p}, b))};
}

/// Releases every sample alone and checks the one criterion.
void check_released(Context& ctx, const SiteList& sites, const NormBounds& bounds, double threshold) {
  std::vector<float> factors(std::size_t(bounds.samples()));
  dp::FlatClipping(threshold).factors(bounds.upper(), bounds.finite(), factors);
  for (index_t i = 0; i < bounds.samples(); ++i) {
    std::vector<float> alone(factors.size(), 0.0f);
    alone[std::size_t(i)] = factors[std::size_t(i)];
    const Tensor sum = Tensor::zeros(ctx, sites[0].parameter->shape(), DType::f64);
    per_sample::weighted_sum(ctx, sites, alone, sum);
    const double released = test::norm(sum.to_doubles());
    CAPTURE(i);
    CHECK(released <= threshold);
    // Clipping is not a way out: a finite sample above the threshold releases nearly all of it, as far as its certificate
    // allows.
    const double exact = test::norm(test::oracle_gradient(sites, i));
    if (bounds.finite()[std::size_t(i)] && exact > threshold && bounds.upper(i) < 1.01 * exact)
      CHECK(released > 0.98 * threshold);
  }
}
}  // namespace

TEST_CASE("P1, P24: nothing above C is released, whatever the operands") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const index_t samples = 3;
  for (DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const Adversary& adversary : adversaries)
      for (index_t tokens : {index_t(1), rng.integer(2, 8), rng.integer(60, 200)}) {
        CAPTURE(adversary.name);
        CAPTURE(tokens);
        CAPTURE(name_of(dtype));
        Parameter w(ctx, "w", Tensor::zeros(ctx, {rng.integer(1, 60), rng.integer(1, 60)}, DType::f32), dtype);
        const SiteList sites = sites_of(ctx, rng, w, dtype, samples, tokens, adversary.fill);
        std::vector<NormMethod> methods{NormMethod::instantiate, NormMethod::gram};
        if (tokens == 1) methods.push_back(NormMethod::rank_one);
        for (NormMethod method : methods) {
          CAPTURE(int(method));
          NormBounds bounds(samples);
          per_sample::squared_norms_outer(ctx, sites, bounds, method);
          for (index_t i = 0; i < samples; ++i)
            if (bounds.finite()[std::size_t(i)]) {
              const double exact = test::norm(test::oracle_gradient(sites, i)), upper = bounds.upper(i);
              // gamma S^2 + eta, from the formula and not from the implementation's constants.
              const per_sample::RowNorms rows(ctx, sites);
              const double S = rows.product_sum(i), n = double(w.shape()[0] + w.shape()[1] + tokens + 64), u = 0x1p-24;
              // It bounds what is released, which the FP32 sums over tokens may put below the exact gradient.
              std::vector<float> whole(std::size_t(samples), 0.0f);
              whole[std::size_t(i)] = 1;
              const Tensor sum = Tensor::zeros(ctx, w.shape(), DType::f64);
              per_sample::weighted_sum(ctx, sites, whole, sum);
              CHECK(upper >= test::norm(sum.to_doubles()));
              CHECK(upper >=
                    exact - 1.1 * double(tokens + 4) * u * S - 0x1p-124 * double(tokens) * std::sqrt(double(w.numel())));
              if (method == NormMethod::gram) {
                const double a = 1.01 * rows.input_sum(i), b = 1.01 * rows.output_sum(i);
                const double eta = 0x1p-124 * (double(w.shape()[1]) * b * b + double(w.shape()[0]) * a * a +
                                               double(tokens) * double(tokens));
                CHECK(std::fabs(bounds.norm(i) * bounds.norm(i) - exact * exact) <=
                      1.1 * n * u * S * S + eta + 1e-12 * exact * exact);
              } else {
                CHECK(std::fabs(bounds.norm(i) - exact) <= 1.1 * n * u * S + 1e-19 * std::sqrt(double(w.numel())));
              }
            }
          for (double threshold : {1.0, 1e-3}) check_released(ctx, sites, bounds, threshold);
        }
      }
}

TEST_CASE("P24: a long accumulation chain") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  Parameter w(ctx, "w", Tensor::zeros(ctx, {2, 3}, DType::f32), DType::f32);
  const SiteList sites =
      sites_of(ctx, rng, w, DType::f32, 2, 65536,
               [](test::Rng& r, index_t, index_t, index_t, std::vector<double>& a, std::vector<double>& b) {
                 for (double& v : a) v = 1 + 0.01 * r.uniform();
                 for (double& v : b) v = 1 + 0.01 * r.uniform();
               });
  NormBounds bounds(2);
  per_sample::squared_norm(ctx, sites, bounds);
  check_released(ctx, sites, bounds, 1.0);
}

TEST_CASE("P9: Inf and NaN anywhere in a sample remove that sample and change no bit of another") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const double bad[] = {INFINITY, -INFINITY, NAN};
  for (DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (NormMethod method : {NormMethod::instantiate, NormMethod::gram}) {
      Parameter w(ctx, "w", Tensor::zeros(ctx, {17, 33}, DType::f32), dtype);
      const SiteList clean = sites_of(ctx, rng, w, dtype, 4, 20, random_rows);
      SiteList broken = clean;
      broken[0].a = clean[0].a.clone(ctx);
      broken[0].b = clean[0].b.clone(ctx);
      const bool in_a = rng.integer(0, 1) == 1;
      const Tensor& victim = in_a ? broken[0].a : broken[0].b;
      const index_t per_sample_size = victim.numel() / 4, at = 2 * per_sample_size + rng.integer(0, per_sample_size - 1);
      dispatch_real(dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        victim.data<T>()[at] = from_float<T>(compute_t<T>(bad[rng.integer(0, 2)]));
      });
      NormBounds before(4), after(4);
      per_sample::squared_norms_outer(ctx, clean, before, method);
      per_sample::squared_norms_outer(ctx, broken, after, method);
      CHECK(after.finite() == std::vector<std::uint8_t>{1, 1, 0, 1});
      std::vector<float> factors(4), expected(4);
      dp::FlatClipping(1.0).factors(before.upper(), std::vector<std::uint8_t>{1, 1, 0, 1}, expected);
      dp::FlatClipping(1.0).factors(after.upper(), after.finite(), factors);
      CHECK(factors == expected);
      const Tensor want = Tensor::zeros(ctx, w.shape(), DType::f64), got = Tensor::zeros(ctx, w.shape(), DType::f64);
      per_sample::weighted_sum(ctx, clean, expected, want);
      per_sample::weighted_sum(ctx, broken, factors, got);
      CHECK(got.to_doubles() == want.to_doubles());
    }
}

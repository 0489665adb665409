// SPDX-License-Identifier: Apache-2.0
// What a certificate costs: how far the bound that clips is above the exact norm, where the automatic choice decides.
#include <doctest/doctest.h>

#include <array>
#include <cmath>

#include "dpmp/per_sample/per_sample.hpp"
#include "support/random.hpp"
#include "support/tensors.hpp"

namespace {
using namespace dpmp;
using per_sample::NormMethod;

constexpr std::array dtypes{DType::f32, DType::bf16, DType::f16};

/// Between 1 and `most`, each size of it as likely in the logarithm.
index_t size_up_to(test::Rng& rng, double most) { return index_t(std::exp2(rng.uniform(0, std::log2(most)))); }
}  // namespace

TEST_CASE("P1: the automatic choice takes no method whose certificate costs more than 1 %, at any size") {
  test::Rng rng;
  int grams = 0, tiles = 0;
  for (int draw = 0; draw < 20000; ++draw)
    for (const bool on_cuda : {false, true})
      for (const DType dtype : dtypes) {
        const per_sample::SiteShape shape{.samples = 4,
                                          .tokens = size_up_to(rng, 8192),
                                          .p = size_up_to(rng, 262144),
                                          .d = size_up_to(rng, 262144),
                                          .dtype = dtype,
                                          .on_cuda = on_cuda};
        const NormMethod method = per_sample::choose_norm_method(shape);
        CHECK(per_sample::predicted_slack(shape, method) <= 0.01);
        (method == NormMethod::gram ? grams : tiles) += 1;
      }
  CHECK(grams > 1000);
  CHECK(tiles > 1000);
}

TEST_CASE("P1: what a certificate is predicted to cost is what it costs for orthogonal tokens") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const DType dtype : dtypes)
    for (const NormMethod method : {NormMethod::gram, NormMethod::instantiate})
      for (const index_t tokens : {index_t(2), rng.integer(3, 40), index_t(200)}) {
        CAPTURE(dtype);
        CAPTURE(int(method));
        CAPTURE(tokens);
        // Token t has a one in column t alone, and signs for gradients: every product and every sum is a whole number, so
        // that |G|^2 = T p is met exactly, and all of upper - norm is the certificate.
        const index_t p = rng.integer(1, 60), d = tokens + rng.integer(0, 20);
        Parameter w(ctx, "w", Tensor::zeros(ctx, {p, d}, accumulate_dtype(dtype)), dtype);
        std::vector<double> a(std::size_t(tokens * d), 0.0), b(std::size_t(tokens * p));
        for (index_t t = 0; t < tokens; ++t) a[std::size_t(t * d + t)] = 1;
        for (double& v : b) v = rng.uniform() < 0.5 ? -1 : 1;
        const per_sample::SiteList sites{ParameterSite::outer_product(w, Tensor::from(ctx, {1, tokens, d}, dtype, a),
                                                                      Tensor::from(ctx, {1, tokens, p}, dtype, b))};
        per_sample::NormBounds bounds(ctx, 1);
        per_sample::squared_norms_outer(ctx, sites, bounds, method);
        const double exact = std::sqrt(double(tokens * p)), cost = bounds.upper()[0] / exact - 1,
                     predicted = per_sample::predicted_slack(per_sample::shape_of(sites), method);
        CHECK(cost >= 0);
        // The table of norms takes 1.01 of what multiplies a certificate, for the roundings of its own arithmetic
        // (kernels/norm_table.hpp); one rounding of FP32 is far more than those that are left.
        CHECK(cost >= predicted - 0x1p-48);
        CHECK(cost <= 1.01 * predicted + 0x1p-24);
      }
}

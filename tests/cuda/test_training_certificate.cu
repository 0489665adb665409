// SPDX-License-Identifier: Apache-2.0
// Certified clipping on a GPU: norms, clip factors and sums of adversarial operands by its kernels, every sample released
// alone. The float64 norm of what comes out is at most C. No tolerance.
#include "dpmp/gemm/cublaslt.cuh"
#include "dpmp/per_sample/per_sample.hpp"
#include "dpmp/runtime/cuda_backend.cuh"
#include "dpmp/train/clip_factors.hpp"
#include "per_sample/adversarial_trial.hpp"
#include "per_sample/adversaries.hpp"

namespace {
using namespace dpmp;
using per_sample::GradientStorage;
using per_sample::NormBounds;
using per_sample::NormMethod;
using per_sample::SiteList;

SiteList drawn_sites(Context& ctx, test::Rng& rng, Parameter& w, DType dtype, index_t samples, index_t tokens,
                     const test::Adversary& adversary) {
  const index_t p = w.shape()[0], d = w.shape()[1];
  std::vector<double> a, b;
  for (index_t i = 0; i < samples; ++i) {
    test::AdversarialRows x{.tokens = tokens, .d = d, .p = p};
    adversary.fill(rng, x);
    if (i == 0 && rng.integer(0, 2) == 0) test::plant_non_finite(rng, x);
    a.insert(a.end(), x.a.begin(), x.a.end());
    b.insert(b.end(), x.b.begin(), x.b.end());
  }
  return {ParameterSite::outer_product(w, test::stored(ctx, {samples, tokens, d}, dtype, a),
                                       test::stored(ctx, {samples, tokens, p}, dtype, b))};
}

/// A way to a norm, or gradients that are kept as `storage` says.
struct Way {
  NormMethod method;
  GradientStorage storage = GradientStorage::accumulate;
};

test::Released release(Context& ctx, const SiteList& sites, const Way& way, const dp::FlatClipping& clipping) {
  const index_t samples = sites[0].samples();
  NormBounds bounds(ctx, samples);
  SiteList released = sites;
  if (way.method == NormMethod::stored) {
    const Tensor gradients = per_sample::stored_gradients_outer(
                                 ctx, sites, bounds, per_sample::kept_dtype(per_sample::shape_of(sites), way.storage))
                                 .gradients;
    released = {ParameterSite::vector(*sites[0].parameter, gradients)};
  } else {
    per_sample::squared_norms_outer(ctx, sites, bounds, way.method);
  }
  const std::vector<index_t> slots(static_cast<std::size_t>(samples), 0);
  const per_sample::SampleFactors factors =
      train::clip_factors(ctx, bounds, slots, Tensor::full(ctx, {samples}, DType::f32, 1), clipping);
  test::Released r{
      .factors = std::vector<float>(std::size_t(samples)), .upper = bounds.upper(), .ok = bounds.finite(), .alone = {}};
  ctx.backend().copy_out(r.factors.data(), factors.on(ctx), samples * index_t(sizeof(float)));
  for (std::size_t i = 0; i < r.factors.size(); ++i) {
    std::vector<float> alone(r.factors.size(), 0.0f);
    alone[i] = r.factors[i];
    const Tensor sum = Tensor::zeros(ctx, sites[0].parameter->shape(), DType::f64);
    per_sample::weighted_sum(ctx, released, alone, sum);
    r.alone.push_back(sum.to_doubles());
  }
  return r;
}
}  // namespace

TEST_CASE("P1, P9, P24: on CUDA nothing above C is released, whatever the operands") {
  Context ctx(Device::cuda(0), 1);
  test::Rng rng;
  test::Tally tally;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const test::Adversary& adversary : test::adversaries)
      for (const index_t tokens : {index_t(1), rng.integer(2, 8), rng.integer(30, 70)}) {
        Parameter w(ctx, "w", Tensor::zeros(ctx, {rng.integer(1, 40), rng.integer(1, 40)}, DType::f32), dtype);
        const SiteList sites = drawn_sites(ctx, rng, w, dtype, 3, tokens, adversary);
        const std::vector<double> exact = test::exact_norms(sites);
        std::vector<Way> ways{{NormMethod::instantiate},
                              {NormMethod::gram},
                              {NormMethod::stored},
                              {NormMethod::stored, GradientStorage::compute}};
        if (tokens == 1) ways.push_back({NormMethod::rank_one});
        for (const Way& way : ways) {
          const double threshold = test::random_threshold(rng, exact[1]);
          const dp::ClipRule rule = test::random_rule(rng, threshold);
          judge(tally, release(ctx, sites, way, dp::FlatClipping(threshold, rule)), exact, threshold, rule, adversary.name,
                detail::concat(per_sample::name_of(way.method), way.storage == GradientStorage::compute ? ", narrow" : ""),
                detail::concat(dtype, ", ", tokens, " tokens, ", w.shape()));
        }
      }
  MESSAGE(tally.contributions << " contributions, " << tally.non_finite << " not finite, " << tally.tight << " tight");
  CHECK(tally.non_finite > 0);
  CHECK(tally.tight > 0);
  test::report(tally, "on CUDA");
}

namespace {
/// A table [p, d] in a dense product and looked up. cancel: the looked-up rows take back what the product gives, but for
/// roundings and a little.
SiteList tied_sites(Context& ctx, test::Rng& rng, Parameter& w, DType dtype, index_t samples, index_t tokens, bool cancel) {
  const index_t p = w.shape()[0], d = w.shape()[1];
  std::vector<double> a, b, looked_up;
  std::vector<std::int32_t> ids;
  for (index_t i = 0; i < samples * tokens; ++i) {
    const std::int32_t id = std::int32_t(rng.integer(0, p - 1));
    ids.push_back(!cancel && rng.integer(0, 9) == 0 ? -1 : id);
    for (index_t k = 0; k < d; ++k) a.push_back(rng.normal());
    for (index_t k = 0; k < d; ++k)
      looked_up.push_back(cancel ? -a[a.size() - std::size_t(d - k)] * (1 + 1e-3 * rng.normal()) : rng.normal());
    for (index_t k = 0; k < p; ++k) b.push_back(cancel ? (k == id ? 1 : 1e-4 * rng.normal()) : 0.1 * rng.normal());
  }
  return {ParameterSite::outer_product(w, test::stored(ctx, {samples, tokens, d}, dtype, a),
                                       test::stored(ctx, {samples, tokens, p}, dtype, b)),
          ParameterSite::outer_product(w, test::stored(ctx, {samples, tokens, d}, dtype, looked_up),
                                       Tensor::from(ctx, {samples, tokens}, ids))};
}
}  // namespace

TEST_CASE("P1, P14: on CUDA a tied table releases nothing above C, and little is lost where its parts do not cancel") {
  Context ctx(Device::cuda(0), 1);
  test::Rng rng(test::seed(), 5);
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const index_t tokens : {index_t(1), index_t(9), index_t(70)})
      for (const bool cancel : {false, true})
        for (const NormMethod method : {NormMethod::gram, NormMethod::instantiate}) {
          CAPTURE(dtype);
          CAPTURE(tokens);
          CAPTURE(cancel);
          CAPTURE(per_sample::name_of(method));
          Parameter w(ctx, "w", Tensor::zeros(ctx, {30, 21}, DType::f32), dtype);
          const SiteList sites = tied_sites(ctx, rng, w, dtype, 3, tokens, cancel);
          const std::vector<double> exact = test::exact_norms(sites);
          const double threshold = exact[0] / 3;
          const test::Released r = release(ctx, sites, {method}, dp::FlatClipping(threshold, dp::ClipRule::abadi()));
          for (std::size_t i = 0; i < exact.size(); ++i) {
            CHECK(test::norm(r.alone[i]) <= threshold);
            CHECK(r.upper[i] >= exact[i] * (1 - 1e-5));
            if (!cancel) CHECK(r.upper[i] <= 1.001 * exact[i]);
          }
        }
}

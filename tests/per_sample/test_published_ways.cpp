// SPDX-License-Identifier: Apache-2.0
// Published ways to clip and to sum, beside ours, on the same stored operands: each of theirs exceeds its bound, none of
// ours does. The printed rows are the table of docs/certified_clipping.md.
#include <doctest/doctest.h>

#include <cstdio>

#include "dpmp/per_sample/clipped_sum_sink.hpp"
#include "per_sample/adversarial_trial.hpp"
#include "per_sample/adversaries.hpp"
#include "support/gpt.hpp"

namespace {
using namespace dpmp;
using per_sample::NormBounds;
using per_sample::NormMethod;
using per_sample::SiteList;
using test::AdversarialRows;

/// One line of the table. bound: what the way claims, as a multiple of C (1 for a contribution).
void row(const char* way, const char* input, double theirs, double ours, double bound = 1) {
  std::printf("| %s | %s | %.6f | %.6f |\n", way, input, theirs, ours);
  CAPTURE(way);
  CAPTURE(input);
  CHECK(theirs > bound);
  CHECK(ours <= bound);
  CHECK(ours > 0.5 * bound);  // not by giving the gradient away
}

float rounded_to_bf16(float x) { return to_float(from_float<bf16>(x)); }

constexpr index_t draws = 20, tokens = 128, width = 64;

/// One parameter [width, width] and `draws` samples: independent rows, or pairs of tokens that cancel up to `remainder`.
struct Batch {
  Batch(Context& ctx, test::Rng& rng, DType dtype, double remainder)
      : w(ctx, "w", Tensor::zeros(ctx, {width, width}, DType::f32), dtype) {
    std::vector<double> a, b;
    for (index_t i = 0; i < draws; ++i) {
      AdversarialRows x{.tokens = tokens, .d = width, .p = width};
      test::adversary::random_rows(rng, x);
      if (remainder > 0)
        for (index_t t = 1; t < tokens; t += 2) {
          x.copy_token(t - 1, t, -1);
          for (index_t k = 0; k < width; ++k) x.at_a(t, k) *= 1 + remainder * rng.normal();
          for (index_t k = 0; k < width; ++k) x.at_b(t, k) *= 1 + remainder * rng.normal();
        }
      a.insert(a.end(), x.a.begin(), x.a.end());
      b.insert(b.end(), x.b.begin(), x.b.end());
    }
    sites = {ParameterSite::outer_product(w, test::stored(ctx, {draws, tokens, width}, dtype, a),
                                          test::stored(ctx, {draws, tokens, width}, dtype, b))};
    for (index_t i = 0; i < draws; ++i) exact.push_back(test::norm(test::oracle_gradient(sites, i)));
  }
  Parameter w;
  SiteList sites;
  std::vector<double> exact;  // float64 norms of the stored operands' gradients
};

/// Norm of what the library's weighted sum releases of sample i alone.
double released(Context& ctx, const SiteList& sites, index_t i, float factor) {
  std::vector<float> alone(std::size_t(sites[0].samples()), 0.0f);
  alone[std::size_t(i)] = factor;
  const Tensor sum = Tensor::zeros(ctx, sites[0].parameter->shape(), DType::f64);
  per_sample::weighted_sum(ctx, sites, alone, sum);
  return test::released_norm(sum.to_doubles());
}

/// Largest released / C of ours. thresholds: C of each sample.
double ours(Context& ctx, const SiteList& sites, const std::vector<double>& thresholds) {
  double largest = 0;
  for (NormMethod method : {NormMethod::gram, NormMethod::instantiate}) {
    NormBounds bounds(sites[0].samples());
    per_sample::squared_norms_outer(ctx, sites, bounds, method);
    for (index_t i = 0; i < bounds.samples(); ++i) {
      const double threshold = thresholds[std::size_t(i)], upper[] = {bounds.upper(i)};
      float factor[1];
      dp::FlatClipping(threshold).factors(upper, std::vector<std::uint8_t>{bounds.finite()[std::size_t(i)]}, factor);
      largest = std::max(largest, released(ctx, sites, i, factor[0]) / threshold);
    }
  }
  return largest;
}
/// Largest released / C where factor_of(i, C) says the factor.
template <class FactorOf>
double theirs(Context& ctx, const SiteList& sites, const std::vector<double>& thresholds, FactorOf&& factor_of) {
  double largest = 0;
  for (std::size_t i = 0; i < thresholds.size(); ++i)
    largest = std::max(largest, released(ctx, sites, index_t(i), factor_of(index_t(i), thresholds[i])) / thresholds[i]);
  return largest;
}
std::vector<double> thirds(const Batch& batch) {
  std::vector<double> thresholds;
  for (double n : batch.exact) thresholds.push_back(n / 3);
  return thresholds;
}

/// The T x T Gram of the rows of sample i, each entry rounded to bf16.
std::vector<float> low_precision_gram(const Tensor& rows, index_t i) {
  const index_t n = rows.shape()[1], d = rows.shape()[2];
  const std::vector<double> x = rows.rows(i, i + 1).to_doubles();
  std::vector<float> gram(std::size_t(n * n));
  for (index_t t = 0; t < n; ++t)
    for (index_t s = 0; s < n; ++s) {
      float sum = 0;
      for (index_t k = 0; k < d; ++k) sum += float(x[std::size_t(t * d + k)]) * float(x[std::size_t(s * d + k)]);
      gram[std::size_t(t * n + s)] = rounded_to_bf16(sum);
    }
  return gram;
}
/// The ghost norm as autocast computes it: both Grams and the squared norm in bf16, negative squares become 0.
float low_precision_norm(const SiteList& sites, index_t i) {
  const std::vector<float> a = low_precision_gram(sites[0].a, i), b = low_precision_gram(sites[0].b, i);
  float squared = 0;
  for (std::size_t k = 0; k < a.size(); ++k) squared += rounded_to_bf16(a[k] * b[k]);
  return rounded_to_bf16(std::sqrt(std::max(0.0f, rounded_to_bf16(squared))));
}
float clip_factor(double threshold, double norm) { return float(std::min(1.0, threshold / (norm + 1e-30))); }
}  // namespace

TEST_CASE("P24: published ways: Gram matrices and norm in bf16") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 10);
  for (double remainder : {0.0, 1e-2}) {
    const Batch batch(ctx, rng, DType::bf16, remainder);
    const auto thresholds = thirds(batch);
    const double ratio = theirs(ctx, batch.sites, thresholds,
                                [&](index_t i, double C) { return clip_factor(C, low_precision_norm(batch.sites, i)); });
    row("Gram matrices and norm in bf16, negative squares set to 0",
        remainder > 0 ? "bf16, tokens cancel" : "bf16, independent", ratio, ours(ctx, batch.sites, thresholds));
    if (remainder > 0) CHECK(ratio > 2.9);  // some sample was not clipped at all
  }
}

TEST_CASE("P24: published ways: an FP32 Gram norm without a certificate") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 11);
  const Batch batch(ctx, rng, DType::f32, 1e-3);
  NormBounds bounds(draws);
  per_sample::squared_norms_outer(ctx, batch.sites, bounds, NormMethod::gram);
  const auto thresholds = thirds(batch);
  const double ratio =
      theirs(ctx, batch.sites, thresholds, [&](index_t i, double C) { return clip_factor(C, bounds.norm(i)); });
  row("Gram norm in FP32, no certificate", "f32, tokens cancel", ratio, ours(ctx, batch.sites, thresholds));
}

TEST_CASE("P24: published ways: the clip factor, or its product with b, in bf16") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 12);
  for (double remainder : {0.0, 1e-2}) {
    const char* input = remainder > 0 ? "bf16, tokens cancel" : "bf16, independent";
    const Batch batch(ctx, rng, DType::bf16, remainder);
    std::vector<double> thresholds;
    for (double n : batch.exact) thresholds.push_back(n * rng.uniform(0.2, 0.9));
    const double own = ours(ctx, batch.sites, thresholds);
    const auto exact_factor = [&](index_t i, double C) { return clip_factor(C, batch.exact[std::size_t(i)]); };
    row("c in bf16, exact norm", input,
        theirs(ctx, batch.sites, thresholds, [&](index_t i, double C) { return rounded_to_bf16(exact_factor(i, C)); }), own);
    // c b, rounded to bf16, then summed without a factor.
    const Tensor scaled = batch.sites[0].b.clone(ctx);
    for (index_t i = 0; i < draws; ++i)
      for (index_t k = i * tokens * width; k < (i + 1) * tokens * width; ++k)
        scaled.data<bf16>()[k] =
            from_float<bf16>(exact_factor(i, thresholds[std::size_t(i)]) * to_float(batch.sites[0].b.data<bf16>()[k]));
    Parameter w(ctx, "w", Tensor::zeros(ctx, {width, width}, DType::f32), DType::bf16);
    const SiteList sites{ParameterSite::outer_product(w, batch.sites[0].a, scaled)};
    row("c * b in bf16, exact norm", input, theirs(ctx, sites, thresholds, [](index_t, double) { return 1.0f; }), own);
  }
}

TEST_CASE("P24: published ways: a second backward pass of the re-weighted loss in bf16") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 13);
  const index_t samples = 6;
  double reweighted = 0, certified = 0;
  int above = 0, all = 0;
  for (int draw = 0; draw < 6; ++draw) {
    const nn::Transformer model(
        ctx, {.vocabulary = 23, .width = 24, .layers = 2, .heads = 3, .context = 12, .seed = rng.bits()}, DType::bf16);
    const test::Tokens data = test::random_tokens(ctx, rng, samples, 12, 23);
    per_sample::BookKeepingSink first;
    test::backward(ctx, model, data, first);
    const NormBounds bounds = first.norms(ctx, samples);
    const double C = bounds.norm(0) * rng.uniform(0.05, 0.5);
    std::vector<double> factors;
    for (index_t i = 0; i < samples; ++i) factors.push_back(double(clip_factor(C, bounds.norm(i))));
    per_sample::BookKeepingSink second;
    test::backward(ctx, model, data, second, Tensor::from(ctx, {samples}, DType::f32, factors));
    for (index_t i = 0; i < samples; ++i, ++all) {
      std::vector<float> alone(std::size_t(samples), 0.0f);
      alone[std::size_t(i)] = 1;
      const double ratio = test::released_norm(test::weighted(ctx, model, second, alone)) / C;
      above += ratio > 1;
      reweighted = std::max(reweighted, ratio);

      Tape tape(ctx, samples);
      const Variable losses = cross_entropy(model(tape, data.ids), data.targets, {.divisor = 12});
      per_sample::ClippedSumSink sink(per_sample::Groups::flat(model.parameters().all()),
                                      {.strategy = per_sample::Strategy::two_pass});
      per_sample::GradientSums sums(ctx, model.parameters().all());
      per_sample::clipped_backward(
          tape, losses, Tensor(), sink,
          [&](index_t, const NormBounds& norms) {
            std::vector<float> c(bounds.finite().size(), 0.0f), all_factors = c;
            dp::FlatClipping(C).factors(norms.upper(), norms.finite(), all_factors);
            c[std::size_t(i)] = all_factors[std::size_t(i)];
            return c;
          },
          sums);
      REQUIRE(sink.walks_again());
      certified = std::max(certified, test::released_norm(test::flat(sums)) / C);
    }
  }
  row("second backward of the loss times c", "bf16 GPT of 2 blocks", reweighted, certified);
  CHECK(above > all / 10);
}

TEST_CASE("P2, P24: published ways: an FP32 sum over the samples") {
  Context ctx(Device::cpu(), 2);
  for (index_t batch : {512, 4096, 65536}) {
    // With the first sample the sum stands at batch / 2, without it one below, in the lower binade. Each further sample is a
    // little more than half a unit in the last place of batch / 2.
    const float unit = float(batch) * 0x1p-24f;  // in the last place of [batch / 2, batch)
    std::vector<double> x(std::size_t(batch), double(unit / 2 * (1 + 0x1p-20f)));
    std::fill_n(x.begin(), batch / 2, 1.0);
    const auto fp32_sum = [&](std::size_t first) {
      float sum = 0;
      for (std::size_t k = first; k < x.size(); ++k) sum += float(x[k]);
      return double(sum);
    };
    Parameter w(ctx, "w", Tensor::zeros(ctx, {1, 1}, DType::f32), DType::f32);
    const auto library_sum = [&](bool vector, bool with_first) {
      const index_t from = with_first ? 0 : 1;
      const Tensor rows = Tensor::from(ctx, {batch - from, 1, 1}, DType::f32, std::span(x).subspan(std::size_t(from))),
                   one = Tensor::full(ctx, {batch - from, 1, 1}, DType::f32, 1);
      const SiteList sites{vector ? ParameterSite::vector(w, rows) : ParameterSite::outer_product(w, rows, one)};
      NormBounds bounds(batch - from);
      per_sample::squared_norm(ctx, sites, bounds);
      std::vector<float> factors(std::size_t(batch - from));
      dp::FlatClipping(1).factors(bounds.upper(), bounds.finite(), factors);
      Parameter* const all[] = {&w};
      per_sample::GradientSums sums(ctx, all);
      per_sample::add_weighted_sum(ctx, sites, factors, sums);
      return sums.of(w).item();
    };
    const double bound = dp::FlatClipping(1).sensitivity(dp::NeighbouringRelation::add_or_remove_one, batch).bound;
    double moved = 0;
    for (bool vector : {true, false})
      moved = std::max(moved, std::fabs(library_sum(vector, true) - library_sum(vector, false)));
    const std::string input = dpmp::detail::concat("one of ", batch, " samples removed");
    // The bound that the FP32 sum is used with is C; ours is C (1 + rho), and here it does not even need the rho.
    row("FP32 sum over samples", input.c_str(), fp32_sum(0) - fp32_sum(1), moved);
    CHECK(moved <= bound);
    if (batch <= 4096) CHECK(fp32_sum(0) - fp32_sum(1) > bound);
  }
}

TEST_CASE("P14, P24: published ways: a tied weight's norm as the root of the sum of its uses' squares") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 14);
  // Logit gradients that point at the tokens of the input, and embedding gradients equal to the hidden rows: both uses have
  // the same gradient.
  const index_t samples = draws, vocabulary = 11, hidden = 16, length = 6;
  Parameter w(ctx, "w", Tensor::zeros(ctx, {vocabulary, hidden}, DType::f32), DType::bf16);
  const Tensor ids = test::id_tensor(ctx, rng, {samples, length}, 0, int(vocabulary) - 1);
  const Tensor h = test::normal_tensor(ctx, rng, {samples, length, hidden}, DType::bf16);
  std::vector<double> z(std::size_t(samples * length * vocabulary), 0.0);
  for (index_t t = 0; t < samples * length; ++t) z[std::size_t(t * vocabulary + ids.data<std::int32_t>()[t])] = 1;
  const ParameterSite head = ParameterSite::outer_product(w, h,
                                                          Tensor::from(ctx, {samples, length, vocabulary}, DType::bf16, z)),
                      table = ParameterSite::outer_product(w, h, ids);
  const SiteList sites{head, table};
  NormBounds apart(samples);
  per_sample::squared_norm(ctx, {head}, apart);
  per_sample::squared_norm(ctx, {table}, apart);  // squares of the two uses add up
  std::vector<double> thresholds;
  for (index_t i = 0; i < samples; ++i) thresholds.push_back(test::norm(test::oracle_gradient(sites, i)) / 3);
  const double ratio = theirs(ctx, sites, thresholds, [&](index_t i, double C) { return clip_factor(C, apart.norm(i)); });
  row("tied weight: sum of the uses' squared norms", "bf16, aligned uses", ratio, ours(ctx, sites, thresholds));
  CHECK(ratio == doctest::Approx(std::sqrt(2.0)).epsilon(1e-5));
}

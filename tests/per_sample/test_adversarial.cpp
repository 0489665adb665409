// SPDX-License-Identifier: Apache-2.0
// Certified clipping against a million adversarial contributions: every form of a site, every way to a norm and to a sum,
// every clip rule, every dtype. Ten thousand by default; all of them with DPMP_ADVERSARIAL_FULL=1, counts printed.
#include <doctest/doctest.h>

#include "dpmp/autograd/bias_site.hpp"
#include "per_sample/adversarial_trial.hpp"
#include "per_sample/adversaries.hpp"
#include "support/gpt.hpp"

namespace {
using namespace dpmp;
using per_sample::GradientSums;
using per_sample::NormBounds;
using per_sample::NormChoice;
using per_sample::NormMethod;
using per_sample::SiteList;
using per_sample::Strategy;
using per_sample::StrategyOptions;
using test::AdversarialRows;
using test::any_dtype;
using test::any_options;
using test::exact_norms;
using test::full;
using test::Released;
using test::report;
using test::Tally;
using test::target;
using test::text;

const test::Adversary& any_adversary(test::Rng& rng) {
  return test::adversaries[std::size_t(rng.integer(0, std::ssize(test::adversaries) - 1))];
}

enum class Form : std::uint8_t { outer, reused, one_hot, one_hot_reused, tied, tied_reused, vector, vectors, mixed };
constexpr int forms = 9;
constexpr const char* form_names[] = {"outer product", "reused", "one-hot", "one-hot reused", "tied",
                                      "tied, reused",  "vector", "vectors", "vector + outer"};

struct Sizes {
  index_t samples, tokens, p, d;
};
/// One token often, few, many; widths around the packs of a register.
Sizes any_sizes(test::Rng& rng) {
  const index_t tokens[] = {1, 1, 2, rng.integer(2, 4), rng.integer(5, 12), rng.integer(10, 40)};
  const auto width = [&] { return rng.integer(0, 7) == 0 ? rng.integer(17, 40) : rng.integer(1, 16); };
  return {rng.integer(2, 3), tokens[rng.integer(0, 5)], width(), width()};
}

/// The uses of one parameter by a batch; and the same with Inf and NaN planted into some samples.
struct Operands {
  std::unique_ptr<Parameter> w;
  SiteList clean, broken;
  std::vector<std::uint8_t> planted;
  std::vector<double> exact_clean, exact_broken;
};
Operands make_operands(Context& ctx, test::Rng& rng, const test::Adversary& adversary, DType dtype, Form form,
                       const Sizes& s, bool plant) {
  Operands o;
  o.w = std::make_unique<Parameter>(ctx, "w", Tensor::zeros(ctx, {s.p, s.d}, DType::f32), dtype);
  o.planted.assign(std::size_t(s.samples), 0);
  if (plant) {
    for (auto& flag : o.planted) flag = std::uint8_t(rng.integer(0, 1));
    o.planted[std::size_t(rng.integer(0, s.samples - 1))] = 1;
  }
  const index_t n = s.p * s.d;
  // Later uses repeat the first one's rows, with either sign, as often as they have their own.
  std::vector<std::vector<AdversarialRows>> uses;
  const auto rows_of = [&](index_t tokens, index_t d, index_t p) {
    std::vector<AdversarialRows> all;
    const bool repeat =
        !uses.empty() && uses[0][0].tokens == tokens && uses[0][0].d == d && uses[0][0].p == p && rng.integer(0, 1) == 1;
    const double sign = rng.integer(0, 1) == 1 ? 1 : -1;
    for (index_t i = 0; i < s.samples; ++i) {
      AdversarialRows x{.tokens = tokens, .d = d, .p = p};
      if (repeat) {
        x = uses[0][std::size_t(i)];
        for (double& v : x.b) v *= sign;
      } else {
        adversary.fill(rng, x);
      }
      all.push_back(x);
    }
    return uses.emplace_back(std::move(all));
  };
  const auto join = [&](const std::vector<AdversarialRows>& all, bool of_a) {
    std::vector<double> values;
    for (const AdversarialRows& x : all) values.insert(values.end(), (of_a ? x.a : x.b).begin(), (of_a ? x.a : x.b).end());
    return values;
  };
  const auto with_plants = [&](std::vector<AdversarialRows> all) {
    for (std::size_t i = 0; i < all.size(); ++i)
      if (o.planted[i]) test::plant_non_finite(rng, all[i]);
    return all;
  };
  const auto dense = [&](index_t tokens) {
    const auto rows = rows_of(tokens, s.d, s.p), changed = with_plants(rows);
    const auto site = [&](const std::vector<AdversarialRows>& all) {
      return ParameterSite::outer_product(*o.w, test::stored(ctx, {s.samples, tokens, s.d}, dtype, join(all, true)),
                                          test::stored(ctx, {s.samples, tokens, s.p}, dtype, join(all, false)));
    };
    o.clean.push_back(site(rows));
    o.broken.push_back(site(changed));
  };
  const auto one_hot = [&](index_t tokens) {
    const auto rows = rows_of(tokens, s.d, s.p), changed = with_plants(rows);
    const Tensor ids =
        test::id_tensor(ctx, rng, {s.samples, tokens}, -1, int(std::min<index_t>(s.p, rng.integer(1, 40))) - 1);
    const auto site = [&](const std::vector<AdversarialRows>& all) {
      return ParameterSite::outer_product(*o.w, test::stored(ctx, {s.samples, tokens, s.d}, dtype, join(all, true)), ids);
    };
    o.clean.push_back(site(rows));
    o.broken.push_back(site(changed));
  };
  const auto vector = [&](index_t length) {
    const auto rows = rows_of(1, length, length), changed = with_plants(rows);
    const bool of_a = rng.integer(0, 1) == 1;
    const bool normed = rng.integer(0, 1) == 1;  // the site brings its norms along
    const auto site = [&](const std::vector<AdversarialRows>& all) {
      const Tensor v = test::stored(ctx, {s.samples, length}, dtype, join(all, of_a));
      return normed ? bias_site(ctx, *o.w, v.reshaped({s.samples, 1, length})) : ParameterSite::vector(*o.w, v);
    };
    o.clean.push_back(site(rows));
    o.broken.push_back(site(changed));
  };
  const auto more_tokens = [&] { return rng.integer(0, 1) == 1 ? s.tokens : rng.integer(1, s.tokens); };
  switch (form) {
    case Form::outer: dense(s.tokens); break;
    case Form::reused:
      for (index_t k = rng.integer(2, 3); k > 0; --k) dense(more_tokens());
      break;
    case Form::one_hot: one_hot(s.tokens); break;
    case Form::one_hot_reused: one_hot(s.tokens), one_hot(more_tokens()); break;
    case Form::tied: dense(s.tokens), one_hot(more_tokens()); break;
    case Form::tied_reused: dense(s.tokens), one_hot(more_tokens()), dense(more_tokens()), one_hot(s.tokens); break;
    case Form::vector: vector(rng.integer(1, n)); break;
    case Form::vectors: vector(rng.integer(1, n)), vector(n); break;
    case Form::mixed: dense(s.tokens), vector(rng.integer(1, n)); break;
  }
  o.exact_clean = exact_norms(o.clean);
  o.exact_broken = plant ? exact_norms(o.broken) : o.exact_clean;
  return o;
}

/// From the sites of a parameter to what is released of each sample alone.
struct Way {
  std::string name;
  std::optional<NormMethod> method;  // forced; stored: the per-sample gradients are kept
  StrategyOptions options;           // how they are kept; where nothing is forced, the sink's
};
/// Up to this many tokens two T x T matrices are no trouble.
constexpr index_t most_gram_tokens = 4096;
std::vector<Way> ways_of(test::Rng& rng, const SiteList& sites) {
  StrategyOptions options = any_options(rng);
  if (sites[0].form != SiteForm::vector && per_sample::total_tokens(sites) > most_gram_tokens)
    options.norms = NormChoice::instantiate;
  std::vector<Way> ways{{text(options), {}, options}};
  if (sites[0].form == SiteForm::vector || per_sample::mix_of(sites) == per_sample::SiteMix::both) return ways;
  const per_sample::SiteShape shape = per_sample::shape_of(sites);
  const auto add = [&](const char* name, NormMethod m) { ways.push_back({name, m, {}}); };
  add("method: instantiate", NormMethod::instantiate);
  add("method: gradients kept", NormMethod::stored);
  ways.push_back({"method: narrow gradients kept", NormMethod::stored, {.gradients = per_sample::GradientStorage::compute}});
  if (shape.tokens <= most_gram_tokens) add("method: gram", NormMethod::gram);
  if (shape.one_hot_only) add("method: segments", NormMethod::segments);
  if (shape.tokens == 1 && !shape.any_one_hot) add("method: rank one", NormMethod::rank_one);
  return ways;
}

/// Releases each sample alone. sums(factors): what is released for these factors, all parameters one behind the other.
template <class Sums>
Released release_alone(const NormBounds& bounds, double threshold, const dp::ClipRule& rule, Sums&& sums) {
  Released r{std::vector<float>(std::size_t(bounds.samples())), bounds.upper(), bounds.finite(), {}};
  dp::FlatClipping(threshold, rule).factors(r.upper, r.ok, r.factors);
  for (std::size_t i = 0; i < r.factors.size(); ++i) {
    std::vector<float> alone(r.factors.size(), 0.0f);
    alone[i] = r.factors[i];
    r.alone.push_back(sums(alone));
  }
  return r;
}

Released release(Context& ctx, const Way& way, const SiteList& sites, double threshold, const dp::ClipRule& rule) {
  Parameter& w = *sites[0].parameter;
  if (way.method) {
    NormBounds bounds(sites[0].samples());
    SiteList kept = per_sample::merge_sites(ctx, sites);
    if (*way.method == NormMethod::stored)
      kept = {ParameterSite::vector(
          w, per_sample::stored_gradients_outer(ctx, kept, bounds,
                                                per_sample::kept_dtype(per_sample::shape_of(kept), way.options.gradients))
                 .gradients)};
    else
      per_sample::squared_norms_outer(ctx, kept, bounds, *way.method);
    return release_alone(bounds, threshold, rule, [&](const std::vector<float>& factors) {
      const Tensor sum = Tensor::zeros(ctx, w.shape(), DType::f64);
      per_sample::weighted_sum(ctx, kept, factors, sum);
      return sum.to_doubles();
    });
  }
  per_sample::GroupPass sink(way.options);
  for (const ParameterSite& site : sites) sink.accept(ctx, site);
  sink.finish(ctx, w);
  const NormBounds bounds = sink.norms(ctx, sites[0].samples());
  Parameter* const parameters[] = {&w};
  return release_alone(bounds, threshold, rule, [&](const std::vector<float>& factors) {
    GradientSums sums(ctx, parameters);
    sink.weighted_sum(ctx, factors, sums);
    if (sink.walks_again()) {
      per_sample::ReplaySink again(sink, factors, sums);
      for (const ParameterSite& site : sites) again.accept(ctx, site);
      again.finish(ctx, w);
    }
    return test::flat(sums);
  });
}

void try_operands(Context& ctx, test::Rng& rng, Tally& tally, const test::Adversary& adversary, DType dtype, Form form,
                  const Sizes& sizes) {
  const bool plant = rng.integer(0, 3) == 0;
  const Operands o = make_operands(ctx, rng, adversary, dtype, form, sizes, plant);
  const double some_norm = o.exact_clean[std::size_t(rng.integer(0, sizes.samples - 1))];
  const std::string what =
      dpmp::detail::concat(form_names[int(form)], " ", dtype, " T ", sizes.tokens, " p ", sizes.p, " d ", sizes.d);
  for (const Way& way : ways_of(rng, o.clean)) {
    const double threshold = test::random_threshold(rng, some_norm);
    const dp::ClipRule rule = test::random_rule(rng, threshold);
    const Released clean = release(ctx, way, o.clean, threshold, rule);
    judge(tally, clean, o.exact_clean, threshold, rule, adversary.name, way.name, what);
    if (plant) {
      const Released broken = release(ctx, way, o.broken, threshold, rule);
      judge(tally, broken, o.exact_broken, threshold, rule, "Inf and NaN planted", way.name, what);
      compare_neighbours(tally, clean, broken, o.planted, way.name, what);
    }
  }
}

}  // namespace

TEST_CASE("P1, P9, P24: nothing above C is released, whatever the operands, the form, the way and the rule") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  Tally tally;
  while (tally.contributions < target(0.85))
    try_operands(ctx, rng, tally, any_adversary(rng), any_dtype(rng), Form(rng.integer(0, forms - 1)), any_sizes(rng));
  report(tally, "sites");
  CHECK(tally.non_finite > tally.contributions / 50);
  CHECK(tally.tight > tally.contributions / 50);
  CHECK(tally.by_adversary.size() == std::size(test::adversaries) + 1);
}

TEST_CASE("P1, P24: long chains of up to 65536 tokens") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 1);
  Tally tally;
  const auto aligned = [](test::Rng& r, AdversarialRows& x) {
    for (double& v : x.a) v = 1 + 0.01 * r.uniform();
    for (double& v : x.b) v = 1 + 0.01 * r.uniform();
  };
  for (int k = full() ? 20 : 1; k > 0; --k)
    for (const test::Adversary& adversary : {test::Adversary{"aligned", aligned}, any_adversary(rng)}) {
      const DType dtype = any_dtype(rng);
      try_operands(ctx, rng, tally, adversary, dtype, Form::outer, {2, 65536, rng.integer(1, 2), rng.integer(1, 3)});
      try_operands(ctx, rng, tally, adversary, dtype, Form(rng.integer(0, 5)),
                   {2, rng.integer(500, 900), rng.integer(1, 4), rng.integer(1, 4)});
    }
  report(tally, "long chains");
}

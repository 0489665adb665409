// SPDX-License-Identifier: Apache-2.0
// From the sites of one backward pass to norms and clipped sums of the same stored operands, by any strategy. A parameter is
// dealt with as soon as its last site is there (GradientSink::finish): its norm is taken, and what cost.hpp says is kept.
#pragma once
#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include "dpmp/autograd/bias_site.hpp"
#include "dpmp/per_sample/weighted_sum.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Sites by parameter, until the parameter's last one.
class PendingSites {
 public:
  void add(const ParameterSite& site);
  bool has(const Parameter& parameter) const;
  /// The sites of a parameter, which are forgotten here; empty when there were none.
  SiteList take(const Parameter& parameter);
  bool empty() const { return lists_.empty(); }
  /// The parameter whose first site came first.
  const Parameter& first() const { return *lists_[0][0].parameter; }
  void clear() { lists_.clear(); }

 private:
  std::vector<SiteList> lists_;
};

class StrategySink : public GradientSink {
 public:
  /// on_choice is told, for each parameter and pass, what was chosen: public facts only.
  using OnChoice = std::function<void(const Parameter&, const SiteShape&, const Way&)>;
  explicit StrategySink(const StrategyOptions& options = {}, OnChoice on_choice = {});
  const StrategyOptions& options() const { return options_; }

  void accept(Context&, const ParameterSite& site) override { pending_.add(site); }
  /// On a GPU a bias waits for its weight: whatever forms the weight's gradients or takes their norm sums the bias'
  /// gradients too. Not where a second walk might have to repeat those bits by another way.
  bool accept_affine(Context& ctx, const ParameterSite& weight, Parameter& bias) override;
  void finish(Context& ctx, Parameter& parameter) override;

  /// Norms over all parameters seen, with their certificate. samples: B of the pass.
  NormBounds norms(Context& ctx, index_t samples);
  /// sums += sum_i factors_i G_i for every parameter that something was kept of. The others are summed by replay().
  void weighted_sum(Context& ctx, const SampleFactors& factors, GradientSums& sums);
  /// What was kept: reduced sites, or per-sample gradients as vectors, of all parameters once norms() has been called.
  const std::vector<SiteList>& lists() const { return kept_; }
  index_t kept_bytes() const { return kept_bytes_; }

  /// Whether a pass by this strategy may need its tape again: walk it with AfterWalk::keep then.
  bool may_walk_again() const { return options_.strategy == Strategy::two_pass || options_.byte_budget; }
  /// Whether this pass does.
  bool walks_again() const { return !dropped_.empty(); }
  bool dropped(const Parameter& parameter) const { return dropped_.count(&parameter) > 0; }

  /// Frees what was kept; what a second walk has to do is still known.
  void release();
  /// Forgets the pass.
  void clear();

 private:
  /// A bias, and the site of the weight before it whose rows b are the bias' output gradients.
  struct AffineBias {
    Parameter* bias;
    ParameterSite weight;
  };

  /// Sites that came without a tape to say that they are all.
  void digest_pending(Context& ctx);
  void digest(Context& ctx, SiteList sites);
  /// The bias that waits for a weight with no other site than the one they came with, to be filled; or nothing.
  ParameterSite take_bias(Context& ctx, const SiteList& sites, DType dtype, bool squares);
  /// Waiting biases that no product has summed become vectors: those of one parameter, or all (null).
  void sum_biases(Context& ctx, const Parameter* of);
  /// Takes the norms that waited for each other. Biases that came along are sites now, or done with if there was nothing
  /// else to wait for.
  void flush_grams(Context& ctx);

  StrategyOptions options_;
  OnChoice on_choice_;
  PendingSites pending_;
  std::vector<AffineBias> biases_;
  std::vector<ParameterSite> squared_;  // kept vectors, whose norms are added in few launches
  std::vector<SiteList> kept_, grams_;
  std::vector<ParameterSite> gram_biases_;      // one for each of grams_
  std::set<const Parameter*> complete_biases_;  // which of those have no other site
  std::set<const Parameter*> dropped_;
  std::optional<NormBounds> bounds_;
  index_t kept_bytes_ = 0;
};

/// Book-keeping (Bu et al. 2022, arXiv 2210.00038): one backward, a and b of every site kept, then norms and one weighted
/// sum.
class BookKeepingSink final : public StrategySink {
 public:
  BookKeepingSink() : StrategySink({.strategy = Strategy::book_keeping}) {}
};

/// Every per-sample gradient in memory, [B, numel] a parameter: for small models and for tests.
class MaterialisedSink final : public StrategySink {
 public:
  MaterialisedSink() : StrategySink({.strategy = Strategy::materialised}) {}
  /// G_i of one parameter, [B, numel]. Throws when the pass had no site of it.
  Tensor gradients(Context& ctx, const Parameter& parameter) const;
};

/// The second walk of the same pass: forms the clipped sums of what the first one did not keep. The walk repeats every
/// operand bit for bit (same tape, shapes, kernels and threads), so what is released is what was normed.
class ReplaySink final : public GradientSink {
 public:
  ReplaySink(const StrategySink& first, SampleFactors factors, GradientSums& sums)
      : first_(first), factors_(std::move(factors)), sums_(sums) {}
  void accept(Context&, const ParameterSite& site) override;
  void finish(Context& ctx, Parameter& parameter) override;

 private:
  const StrategySink& first_;
  SampleFactors factors_;
  GradientSums& sums_;
  PendingSites pending_;
};
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::per_sample {
DPMP_KEPT_BODY inline void PendingSites::add(const ParameterSite& site) {
  for (SiteList& list : lists_)
    if (list[0].parameter == site.parameter) return list.push_back(site);
  lists_.push_back({site});
}

DPMP_KEPT_BODY inline bool PendingSites::has(const Parameter& parameter) const {
  return std::any_of(lists_.begin(), lists_.end(), [&](const SiteList& x) { return x[0].parameter == &parameter; });
}

DPMP_KEPT_BODY inline SiteList PendingSites::take(const Parameter& parameter) {
  for (auto list = lists_.begin(); list != lists_.end(); ++list)
    if ((*list)[0].parameter == &parameter) {
      SiteList sites = std::move(*list);
      lists_.erase(list);
      return sites;
    }
  return {};
}

DPMP_KEPT_BODY inline StrategySink::StrategySink(const StrategyOptions& options, OnChoice on_choice)
    : options_(options), on_choice_(std::move(on_choice)) {
  DPMP_CHECK(!options.byte_budget || *options.byte_budget >= 0, "expected a byte budget >= 0, got ", *options.byte_budget);
  DPMP_CHECK(!options.byte_budget || options.strategy == Strategy::automatic,
             "expected the automatic strategy beside a byte budget, got ", name_of(options.strategy));
}

DPMP_KEPT_BODY inline bool StrategySink::accept_affine(Context& ctx, const ParameterSite& weight, Parameter& bias) {
  if (!ctx.on_cuda() || may_walk_again()) return false;
  pending_.add(weight);
  biases_.push_back({&bias, weight});
  return true;
}

DPMP_KEPT_BODY inline void StrategySink::finish(Context& ctx, Parameter& parameter) {
  sum_biases(ctx, &parameter);
  // A bias that came with one weight, whose Gram waits, is dealt with when that is.
  const auto grams = std::count_if(gram_biases_.begin(), gram_biases_.end(),
                                   [&](const ParameterSite& x) { return x.parameter == &parameter; });
  if (grams == 1 && !pending_.has(parameter)) {
    complete_biases_.insert(&parameter);
    return;
  }
  if (grams > 0) flush_grams(ctx);
  const SiteList sites = pending_.take(parameter);
  if (!sites.empty()) digest(ctx, reduced(ctx, sites));
}

DPMP_KEPT_BODY inline NormBounds StrategySink::norms(Context& ctx, index_t samples) {
  digest_pending(ctx);
  flush_grams(ctx);
  if (!bounds_) return NormBounds(ctx, samples);
  add_vector_norms(ctx, squared_, *bounds_);
  squared_.clear();
  DPMP_CHECK(bounds_->samples() == samples, "expected the norms of a pass of ", bounds_->samples(), " samples, got ",
             samples);
  return *bounds_;
}

DPMP_KEPT_BODY inline void StrategySink::weighted_sum(Context& ctx, const SampleFactors& factors, GradientSums& sums) {
  digest_pending(ctx);
  std::vector<ParameterSite> vectors;
  for (const SiteList& sites : kept_)
    if (sites[0].form == SiteForm::vector)
      vectors.push_back(sites[0]);
    else
      add_weighted_sum(ctx, sites, factors, sums);
  add_weighted_vectors(ctx, vectors, factors, sums);
}

DPMP_KEPT_BODY inline void StrategySink::release() {
  pending_.clear();
  biases_.clear();
  squared_.clear();
  kept_.clear();
  grams_.clear();
  gram_biases_.clear();
  complete_biases_.clear();
  bounds_.reset();
  kept_bytes_ = 0;
}

DPMP_KEPT_BODY inline void StrategySink::clear() {
  release();
  dropped_.clear();
}

DPMP_KEPT_BODY inline void StrategySink::digest_pending(Context& ctx) {
  flush_grams(ctx);
  sum_biases(ctx, nullptr);
  while (!pending_.empty()) digest(ctx, reduced(ctx, pending_.take(pending_.first())));
}

DPMP_KEPT_BODY inline void StrategySink::digest(Context& ctx, SiteList sites) {
  const SiteShape shape = shape_of(sites);
  const Way way = choose_way(shape, options_, kept_bytes_);
  if (on_choice_) on_choice_(*sites[0].parameter, shape, way);
  if (!bounds_) bounds_.emplace(ctx, shape.samples);
  DPMP_CHECK(bounds_->samples() == shape.samples, "expected sites of ", bounds_->samples(), " samples, got ", shape.samples,
             " of ", sites[0].parameter->name());
  if (shape.vector && way.keep != Keep::nothing) {
    sites[0] = with_squares(ctx, sites[0]);
    squared_.push_back(sites[0]);
  } else if (shape.vector) {
    squared_norms_vector(ctx, sites[0], *bounds_);
  } else if (way.keep == Keep::gradients) {
    const DType dtype = kept_dtype(shape, options_.gradients);
    const ParameterSite bias = take_bias(ctx, sites, dtype, false);
    sites = {ParameterSite::vector(*sites[0].parameter, stored_gradients_outer(ctx, sites, *bounds_, dtype, bias))};
    if (bias.parameter) pending_.add(bias);
  } else if (way.norm == NormMethod::gram && !shape.any_one_hot) {
    // Parameters that share their input finish one after the other: they wait here for each other, to share its Gram.
    if (!grams_.empty() && (grams_[0][0].a.raw() != sites[0].a.raw() || grams_[0][0].a.shape() != sites[0].a.shape() ||
                            grams_[0][0].a.dtype() != sites[0].a.dtype()))
      flush_grams(ctx);
    grams_.push_back(sites);
    gram_biases_.push_back(take_bias(ctx, sites, accumulate_dtype(shape.dtype), true));
  } else {
    const ParameterSite bias =
        way.norm == NormMethod::instantiate ? take_bias(ctx, sites, accumulate_dtype(shape.dtype), true) : ParameterSite{};
    squared_norms_outer(ctx, sites, *bounds_, way.norm, bias);
    if (bias.parameter) pending_.add(bias);
  }
  if (way.keep == Keep::nothing) {
    dropped_.insert(sites[0].parameter);
    return;
  }
  kept_bytes_ += way.kept_bytes;
  kept_.push_back(std::move(sites));
}

DPMP_KEPT_BODY inline ParameterSite StrategySink::take_bias(Context& ctx, const SiteList& sites, DType dtype, bool squares) {
  const auto x = std::find_if(biases_.begin(), biases_.end(), [&](const AffineBias& y) {
    return sites.size() == 1 && y.weight.parameter == sites[0].parameter && y.weight.b.raw() == sites[0].b.raw();
  });
  if (x == biases_.end()) return {};
  const ParameterSite bias = unfilled_bias(ctx, *x->bias, sites[0], dtype, squares);
  biases_.erase(x);
  return bias;
}

DPMP_KEPT_BODY inline void StrategySink::sum_biases(Context& ctx, const Parameter* of) {
  for (auto x = biases_.begin(); x != biases_.end();)
    if (!of || x->bias == of) {
      pending_.add(bias_site(ctx, *x->bias, x->weight.b));
      x = biases_.erase(x);
    } else {
      ++x;
    }
}

DPMP_KEPT_BODY inline void StrategySink::flush_grams(Context& ctx) {
  if (!grams_.empty()) squared_norms_shared_input(ctx, grams_, *bounds_, gram_biases_);
  grams_.clear();
  for (const ParameterSite& bias : std::exchange(gram_biases_, {})) {
    if (!bias.parameter) continue;
    if (complete_biases_.erase(bias.parameter) > 0)
      digest(ctx, {bias});
    else
      pending_.add(bias);
  }
}

DPMP_KEPT_BODY inline Tensor MaterialisedSink::gradients(Context& ctx, const Parameter& parameter) const {
  for (const SiteList& sites : lists())
    if (sites[0].parameter == &parameter) return per_sample_gradient(ctx, sites);
  throw Error("expected a parameter used in the backward pass, got " + parameter.name());
}

DPMP_KEPT_BODY inline void ReplaySink::accept(Context&, const ParameterSite& site) {
  if (first_.dropped(*site.parameter)) pending_.add(site);
}

DPMP_KEPT_BODY inline void ReplaySink::finish(Context& ctx, Parameter& parameter) {
  const SiteList sites = pending_.take(parameter);
  if (!sites.empty()) add_weighted_sum(ctx, sites, factors_, sums_);
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif

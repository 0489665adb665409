// SPDX-License-Identifier: Apache-2.0
// The pass of one clipping group, from the sites of a backward walk to norms and clipped sums of the same stored operands,
// by any strategy. In three phases: the walk, where a parameter is planned as soon as its last site is there
// (GradientSink::finish); the norms of everything that was kept; the sum.
#pragma once
#include <algorithm>
#include <functional>
#include <memory>
#include <set>
#include <utility>

#include "dpmp/autograd/bias_site.hpp"
#include "dpmp/per_sample/weighted_sum.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Sites by parameter, until the parameter's last one.
class PendingSites {
 public:
  void add(const ParameterSite& site);
  /// The sites of a parameter, which are forgotten here; empty when there were none.
  SiteList take(const Parameter& parameter);
  bool empty() const { return lists_.empty(); }
  /// The parameter whose first site came first.
  const Parameter& first() const { return *lists_[0][0].parameter; }
  void clear() { lists_.clear(); }

 private:
  std::vector<SiteList> lists_;
};

/// What the groups of a pass keep at a time, in bytes.
struct KeptBytes {
  index_t all = 0, gradients = 0;
};

/// Walk it (accept, finish), ask for its norms, make factors of them, add its sums, clear it for the next pass.
class GroupPass : public GradientSink {
 public:
  /// on_choice is told, for each parameter and pass, what was chosen: public facts only.
  using OnChoice = std::function<void(const Parameter&, const SiteShape&, const NormPlan&)>;
  /// kept_by_all: of all groups of a pass, which share its budgets.
  explicit GroupPass(const StrategyOptions& options = {}, OnChoice on_choice = {},
                     std::shared_ptr<KeptBytes> kept_by_all = std::make_shared<KeptBytes>());
  const StrategyOptions& options() const { return options_; }

  /// The walk collects sites by parameter. Once all are there, what cost.hpp says is kept of them: per-sample gradients,
  /// normed as they are stored; nothing, after the norm; or the sites as they are, until norms().
  void accept(Context& ctx, const ParameterSite& site) override;
  void finish(Context& ctx, Parameter& parameter) override;
  /// On a GPU whatever forms a weight's gradients or takes their norm sums the bias' gradients too. Not where a second walk
  /// might have to repeat those bits by another way.
  bool takes_biases(const Context& ctx) const override { return ctx.on_cuda() && !may_walk_again(); }
  RowsWanted rows_wanted() const override { return RowsWanted::again; }

  /// Norms over all parameters seen, with their certificate. samples: B of the pass.
  NormBounds norms(Context& ctx, index_t samples);

  /// sums += sum_i factors_i G_i for every parameter that something was kept of. ReplaySink sums the others.
  void weighted_sum(Context& ctx, const SampleFactors& factors, GradientSums& sums);

  /// What was kept: merged sites, or per-sample gradients as vectors, of all parameters once norms() has been called.
  const std::vector<SiteList>& lists() const { return kept_; }
  index_t kept_bytes() const { return kept_here_.all; }

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
  /// Of kept sites, how their norm is to be taken.
  struct ToNorm {
    std::size_t at;
    NormMethod method;
  };

  /// All sites of a parameter, merged.
  void choose(Context& ctx, SiteList sites);
  /// Takes the norms that are still to be taken. After this every parameter and every bias that came along is in bounds_.
  void norm_kept(Context& ctx);
  Biases norm_outer_products(Context& ctx);
  void norm_vectors(Context& ctx);

  StrategyOptions options_;
  OnChoice on_choice_;
  PendingSites pending_;
  std::vector<SiteList> kept_;
  std::vector<ToNorm> to_norm_;
  std::set<const Parameter*> chosen_, dropped_;
  std::optional<NormBounds> bounds_;
  KeptBytes kept_here_;
  std::shared_ptr<KeptBytes> kept_by_all_;
};

/// Book-keeping (Bu et al. 2022, arXiv 2210.00038): one backward, a and b of every site kept, then norms and one weighted
/// sum.
class BookKeepingSink final : public GroupPass {
 public:
  BookKeepingSink() : GroupPass({.strategy = Strategy::book_keeping}) {}
};

/// Every per-sample gradient in memory, [B, numel] a parameter: for small models and for tests.
class MaterialisedSink final : public GroupPass {
 public:
  MaterialisedSink() : GroupPass({.strategy = Strategy::materialised}) {}
  /// G_i of one parameter, [B, numel]. Throws when the pass had no site of it.
  Tensor gradients(Context& ctx, const Parameter& parameter) const;
};

/// The second walk of the same pass: forms the clipped sums of what the first one did not keep. The walk repeats every
/// operand bit for bit (same tape, shapes, kernels and threads), so what is released is what was normed.
class ReplaySink final : public GradientSink {
 public:
  ReplaySink(const GroupPass& first, SampleFactors factors, GradientSums& sums)
      : first_(first), factors_(std::move(factors)), sums_(sums) {}
  void accept(Context&, const ParameterSite& site) override;
  void finish(Context& ctx, Parameter& parameter) override;
  RowsWanted rows_wanted() const override { return RowsWanted::again; }

 private:
  const GroupPass& first_;
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

DPMP_KEPT_BODY inline SiteList PendingSites::take(const Parameter& parameter) {
  for (auto list = lists_.begin(); list != lists_.end(); ++list)
    if ((*list)[0].parameter == &parameter) {
      SiteList sites = std::move(*list);
      lists_.erase(list);
      return sites;
    }
  return {};
}

DPMP_KEPT_BODY inline GroupPass::GroupPass(const StrategyOptions& options, OnChoice on_choice,
                                           std::shared_ptr<KeptBytes> kept_by_all)
    : options_(options), on_choice_(std::move(on_choice)), kept_by_all_(std::move(kept_by_all)) {
  DPMP_CHECK(!options.byte_budget || *options.byte_budget >= 0, "expected a byte budget >= 0, got ", *options.byte_budget);
  DPMP_CHECK(!options.gradient_bytes || *options.gradient_bytes >= 0, "expected gradient_bytes >= 0, got ",
             *options.gradient_bytes);
  DPMP_CHECK(!options.byte_budget || options.strategy == Strategy::automatic,
             "expected the automatic strategy with a byte budget, got ", name_of(options.strategy));
}

DPMP_KEPT_BODY inline void GroupPass::accept(Context& ctx, const ParameterSite& site) {
  if (!site.bias || takes_biases(ctx)) return pending_.add(site);
  for (const ParameterSite& part : separate(ctx, site)) pending_.add(part);
}

DPMP_KEPT_BODY inline void GroupPass::finish(Context& ctx, Parameter& parameter) {
  // Of a bias that comes along nothing is pending.
  const SiteList sites = pending_.take(parameter);
  if (!sites.empty()) choose(ctx, merge_sites(ctx, sites));
}

DPMP_KEPT_BODY inline void GroupPass::choose(Context& ctx, SiteList sites) {
  Parameter& parameter = *sites[0].parameter;
  // Norms of parts of a gradient would leave out the terms between them.
  DPMP_CHECK(chosen_.insert(&parameter).second, "expected all sites of ", parameter.name(),
             " before it is finished, and none in addition to the one that it comes along with as a bias");
  const SiteShape shape = shape_of(sites);
  const NormPlan plan = plan_parameter(shape, options_, kept_by_all_->all, kept_by_all_->gradients);
  if (on_choice_) on_choice_(parameter, shape, plan);
  if (!bounds_) bounds_.emplace(ctx, shape.samples);
  DPMP_CHECK(bounds_->samples() == shape.samples, "expected sites of ", bounds_->samples(), " samples, got ", shape.samples,
             " of ", parameter.name());
  Biases biases;
  switch (plan.keep) {
    case Keep::sites:
      to_norm_.push_back({kept_.size(), plan.norm});
      kept_.push_back(std::move(sites));
      break;
    case Keep::gradients: {
      StoredGradients stored = stored_gradients_outer(ctx, sites, *bounds_, kept_dtype(shape, options_.gradients));
      kept_.push_back({ParameterSite::vector(parameter, stored.gradients)});
      biases = std::move(stored.biases);
      break;
    }
    case Keep::second_walk:
      if (shape.vector)
        squared_norms_vector(ctx, sites[0], *bounds_);
      else
        biases = squared_norms_outer(ctx, sites, *bounds_, plan.norm);
      dropped_.insert(&parameter);
      break;
  }
  const index_t as_gradients = plan.keep == Keep::gradients ? plan.kept_bytes : 0;
  kept_here_.all += plan.kept_bytes;
  kept_here_.gradients += as_gradients;
  kept_by_all_->all += plan.kept_bytes;
  kept_by_all_->gradients += as_gradients;
  for (const ParameterSite& bias : biases) choose(ctx, {bias});
}

DPMP_KEPT_BODY inline NormBounds GroupPass::norms(Context& ctx, index_t samples) {
  norm_kept(ctx);
  if (!bounds_) return NormBounds(ctx, samples);
  DPMP_CHECK(bounds_->samples() == samples, "expected the norms of a pass of ", bounds_->samples(), " samples, got ",
             samples);
  return *bounds_;
}

DPMP_KEPT_BODY inline void GroupPass::norm_kept(Context& ctx) {
  // Sites that came without a tape to say that they are all.
  while (!pending_.empty()) choose(ctx, merge_sites(ctx, pending_.take(pending_.first())));
  for (const ParameterSite& bias : norm_outer_products(ctx)) choose(ctx, {bias});
  norm_vectors(ctx);
  to_norm_.clear();
}

DPMP_KEPT_BODY inline Biases GroupPass::norm_outer_products(Context& ctx) {
  Biases biases;
  std::vector<SiteList> run;  // to be normed by Grams, one after the other of the same input: its Gram is formed once
  const auto add = [&](const Biases& more) { biases.insert(biases.end(), more.begin(), more.end()); };
  const auto norm_run = [&] {
    if (!run.empty()) add(squared_norms_shared_input(ctx, run, *bounds_));
    run.clear();
  };
  const auto same_input = [](const Tensor& x, const Tensor& y) {
    return x.raw() == y.raw() && x.shape() == y.shape() && x.dtype() == y.dtype();
  };
  const auto share = [&](const SiteList& x, const SiteList& y) {
    return same_input(x[0].a, y[0].a) && !formed_again(x) && !formed_again(y);
  };
  for (const ToNorm& x : to_norm_) {
    SiteList& sites = kept_[x.at];
    if (x.method == NormMethod::stored) continue;
    if (x.method == NormMethod::gram && !sites.back().one_hot()) {
      if (!run.empty() && !share(run[0], sites)) norm_run();
      run.push_back(sites);
    } else {
      add(squared_norms_outer(ctx, sites, *bounds_, x.method));
    }
    sites[0].bias = nullptr;  // it has a site of its own now
  }
  norm_run();
  return biases;
}

DPMP_KEPT_BODY inline void GroupPass::norm_vectors(Context& ctx) {
  std::vector<ParameterSite> vectors;
  for (const ToNorm& x : to_norm_) {
    if (x.method != NormMethod::stored) continue;
    ParameterSite& site = kept_[x.at][0];
    site = with_squares(ctx, site);
    vectors.push_back(site);
  }
  if (!vectors.empty()) add_vector_norms(ctx, vectors, *bounds_);
}

DPMP_KEPT_BODY inline void GroupPass::weighted_sum(Context& ctx, const SampleFactors& factors, GradientSums& sums) {
  norm_kept(ctx);  // which forms the biases that come along
  std::vector<ParameterSite> vectors;
  for (const SiteList& sites : kept_)
    if (sites[0].form == SiteForm::vector)
      vectors.push_back(sites[0]);
    else
      add_weighted_sum(ctx, sites, factors, sums);
  add_weighted_vectors(ctx, vectors, factors, sums);
}

DPMP_KEPT_BODY inline void GroupPass::release() {
  pending_.clear();
  kept_.clear();
  to_norm_.clear();
  chosen_.clear();
  bounds_.reset();
  const KeptBytes here = std::exchange(kept_here_, {});
  kept_by_all_->all -= here.all;
  kept_by_all_->gradients -= here.gradients;
}

DPMP_KEPT_BODY inline void GroupPass::clear() {
  release();
  dropped_.clear();
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

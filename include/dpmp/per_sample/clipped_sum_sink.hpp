// SPDX-License-Identifier: Apache-2.0
// Clipped sums of one backward pass, group by group. A group is summed and forgotten as soon as its last parameter is
// finished: with a group for each layer or parameter the pass keeps next to nothing. One group: flat clipping.
#pragma once
#include <memory>

#include "dpmp/autograd/loss_scale.hpp"
#include "dpmp/per_sample/group_pass.hpp"
#include "dpmp/per_sample/groups.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
class ClippedSumSink final : public GradientSink {
 public:
  /// Clip factors [B] of one group from its norms, which are those without a loss scale. Called once for each group and
  /// pass; what it throws ends the pass.
  using Factors = std::function<SampleFactors(index_t group, const NormBounds&)>;

  ClippedSumSink(const Groups& groups, const StrategyOptions& options, GroupPass::OnChoice on_choice = {});
  index_t groups() const { return groups_.count(); }

  /// Starts a pass of `samples` samples, whatever became of an earlier one. exponents: of a scaled seed (ScaledSeed), not
  /// defined without a scale.
  void begin(index_t samples, Factors factors, GradientSums& sums, const Tensor& exponents = Tensor());
  /// A bias of another group than its weight's does not come along.
  void accept(Context& ctx, const ParameterSite& site) override;
  bool takes_biases(const Context& ctx) const override { return parts_[0].pass.takes_biases(ctx); }
  RowsWanted rows_wanted() const override { return RowsWanted::again; }
  void finish(Context& ctx, Parameter& parameter) override;
  /// Sums groups with a parameter that this pass does not use.
  void end(Context& ctx) override;

  /// After the pass: frees what it kept, so that the next one asks for no memory in addition to it. Whether it walked twice
  /// is known.
  void release();

  bool may_walk_again() const { return parts_[0].pass.may_walk_again(); }
  bool walks_again() const;
  /// The sink of the second walk; lives as long as this pass.
  GradientSink& second_walk();

 private:
  struct Part {
    explicit Part(GroupPass&& p) : pass(std::move(p)) {}
    GroupPass pass;
    SampleFactors factors;
    index_t left = 0;  // trainable parameters not finished yet
    bool done = false;
  };
  class SecondWalk final : public GradientSink {
   public:
    explicit SecondWalk(ClippedSumSink& first) : first_(first) {
      for (Part& part : first.parts_) replays_.emplace_back(part.pass, part.factors, *first.sums_);
    }
    void accept(Context& ctx, const ParameterSite& site) override {
      replays_[std::size_t(first_.groups_.of(*site.parameter))].accept(ctx, site);
    }
    void finish(Context& ctx, Parameter& parameter) override {
      replays_[std::size_t(first_.groups_.of(parameter))].finish(ctx, parameter);
    }
    RowsWanted rows_wanted() const override { return RowsWanted::again; }

   private:
    ClippedSumSink& first_;
    std::vector<ReplaySink> replays_;
  };

  /// The part of a parameter's group, which still takes sites.
  Part& open_part(const Parameter& p);
  void complete(Context& ctx, index_t g);

  Groups groups_;
  std::vector<Part> parts_;
  std::unique_ptr<SecondWalk> second_;
  Factors factors_of_;
  GradientSums* sums_ = nullptr;
  index_t samples_ = 0;
  Tensor exponents_;
};

/// One clipped backward pass: norms, factors and sums, with a second walk of the tape where the strategy needs one. With a
/// loss scale the operands of sample i are 2^k_i times as large: their norms and certificates, which are what is released
/// for a factor of 1, are divided by 2^k_i exactly, factors are made of these, and c_i 2^-k_i, exact or 0, is what the
/// sums are weighted with. That is clipping to C 2^k_i: no contribution is above C.
void clipped_backward(Tape& tape, const Variable& losses, const Tensor& weights, ClippedSumSink& sink,
                      ClippedSumSink::Factors factors, GradientSums& sums, const LossScaling& scaling = {});
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::per_sample {
DPMP_KEPT_BODY inline ClippedSumSink::ClippedSumSink(const Groups& groups, const StrategyOptions& options,
                                                     GroupPass::OnChoice on_choice)
    : groups_(groups) {
  DPMP_CHECK(groups.count() >= 1, "expected at least one clipping group, got ", groups.count());
  const auto kept_by_all = std::make_shared<KeptBytes>();
  for (index_t g = 0; g < groups.count(); ++g) parts_.emplace_back(GroupPass(options, on_choice, kept_by_all));
}

DPMP_KEPT_BODY inline void ClippedSumSink::begin(index_t samples, Factors factors, GradientSums& sums,
                                                 const Tensor& exponents) {
  samples_ = samples;
  exponents_ = exponents;
  factors_of_ = std::move(factors);
  sums_ = &sums;
  for (Part& part : parts_) {
    part.pass.clear();
    part.left = 0;
    part.done = false;
  }
  for (const Parameter* p : sums.parameters()) ++parts_[std::size_t(groups_.of(*p))].left;
}

DPMP_KEPT_BODY inline void ClippedSumSink::accept(Context& ctx, const ParameterSite& site) {
  if (!site.bias || groups_.of(*site.parameter) == groups_.of(*site.bias))
    return open_part(*site.parameter).pass.accept(ctx, site);
  for (const ParameterSite& part : separate(ctx, site)) open_part(*part.parameter).pass.accept(ctx, part);
}

DPMP_KEPT_BODY inline void ClippedSumSink::finish(Context& ctx, Parameter& parameter) {
  const index_t g = groups_.of(parameter);
  Part& part = parts_[std::size_t(g)];
  {
    const ProfilerRange range(ctx, "norm");
    part.pass.finish(ctx, parameter);
  }
  if (--part.left == 0) complete(ctx, g);
}

DPMP_KEPT_BODY inline void ClippedSumSink::end(Context& ctx) {
  for (index_t g = 0; g < groups_.count(); ++g) complete(ctx, g);
}

DPMP_KEPT_BODY inline void ClippedSumSink::release() {
  for (Part& part : parts_) {
    part.pass.release();
    part.factors = {};
  }
  second_.reset();
  factors_of_ = {};
  exponents_ = Tensor();
}

DPMP_KEPT_BODY inline bool ClippedSumSink::walks_again() const {
  return std::any_of(parts_.begin(), parts_.end(), [](const Part& p) { return p.pass.walks_again(); });
}

DPMP_KEPT_BODY inline GradientSink& ClippedSumSink::second_walk() {
  second_.reset(new SecondWalk(*this));
  return *second_;
}

DPMP_KEPT_BODY inline ClippedSumSink::Part& ClippedSumSink::open_part(const Parameter& p) {
  Part& part = parts_[std::size_t(groups_.of(p))];
  DPMP_CHECK(!part.done, "expected no site of ", p.name(), " after its last one: its group is summed");
  return part;
}

DPMP_KEPT_BODY inline void ClippedSumSink::complete(Context& ctx, index_t g) {
  Part& part = parts_[std::size_t(g)];
  if (part.done) return;
  part.done = true;
  {
    const ProfilerRange range(ctx, "norm");
    const NormBounds norms = part.pass.norms(ctx, samples_);
    part.factors = exponents_.defined() ? factors_of_(g, norms.unscaled(ctx, exponents_)).unscaled(ctx, exponents_)
                                        : factors_of_(g, norms);
  }
  const ProfilerRange range(ctx, "clipped sum");
  part.pass.weighted_sum(ctx, part.factors, *sums_);
  part.pass.release();
}

DPMP_KEPT_BODY inline void clipped_backward(Tape& tape, const Variable& losses, const Tensor& weights, ClippedSumSink& sink,
                                            ClippedSumSink::Factors factors, GradientSums& sums,
                                            const LossScaling& scaling) {
  const ScaledSeed seed = scaled_seed(tape, losses, weights, scaling);
  sink.begin(tape.samples(), std::move(factors), sums, seed.exponents);
  tape.backward(losses, sink, seed.weights, sink.may_walk_again() ? AfterWalk::keep : AfterWalk::release);
  if (sink.walks_again()) tape.backward(losses, sink.second_walk(), seed.weights);
  sink.release();
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif

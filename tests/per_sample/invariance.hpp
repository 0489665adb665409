// SPDX-License-Identifier: Apache-2.0
// Whether what is released of a record is a function of that record alone: bit for bit the same in every slot of a physical
// batch, whatever the others hold, whatever the order. Records are put into slots, and everything that belongs to them is
// compared with what the same record gave alone.
#pragma once
#include <map>

#include "dpmp/dp/clipping.hpp"
#include "dpmp/per_sample/clipped_sum_sink.hpp"
#include "dpmp/per_sample/pass_trace.hpp"
#include "per_sample/slots.hpp"
#include "per_sample/sum_ways.hpp"

namespace test {
/// Looks for a way in which a record's numbers depend on anything but the record, in batches of as many slots as records.
class InvarianceCheck {
 public:
  /// scaling: of the passes that are clipped.
  InvarianceCheck(dpmp::Context& ctx, Rng& rng, const SlotModel& model, const dpmp::LossScaling& scaling = {})
      : ctx_(ctx), rng_(rng), model_(model), scaling_(scaling) {}

  /// The first number of the pass that differs, or "".
  std::string pass() {
    std::map<index_t, dpmp::per_sample::PassTrace> alone;
    for (index_t r = 0; r < model_.records(); ++r) alone.emplace(r, traced(only(r, 0)));
    for (const Arrangement& slots : arrangements()) {
      const auto here = traced(slots);
      for (std::size_t i = 0; i < slots.size(); ++i)
        if (slots[i].content >= 0 && !slots[i].masked)
          if (const auto difference = here.first_difference(index_t(i), alone.at(slots[i].content), 0))
            return dpmp::detail::concat("record ", slots[i].content, " in slot ", i, ": ", *difference);
    }
    return "";
  }

  /// The same for norms, their certificates, and the released contributions c_i G_i of one record by one strategy.
  std::string contribution(const dpmp::per_sample::StrategyOptions& options, bool grouped,
                           const dpmp::dp::FlatClipping& clip) {
    const index_t record = rng_.integer(0, model_.records() - 1);
    const Released alone = released(options, grouped, clip, only(record, 0), 0);
    for (double x : alone.sum) not_zero_ += x != 0;
    std::vector<Arrangement> all = arrangements();
    for (int k = 0; k < 3; ++k) {
      Arrangement slots = all[std::size_t(rng_.integer(0, std::int64_t(all.size()) - 1))];
      const index_t slot = rng_.integer(0, 2)
                               ? model_.records() - 1 - rng_.integer(0, std::min<index_t>(2, model_.records() - 1))
                               : rng_.integer(0, model_.records() - 1);
      slots[std::size_t(slot)] = {record, false};
      const Released here = released(options, grouped, clip, slots, slot);
      if (!same(here.norms, alone.norms)) return dpmp::detail::concat("the norm of record ", record, " in slot ", slot);
      if (!same(here.sum, alone.sum)) return dpmp::detail::concat("the contribution of record ", record, " in slot ", slot);
    }
    return "";
  }
  /// Elements of contributions seen that were not 0: a check that saw none has shown nothing.
  index_t not_zero() const { return not_zero_; }

 private:
  Arrangement only(index_t record, index_t slot) const {
    Arrangement slots(std::size_t(model_.records()), {zeros, true});
    slots[std::size_t(slot)] = {record, false};
    return slots;
  }
  /// Every content that slots can have beside a record.
  std::vector<Arrangement> arrangements() {
    const index_t n = model_.records();
    Arrangement shifted, shuffled, repeated, mixed, broken;
    const index_t one = rng_.integer(0, n - 1);
    for (index_t i = 0; i < n; ++i) {
      shifted.push_back({(i + 1) % n, false});
      shuffled.push_back({i, false});
      repeated.push_back({one, false});
      mixed.push_back({rng_.integer(-3, n - 1), rng_.integer(0, 3) == 0});
      broken.push_back(i % 2 ? Slot{i, false} : Slot{nans, i % 4 == 0});
    }
    for (index_t i = n - 1; i > 0; --i) std::swap(shuffled[std::size_t(i)], shuffled[std::size_t(rng_.integer(0, i))]);
    return {shifted, shuffled, repeated, mixed, broken, only(one, n - 1)};
  }
  static std::vector<double> weights(const Arrangement& slots) {
    std::vector<double> w;
    for (const Slot& s : slots) w.push_back(s.masked ? 0 : 1);
    return w;
  }
  dpmp::per_sample::PassTrace traced(const Arrangement& slots) const {
    return {ctx_, model_.records(), [&](dpmp::Tape& tape) { return model_.record(tape, slots); }, weights(slots)};
  }

  struct Released {
    std::vector<double> norms, sum;
  };
  /// What is released of the record in one slot: every other factor is 0.
  Released released(const dpmp::per_sample::StrategyOptions& options, bool grouped, const dpmp::dp::FlatClipping& clip,
                    const Arrangement& slots, index_t slot) const {
    using dpmp::per_sample::Groups;
    const Groups groups = grouped ? Groups::by_parameter(model_.parameters()) : Groups::flat(model_.parameters());
    Released r;
    const auto factors = [&](index_t, const dpmp::per_sample::NormBounds& norms) {
      std::vector<std::uint8_t> ok = norms.finite();
      r.norms.insert(r.norms.end(),
                     {norms.norm(slot), norms.quadratic(slot), norms.upper(slot), double(ok[std::size_t(slot)])});
      for (std::size_t i = 0; i < ok.size(); ++i) ok[i] = std::uint8_t(ok[i] & std::uint8_t(index_t(i) == slot));
      std::vector<float> c(ok.size());
      clip.factors(norms.upper(), ok, c);
      return c;
    };
    dpmp::per_sample::ClippedSumSink sink(groups, options);
    dpmp::per_sample::GradientSums sums(ctx_, model_.parameters());
    dpmp::Tape tape(ctx_, model_.records());
    const dpmp::Variable losses = model_.record(tape, slots);
    dpmp::per_sample::clipped_backward(tape, losses,
                                       dpmp::Tensor::from(ctx_, {model_.records()}, losses.dtype(), weights(slots)), sink,
                                       factors, sums, scaling_);
    for (const dpmp::Tensor& t : sums.tensors()) {
      const std::vector<double> part = t.to_doubles();
      r.sum.insert(r.sum.end(), part.begin(), part.end());
    }
    return r;
  }
  static bool same(const std::vector<double>& x, const std::vector<double>& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), dpmp::per_sample::same_bits);
  }

  dpmp::Context& ctx_;
  Rng& rng_;
  const SlotModel& model_;
  dpmp::LossScaling scaling_;
  index_t not_zero_ = 0;
};

/// A rule for a random threshold: among them one that makes the norm of every contribution C, however small the gradient.
inline dpmp::dp::FlatClipping random_clipping(Rng& rng) {
  using dpmp::dp::ClipRule;
  const double threshold = std::ldexp(1.0, int(rng.integer(-10, 4)));
  switch (rng.integer(0, 2)) {
    case 0: return dpmp::dp::FlatClipping(threshold);
    case 1: return dpmp::dp::FlatClipping(threshold, ClipRule::automatic(0.01));
    default: return dpmp::dp::FlatClipping(threshold, ClipRule::normalise());
  }
}

/// Both checks of one model, the second by `ways` random ways, or by every one; "" or what was found. seen: not_zero() is
/// added to it.
inline std::string find_dependence(dpmp::Context& ctx, Rng& rng, const SlotModel& model, index_t& seen, int ways = 0,
                                   const dpmp::LossScaling& scaling = {}) {
  InvarianceCheck check(ctx, rng, model, scaling);
  if (const std::string found = check.pass(); !found.empty()) return found;
  const int all = int(sum_ways().size());
  for (int k = 0; k < (ways > 0 ? ways : all); ++k) {
    const SumWay& way = sum_ways()[std::size_t(ways > 0 ? rng.integer(0, all - 1) : k)];
    if (const std::string found = check.contribution(way.options, way.grouped, random_clipping(rng)); !found.empty())
      return std::string(way.name) + ": " + found;
  }
  seen += check.not_zero();
  return "";
}
}  // namespace test

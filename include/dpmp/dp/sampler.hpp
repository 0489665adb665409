// SPDX-License-Identifier: Apache-2.0
// Draws the records of each step in the way that a plan says. A draw is a pure function of (key, step): random access, so
// resuming needs nothing but the number of the step.
#pragma once
#include <optional>

#include "dpmp/dp/poisson_sampler.hpp"
#include "dpmp/dp/sampling.hpp"
#include "dpmp/dp/uniform_stream.hpp"
#include "dpmp/dp/user_records.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Plan::sampler() makes it. What is random is read from the key stream as follows (streams.hpp): inclusions and places in
/// an epoch under Stream::sampler (nonce: step or epoch), random parts under Stream::selection (nonce: step), groups under
/// Stream::groups of the root key alone: a run that is resumed with draws of its own keeps its groups.
class Sampler {
 public:
  /// keys: StepLedger::keys() of the run. rate: sampling_rate_of(). units: of this dataset, >= 1. Throws what
  /// check_sampling does, for options whose batch size is to be chosen yet, and for users whose records are not known.
  Sampler(const StreamKeys& keys, const SamplingOptions& sampling, double rate, index_t units);
  /// The same where the unit is a user.
  Sampler(const StreamKeys& keys, const SamplingOptions& sampling, double rate, UserRecords users);

  /// The same of another run: its draws, in the same way.
  Sampler with_keys(const StreamKeys& keys) const { return {keys, sampling_, probability(), units(), users_}; }
  const SamplingOptions& sampling() const { return sampling_; }
  /// Of this dataset: users, or records.
  index_t units() const { return poisson_.records(); }
  index_t records() const { return users_ ? users_->records() : units(); }
  /// Of each unit, in a step that may use it: what the plan accounts.
  double probability() const { return poisson_.probability(); }
  /// The most records that a step can use, where that does not depend on the draw (SamplingOptions::has_fixed_size); else 0.
  /// A public number: a program of so many slots fits every step.
  index_t fixed_slots() const;

  /// Replaces `records` by those of step `step`, each once; ascending, or where the unit is a user, the users one after the
  /// other. Throws on a step outside of [0, 2^40).
  void draw(index_t step, std::vector<index_t>& records) const;

 private:
  Sampler(const StreamKeys& keys, const SamplingOptions& sampling, double rate, index_t units,
          std::optional<UserRecords> users);
  void draw_units(index_t step, UniformStream& selection, std::vector<index_t>& units) const;
  SamplingOptions sampling_;
  PoissonSampler poisson_;
  SecretKey sampler_key_, selection_key_, group_key_;
  std::optional<UserRecords> users_;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline Sampler::Sampler(const StreamKeys& keys, const SamplingOptions& sampling, double rate, index_t units,
                                       std::optional<UserRecords> users)
    : sampling_(sampling),
      poisson_(keys.key(Stream::sampler), units, rate),
      sampler_key_(keys.key(Stream::sampler)),
      selection_key_(keys.key(Stream::selection)),
      group_key_(StreamKeys::repeat(keys.root(), 0).key(Stream::groups)),
      users_(std::move(users)) {
  check_sampling(sampling, units);
  DPMP_CHECK(sampling.kind != SamplingKind::truncated_poisson || sampling.batch_size >= 1,
             "expected the batch size of the plan (Plan::options), got one that is to be chosen yet");
  DPMP_CHECK(sampling_rate_of(sampling, rate, units) == rate, "expected the rate of ", sampling.kind, " of ", units,
             " units, got ", rate);
}

DPMP_KEPT_BODY inline Sampler::Sampler(const StreamKeys& keys, const SamplingOptions& sampling, double rate, index_t units)
    : Sampler(keys, sampling, rate, units, std::nullopt) {
  DPMP_CHECK(sampling.records_per_user == 0, "expected the records of each user for a plan whose unit is a user, got ",
             units, " units");
}

DPMP_KEPT_BODY inline Sampler::Sampler(const StreamKeys& keys, const SamplingOptions& sampling, double rate,
                                       UserRecords users)
    : Sampler(keys, sampling, rate, users.users(), std::optional<UserRecords>(users)) {
  DPMP_CHECK(sampling.records_per_user >= 1,
             "expected a plan whose unit is a user (SamplingOptions::records_per_user) for records of users, got one whose "
             "unit is a record");
}

DPMP_KEPT_BODY inline index_t Sampler::fixed_slots() const {
  if (!sampling_.has_fixed_size()) return 0;
  const index_t drawn = sampling_.kind == SamplingKind::full_batch ? units() : sampling_.batch_size;
  return drawn * sampling_.records_per_unit();
}

DPMP_KEPT_BODY inline void Sampler::draw(index_t step, std::vector<index_t>& records) const {
  DPMP_CHECK(step >= 0 && step < max_steps, "expected a step in [0, 2^40), got ", step);
  UniformStream selection(selection_key_, std::uint64_t(step));
  if (!users_) return draw_units(step, selection, records);
  std::vector<index_t> drawn;
  draw_units(step, selection, drawn);
  records.clear();
  for (const index_t u : drawn) {
    const std::span<const index_t> all = users_->of(u);
    const index_t size = index_t(all.size());
    for_random_subset(size, std::min(size, sampling_.records_per_user), selection,
                      [&](index_t k) { records.push_back(all[std::size_t(k)]); });
  }
}

DPMP_KEPT_BODY inline void Sampler::draw_units(index_t step, UniformStream& selection, std::vector<index_t>& units) const {
  const index_t count = this->units(), period = sampling_.period;
  switch (sampling_.kind) {
    case SamplingKind::poisson:
    case SamplingKind::full_batch: return poisson_.draw(step, units);
    case SamplingKind::truncated_poisson: {
      poisson_.draw(step, units);
      if (index_t(units.size()) <= sampling_.batch_size) return;
      std::size_t kept = 0;
      for_random_subset(index_t(units.size()), sampling_.batch_size, selection,
                        [&](index_t k) { units[kept++] = units[std::size_t(k)]; });
      return units.resize(kept);
    }
    case SamplingKind::without_replacement:
      units.clear();
      return for_random_subset(count, sampling_.batch_size, selection, [&](index_t k) { units.push_back(k); });
    case SamplingKind::balls_in_bins: {
      units.clear();
      UniformStream places(sampler_key_, std::uint64_t(step / period));
      for (index_t k = 0; k < count; ++k)
        if (index_t(places.below(std::uint64_t(period))) == step % period) units.push_back(k);
      return;
    }
    case SamplingKind::cyclic_poisson: {
      poisson_.draw(step, units);
      UniformStream groups(group_key_, 0);
      std::size_t kept = 0, next = 0;
      for (index_t k = 0; next < units.size(); ++k) {
        const bool of_this_step = index_t(groups.below(std::uint64_t(period))) == step % period;
        if (units[next] != k) continue;
        if (of_this_step) units[kept++] = k;
        ++next;
      }
      return units.resize(kept);
    }
  }
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif

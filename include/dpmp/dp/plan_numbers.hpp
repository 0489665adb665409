// SPDX-License-Identifier: Apache-2.0
// A plan as plain numbers: what a checkpoint stores and a resumed run compares (P20).
#pragma once
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "dpmp/dp/adaptive_clip.hpp"
#include "dpmp/dp/clip_rule.hpp"
#include "dpmp/dp/privacy_unit.hpp"
#include "dpmp/dp/schedule.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// All numbers of a Plan. target_epsilon is 0 for a plan made from a noise multiplier.
struct PlanNumbers {
  NeighbouringRelation relation = NeighbouringRelation::add_or_remove_one;
  double target_epsilon = 0, delta = 0, sampling_rate = 0;
  index_t steps = 0, dataset_size = 0;
  double clip_threshold = 0;  // sqrt(sum_g C_g^2) for groups, the initial one for adaptive plans
  double noise_multiplier = 0;
  index_t batch_bound = 0;
  double rho = 0, sensitivity = 0, expected_batch = 0;  // the sensitivity where the clip schedule says 1
  ClipRule::Kind clip_rule = ClipRule::Kind::abadi;
  double clip_rule_parameter = 0;
  std::string clip_rule_name;            // of a custom rule: the function itself cannot be stored
  std::vector<double> group_thresholds;  // empty: flat
  std::optional<AdaptiveOptions> adaptive;
  std::vector<Schedule::Piece> clip_schedule{{0, 1.0}}, noise_schedule{{0, 1.0}};
  friend bool operator==(const PlanNumbers&, const PlanNumbers&) = default;
};

namespace detail {
/// f(name, value) for a field that is no number itself; a mutable one takes the number over when it is in low..high.
template <class Field, class F, class Assign>
void visit_code(const std::string& name, index_t value, index_t low, index_t high, Field&, F&& f, Assign&& assign) {
  f(name.c_str(), value);
  if constexpr (!std::is_const_v<Field>) {
    DPMP_CHECK(value >= low && value <= high, "expected a ", name, " in [", low, ", ", high, "], got ", value);
    assign(value);
  }
}
/// The number of entries as "<name> count", then entry("<name> <k>", entries[k]) for each. Mutable entries are resized
/// between.
template <class Entries, class F, class Entry>
void visit_entries(const std::string& name, Entries& entries, index_t most, F&& f, Entry&& entry) {
  visit_code(name + " count", index_t(entries.size()), 0, most, entries, f, [&](index_t count) {
    if constexpr (!std::is_const_v<Entries>) entries.resize(std::size_t(count));
  });
  for (std::size_t k = 0; k < entries.size(); ++k) entry(name + ' ' + std::to_string(k), entries[k]);
}
template <class Pieces, class F>
void visit_schedule(const std::string& name, Pieces& pieces, F&& f) {
  visit_entries(name, pieces, Schedule::max_pieces, f, [&](const std::string& at, auto& piece) {
    f((at + " step").c_str(), piece.first_step);
    f((at + " value").c_str(), piece.value);
  });
}
}  // namespace detail

/// Calls f(name, field) for every field, in a fixed order; fields are doubles and index_t. The relation, the kind of rule,
/// characters and counts are given as an index_t; a count comes before its entries.
/// f may assign to the fields of a mutable `numbers`: what is no plain number is taken over, and checked, right afterwards,
/// so a reader that knows the names rebuilds everything. Names live as long as the call of f.
template <class Numbers, class F>
void for_each_number(Numbers& numbers, F&& f) {
  [[maybe_unused]] constexpr bool mutable_numbers = !std::is_const_v<Numbers>;
  detail::visit_code("relation", index_t(numbers.relation), 0, index_t(NeighbouringRelation::zero_out), numbers, f,
                     [&](index_t code) {
                       if constexpr (mutable_numbers) numbers.relation = NeighbouringRelation(code);
                     });
  f("target_epsilon", numbers.target_epsilon);
  f("delta", numbers.delta);
  f("sampling_rate", numbers.sampling_rate);
  f("steps", numbers.steps);
  f("dataset_size", numbers.dataset_size);
  f("clip_threshold", numbers.clip_threshold);
  f("noise_multiplier", numbers.noise_multiplier);
  f("batch_bound", numbers.batch_bound);
  f("rho", numbers.rho);
  f("sensitivity", numbers.sensitivity);
  f("expected_batch", numbers.expected_batch);
  detail::visit_code("clip rule", index_t(numbers.clip_rule), 0, index_t(ClipRule::Kind::custom), numbers, f,
                     [&](index_t code) {
                       if constexpr (mutable_numbers) numbers.clip_rule = ClipRule::Kind(code);
                     });
  f("clip rule parameter", numbers.clip_rule_parameter);
  detail::visit_entries("clip rule name character", numbers.clip_rule_name, index_t(ClipRule::longest_name), f,
                        [&](const std::string& name, auto& character) {
                          detail::visit_code(name, index_t(character), ' ', '~', character, f, [&](index_t code) {
                            if constexpr (mutable_numbers) character = char(code);
                          });
                        });
  detail::visit_entries("group", numbers.group_thresholds, max_parameters, f,
                        [&](const std::string& name, auto& threshold) { f((name + " threshold").c_str(), threshold); });
  detail::visit_code("adaptive", index_t(numbers.adaptive.has_value()), 0, 1, numbers, f, [&](index_t code) {
    if constexpr (mutable_numbers) numbers.adaptive = code ? std::optional(AdaptiveOptions{}) : std::nullopt;
  });
  if (numbers.adaptive) {
    f("adaptive quantile", numbers.adaptive->quantile);
    f("adaptive learning rate", numbers.adaptive->learning_rate);
    f("adaptive count noise", numbers.adaptive->count_noise);
    f("adaptive lowest", numbers.adaptive->lowest);
    f("adaptive highest", numbers.adaptive->highest);
    f("adaptive initial threshold", numbers.adaptive->initial_threshold);
  }
  detail::visit_schedule("clip schedule", numbers.clip_schedule, f);
  detail::visit_schedule("noise schedule", numbers.noise_schedule, f);
}

/// The fields in which two plans differ, one a line ("delta: 1e-05, 1e-06"; "none" where a plan lacks the field); empty when
/// they are equal.
std::string difference(const PlanNumbers& x, const PlanNumbers& y);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline std::string difference(const PlanNumbers& x, const PlanNumbers& y) {
  using Line = std::pair<std::string, std::string>;
  const auto lines = [](const PlanNumbers& n) {
    std::vector<Line> r;
    for_each_number(n, [&](const char* name, const auto& value) {
      TextStream text;
      text.precision(17);
      text << value;
      r.emplace_back(name, text.str());
    });
    return r;
  };
  const std::vector<Line> a = lines(x), b = lines(y);
  TextStream out;
  // Both lists have the same order, so a line that the other lacks is found where they fall out of step.
  const auto has = [](const std::vector<Line>& list, std::size_t from, const std::string& name) {
    for (std::size_t k = from; k < list.size(); ++k)
      if (list[k].first == name) return true;
    return false;
  };
  for (std::size_t i = 0, j = 0; i < a.size() || j < b.size();) {
    if (i < a.size() && j < b.size() && a[i].first == b[j].first) {
      if (a[i].second != b[j].second) out << a[i].first << ": " << a[i].second << ", " << b[j].second << '\n';
      ++i, ++j;
    } else if (i < a.size() && !has(b, j, a[i].first)) {
      out << a[i].first << ": " << a[i].second << ", none\n";
      ++i;
    } else {
      out << b[j].first << ": none, " << b[j].second << '\n';
      ++j;
    }
  }
  return out.str();
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif

// SPDX-License-Identifier: Apache-2.0
// A plan as plain numbers: what a checkpoint stores and a resumed run compares (P20).
#pragma once
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "dpmp/dp/privacy_unit.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// All numbers of a Plan. target_epsilon is 0 for a plan made from a noise multiplier.
struct PlanNumbers {
  NeighbouringRelation relation = NeighbouringRelation::add_or_remove_one;
  double target_epsilon = 0, delta = 0, sampling_rate = 0;
  index_t steps = 0, dataset_size = 0;
  double clip_threshold = 0, noise_multiplier = 0;
  index_t batch_bound = 0;
  double rho = 0, sensitivity = 0, expected_batch = 0;
  friend bool operator==(const PlanNumbers&, const PlanNumbers&) = default;
};

/// Calls f(name, field) for every field, in a fixed order; fields are doubles, index_t, and the relation as an index_t.
/// f may assign to the fields of a mutable `numbers`; the relation is taken over, and checked, afterwards.
template <class Numbers, class F>
void for_each_number(Numbers& numbers, F&& f) {
  index_t relation = index_t(numbers.relation);
  f("relation", relation);
  if constexpr (!std::is_const_v<Numbers>) {
    DPMP_CHECK(relation >= 0 && relation <= index_t(NeighbouringRelation::zero_out), "expected a relation in [0, 2], got ",
               relation);
    numbers.relation = NeighbouringRelation(relation);
  }
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
}

/// The fields in which two plans differ, one a line ("delta: 1e-05, 1e-06"); empty when they are equal.
inline std::string difference(const PlanNumbers& x, const PlanNumbers& y) {
  const auto lines = [](const PlanNumbers& n) {
    std::vector<std::pair<std::string, std::string>> r;
    for_each_number(n, [&](const char* name, const auto& value) {
      std::ostringstream text;
      text.precision(17);
      text << value;
      r.emplace_back(name, text.str());
    });
    return r;
  };
  const auto a = lines(x), b = lines(y);
  std::ostringstream out;
  for (std::size_t k = 0; k < a.size(); ++k)
    if (a[k].second != b[k].second) out << a[k].first << ": " << a[k].second << ", " << b[k].second << '\n';
  return out.str();
}
}  // namespace dpmp::inline DPMP_ABI::dp

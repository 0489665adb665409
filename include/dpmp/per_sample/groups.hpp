// SPDX-License-Identifier: Apache-2.0
// Clipping groups: which parameters are clipped together, each group to a threshold of its own.
#pragma once
#include <functional>
#include <map>
#include <span>
#include <string>
#include <unordered_map>

#include "dpmp/autograd/parameter.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// The group of each parameter of a model, numbered from 0 in the order of the parameters. Frozen parameters have one too,
/// so that freezing changes no number.
class Groups {
 public:
  /// One group: flat clipping.
  static Groups flat(std::span<Parameter* const> parameters);
  static Groups by_parameter(std::span<Parameter* const> parameters);
  /// Parameters whose names agree up to the last dot: a layer's weight and bias.
  static Groups by_layer(std::span<Parameter* const> parameters);
  /// One group for each name that name_of_group gives.
  static Groups by(std::span<Parameter* const> parameters,
                   const std::function<std::string(const Parameter&)>& name_of_group);
  index_t count() const { return index_t(names_.size()); }
  const std::string& name(index_t group) const { return names_[std::size_t(group)]; }
  /// The group of a parameter. Throws for a parameter that was not among those grouped.
  index_t of(const Parameter& p) const;

 private:
  std::unordered_map<const Parameter*, index_t> of_;
  std::vector<std::string> names_;
};
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::per_sample {
DPMP_KEPT_BODY inline Groups Groups::flat(std::span<Parameter* const> parameters) {
  return by(parameters, [](const Parameter&) { return std::string(); });
}

DPMP_KEPT_BODY inline Groups Groups::by_parameter(std::span<Parameter* const> parameters) {
  return by(parameters, [](const Parameter& p) { return p.name(); });
}

DPMP_KEPT_BODY inline Groups Groups::by_layer(std::span<Parameter* const> parameters) {
  return by(parameters, [](const Parameter& p) { return p.name().substr(0, p.name().rfind('.')); });
}

DPMP_KEPT_BODY inline Groups Groups::by(std::span<Parameter* const> parameters,
                                        const std::function<std::string(const Parameter&)>& name_of_group) {
  Groups groups;
  std::map<std::string, index_t> numbers;
  for (const Parameter* p : parameters) {
    const auto [at, is_new] = numbers.emplace(name_of_group(*p), index_t(groups.names_.size()));
    if (is_new) groups.names_.push_back(at->first);
    groups.of_[p] = at->second;
  }
  DPMP_CHECK(!groups.names_.empty(), "expected at least one parameter to group, got none");
  return groups;
}

DPMP_KEPT_BODY inline index_t Groups::of(const Parameter& p) const {
  const auto at = of_.find(&p);
  DPMP_CHECK(at != of_.end(), "expected a parameter with a clipping group, got ", p.name());
  return at->second;
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif

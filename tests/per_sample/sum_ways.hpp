// SPDX-License-Identifier: Apache-2.0
// Every way from a pass to clipped sums, for tests that go through all of them.
#pragma once
#include <vector>

#include "dpmp/per_sample/cost.hpp"

namespace test {
/// Every way from norms to clipped sums.
struct SumWay {
  const char* name;
  dpmp::per_sample::StrategyOptions options;
  bool grouped = false;
};
inline const std::vector<SumWay>& sum_ways() {
  using enum dpmp::per_sample::Strategy;
  using dpmp::per_sample::NormChoice;
  static const std::vector<SumWay> ways{
      {"automatic", {}},
      {"automatic, no bytes", {.byte_budget = 0}},
      {"book-keeping", {.strategy = book_keeping}},
      {"book-keeping, gram", {.strategy = book_keeping, .norms = NormChoice::gram}},
      {"book-keeping, instantiate", {.strategy = book_keeping, .norms = NormChoice::instantiate}},
      {"two-pass, gram", {.strategy = two_pass, .norms = NormChoice::gram}},
      {"two-pass, instantiate", {.strategy = two_pass, .norms = NormChoice::instantiate}},
      {"materialised", {.strategy = materialised}},
      {"materialised, stored narrow", {.strategy = materialised, .gradients = dpmp::per_sample::GradientStorage::compute}},
      {"grouped", {}, true},
      {"grouped, two-pass", {.strategy = two_pass}, true}};
  return ways;
}
}  // namespace test

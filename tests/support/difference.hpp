// SPDX-License-Identifier: Apache-2.0
// What differs between two lists of numbers, and by how much: CHECK(difference(got, want) == "") says so where it fails.
#pragma once
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

namespace test {
/// "" for the same numbers at the same places; a NaN is not the same as itself.
template <class T>
std::string difference(const std::vector<T>& got, const std::vector<T>& want) {
  if (got == want) return "";
  std::ostringstream text;
  text.precision(17);
  if (got.size() != want.size()) {
    text << got.size() << " numbers, expected " << want.size();
    return text.str();
  }
  std::size_t count = 0, first = 0, farthest = 0;
  double most = -1;
  for (std::size_t k = 0; k < got.size(); ++k) {
    if (got[k] == want[k]) continue;
    if (count++ == 0) first = k;
    const double apart = std::abs(double(got[k]) - double(want[k]));
    if (!(apart <= most) && !std::isnan(most)) most = apart, farthest = k;  // a NaN stays
  }
  const auto show = [&](const char* which, std::size_t k) {
    text << "; " << which << " at " << k << ": " << double(got[k]) << ", expected " << double(want[k]);
  };
  text << count << " of " << got.size() << " numbers differ by up to " << most;
  show("the first", first);
  if (farthest != first) show("the most", farthest);
  return text.str();
}
}  // namespace test

// SPDX-License-Identifier: Apache-2.0
// Numbers in text that are bounds: a printed epsilon or delta is never below the one that was spent, printed noise never
// above what is added.
#pragma once
#include <string>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// x >= 0 with `decimals` digits after the point, rounded up: what is printed, read as a double, is not below x.
std::string rounded_up(double x, int decimals);
/// The same with `digits` significant digits, without zeros at the end: 1 / 300000 with 6 is "3.33334e-06".
std::string digits_up(double x, int digits);
/// The same, not above x.
std::string digits_down(double x, int digits);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <cmath>
#include <iomanip>
#include <locale>

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// x as `out` prints it, or its neighbour in units of the last digit that is not below x (side 1) or not above it (side -1).
inline std::string printed_beyond(TextStream& out, double x, double unit, int side) {
  for (double y = x;; y += side * unit / 2) {
    out.str("");
    out << y;
    double read = y;
    std::istringstream in(out.str());
    in.imbue(std::locale::classic());
    in >> read;
    if (side > 0 ? read >= x : read <= x) return out.str();
  }
}
inline std::string digits_beyond(double x, int digits, int side) {
  DPMP_CHECK(x >= 0 && digits >= 1 && digits <= 17, "expected a number >= 0 and 1 to 17 digits, got ", x, " and ", digits);
  if (x == 0 || std::isinf(x)) return dpmp::detail::concat(x);
  TextStream out;
  out.precision(digits);
  return printed_beyond(out, x, std::pow(10.0, std::floor(std::log10(x)) - digits + 1), side);
}
}  // namespace detail

DPMP_KEPT_BODY inline std::string rounded_up(double x, int decimals) {
  DPMP_CHECK(x >= 0 && decimals >= 0 && decimals <= 17, "expected a number >= 0 and 0 to 17 decimals, got ", x, " and ",
             decimals);
  if (std::isinf(x)) return dpmp::detail::concat(x);
  TextStream out;
  out << std::fixed << std::setprecision(decimals);
  return detail::printed_beyond(out, x, std::pow(10.0, -decimals), 1);
}

DPMP_KEPT_BODY inline std::string digits_up(double x, int digits) { return detail::digits_beyond(x, digits, 1); }

DPMP_KEPT_BODY inline std::string digits_down(double x, int digits) { return detail::digits_beyond(x, digits, -1); }
}  // namespace dpmp::inline DPMP_ABI::dp
#endif

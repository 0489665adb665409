// SPDX-License-Identifier: Apache-2.0
// What a refusal said.
#pragma once
#include <string>

#include "dpmp/core/error.hpp"

namespace test {
/// The message of the dpmp::Error that f() throws; "" when it throws none.
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const dpmp::Error& e) {
    return e.what();
  }
  return "";
}
/// Whether f() throws a dpmp::Error whose text contains `part`.
template <class F>
bool refuses(F&& f, const std::string& part) {
  const std::string text = error_of(f);
  return !text.empty() && text.find(part) != std::string::npos;
}
}  // namespace test

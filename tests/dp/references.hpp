// SPDX-License-Identifier: Apache-2.0
// Reference epsilons and divergences, computed with Opacus, dp_accounting and SciPy (see "meta" inside the file).
#pragma once
#include <doctest/doctest.h>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "support/source_folder.hpp"

namespace test {
inline const nlohmann::json& accountant_references() {
  static const nlohmann::json data = [] {
    std::ifstream file(source_folder() / "tests/dp/accountant_refs.json");
    REQUIRE(file.good());
    std::string text{std::istreambuf_iterator<char>(file), {}};
    // Python wrote an infinity, which JSON has no word for.
    for (std::size_t at; (at = text.find("Infinity")) != std::string::npos;) text.replace(at, 8, "null");
    return nlohmann::json::parse(text);
  }();
  return data;
}
}  // namespace test

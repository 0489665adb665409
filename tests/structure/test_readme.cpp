// SPDX-License-Identifier: Apache-2.0
// Programs that the documentation shows are the ones that are compiled.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include "support/source_folder.hpp"

namespace {
std::string read(const std::string& name) {
  std::ostringstream text;
  text << std::ifstream(test::source_folder() / name).rdbuf();
  return text.str();
}
}  // namespace

TEST_CASE("the README's first program is examples/quickstart.cpp") {
  const std::string program = read("examples/quickstart.cpp");
  const std::string shown = program.substr(program.find('\n') + 1);  // without the licence line
  REQUIRE(shown.size() > 500);
  CHECK(read("README.md").find("```cpp\n" + shown + "```") != std::string::npos);
}

TEST_CASE("the code of docs/adding_a_layer.md is that of examples/linear_recurrence.hpp") {
  const std::string page = read("docs/adding_a_layer.md"), header = read("examples/linear_recurrence.hpp");
  int blocks = 0;
  for (auto at = page.find("```cpp\n"); at != std::string::npos; at = page.find("```cpp\n", at + 1)) {
    const auto from = at + 7, to = page.find("```", from);
    REQUIRE(to != std::string::npos);
    const std::string block = page.substr(from, to - from);
    CAPTURE(block);
    CHECK(header.find(block) != std::string::npos);
    ++blocks;
  }
  CHECK(blocks >= 4);
}

TEST_CASE("docs/properties.md defines every property that a test case cites") {
  const std::string page = read("docs/properties.md");
  const std::regex citation("TEST_CASE[A-Z_]*\\(\\s*\"(P[0-9]+(?:, P[0-9]+)*)"), id("P[0-9]+");
  int cited = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(test::source_folder() / "tests")) {
    const std::string suffix = entry.path().extension().string();
    if (suffix != ".cpp" && suffix != ".cu") continue;
    std::ostringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    const std::string source = text.str();
    for (std::sregex_iterator m(source.begin(), source.end(), citation), end; m != end; ++m) {
      const std::string ids = (*m)[1].str();
      for (std::sregex_iterator k(ids.begin(), ids.end(), id); k != end; ++k, ++cited) {
        CAPTURE(entry.path().string());
        CAPTURE(k->str());
        CHECK(page.find("\n| " + k->str() + " | ") != std::string::npos);
      }
    }
  }
  CHECK(cited > 100);
}

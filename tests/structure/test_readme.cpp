// SPDX-License-Identifier: Apache-2.0
// Programs that the documentation shows are the ones that are compiled.
#include <doctest/doctest.h>

#include <fstream>
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

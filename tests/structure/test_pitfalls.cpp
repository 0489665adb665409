// SPDX-License-Identifier: Apache-2.0
// The tests that the documentation names are there, and docs/pitfalls.md names one for each way to lose the guarantee.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "support/source_folder.hpp"

namespace fs = std::filesystem;

namespace {
std::string read(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}
std::set<std::string> names_of_tests() {
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(test::source_folder() / "tests"))
    names.insert(entry.path().filename().string());
  return names;
}
/// What the text names that looks like a file of tests: test_models.cpp, fuzz_idx.cpp, test_invariance*.cpp,
/// two_units.cmake.
std::vector<std::string> tests_named(const std::string& text) {
  static const std::regex name("((test|fuzz)_[A-Za-z0-9_*]+\\.(cpp|cu|py)|`[a-z_]+\\.cmake)");
  std::vector<std::string> names;
  for (std::sregex_iterator m(text.begin(), text.end(), name), end; m != end; ++m) {
    const std::string found = m->str();
    names.push_back(found[0] == '`' ? found.substr(1) : found);
  }
  return names;
}
bool is_there(const std::string& name, const std::set<std::string>& files) {
  if (name.find('*') == std::string::npos) return files.contains(name);
  const std::regex pattern(std::regex_replace(std::regex_replace(name, std::regex("\\."), "\\."), std::regex("\\*"), ".*"));
  for (const std::string& file : files)
    if (std::regex_match(file, pattern)) return true;
  return false;
}
struct Row {
  std::string severity, what, done, left;
};
/// The rows of the tables with a severity in front.
std::vector<Row> pitfalls(const std::string& page) {
  std::vector<Row> rows;
  std::istringstream lines(page);
  for (std::string line; std::getline(lines, line);) {
    std::vector<std::string> cells;
    for (std::size_t at = 0, bar = line.find('|'); bar != std::string::npos; at = bar + 1, bar = line.find('|', at))
      cells.push_back(line.substr(at, bar - at));
    if (cells.size() < 2 || cells[1].find("severity") != std::string::npos || cells[1].find("---") != std::string::npos)
      continue;
    cells.resize(5);
    rows.push_back({cells[1], cells[2], cells[3], cells[4]});
  }
  return rows;
}
/// What is wrong with a row; "" where nothing is.
std::string fault_of(const Row& row, const std::set<std::string>& files, const std::string& properties) {
  if (row.severity != " critical " && row.severity != " theoretical " && row.severity != " negligible ")
    return "severity" + row.severity;
  if (row.what.size() < 10) return "no pitfall";
  const std::vector<std::string> tests = tests_named(row.done);
  if (tests.empty()) return "no test";
  for (const std::string& name : tests)
    if (!is_there(name, files)) return "no file " + name;
  static const std::regex property("\\bP[0-9]+\\b");
  for (std::sregex_iterator m(row.done.begin(), row.done.end(), property), end; m != end; ++m)
    if (properties.find("\n| " + m->str() + " | ") == std::string::npos) return "no property " + m->str();
  return "";
}
}  // namespace

TEST_CASE("every way to lose the guarantee has a severity, a test that is there, and properties that are listed") {
  const std::set<std::string> files = names_of_tests();
  const std::string properties = read(test::source_folder() / "docs/properties.md");
  const std::vector<Row> rows = pitfalls(read(test::source_folder() / "docs/pitfalls.md"));
  CHECK(rows.size() >= 50);
  for (const Row& row : rows) {
    CAPTURE(row.what);
    CHECK(fault_of(row, files, properties) == "");
  }
  // Planted.
  const auto fault = [&](const std::string& line) {
    const std::vector<Row> planted = pitfalls(line);
    REQUIRE(planted.size() == 1);
    return fault_of(planted[0], files, properties);
  };
  CHECK(fault("| critical | a way to lose it | a check (`test_readme.cpp`, P1) | |") == "");
  CHECK(fault("| critical | a way to lose it | a check (`test_read*.cpp`) | |") == "");
  CHECK(fault("| critical | a way to lose it | a check, nobody knows where | |") == "no test");
  CHECK(fault("| critical | a way to lose it | a check (`test_readmf.cpp`) | |") == "no file test_readmf.cpp");
  CHECK(fault("| critical | a way to lose it | a check (`test_readm*.cu`) | |") == "no file test_readm*.cu");
  CHECK(fault("| critical | a way to lose it | a check (`no_such.cmake`, `test_readme.cpp`) | |") ==
        "no file no_such.cmake");
  CHECK(fault("| critical | a way to lose it | a check (`test_readme.cpp`, P99) | |") == "no property P99");
  CHECK(fault("| severe | a way to lose it | a check (`test_readme.cpp`) | |") == "severity severe ");
}

TEST_CASE("every test that a page names is there") {
  const std::set<std::string> files = names_of_tests();
  std::vector<fs::path> pages;
  for (const char* folder : {"docs", ".", "examples"})
    for (const auto& entry : fs::directory_iterator(test::source_folder() / folder))
      if (entry.path().extension() == ".md") pages.push_back(entry.path());
  int named = 0;
  for (const fs::path& page : pages)
    for (const std::string& name : tests_named(read(page))) {
      CAPTURE(page.string());
      CAPTURE(name);
      CHECK(is_there(name, files));
      ++named;
    }
  CHECK(named > 100);
}

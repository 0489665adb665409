// SPDX-License-Identifier: Apache-2.0
// Rows of the table of counts: by range, name and kind; its text formats.
#include <doctest/doctest.h>

#include <sstream>
#include <thread>
#include <vector>

#include "captured.hpp"
#include "count_table.hpp"
#include "ranges.hpp"

namespace {

/// Lines of the CSV whose name column holds this name.
std::vector<std::string> lines_of(const std::string& name) {
  std::vector<std::string> found;
  std::istringstream in(emu::count_csv());
  for (std::string line; std::getline(in, line);) {
    if (contains(line, "\"" + name + "\",")) found.push_back(line);
  }
  return found;
}
emu::Stat one_launch() {
  emu::Stat s;
  s.launches = 1;
  s.instructions[EC_FMA32] = 10;
  emu::count_operations(s);
  return s;
}

}  // namespace

TEST_CASE("ranges nest, are counted, and belong to their thread") {
  CHECK(emu::pop_range() == -1);
  CHECK(emu::current_range() == "");
  CHECK(emu::push_range("outer") == 0);
  CHECK(emu::push_range("inner") == 1);
  CHECK(emu::current_range() == "outer/inner");
  std::thread([] { CHECK(emu::current_range() == ""); }).join();
  CHECK(emu::pop_range() == 1);
  CHECK(emu::current_range() == "outer");
  CHECK(emu::pop_range() == 0);
  CHECK(emu::current_range() == "");
  emu::push_range("outer");
  emu::pop_range();
  CHECK(emu::times_entered("outer") == 2);
  CHECK(emu::times_entered("outer/inner") == 1);
  CHECK(emu::times_entered("inner") == 0);
}

TEST_CASE("work is summed by range, kind and name") {
  emu::count_work(emu::WorkKind::kernel, "summed", one_launch());
  emu::push_range("table");
  emu::count_work(emu::WorkKind::kernel, "summed", one_launch());
  {
    const emu::GraphLaunch graph;
    emu::count_work(emu::WorkKind::kernel, "summed", one_launch());
  }
  emu::pop_range();
  emu::count_work(emu::WorkKind::product, "summed", one_launch());
  const std::vector<std::string> lines = lines_of("summed");
  REQUIRE(lines.size() == 3);
  CHECK(lines[0].rfind("\"\",0,\"kernel\",\"summed\",1,0,", 0) == 0);
  CHECK(lines[1].rfind("\"table\",1,\"kernel\",\"summed\",2,1,", 0) == 0);
  CHECK(lines[2].rfind("\"\",0,\"product\",\"summed\",1,0,", 0) == 0);
}

TEST_CASE("every line has the columns of the head; quotes are kept") {
  emu::count_work(emu::WorkKind::copy, "say \"x\", y", one_launch());
  std::istringstream in(emu::count_csv());
  std::string head, line;
  REQUIRE(std::getline(in, head));
  const auto commas = [](const std::string& text) {
    int n = 0;
    bool inside = false;
    for (char c : text) {
      if (c == '"') inside = !inside;
      if (c == ',' && !inside) n++;
    }
    return n;
  };
  CHECK(head.rfind("range,entered,kind,name,launches,graph_launches,blocks,threads,n_ld_global,", 0) == 0);
  while (std::getline(in, line)) CHECK(commas(line) == commas(head));
  CHECK(contains(emu::count_csv(), "\"say \"\"x\"\", y\""));
  CHECK(contains(emu::count_json(), "\"name\": \"say \\\"x\\\", y\""));
  CHECK(contains(emu::count_json(), "\"flops_fp32\": 20"));
}

TEST_CASE("the table names each range and the sum of what is in it") {
  emu::push_range("printed");
  emu::Stat s = one_launch();
  s.operations[emu::fp32] = 1234567;
  emu::count_work(emu::WorkKind::kernel, "first", s);
  emu::push_range("nested");
  emu::count_work(emu::WorkKind::kernel, "second", s);
  emu::pop_range();
  emu::pop_range();
  const std::string text = captured(emu::write_count_table);
  CHECK(contains(text, "EMU COUNT range printed (entered 1 times)"));
  CHECK(contains(text, "1.23M"));
  CHECK(contains(text, "2.47M"));
}

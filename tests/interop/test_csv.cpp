// SPDX-License-Identifier: Apache-2.0
// CSV: what a writer of any style made is read field by field; what RFC 4180 does not have is refused with its place; and
// rows become numbers and classes.
#include <doctest/doctest.h>
#include <cmath>
#include <string>
#include <vector>

#include "dpmp/interop/csv.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using interop::CsvTable;
using interop::labelled_rows;
using interop::parse_csv;
using Texts = std::vector<std::string>;

TEST_CASE("csv: fields of any text, in quotes or not, with either line end, come back as they were") {
  test::Rng rng;
  const Texts pieces{"a", "bc", "0.5", " ", ",", ";", "\"", "\n", "\r\n", "\xc3\xa9", "\xe2\x82\xac", "x\ty"};
  const test::TemporaryFolder folder;
  for (int trial = 0; trial < 400; ++trial) {
    const char separator = rng.integer(0, 2) ? ',' : ';';
    const bool header = rng.integer(0, 1);
    const index_t columns = rng.integer(1, 4), rows = rng.integer(header ? 2 : 1, 5);
    std::string text = rng.integer(0, 5) ? "" : "\xef\xbb\xbf";
    Texts fields;
    std::vector<index_t> lines;
    index_t line = 1;
    for (index_t r = 0; r < rows; ++r) {
      lines.push_back(line);
      for (index_t c = 0; c < columns; ++c) {
        std::string field, quoted;
        for (auto left = rng.integer(0, 3); left > 0; --left) field += pieces[std::size_t(rng.integer(0, 11))];
        for (const char ch : field) quoted += ch == '"' ? "\"\"" : std::string(1, ch), line += ch == '\n';
        const bool must = field.find_first_of("\"\n\r") != std::string::npos || field.find(separator) != std::string::npos;
        // An empty last field without quotes would look like the end of the file.
        const bool may = rng.integer(0, 1) || (columns == 1 && field.empty());
        if (c > 0) text += separator;
        text += must || may ? '"' + quoted + '"' : field;
        fields.push_back(field);
      }
      if (r + 1 < rows || rng.integer(0, 1)) text += rng.integer(0, 1) ? "\n" : "\r\n", ++line;
    }
    CAPTURE(text);
    test::write_text(folder / "x.csv", text);
    const CsvTable table = CsvTable::read(folder / "x.csv", {.separator = separator, .header = header});
    REQUIRE(table.columns() == columns);
    REQUIRE(table.rows() == rows - header);
    if (header) CHECK(table.header() == Texts(fields.begin(), fields.begin() + columns));
    if (!header) CHECK(table.header().empty());
    for (index_t r = 0; r < table.rows(); ++r) {
      CHECK(table.line(r) == lines[std::size_t(r + header)]);
      for (index_t c = 0; c < columns; ++c) CHECK(table.field(r, c) == fields[std::size_t((r + header) * columns + c)]);
    }
  }
}

TEST_CASE("csv: what is refused, with line and column, and without what the field says") {
  const auto refused = [](const std::string& text, const std::string& says, bool header = false) {
    CAPTURE(text);
    const std::string error = test::error_of([&] { parse_csv("t.csv", text, {.header = header}); });
    CHECK_MESSAGE(error.find(says) != std::string::npos, error);
    CHECK(error.find("'t.csv'") != std::string::npos);
    CHECK(error.find("secret") == std::string::npos);
  };
  refused("a,b\nc,d\ne\n", "2 fields in each row, got 1 in line 3");
  refused("a,b\n\"x\ny\",d\n1,2,3", "got 3 in line 4");
  refused("a,b\n\n", "got 1 in line 2");
  refused("a,se\"cret\n", "a quote inside of one in line 1, column 2");
  refused("a\n\"secret\"x", "behind a closing quote, got another character in line 2, column 1");
  refused("a,b\n1,\"secret", "a closing quote, got the end of the file in line 2, column 2");
  refused("a\n\"x\n\"\"", "a closing quote");
  refused("a\rb\n", "a CR without LF in line 1, column 1");
  refused("a,b\r", "a CR without LF in line 1, column 2");
  refused("\"a\"\rb", "a CR without LF");
  refused("a\nsecret\xff", "UTF-8 text, got another byte in line 2");
  refused(std::string("a\nsecret\0", 9), "a NUL byte in line 2");
  refused("", "at least one row, got none");
  refused("\xef\xbb\xbf", "at least one row");
  refused("a,b\n", "at least one row below the header", true);
  CHECK(test::refuses([] { parse_csv("t", "a", {.separator = '\n'}); }, "a separator"));
  CHECK(test::refuses([] { CsvTable::read("/none/x.csv"); }, "/none/x.csv"));
  const CsvTable table = parse_csv("t.csv", "a,b,a\n1,2,3\n");
  CHECK(table.column("b") == 1);
  CHECK(test::refuses([&] { table.column("a"); }, "one column 'a' in the header of 't.csv', got 2"));
  CHECK(test::refuses([&] { table.column("c"); }, "got 0"));
  CHECK(test::refuses([&] { table.field(1, 0); }, "a field of 1 rows"));
  CHECK(test::refuses([&] { table.field(0, -1); }, "a field of 1 rows"));
  CHECK(test::refuses([&] { table.line(1); }, "a row of 1"));
}

TEST_CASE("csv: numbers and classes") {
  const CsvTable table = parse_csv("t.csv", "x,kind,y\r\n0.1,cat,-2e3\r\n\"1\",\"dog\",.5\r\n");
  const Texts classes{"dog", "bird", "cat"};
  const interop::LabelledRows rows = labelled_rows(table, table.column("kind"), classes);
  CHECK(rows.columns == Texts{"x", "y"});
  CHECK(rows.values == std::vector<double>{0.1, -2000, 1, 0.5});
  CHECK(rows.labels == std::vector<std::int32_t>{2, 0});
  const auto refused = [&](const std::string& text, const std::string& says) {
    CAPTURE(text);
    CHECK(test::refuses([&] { labelled_rows(parse_csv("t", text, {.header = false}), 0, classes); }, says));
  };
  for (const char* x : {"", " 1", "1 ", "+1", "1,5x", "nan", "inf", "1e999", "0x1", "1_0", "--1"})
    refused("cat,7\ndog," + ('"' + std::string(x) + '"'), "decimal number in the row of line 2, column 2");
  refused("dog,1\ncow,1", "one of the 3 classes in the row of line 2, column 1");
  CHECK(test::refuses([&] { labelled_rows(table, 3, classes); }, "a label's column of 3"));
  CHECK(test::refuses([&] { labelled_rows(table, 1, Texts{"cat", "dog", "cat"}); }, "got 'cat' twice"));
  // Numbers in their shortest form are the same doubles.
  test::Rng rng;
  std::string text;
  std::vector<double> values;
  for (int k = 0; k < 200; ++k) {
    values.push_back(std::ldexp(rng.normal(), int(rng.integer(-900, 900))));
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.17g", values.back());
    text += "cat," + std::string(digits) + "\n";
  }
  CHECK(labelled_rows(parse_csv("t", text, {.header = false}), 0, classes).values == values);
}

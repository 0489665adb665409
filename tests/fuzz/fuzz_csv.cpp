// SPDX-License-Identifier: Apache-2.0
// CSV: what is accepted is a table whose rows have equally many fields, and written in quotes is read as the same.
#include <cstring>

#include "dpmp/interop/csv.hpp"
#include "fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dpmp;
  if (size == 0) return 0;
  const interop::CsvOptions options{.separator = data[0] % 2 ? ',' : ';', .header = data[0] % 4 < 2};
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    const interop::CsvTable table = interop::parse_csv("x.csv", text, options);
    ++fuzz::accepted;
    fuzz::hold(table.rows() >= 1 && table.columns() >= 1, "a field");
    std::string again;
    const auto add = [&](const std::string& field, bool last) {
      again += '"';
      for (const char c : field) again += c == '"' ? "\"\"" : std::string(1, c);
      again += last ? "\"\r\n" : std::string("\"") + options.separator;
    };
    for (std::size_t k = 0; k < table.header().size(); ++k) add(table.header()[k], k + 1 == table.header().size());
    for (index_t r = 0; r < table.rows(); ++r)
      for (index_t c = 0; c < table.columns(); ++c) add(table.field(r, c), c + 1 == table.columns());
    const interop::CsvTable second = interop::parse_csv("y.csv", again, options);
    fuzz::hold(second.header() == table.header() && second.rows() == table.rows(), "the same table after writing");
    for (index_t r = 0; r < table.rows(); ++r)
      for (index_t c = 0; c < table.columns(); ++c)
        fuzz::hold(second.field(r, c) == table.field(r, c), "the same fields after writing");
    const std::vector<std::string> classes{"a", "b"};
    const interop::LabelledRows rows = interop::labelled_rows(table, 0, classes);
    fuzz::hold(index_t(rows.values.size()) == table.rows() * (table.columns() - 1), "a number for each other field");
  } catch (const Error& e) {
    fuzz::hold(std::strlen(e.what()) < 2000, "a short message");
  }
  return 0;
}

std::vector<std::string> fuzz::seeds() {
  return {"1a,b\n1,2\n", "2a;b\na;2\nb;3", "3a,\"1\"\r\n\"b\",-2e5\r\n", "0\"x\ny\";\"\"\"\";\n1;2;3\n",
          "1\xef\xbb\xbf"
          "a\n\n"};
}
std::vector<std::string> fuzz::words() {
  return {",", ";", "\"", "\"\"", "\n", "\r\n", "\r", "a", "b", "1", "-0.5e3", "nan", "\xc3\xa9", "\xff", "\xef\xbb\xbf"};
}

// SPDX-License-Identifier: Apache-2.0
// Text in JSON and HTML: parsers read back what was written, whatever bytes it has, and a page cannot be broken out of.
#include "dpmp/core/escaped_text.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "support/random.hpp"

using namespace dpmp;

namespace {
/// Any bytes, those that matter to JSON, HTML and UTF-8 often.
std::string random_bytes(test::Rng& rng) {
  static const std::vector<std::string> pieces{"<",
                                               ">",
                                               "&",
                                               "\"",
                                               "'",
                                               "\\",
                                               "</script>",
                                               "<!--",
                                               "]]>",
                                               "&amp;",
                                               std::string(1, '\0'),
                                               "\n",
                                               "\t",
                                               "\r",
                                               "\x7f",
                                               "\x1b",
                                               "\xc3\xa4",
                                               "\xe2\x82\xac",
                                               "\xf0\x9f\x99\x82",
                                               "\xef\xbf\xbe",
                                               "\xef\xbf\xbf",
                                               "\xc3",
                                               "\xe2\x82",
                                               "\x80",
                                               "\xff",
                                               "\xed\xa0\x80",
                                               "a",
                                               "0"};
  std::string text;
  for (std::int64_t k = rng.integer(0, 12); k > 0; --k)
    text += rng.integer(0, 3) ? pieces[std::size_t(rng.integer(0, std::int64_t(pieces.size()) - 1))]
                              : std::string(1, char(rng.integer(0, 255)));
  return text;
}
/// The characters of well-formed UTF-8, and U+FFFD for each byte that belongs to none.
std::string mended(const std::string& text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t length = 0;
    for (std::size_t n = 1; n <= 4 && at + n <= text.size() && length == 0; ++n)
      if (utf8_prefix(text.substr(at, n)) == n) length = n;
    out += length ? text.substr(at, length) : "\xef\xbf\xbd";
    at += std::max<std::size_t>(length, 1);
  }
  return out;
}
std::string read_html(std::string text) {
  const std::pair<std::string, std::string> named[] = {
      {"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&#39;", "'"}, {"&amp;", "&"}};
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t length = 1;
    std::string read(1, text[at]);
    for (const auto& [name, c] : named)
      if (text.compare(at, name.size(), name) == 0) length = name.size(), read = c;
    REQUIRE((text[at] != '&' || length > 1));
    out += read;
    at += length;
  }
  return out;
}
}  // namespace

TEST_CASE("text in JSON is read back by a parser, bytes that are no UTF-8 as U+FFFD, and has no < > &") {
  test::Rng rng;
  for (int k = 0; k < 3000; ++k) {
    const std::string text = random_bytes(rng), json = json_text(text);
    CHECK(json.find_first_of("<>&") == std::string::npos);
    CHECK(nlohmann::json::parse(json).get<std::string>() == mended(text));
  }
  CHECK(json_text("a\"b\\c\n<\xc3\xa4") == "\"a\\\"b\\\\c\\u000a\\u003c\xc3\xa4\"");
}

TEST_CASE("text in HTML is read back, and no character of it opens or closes anything") {
  test::Rng rng;
  for (int k = 0; k < 3000; ++k) {
    const std::string text = random_bytes(rng), html = html_text(text);
    CHECK(html.find_first_of("<>\"'") == std::string::npos);
    // What XML does not have is U+FFFD, too.
    std::string expected;
    const std::string characters = mended(text);
    for (std::size_t at = 0; at < characters.size(); ++at) {
      const auto c = static_cast<unsigned char>(characters[at]);
      const std::string three = characters.substr(at, 3);
      if (three == "\xef\xbf\xbe" || three == "\xef\xbf\xbf")
        expected += "\xef\xbf\xbd", at += 2;
      else
        expected += (c < 0x20 && c != '\t' && c != '\n') || c == 0x7f ? "\xef\xbf\xbd" : std::string(1, char(c));
    }
    CHECK(read_html(html) == expected);
  }
}

TEST_CASE("numbers in JSON are read as the same double, those that are not finite as words") {
  test::Rng rng;
  std::vector<double> numbers{0, -0.0, 1e22, 5e-324, std::numeric_limits<double>::max(), 0.1, 1e5};
  for (int k = 0; k < 2000; ++k) numbers.push_back(std::ldexp(rng.normal(), int(rng.integer(-1000, 1000))));
  for (const double x : numbers) {
    const double read = nlohmann::json::parse(json_number(x)).get<double>();
    CHECK(read == x);
    CHECK(std::signbit(read) == std::signbit(x));
  }
  CHECK(json_number(INFINITY) == "\"inf\"");
  CHECK(json_number(-INFINITY) == "\"-inf\"");
  CHECK(json_number(-double(NAN)) == "\"nan\"");
}

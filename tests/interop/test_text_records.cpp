// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "dpmp/interop/text_records.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using interop::read_text_records;
using interop::utf8_prefix;

namespace {
/// UTF-8 by RFC 3629, section 3, from the code point.
std::string encoded(std::uint32_t code) {
  const auto tail = [&](int shift) { return char(0x80 | ((code >> shift) & 0x3f)); };
  if (code < 0x80) return {char(code)};
  if (code < 0x800) return {char(0xc0 | (code >> 6)), tail(0)};
  if (code < 0x10000) return {char(0xe0 | (code >> 12)), tail(6), tail(0)};
  return {char(0xf0 | (code >> 18)), tail(12), tail(6), tail(0)};
}
bool valid(const std::string& text) { return utf8_prefix(text) == text.size(); }

struct File {
  test::TemporaryFolder folder;
  std::vector<std::string> read(const std::string& content) const {
    test::write_text(folder / "text", content);
    return read_text_records(folder / "text");
  }
  bool refused(const std::string& content, const std::string& part) const {
    return test::refuses([&] { read(content); }, part);
  }
};
using Records = std::vector<std::string>;
}  // namespace

TEST_CASE("UTF-8: every code point is accepted, every surrogate refused, every cut noticed") {
  int wrong = 0;
  for (std::uint32_t code = 0; code < 0x110000; ++code) {
    const std::string text = encoded(code);
    const bool surrogate = code >= 0xd800 && code < 0xe000;
    wrong += valid(text) == surrogate;
    for (std::size_t cut = 1; cut < text.size(); ++cut) wrong += utf8_prefix(text.substr(0, cut)) != 0;
  }
  CHECK(wrong == 0);
}

TEST_CASE("UTF-8: two, three and four bytes are well-formed exactly in the table of the Unicode standard") {
  // Unicode 15, table 3-7, as ranges of the first two bytes; all bytes behind them are 80..BF.
  const auto expected = [](unsigned a, unsigned b) {
    if (a >= 0xc2 && a <= 0xdf) return b >= 0x80 && b <= 0xbf ? 2 : 0;
    if (a == 0xe0) return b >= 0xa0 && b <= 0xbf ? 3 : 0;
    if (a == 0xed) return b >= 0x80 && b <= 0x9f ? 3 : 0;
    if (a >= 0xe1 && a <= 0xef) return b >= 0x80 && b <= 0xbf ? 3 : 0;
    if (a == 0xf0) return b >= 0x90 && b <= 0xbf ? 4 : 0;
    if (a >= 0xf1 && a <= 0xf3) return b >= 0x80 && b <= 0xbf ? 4 : 0;
    if (a == 0xf4) return b >= 0x80 && b <= 0x8f ? 4 : 0;
    return 0;
  };
  int wrong = 0;
  for (unsigned a = 0x80; a < 0x100; ++a)
    for (unsigned b = 0; b < 0x100; ++b)
      for (unsigned tail : {0x80u, 0xbfu, 0xc0u, 0xffu})
        for (int length = 2; length <= 4; ++length) {
          std::string text{char(a), char(b)};
          while (int(text.size()) < length) text += char(tail);
          const bool good_tail = length == 2 || tail <= 0xbf;
          wrong += valid(text) != (expected(a, b) == length && good_tail);
        }
  CHECK(wrong == 0);
  CHECK(utf8_prefix("abc\xff") == 3);
  CHECK(utf8_prefix("\xc3\xa4\xc3") == 2);
  CHECK(utf8_prefix("\xe2\x82\x7f") == 0);
  CHECK(utf8_prefix("") == 0);
}

TEST_CASE("records: one a line, LF or CRLF, empty lines left out, the last line with or without an end") {
  const File file;
  CHECK(file.read("one\ntwo\n") == Records{"one", "two"});
  CHECK(file.read("one\r\ntwo") == Records{"one", "two"});
  CHECK(file.read("\n\none\n\r\n\ntwo\n\n") == Records{"one", "two"});
  CHECK(file.read(" \xc3\xa4 \n") == Records{" \xc3\xa4 "});
}

TEST_CASE("records: a byte order mark at the start of a file is no part of its first record") {
  const File file;
  CHECK(file.read("\xef\xbb\xbfone\ntwo\n") == Records{"one", "two"});
  CHECK(file.read("\xef\xbb\xbf\r\n\xef\xbb\xbftwo") == Records{"\xef\xbb\xbftwo"});  // elsewhere it is a character
  CHECK(file.read("\xef\xbb\xbf\xef\xbb\xbfone\n") == Records{"\xef\xbb\xbfone"});    // one mark, no more
  CHECK(file.refused("\xef\xbb\xbf", "at least one record"));
  CHECK(file.refused("\xef\xbb", "byte 1 of line 1"));
}

TEST_CASE("records: a CR without LF is refused with its place") {
  const File file;
  CHECK(file.refused("a\rb\r", "a CR without LF at byte 2 of line 1"));
  CHECK(file.refused("ok\na\rb\n", "a CR without LF at byte 2 of line 2"));
  CHECK(file.refused("ok\r\na\r\r\n", "a CR without LF at byte 2 of line 2"));
  CHECK(file.refused("ok\nlast\r", "a CR without LF at byte 5 of line 2"));  // cut between CR and LF, or never LF
  CHECK(file.refused("\r", "a CR without LF at byte 1 of line 1"));
  // Other separators of Unicode (NEL, line and paragraph separator), vertical tab and form feed end no line.
  const std::string others =
      "a\xc2\x85"
      "b\xe2\x80\xa8"
      "c\xe2\x80\xa9"
      "d\v\f";
  CHECK(file.read(others + "\n") == Records{others});
}

TEST_CASE("records: what was written is what is read, for random lines") {
  const File file;
  test::Rng rng;
  Records lines;
  std::string content;
  for (int k = 0; k < 200; ++k) {
    std::string line;
    for (std::int64_t n = rng.integer(1, 30); n > 0; --n) {
      const std::uint32_t code = std::uint32_t(rng.integer(0x20, rng.integer(0, 1) ? 0x7e : 0xd7ff));
      line += encoded(code);
    }
    lines.push_back(line);
    content += line + (k == 199 && rng.integer(0, 1) ? "" : rng.integer(0, 1) ? "\n" : "\r\n");
  }
  CHECK(file.read(content) == lines);
}

TEST_CASE("bad input: a text that is missing, empty, cut off, or no UTF-8 text is refused with the place") {
  const File file;
  CHECK(test::refuses([&] { read_text_records(file.folder / "missing"); }, "missing"));
  CHECK(test::refuses([&] { read_text_records(file.folder.path()); }, "expected a readable text file"));
  CHECK(file.refused("", "at least one record"));
  CHECK(file.refused("\n\r\n\n", "at least one record"));
  CHECK(
      file.refused("good\nb\xc0\xaf"
                   "d\n",
                   "byte 2 of line 2"));                              // an overlong slash
  CHECK(file.refused("\xe0\x80\x80\n", "byte 1 of line 1"));          // an overlong NUL
  CHECK(file.refused("x\xed\xa0\x80\n", "byte 2 of line 1"));         // a surrogate
  CHECK(file.refused("\xf4\x90\x80\x80\n", "byte 1 of line 1"));      // beyond U+10FFFF
  CHECK(file.refused("ok\nab\xe2\x82\nrest\n", "byte 3 of line 2"));  // cut off by the line end
  CHECK(file.refused("ok\nab\xe2\x82", "byte 3 of line 2"));          // cut off by the end of the file
  CHECK(file.refused("ok\n\nab\xe2\x82\r\n", "byte 3 of line 3"));    // empty lines count
  CHECK(file.refused(std::string("ok\nn\0l\n", 7), "NUL byte in line 2"));
  CHECK(file.refused("caf\xe9\n", "expected UTF-8 text"));  // Latin-1
  CHECK(file.refused("\xff\xfeh\n", "byte 1 of line 1"));   // UTF-16 with a byte order mark
}

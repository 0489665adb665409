// SPDX-License-Identifier: Apache-2.0
// Text records: what is accepted is UTF-8 lines, and written line by line the same records again.
#include "dpmp/interop/text_records.hpp"
#include "fuzz/fuzz.hpp"

namespace {
using Records = std::vector<std::string>;

/// Decodes UTF-8 by arithmetic: the code point from its bytes, then whether those are the shortest ones for it.
bool is_utf8(const std::string& text) {
  for (std::size_t k = 0; k < text.size();) {
    const auto byte = [&](std::size_t i) {
      return i < text.size() ? std::uint32_t(static_cast<unsigned char>(text[i])) : 0;
    };
    const std::uint32_t first = byte(k);
    const int more = first < 0x80 ? 0 : first >> 5 == 6 ? 1 : first >> 4 == 14 ? 2 : first >> 3 == 30 ? 3 : -1;
    if (more < 0) return false;
    std::uint32_t code = more == 0 ? first : first & (0x3fu >> more);
    for (int i = 1; i <= more; ++i) {
      if (byte(k + std::size_t(i)) >> 6 != 2) return false;
      code = code << 6 | (byte(k + std::size_t(i)) & 0x3f);
    }
    const std::uint32_t smallest[] = {0, 0x80, 0x800, 0x10000};
    if (code < smallest[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
    k += std::size_t(more) + 1;
  }
  return true;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string content(reinterpret_cast<const char*>(data), size);
  Records records;
  try {
    records = dpmp::interop::read_text_records(fuzz::file_of(content));
  } catch (const dpmp::Error&) {
    const bool clean =
        is_utf8(content) && content.find('\0') == std::string::npos && content.find('\r') == std::string::npos;
    const bool has_text = content.find_first_not_of('\n', content.starts_with("\xef\xbb\xbf") ? 3 : 0) != std::string::npos;
    fuzz::hold(!clean || !has_text, "a text of UTF-8 lines is accepted");
    return 0;
  }
  ++fuzz::accepted;
  fuzz::hold(is_utf8(content), "UTF-8");
  fuzz::hold(!records.empty(), "a record");
  std::string joined = "\xef\xbb\xbf";
  std::size_t bytes = 0;
  for (const std::string& record : records) {
    fuzz::hold(!record.empty() && record.find_first_of(std::string("\0\r\n", 3)) == std::string::npos, "one line a record");
    joined += record + "\r\n";
    bytes += record.size();
  }
  std::size_t expected = content.starts_with("\xef\xbb\xbf") ? content.size() - 3 : content.size();
  for (const char c : content) expected -= c == '\r' || c == '\n';
  fuzz::hold(bytes == expected, "no byte but line ends and the mark left out");
  fuzz::hold(dpmp::interop::read_text_records(fuzz::file_of(joined)) == records, "the same records again");
  return 0;
}

std::vector<std::string> fuzz::seeds() {
  return {"one\ntwo\n",
          "one\r\ntwo",
          "\xef\xbb\xbfone\n",
          "\n\n\xc3\xa4\n",
          "a\rb\r",
          "\xe2\x82\xac\n\n",
          "\xf0\x9f\x98\x80x\n",
          "\xed\x9f\xbf\n",
          "\xf4\x8f\xbf\xbf\n",
          std::string("a\0b\n", 4),
          "\xef\xbb\xbf",
          "",
          "\xc2\x85\n",
          "\xe2\x80\xa8 x\r\n\r\n"};
}
std::vector<std::string> fuzz::words() {
  return {"\n",       "\r",       "\r\n",         std::string(1, '\0'), "\xef\xbb\xbf",
          "\xc3\xa4", "\xe0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",   "\xc0\xaf",
          "\xff\xfe", "\xe2\x82"};
}

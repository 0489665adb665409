// SPDX-License-Identifier: Apache-2.0
// Files of tokens: every window is the tokens at its place, none is in two windows, and other files are refused.
#include <doctest/doctest.h>
#include <cstring>
#include <string>
#include <vector>

#include "dpmp/interop/token_file.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using interop::TokenBits;
using interop::TokenFile;

namespace {
std::string bytes_of(const std::vector<std::uint32_t>& tokens, int bytes) {
  std::string text;
  for (const std::uint32_t token : tokens)
    for (int k = 0; k < bytes; ++k) text += char(token >> (8 * k) & 0xff);
  return text;
}
}  // namespace

TEST_CASE("token files: windows that do not overlap, as what is read and what comes next") {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  const test::TemporaryFolder folder;
  for (int trial = 0; trial < 60; ++trial) {
    const int bytes = rng.integer(0, 1) ? 2 : 4;
    const index_t length = rng.integer(1, 9);
    std::vector<std::uint32_t> tokens(std::size_t(rng.integer(length + 1, 100)));
    for (std::uint32_t& token : tokens) token = std::uint32_t(rng.bits() & (bytes == 2 ? 0xffff : 0xffffffffu));
    test::write_text(folder / "x.bin", bytes_of(tokens, bytes));
    const TokenFile file(folder / "x.bin", bytes == 2 ? TokenBits::u16 : TokenBits::u32, length);
    CHECK(file.tokens() == index_t(tokens.size()));
    CHECK(file.length() == length);
    REQUIRE(file.records() == index_t(tokens.size()) / (length + 1));
    const auto expected = [&](index_t at) {
      const std::uint32_t token = tokens[std::size_t(at)];
      return token > 0x7fffffffu ? -1. : double(token);
    };
    std::vector<index_t> records(std::size_t(rng.integer(0, 5)));
    for (index_t& record : records) record = rng.integer(0, file.records() - 1);
    const auto [ids, targets] = file.batch(ctx, records);
    CHECK(ids.shape() == Shape{index_t(records.size()), length});
    CHECK((ids.dtype() == DType::i32 && targets.dtype() == DType::i32 && targets.shape() == ids.shape()));
    std::vector<double> first, next;
    for (const index_t record : records)
      for (index_t t = 0; t < length; ++t) {
        first.push_back(expected(record * (length + 1) + t));
        next.push_back(expected(record * (length + 1) + t + 1));
      }
    CHECK(ids.to_doubles() == first);
    CHECK(targets.to_doubles() == next);
  }
}

TEST_CASE("token files: a vocabulary, and what is refused") {
  const test::TemporaryFolder folder;
  test::Rng rng;
  // Longer than a part that is read at once, with one token that is too large.
  std::vector<std::uint32_t> tokens(600000, 7);
  tokens[std::size_t(rng.integer(0, 599999))] = 50256;
  test::write_text(folder / "x.bin", bytes_of(tokens, 2));
  const TokenFile file(folder / "x.bin", TokenBits::u16, 1023);
  file.check_vocabulary(50257);
  CHECK(test::refuses([&] { file.check_vocabulary(50256); }, "tokens below 50256 in"));
  tokens[5] = 0x80000000u;
  test::write_text(folder / "y.bin", bytes_of(tokens, 4));
  CHECK(test::refuses([&] { TokenFile(folder / "y.bin", TokenBits::u32, 8).check_vocabulary(index_t(1) << 40); },
                      "at least one other"));
  const auto refused = [&](const std::string& content, TokenBits bits, index_t length, const std::string& says) {
    test::write_text(folder / "z.bin", content);
    CHECK(test::refuses([&] { TokenFile(folder / "z.bin", bits, length); }, says));
  };
  refused("", TokenBits::u16, 1, "at least one window of 2 tokens");
  refused("abc", TokenBits::u16, 1, "tokens of 2 bytes, got 3 bytes");
  refused("abcdef", TokenBits::u32, 1, "tokens of 4 bytes, got 6 bytes");
  refused("abcd", TokenBits::u16, 2, "at least one window of 3 tokens");
  refused("abcd", TokenBits::u16, 0, "windows of 1 to 2^40");
  refused("abcd", TokenBits::u16, index_t(1) << 62, "windows of 1 to 2^40");
  refused("abcd", TokenBits(3), 1, "16 or 32 bits");
  CHECK(test::refuses([&] { TokenFile(folder / "none", TokenBits::u16, 1); }, "none'"));
  CHECK(test::refuses([&] { file.window(-1); }, "a window in [0, 585)"));
  CHECK(test::refuses([&] { file.window(585); }, "a window in [0, 585)"));
  CHECK(file.window(584).size() == 1024);
  std::filesystem::resize_file(folder / "x.bin", 1000);
  CHECK(test::refuses([&] { file.window(584); }, "as long as it was"));
  CHECK(test::refuses([&] { file.check_vocabulary(60000); }, "as long as it was"));
}

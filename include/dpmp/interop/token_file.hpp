// SPDX-License-Identifier: Apache-2.0
// Flat files of tokens, 16 or 32 bits each, little-endian, without a header, as language models are trained on. Windows of
// them are the records. They are read where they are asked for, so that a file may be larger than memory.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dpmp/runtime/input_file.hpp"
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI::interop {
enum class TokenBits : std::uint8_t { u16 = 16, u32 = 32 };

/// An open file, cut into windows of length + 1 tokens that do not overlap: window k is record k, and what is left over at
/// the end is none. So no token is in two records. A document that spans windows is not protected as a whole.
class TokenFile {
 public:
  /// length: tokens that a model reads at once, >= 1. Throws unless the file is there, its size is a multiple of a token's,
  /// and there is at least one window.
  TokenFile(const std::filesystem::path& path, TokenBits bits, index_t length);
  index_t length() const { return length_; }
  index_t tokens() const { return tokens_; }
  /// Windows.
  index_t records() const { return tokens_ / (length_ + 1); }
  /// Reads the whole file. Throws unless every token is below `vocabulary`; which one is not is not said. To call where the
  /// data is loaded, not in training.
  void check_vocabulary(index_t vocabulary) const;
  /// The length + 1 tokens of a window; one of 2^31 and more is -1, which no vocabulary has. Throws where there is no such
  /// window, and when the file has become shorter.
  std::vector<std::int32_t> window(index_t record) const;
  /// What a model reads and what comes next, both [records.size(), length] of i32.
  std::pair<Tensor, Tensor> batch(Context& ctx, std::span<const index_t> records) const;

 private:
  void read(index_t first, index_t count, std::int32_t* to) const;
  std::string name_;
  InputFile file_;
  index_t bytes_of_token_, length_, tokens_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
#include <bit>
#include <cstring>

namespace dpmp::inline DPMP_ABI::interop {
static_assert(std::endian::native == std::endian::little, "tokens are read as little-endian");

DPMP_KEPT_BODY inline TokenFile::TokenFile(const std::filesystem::path& path, TokenBits bits, index_t length)
    : name_(path.string()), file_(path), bytes_of_token_(index_t(bits) / 8), length_(length) {
  DPMP_CHECK(bits == TokenBits::u16 || bits == TokenBits::u32, "expected tokens of 16 or 32 bits, got ", int(bits));
  constexpr index_t longest = index_t(1) << 40;
  DPMP_CHECK(length >= 1 && length <= longest, "expected windows of 1 to 2^40 tokens, got ", length);
  DPMP_CHECK(file_.size() % bytes_of_token_ == 0, "expected a file of tokens of ", bytes_of_token_, " bytes, got ",
             file_.size(), " bytes in '", name_, "'");
  tokens_ = file_.size() / bytes_of_token_;
  DPMP_CHECK(records() >= 1, "expected at least one window of ", length + 1, " tokens in '", name_, "', got ", tokens_,
             " tokens");
}

DPMP_KEPT_BODY inline void TokenFile::read(index_t first, index_t count, std::int32_t* to) const {
  std::vector<char> bytes(std::size_t(count * bytes_of_token_));
  const index_t got = file_.read(first * bytes_of_token_, bytes.data(), index_t(bytes.size()));
  DPMP_CHECK(got == index_t(bytes.size()), "expected the file '", name_, "' as long as it was when it was opened, got ",
             "less");
  const auto narrow = [&](auto token) {
    for (index_t k = 0; k < count; ++k) {
      std::memcpy(&token, bytes.data() + std::size_t(k) * sizeof token, sizeof token);
      to[k] = token > decltype(token)(INT32_MAX) && sizeof token == 4 ? -1 : std::int32_t(token);
    }
  };
  bytes_of_token_ == 2 ? narrow(std::uint16_t()) : narrow(std::uint32_t());
}

DPMP_KEPT_BODY inline void TokenFile::check_vocabulary(index_t vocabulary) const {
  constexpr index_t part = index_t(1) << 18;
  std::vector<std::int32_t> tokens(std::size_t(std::min(part, tokens_)));
  bool inside = true;
  for (index_t first = 0; first < tokens_; first += part) {
    const index_t count = std::min(part, tokens_ - first);
    read(first, count, tokens.data());
    for (index_t k = 0; k < count; ++k)
      inside = inside && tokens[std::size_t(k)] >= 0 && tokens[std::size_t(k)] < vocabulary;
  }
  DPMP_CHECK(inside, "expected tokens below ", vocabulary, " in '", name_, "', got at least one other");
}

DPMP_KEPT_BODY inline std::vector<std::int32_t> TokenFile::window(index_t record) const {
  DPMP_CHECK(record >= 0 && record < records(), "expected a window in [0, ", records(), ") of '", name_, "', got ", record);
  std::vector<std::int32_t> tokens(std::size_t(length_ + 1));
  read(record * (length_ + 1), length_ + 1, tokens.data());
  return tokens;
}

DPMP_KEPT_BODY inline std::pair<Tensor, Tensor> TokenFile::batch(Context& ctx, std::span<const index_t> records) const {
  std::vector<std::int32_t> ids, targets;
  for (const index_t record : records) {
    const std::vector<std::int32_t> tokens = window(record);
    ids.insert(ids.end(), tokens.begin(), tokens.end() - 1);
    targets.insert(targets.end(), tokens.begin() + 1, tokens.end());
  }
  const Shape shape{index_t(records.size()), length_};
  return {Tensor::from(ctx, shape, ids), Tensor::from(ctx, shape, targets)};
}
}  // namespace dpmp::inline DPMP_ABI::interop
#endif

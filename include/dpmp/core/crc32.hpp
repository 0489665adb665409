// SPDX-License-Identifier: Apache-2.0
// 32-bit cyclic redundancy checks as file formats have them: bits in reflected order, all ones before the first byte and
// turned round at the end. Source: Koopman, "32-bit cyclic redundancy codes for Internet applications" (2002), and RFC 1952
// and RFC 3720, which have the two polynomials.
#pragma once
#include <array>
#include <cstddef>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
namespace detail {
template <std::uint32_t Polynomial>
constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t rest = byte;
    for (int bit = 0; bit < 8; ++bit) rest = rest >> 1 ^ (rest & 1 ? Polynomial : 0);
    table[byte] = rest;
  }
  return table;
}
template <std::uint32_t Polynomial>
std::uint32_t crc(const void* data, std::size_t bytes, std::uint32_t before) {
  static constexpr std::array<std::uint32_t, 256> table = crc_table<Polynomial>();
  const unsigned char* at = static_cast<const unsigned char*>(data);
  std::uint32_t rest = ~before;
  for (std::size_t k = 0; k < bytes; ++k) rest = rest >> 8 ^ table[(rest ^ at[k]) & 0xff];
  return ~rest;
}
}  // namespace detail

/// That of zip, gzip and PNG. before: the value of the bytes that come before these ones.
inline std::uint32_t crc32(const void* data, std::size_t bytes, std::uint32_t before = 0) {
  return detail::crc<0xedb88320u>(data, bytes, before);
}
/// Castagnoli's, that of iSCSI and of TensorFlow's records.
inline std::uint32_t crc32c(const void* data, std::size_t bytes, std::uint32_t before = 0) {
  return detail::crc<0x82f63b78u>(data, bytes, before);
}
}  // namespace dpmp::inline DPMP_ABI

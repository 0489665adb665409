// SPDX-License-Identifier: Apache-2.0
// The IDX format of the MNIST family of data sets (LeCun, Cortes, Burges 1998, yann.lecun.com/exdb/mnist): a type, the
// number of axes, big-endian sizes, and a dense array of big-endian elements.
#pragma once
#include <bit>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "dpmp/core/shape.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// A dense row-major array. T: std::uint8_t, std::int8_t, std::int16_t, std::int32_t, float or double.
template <class T>
struct IdxArray {
  Shape shape;
  std::vector<T> values;
};

namespace detail {
/// The format's number of an element type.
template <class T>
constexpr int idx_type() {
  if constexpr (std::is_same_v<T, std::uint8_t>) return 0x08;
  if constexpr (std::is_same_v<T, std::int8_t>) return 0x09;
  if constexpr (std::is_same_v<T, std::int16_t>) return 0x0b;
  if constexpr (std::is_same_v<T, std::int32_t>) return 0x0c;
  if constexpr (std::is_same_v<T, float>) return 0x0d;
  if constexpr (std::is_same_v<T, double>) return 0x0e;
  return 0;
}
struct IdxHeader {
  Shape shape;
  std::size_t data = 0;  // where the elements start
};
/// Throws unless `content` is a whole file of elements of that type.
IdxHeader idx_header(const std::string& name, std::string_view content, int type);
}  // namespace detail

/// The array that `content`, the whole of an IDX file after decompression, holds: of bytes in the files of MNIST, or of
/// another T, which is exactly the type of the file's elements. `name` is what messages call it. Throws on another format,
/// another element type, more axes than a Shape has, and on missing or additional bytes.
template <class T = std::uint8_t>
IdxArray<T> parse_idx(const std::string& name, std::string_view content) {
  static_assert(detail::idx_type<T>() != 0, "IDX has 8-bit integers, signed ones of 16 and 32 bits, float and double");
  static_assert(std::endian::native == std::endian::little || sizeof(T) == 1, "bytes are turned round");
  const detail::IdxHeader header = detail::idx_header(name, content, detail::idx_type<T>());
  IdxArray<T> array{header.shape, std::vector<T>(std::size_t(header.shape.numel()))};
  const char* from = content.data() + header.data;
  for (T& value : array.values) {
    char bytes[sizeof(T)];
    for (std::size_t k = 0; k < sizeof(T); ++k) bytes[sizeof(T) - 1 - k] = *from++;
    std::memcpy(&value, bytes, sizeof(T));
  }
  return array;
}
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::interop::detail {
DPMP_KEPT_BODY inline IdxHeader idx_header(const std::string& name, std::string_view content, int type) {
  struct Type {
    int number;
    const char* name;
    index_t size;
  };
  static constexpr Type types[] = {{0x08, "unsigned bytes", 1},  {0x09, "signed bytes", 1}, {0x0b, "16-bit integers", 2},
                                   {0x0c, "32-bit integers", 4}, {0x0d, "floats", 4},       {0x0e, "doubles", 8}};
  const Type* wanted = types;
  while (wanted->number != type) ++wanted;
  const auto byte = [&](std::size_t k) { return index_t(static_cast<unsigned char>(content[k])); };
  DPMP_CHECK(content.size() >= 4 && byte(0) == 0 && byte(1) == 0, "expected an IDX file, two zero bytes first, in '", name,
             "', got ", content.size() < 4 ? "fewer than 4 bytes" : "other bytes");
  DPMP_CHECK(byte(2) == type, "expected ", wanted->name, " (type ", type, ") in the IDX file '", name, "', got the type ",
             byte(2));
  const std::size_t rank = std::size_t(byte(3)), data = 4 + 4 * rank;
  DPMP_CHECK(rank >= 1 && rank <= std::size_t(Shape::max_rank), "expected 1 to ", Shape::max_rank, " axes in the IDX file '",
             name, "', got ", rank);
  DPMP_CHECK(content.size() >= data, "expected a header of ", data, " bytes in the IDX file '", name, "', got ",
             content.size(), " bytes: it is cut off");
  IdxHeader header{.shape = {}, .data = data};
  index_t bytes = 0;
  try {
    for (std::size_t k = 4; k < data; k += 4)
      header.shape.push_back(byte(k) << 24 | byte(k + 1) << 16 | byte(k + 2) << 8 | byte(k + 3));
  } catch (const Error& e) {
    throw Error("reading the IDX file '" + name + "': " + e.message());
  }
  DPMP_CHECK(!__builtin_mul_overflow(header.shape.numel(), wanted->size, &bytes),
             "expected at most 2^63 - 1 bytes in the IDX ", "file '", name, "', got the shape ", header.shape);
  DPMP_CHECK(index_t(content.size() - data) == bytes, "expected ", bytes, " bytes for the shape ", header.shape,
             " in the IDX file '", name, "', got ", content.size() - data);
  return header;
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail
#endif

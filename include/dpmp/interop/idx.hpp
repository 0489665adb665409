// SPDX-License-Identifier: Apache-2.0
// The IDX format of the MNIST family of data sets (LeCun, Cortes, Burges 1998, yann.lecun.com/exdb/mnist): big-endian sizes
// in front of a dense array. Bytes only, the one element type that those sets use.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "dpmp/core/shape.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// A dense row-major array of bytes.
struct IdxArray {
  Shape shape;
  std::vector<std::uint8_t> values;
};

/// The array that `content`, the whole of an IDX file after decompression, holds. `name` is what messages call it. Throws on
/// another format, another element type, more axes than a Shape has, and on missing or additional bytes.
IdxArray parse_idx(const std::string& name, std::string_view content);
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::interop {
DPMP_KEPT_BODY inline IdxArray parse_idx(const std::string& name, std::string_view content) {
  const auto byte = [&](std::size_t k) { return index_t(static_cast<unsigned char>(content[k])); };
  DPMP_CHECK(content.size() >= 4 && byte(0) == 0 && byte(1) == 0, "expected an IDX file, two zero bytes first, in '", name,
             "', got ", content.size() < 4 ? "fewer than 4 bytes" : "other bytes");
  DPMP_CHECK(byte(2) == 8, "expected unsigned bytes (type 8) in the IDX file '", name, "', got the type ", byte(2));
  const std::size_t rank = std::size_t(byte(3)), header = 4 + 4 * rank;
  DPMP_CHECK(rank >= 1 && rank <= std::size_t(Shape::max_rank), "expected 1 to ", Shape::max_rank, " axes in the IDX file '",
             name, "', got ", rank);
  DPMP_CHECK(content.size() >= header, "expected a header of ", header, " bytes in the IDX file '", name, "', got ",
             content.size(), " bytes: it is cut off");
  IdxArray array;
  for (std::size_t k = 4; k < header; k += 4)
    array.shape.push_back(byte(k) << 24 | byte(k + 1) << 16 | byte(k + 2) << 8 | byte(k + 3));
  DPMP_CHECK(index_t(content.size() - header) == array.shape.numel(), "expected ", array.shape.numel(),
             " bytes for the shape ", array.shape, " in the IDX file '", name, "', got ", content.size() - header);
  array.values.resize(content.size() - header);
  std::transform(content.begin() + std::ptrdiff_t(header), content.end(), array.values.begin(),
                 [](char c) { return static_cast<std::uint8_t>(c); });
  return array;
}
}  // namespace dpmp::inline DPMP_ABI::interop
#endif

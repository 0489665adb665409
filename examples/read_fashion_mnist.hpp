// SPDX-License-Identifier: Apache-2.0
// Reads the files of Fashion-MNIST, compressed or not.
#pragma once
#include <zlib.h>

#include <dpmp/dpmp.hpp>
#include <dpmp/interop/idx.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "fashion_mnist.hpp"

namespace examples {
using namespace dpmp;

/// The whole file, decompressed if it is a gzip file.
inline std::string read_gzip(const std::string& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  DPMP_CHECK(file, "expected a readable file '", path, "'");
  std::string content, block(1 << 20, '\0');
  int got = 0;
  while ((got = gzread(file.get(), block.data(), unsigned(block.size()))) > 0) content.append(block, 0, std::size_t(got));
  int code = 0;
  const std::string reason = gzerror(file.get(), &code);
  DPMP_CHECK(got == 0 && code == Z_OK, "expected a complete gzip file '", path, "', got: ", reason);
  return content;
}

/// The first `limit` records of "train" or "t10k" in `folder`. Throws where a file is missing, damaged or something else.
inline FashionMnist read_fashion_mnist(const std::string& folder, const std::string& part, index_t limit) {
  constexpr index_t side = FashionMnist::side, classes = FashionMnist::classes;
  const auto load = [&](const std::string& what) {
    const std::filesystem::path plain = std::filesystem::path(folder) / (part + "-" + what);
    for (const std::string& path : {plain.string() + ".gz", plain.string()})
      if (std::filesystem::exists(path)) return interop::parse_idx(path, read_gzip(path));
    throw Error("expected the Fashion-MNIST file " + plain.filename().string() + ".gz in '" + folder +
                "', got none (Debian and Ubuntu: apt install dataset-fashion-mnist, or name its folder with --data)");
  };
  interop::IdxArray<std::uint8_t> pixels = load("images-idx3-ubyte");
  const interop::IdxArray<std::uint8_t> labels = load("labels-idx1-ubyte");
  const index_t records = pixels.shape.front();
  DPMP_CHECK(pixels.shape == Shape({records, side, side}) && labels.shape == Shape({records}) && records > 0,
             "expected images [n, 28, 28] and labels [n] of ", part, " in '", folder, "', got ", pixels.shape, " and ",
             labels.shape);
  const index_t kept = std::min(limit, records);
  FashionMnist data{std::move(pixels.values), {labels.values.begin(), labels.values.begin() + kept}};
  data.pixels.resize(std::size_t(kept * side * side));
  for (const std::int32_t label : data.labels)
    DPMP_CHECK(label < classes, "expected labels 0 to 9 of ", part, " in '", folder, "', got ", label);
  return data;
}
}  // namespace examples

// SPDX-License-Identifier: Apache-2.0
// Files as those of Fashion-MNIST, of a few made-up images.
#pragma once
#include <doctest/doctest.h>
#include <zlib.h>

#include <string>
#include <vector>

#include "support/random.hpp"
#include "support/temporary_folder.hpp"

namespace test {
inline std::string idx(const std::vector<int>& extents, const std::string& values) {
  std::string text{0, 0, 8, char(extents.size())};
  for (const int n : extents) text += {0, 0, char(n >> 8 & 0xff), char(n & 0xff)};
  return text + values;
}
inline void write_gzip(const std::filesystem::path& path, const std::string& content) {
  const gzFile file = gzopen(path.c_str(), "wb");
  REQUIRE(gzwrite(file, content.data(), unsigned(content.size())) == int(content.size()));
  REQUIRE(gzclose(file) == Z_OK);
}

/// 60 images to learn and 20 to test, whose class is the row that is white.
class FashionFiles {
 public:
  FashionFiles() {
    write("train", 60);
    write("t10k", 20);
  }
  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }
  const std::filesystem::path& path() const { return folder_.path(); }

 private:
  void write(const std::string& part, int records) {
    std::string pixels, labels;
    for (int k = 0; k < records; ++k) {
      labels += char(rng_.integer(0, 9));
      std::string image(28 * 28, '\0');
      for (char& pixel : image) pixel = char(rng_.integer(0, 60));
      image.replace(std::size_t(28 * (3 + 2 * labels.back())), 56, 56, '\xff');
      pixels += image;
    }
    write_gzip(folder_ / (part + "-images-idx3-ubyte.gz"), idx({records, 28, 28}, pixels));
    write_gzip(folder_ / (part + "-labels-idx1-ubyte.gz"), idx({records}, labels));
  }
  TemporaryFolder folder_;
  Rng rng_;
};
}  // namespace test

// SPDX-License-Identifier: Apache-2.0
// Pictures in PNG, one by one and as folders of classes, by libpng: the only header that needs it (Debian and Ubuntu:
// libpng-dev). Link PNG::PNG.
#pragma once
#include <png.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "dpmp/core/shape.hpp"
#include "dpmp/runtime/input_file.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// A picture, channels last, as convolutions read them: Tensor::from makes numbers of its bytes.
struct PngImage {
  Shape shape;  // [height, width, channels]
  std::vector<std::uint8_t> pixels;
};

/// Reads a picture of 8 bits or less a channel as grey (channels = 1) or red, green, blue (3). Grey becomes colour by three
/// equal channels. Throws, naming the file, on what is no complete PNG; on colour where grey is asked for, transparency and
/// 16 bits, which would be changed by reading them; and on sizes that a file of these bytes cannot have.
inline PngImage read_png(const std::filesystem::path& path, index_t channels) {
  DPMP_CHECK(channels == 1 || channels == 3, "expected pictures of 1 or 3 channels, got ", channels);
  const std::string place = "reading '" + path.string() + "': ";
  const InputFile file(path);
  std::vector<char> bytes(std::size_t(file.size()));
  DPMP_CHECK(file.read(0, bytes.data(), file.size()) == file.size(), place, "expected ", file.size(), " bytes, got fewer");
  struct Image : png_image {
    Image() : png_image{} { version = PNG_IMAGE_VERSION; }
    Image(const Image&) = delete;
    Image& operator=(const Image&) = delete;
    ~Image() { ::png_image_free(this); }
  } image;
  DPMP_CHECK(::png_image_begin_read_from_memory(&image, bytes.data(), bytes.size()), place,
             "expected a PNG file, got: ", bytes.empty() ? "no bytes" : image.message);
  DPMP_CHECK(!(image.format & PNG_FORMAT_FLAG_ALPHA), place, "expected a picture without transparency, got one with it");
  DPMP_CHECK(!(image.format & PNG_FORMAT_FLAG_LINEAR), place, "expected a picture of 8 bits a channel, got 16");
  DPMP_CHECK(channels == 3 || !(image.format & PNG_FORMAT_FLAG_COLOR), place, "expected a grey picture, got colours");
  PngImage read{{index_t(image.height), index_t(image.width), channels}, {}};
  // Deflate makes at most 1032 bytes of one (RFC 1951), and a byte has at most eight pixels.
  constexpr index_t most_of_a_byte = 8 * 1032;
  DPMP_CHECK(read.shape.numel() / channels / most_of_a_byte <= file.size(), place, "expected a size that ", file.size(),
             " bytes can have, got ", read.shape);
  image.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  read.pixels.resize(std::size_t(read.shape.numel()));
  DPMP_CHECK(::png_image_finish_read(&image, nullptr, read.pixels.data(), 0, nullptr) && image.warning_or_error < 2, place,
             "expected a whole picture, got: ", image.message);
  return read;
}

/// Pictures of one size with their classes.
struct ImageFolder {
  Shape shape;  // [pictures, height, width, channels]
  std::vector<std::uint8_t> pixels;
  std::vector<std::int32_t> labels;  // [pictures], places in `classes`
  std::vector<std::string> classes;  // names of the folders, sorted
  std::vector<std::string> files;    // [pictures], <class>/<name>: an identity for is_held_out()
};
/// Every *.png of every folder in `root`, in the order of their names; other files are passed over. The folders are the
/// classes, empty ones too, and public. Throws, naming the file, where read_png() does, on a picture of another size than
/// the first, and where there is no picture.
inline ImageFolder read_image_folder(const std::filesystem::path& root, index_t channels) {
  const auto sorted = [](const std::filesystem::path& folder, auto&& wanted) {
    std::error_code error;
    std::vector<std::string> names;
    for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
      if (wanted(at->path())) names.push_back(at->path().filename().string());
    DPMP_CHECK(!error, "expected a folder that can be read, got '", folder.string(), "': ", error.message());
    std::sort(names.begin(), names.end());
    return names;
  };
  ImageFolder all;
  all.classes = sorted(root, [](const auto& path) { return std::filesystem::is_directory(path); });
  Shape first;
  for (std::size_t label = 0; label < all.classes.size(); ++label) {
    const std::filesystem::path folder = root / all.classes[label];
    for (const std::string& name : sorted(folder, [](const auto& path) { return path.extension() == ".png"; })) {
      const PngImage image = read_png(folder / name, channels);
      if (all.files.empty()) first = image.shape;
      DPMP_CHECK(image.shape == first, "reading '", (folder / name).string(), "': expected a picture of ", first,
                 " like the first one, got ", image.shape);
      all.pixels.insert(all.pixels.end(), image.pixels.begin(), image.pixels.end());
      all.labels.push_back(std::int32_t(label));
      all.files.push_back(all.classes[label] + "/" + name);
    }
  }
  DPMP_CHECK(!all.files.empty(), "expected folders of PNG files in '", root.string(), "', got no picture");
  all.shape = {index_t(all.files.size()), first[0], first[1], first[2]};
  return all;
}
}  // namespace dpmp::inline DPMP_ABI::interop

// SPDX-License-Identifier: Apache-2.0
// PNG: what is accepted has as many pixels as its shape, of which colours are grey three times where grey is accepted too.
#include <cstring>

#include "dpmp/core/crc32.hpp"
#include "dpmp/interop/png.hpp"
#include "fuzz/fuzz.hpp"

namespace {
/// The checksums of the chunks made right: otherwise nearly every change is found by them.
std::string with_checksums(std::string bytes) {
  const auto byte = [&](std::size_t k) { return std::size_t(static_cast<unsigned char>(bytes[k])); };
  for (std::size_t at = 8; at + 12 <= bytes.size();) {
    const std::size_t length = byte(at) << 24 | byte(at + 1) << 16 | byte(at + 2) << 8 | byte(at + 3);
    if (length > bytes.size() - at - 12) break;
    const std::uint32_t crc = dpmp::crc32(bytes.data() + at + 4, length + 4);
    for (std::size_t k = 0; k < 4; ++k) bytes[at + 8 + length + k] = char(crc >> (24 - 8 * k));
    at += 12 + length;
  }
  return bytes;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dpmp;
  const std::string bytes = with_checksums(std::string(reinterpret_cast<const char*>(data), size));
  const std::filesystem::path path = fuzz::file_of(bytes);
  std::vector<std::uint8_t> of_channels[2];
  for (const index_t channels : {1, 3}) {
    try {
      const interop::PngImage image = interop::read_png(path, channels);
      fuzz::accepted += channels == 3;
      fuzz::hold(image.shape.rank() == 3 && image.shape[2] == channels, "a height, a width and the channels");
      fuzz::hold(index_t(image.pixels.size()) == image.shape.numel(), "as many bytes as the shape has");
      of_channels[channels == 3] = image.pixels;
    } catch (const Error& e) {
      fuzz::hold(std::strlen(e.what()) < 2000, "a short message");
    }
  }
  for (std::size_t k = 0; k < of_channels[0].size(); ++k)
    for (std::size_t c = 0; c < 3; ++c) fuzz::hold(of_channels[1].at(3 * k + c) == of_channels[0][k], "grey in colours");
  return 0;
}

std::vector<std::string> fuzz::seeds() {
  fuzz::most_bytes = std::size_t(1) << 28;  // a byte of a picture is up to 8256 pixels of three bytes
  std::vector<std::string> all;
  for (const png_uint_32 format :
       {png_uint_32(PNG_FORMAT_GRAY), png_uint_32(PNG_FORMAT_RGB), png_uint_32(PNG_FORMAT_RGBA)}) {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.height = 3;
    image.width = 5;
    image.format = format;
    const std::string pixels(60, 'p');
    png_alloc_size_t bytes = 4096;
    std::string file(bytes, '\0');
    hold(::png_image_write_to_memory(&image, file.data(), &bytes, 0, pixels.data(), 0, nullptr) != 0, "a picture");
    all.push_back(file.substr(0, bytes));
  }
  return all;
}
std::vector<std::string> fuzz::words() {
  using namespace std::string_literals;
  return {"IHDR",
          "PLTE",
          "IDAT",
          "IEND",
          "tRNS",
          "gAMA",
          "sBIT",
          "\0\0\0\0"s,
          "\0\0\0\1"s,
          "\x10"s,
          "\3"s,
          "\1"s,
          "\xff\xff\xff\xff"s};
}

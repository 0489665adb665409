// SPDX-License-Identifier: Apache-2.0
// Pictures: what Pillow 12 wrote is read, and what libpng wrote; damaged and other files are refused by their names. Built
// where libpng is installed.
#include <doctest/doctest.h>
#include <string>
#include <vector>

#include "dpmp/core/crc32.hpp"
#include "dpmp/interop/png.hpp"
#include "interop/recorded_npz.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using interop::PngImage;
using interop::read_image_folder;
using interop::read_png;

namespace {
using Bytes = std::vector<std::uint8_t>;
struct Recorded {
  index_t height, width;
  Bytes grey, colour;  // pixels as either; none: refused
  const char* hex;
};
const Recorded recorded[] = {
    {2,
     3,
     {0, 1, 127, 128, 254, 255},
     {},
     "89504e470d0a1a0a0000000d4948445200000003000000020800000000b81f39c60000001049444154789c636460ac6368f8f71f0007"
     "0702fe56802a150000000049454e44ae426082"},
    {2,
     2,
     {},
     {1, 2, 3, 250, 0, 9, 7, 8, 200, 255, 255, 255},
     "89504e470d0a1a0a0000000d4948445200000002000000020802000000fdd49a730000001649444154789c63606462fec5c0c9c0ce71"
     "e2ffffff0013cc04deebe06b8f0000000049454e44ae426082"},
    {1,
     9,
     {255, 0, 255, 255, 0, 0, 0, 255, 255},
     {},
     "89504e470d0a1a0a0000000d494844520000000900000001010000000024b9b9d00000000b49444154789c63dc781e0002370182b0d8"
     "2ed50000000049454e44ae426082"},
    {1,
     2,
     {},
     {200, 100, 50, 10, 20, 30},
     "89504e470d0a1a0a0000000d4948445200000002000000010103000000ceecedc900000006504c54450a141ec8643277a0b39c000000"
     "0a49444154789c636800000082008177cd72b60000000049454e44ae426082"},
};
const char* const with_alpha =
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c636064626601000019000b"
    "e75a46a40000000049454e44ae426082";
const char* const sixteen_bits =
    "89504e470d0a1a0a0000000d49484452000000010000000110000000006aee47160000000b49444154789c6360d401000031002e2bf5"
    "8ed20000000049454e44ae426082";

void write_picture(const std::filesystem::path& path, const PngImage& picture) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.height = png_uint_32(picture.shape[0]);
  image.width = png_uint_32(picture.shape[1]);
  image.format = picture.shape[2] == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  REQUIRE(::png_image_write_to_file(&image, path.c_str(), 0, picture.pixels.data(), 0, nullptr));
}
PngImage random_picture(test::Rng& rng, index_t height, index_t width, index_t channels) {
  PngImage picture{{height, width, channels}, Bytes(std::size_t(height * width * channels))};
  for (std::uint8_t& x : picture.pixels) x = std::uint8_t(rng.bits());
  return picture;
}
}  // namespace

TEST_CASE("png: pictures of Pillow, as grey or as colours; cut off anywhere they are refused") {
  const test::TemporaryFolder folder;
  for (const Recorded& r : recorded) {
    const std::string bytes = test::bytes_of_hex(r.hex);
    test::write_text(folder / "x.png", bytes);
    if (r.grey.empty())
      CHECK(test::refuses([&] { read_png(folder / "x.png", 1); }, "x.png': expected a grey picture, got colours"));
    else
      CHECK(read_png(folder / "x.png", 1).pixels == r.grey);
    Bytes colour = r.colour;
    for (const std::uint8_t x : r.grey) colour.insert(colour.end(), 3, x);
    const PngImage image = read_png(folder / "x.png", 3);
    CHECK(image.shape == Shape{r.height, r.width, 3});
    CHECK(image.pixels == colour);
    // Without its last chunk, which only says that it ends, a picture is whole.
    for (std::size_t length = 0; length + 16 < bytes.size(); ++length) {
      test::write_text(folder / "y.png", bytes.substr(0, length));
      CHECK(test::refuses([&] { read_png(folder / "y.png", 3); }, "y.png"));
    }
  }
  test::write_text(folder / "x.png", test::bytes_of_hex(with_alpha));
  CHECK(test::refuses([&] { read_png(folder / "x.png", 3); }, "without transparency"));
  test::write_text(folder / "x.png", test::bytes_of_hex(sixteen_bits));
  CHECK(test::refuses([&] { read_png(folder / "x.png", 1); }, "8 bits a channel, got 16"));
  test::write_text(folder / "x.png", "GIF89a");
  CHECK(test::refuses([&] { read_png(folder / "x.png", 1); }, "x.png': expected a PNG file"));
  CHECK(test::refuses([&] { read_png(folder / "none.png", 1); }, "none.png"));
  CHECK(test::refuses([&] { read_png(folder / "x.png", 2); }, "1 or 3 channels, got 2"));
  // A header that promises more than a file of its size can have.
  std::string huge = test::bytes_of_hex(recorded[0].hex);
  huge[17] = huge[21] = 3;
  const std::uint32_t crc = crc32(huge.data() + 12, 17);
  for (std::size_t k = 0; k < 4; ++k) huge[29 + k] = char(crc >> (24 - 8 * k));
  test::write_text(folder / "x.png", huge);
  CHECK(test::refuses([&] { read_png(folder / "x.png", 1); }, "bytes can have, got [196610, 196611, 1]"));
}

TEST_CASE("png: a folder of classes, in the order of names, with an empty class and other files") {
  test::Rng rng;
  for (const index_t channels : {1, 3}) {
    const test::TemporaryFolder folder;
    const index_t height = rng.integer(1, 9), width = rng.integer(1, 9);
    Bytes pixels;
    for (const char* name : {"ape/1.png", "ape/10.png", "ape/2.png", "cat/x.png"}) {
      std::filesystem::create_directories((folder / name).parent_path());
      const PngImage picture = random_picture(rng, height, width, channels);
      write_picture(folder / name, picture);
      pixels.insert(pixels.end(), picture.pixels.begin(), picture.pixels.end());
    }
    std::filesystem::create_directories(folder / "bee");
    test::write_text(folder / "bee/notes.txt", "no picture");
    test::write_text(folder / "README", "no class");
    const interop::ImageFolder all = read_image_folder(folder.path(), channels);
    CHECK(all.shape == Shape{4, height, width, channels});
    CHECK(all.pixels == pixels);
    CHECK(all.labels == std::vector<std::int32_t>{0, 0, 0, 2});
    CHECK(all.classes == std::vector<std::string>{"ape", "bee", "cat"});
    CHECK(all.files == std::vector<std::string>{"ape/1.png", "ape/10.png", "ape/2.png", "cat/x.png"});
    write_picture(folder / "cat/y.png", random_picture(rng, height + 1, width, channels));
    CHECK(test::refuses([&] { read_image_folder(folder.path(), channels); }, "cat/y.png': expected a picture of"));
    std::filesystem::remove(folder / "cat/y.png");
    test::write_text(folder / "bee/z.png", "no picture");
    CHECK(test::refuses([&] { read_image_folder(folder.path(), channels); }, "bee/z.png': expected a PNG file"));
  }
  const test::TemporaryFolder empty;
  CHECK(test::refuses([&] { read_image_folder(empty.path(), 1); }, "got no picture"));
  CHECK(test::refuses([&] { read_image_folder(empty / "none", 1); }, "a folder that can be read"));
}

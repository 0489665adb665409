// SPDX-License-Identifier: Apache-2.0
// .npz files: what numpy 2.4 wrote is read, what is written is an archive by the format's own words, and every other file is
// refused with its name.
#include <doctest/doctest.h>
#include <cstring>
#include <string>
#include <vector>

#include "dpmp/core/crc32.hpp"
#include "dpmp/interop/npz.hpp"
#include "interop/recorded_npz.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using interop::NpzFile;
using interop::TensorView;

namespace {
std::string little(std::uint64_t x, int bytes) {
  std::string text;
  for (int k = 0; k < bytes; ++k) text += char(x >> (8 * k) & 0xff);
  return text;
}
std::uint64_t number(const std::string& text, std::size_t at, int bytes) {
  std::uint64_t x = 0;
  for (int k = bytes; k-- > 0;) x = x << 8 | static_cast<unsigned char>(text[at + std::size_t(k)]);
  return x;
}
/// An archive of one entry, field by field.
struct Archive {
  std::string name = "x.npy", content, local_name = "x.npy", extra, comment;
  std::uint64_t flags = 0, method = 0, local_method = 0, stored = 0, bytes = 0, at = 0, disk = 0, entries = 1;
  std::uint32_t crc = 0;
  bool zip64 = false;

  explicit Archive(std::string data) : content(std::move(data)), stored(content.size()), bytes(content.size()) {
    crc = crc32(content.data(), content.size());
  }
  std::string text() const {
    const std::string local = "PK\3\4" + little(20, 2) + little(flags, 2) + little(local_method, 2) + little(0, 4) +
                              little(crc, 4) + little(stored, 4) + little(bytes, 4) + little(local_name.size(), 2) +
                              little(0, 2) + local_name + content;
    std::string directory = "PK\1\2" + little(20, 2) + little(20, 2) + little(flags, 2) + little(method, 2) + little(0, 4) +
                            little(crc, 4) + little(zip64 ? 0xffffffffu : stored, 4) +
                            little(zip64 ? 0xffffffffu : bytes, 4) + little(name.size(), 2);
    const std::string field =
        zip64 ? little(1, 2) + little(24, 2) + little(bytes, 8) + little(stored, 8) + little(at, 8) : extra;
    directory += little(field.size(), 2) + little(0, 2) + little(0, 2) + little(0, 6) + little(zip64 ? 0xffffffffu : at, 4) +
                 name + field;
    std::string end;
    if (zip64) {
      const std::size_t place = local.size() + directory.size();
      end = "PK\6\6" + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 4) + little(0, 4) + little(entries, 8) +
            little(entries, 8) + little(directory.size(), 8) + little(local.size(), 8);
      end += "PK\6\7" + little(0, 4) + little(place, 8) + little(1, 4);
      end +=
          "PK\5\6" + little(0, 4) + little(0xffff, 2) + little(0xffff, 2) + little(0xffffffffu, 4) + little(0xffffffffu, 4);
    } else {
      end = "PK\5\6" + little(disk, 2) + little(disk, 2) + little(entries, 2) + little(entries, 2) +
            little(directory.size(), 4) + little(local.size(), 4);
    }
    return local + directory + end + little(comment.size(), 2) + comment;
  }
};
std::string npy_of(const std::string& header, const std::string& data) {
  return std::string("\x93NUMPY\1\0", 8) + little(header.size() + 1, 2) + header + "\n" + data;
}
const std::string two_floats = npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "aaaabbbb");
}  // namespace

TEST_CASE("npz: what numpy.savez wrote is read; cut off, or with a changed bit in an array, it is refused") {
  const test::TemporaryFolder folder;
  const std::string bytes = test::bytes_of_hex(test::stored_npz);
  test::write_text(folder / "x.npz", bytes);
  const NpzFile file(folder / "x.npz");
  CHECK(file.names() == std::vector<std::string>{"a", "b"});
  CHECK((file.contains("a") && !file.contains("a.npy")));
  CHECK(file.array("b").shape() == interop::StoredShape(Shape{2, 2}));
  CHECK(file.array("b").header().dtype == interop::StoredType("I64"));
  const float a[] = {1.5f, -2, 3e10f};
  CHECK(file.read("a", DType::f32) ==
        std::vector<char>(reinterpret_cast<const char*>(a), reinterpret_cast<const char*>(a + 3)));
  const std::int32_t b[] = {1, -2, 3, 40000};
  CHECK(file.read("b", DType::i32) ==
        std::vector<char>(reinterpret_cast<const char*>(b), reinterpret_cast<const char*>(b + 4)));
  CHECK(test::refuses([&] { file.read("a", DType::i32); }, "x.npz', 'a.npy': expected an array that can be read as i32"));
  CHECK(test::refuses([&] { file.array("c"); }, "expected an array of the file, got 'c'"));
  CHECK(test::refuses([&] { NpzFile(folder / "y.npz"); }, "y.npz"));

  const auto read_all = [&](const std::string& text) {
    test::write_text(folder / "y.npz", text);
    const NpzFile other(folder / "y.npz");
    for (const std::string& name : other.names()) other.read(name, DType::f64);
  };
  for (std::size_t length = 0; length < bytes.size(); ++length)
    CHECK(test::refuses([&] { read_all(bytes.substr(0, length)); }, "y.npz"));
  CHECK(test::refuses([&] { read_all(bytes + "x"); }, "y.npz"));
  CHECK(test::refuses([&] { read_all("x" + bytes); }, "y.npz"));
  test::Rng rng;
  const std::size_t data_at = bytes.find("\x93NUMPY");
  for (int trial = 0; trial < 200; ++trial) {
    std::string damaged = bytes;
    const std::size_t at = data_at + std::size_t(rng.integer(0, 139));
    damaged[at] = char(damaged[at] ^ 1 << rng.integer(0, 7));
    CHECK(test::refuses([&] { read_all(damaged); }, "checksum"));
  }
}

TEST_CASE("npz: what is written is one archive of .npy files, byte by byte, and is read again") {
  test::Rng rng;
  const test::TemporaryFolder folder;
  for (int trial = 0; trial < 30; ++trial) {
    std::vector<std::vector<char>> data;
    std::vector<TensorView> arrays;
    const auto count = rng.integer(0, 5);
    for (std::int64_t k = 0; k < count; ++k) {
      Shape shape;
      for (auto left = rng.integer(0, 4); left > 0; --left) shape.push_back(rng.integer(trial % 5 == 0 ? 0 : 1, 4));
      const DType dtype =
          std::vector{DType::f32, DType::f64, DType::f16, DType::bf16, DType::i32}[std::size_t(rng.integer(0, 4))];
      data.emplace_back(std::size_t(shape.numel() * size_of(dtype)));
      for (char& byte : data.back()) byte = char(rng.bits() & 0x3f);  // every dtype's numbers are finite
      arrays.push_back({"layer." + std::to_string(k) +
                            (rng.integer(0, 1) ? "/gr\xc3\xb6\xc3\x9f"
                                                 "e"
                                               : "/w"),
                        dtype, shape, nullptr});
    }
    for (std::size_t k = 0; k < data.size(); ++k) arrays[k].data = data[k].data();
    interop::write_npz(folder / "x.npz", arrays);
    const NpzFile file(folder / "x.npz");
    REQUIRE(file.names().size() == arrays.size());
    const std::string bytes = test::read_text(folder / "x.npz");
    std::size_t at = 0;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
      CHECK(file.names()[k] == arrays[k].name);
      CHECK(file.array(arrays[k].name).shape() == interop::StoredShape(arrays[k].shape));
      CHECK(file.read(arrays[k].name, arrays[k].dtype) == data[k]);
      // The entry as it stands in the file: what write_npy writes, under the name.
      interop::write_npy(folder / "one.npy", arrays[k].dtype, arrays[k].shape, arrays[k].data);
      const std::string one = test::read_text(folder / "one.npy"), name = arrays[k].name + ".npy";
      CHECK(bytes.substr(at, 4) == "PK\3\4");
      CHECK(number(bytes, at + 14, 4) == crc32(one.data(), one.size()));
      CHECK((number(bytes, at + 18, 4) == one.size() && number(bytes, at + 22, 4) == one.size()));
      CHECK(bytes.substr(at + 30, name.size()) == name);
      CHECK(bytes.substr(at + 30 + name.size(), one.size()) == one);
      at += 30 + name.size() + one.size();
    }
    CHECK(bytes.substr(at, 4) == (arrays.empty() ? "PK\5\6" : "PK\1\2"));
  }
  CHECK(folder.entries() == 2);
  const float x[] = {1, 2};
  const auto refused = [&](const std::vector<TensorView>& arrays, const std::string& says) {
    CHECK(test::refuses([&] { interop::write_npz(folder / "z.npz", arrays); }, says));
  };
  refused({{"", DType::f32, {2}, x}}, "printable bytes");
  refused({{"a\nb", DType::f32, {2}, x}}, "printable bytes");
  refused({{"\xff", DType::f32, {2}, x}}, "printable bytes");
  refused({{"a", DType::f32, {2}, x}, {"a", DType::f32, {2}, x}}, "each name once");
  refused({{"a", DType::f32, {2}, nullptr}}, "a null pointer");
  refused({{"a", DType::f32, {index_t(1) << 30}, x}}, "less than 4 GiB");
  refused({{"a", DType::f64, {index_t(1) << 61}, x}}, "less than 4 GiB");
  CHECK(folder.entries() == 2);
}

TEST_CASE("npz: archives of other kinds") {
  const test::TemporaryFolder folder;
  const auto write = [&](const Archive& archive) { test::write_text(folder / "x.npz", archive.text()); };
  const auto refused = [&](auto&& change, const std::string& says) {
    Archive archive(two_floats);
    change(archive);
    write(archive);
    const std::string text = test::error_of([&] { NpzFile(folder / "x.npz").read("x", DType::f32); });
    CAPTURE(says);
    CHECK_MESSAGE(text.find(says) != std::string::npos, text);
    CHECK(text.find("x.npz'") != std::string::npos);
  };
  using A = Archive&;
  for (const bool zip64 : {false, true}) {
    Archive archive(two_floats);
    archive.zip64 = zip64;
    archive.comment = "no record: PK\5\6, only a comment";
    write(archive);
    const std::vector<char> data = NpzFile(folder / "x.npz").read("x", DType::f32);
    CHECK(std::string(data.data(), data.size()) == "aaaabbbb");
  }
  refused([](A a) { a.crc ^= 1; }, "checksum");
  refused([](A a) { a.flags = 1; }, "not encrypted, got 'x.npy'");
  refused([](A a) { a.method = a.local_method = 12; }, "with method 12");
  refused([](A a) { a.method = 8; }, "another name or method");
  refused([](A a) { a.method = a.local_method = 8; }, "npz_zlib.hpp");
  refused([](A a) { a.name = a.local_name = "x.txt"; }, ".npy files, got 'x.txt'");
  refused([](A a) { a.name = a.local_name = "\xc3\xa4.npy"; }, "printable UTF-8");
  refused([](A a) { a.name = a.local_name = "a\tb.npy"; }, "printable UTF-8");
  refused([](A a) { a.local_name = "y.npy"; }, "another name or method");
  refused([](A a) { a.disk = 1; }, "a part of one");
  refused([](A a) { a.entries = 2; }, "as many entries");
  refused([](A a) { a.entries = 0; }, "as many entries");
  refused([](A a) { a.bytes = 5; }, "a size that the stored bytes can have");
  refused([](A a) { a.stored = a.bytes = 1000; }, "inside the file");
  refused([](A a) { a.stored = a.bytes = two_floats.size() + 1; }, "reaching into it");
  refused([](A a) { a.at = 1; }, "another name or method");
  refused([](A a) { a.at = 100000; }, "inside the file");
  refused([](A a) { a.zip64 = true, a.at = std::uint64_t(-1); }, "inside the file");
  refused([](A a) { a.zip64 = true, a.stored = a.bytes = std::uint64_t(1) << 63; }, "inside the file");
  refused([](A a) { a.method = a.local_method = 8, a.bytes = 1000000; }, "a size that the stored bytes can have");
  refused([](A a) { a.extra = little(7, 2) + little(9, 2) + "12345678"; }, "additional fields");
  refused([](A a) { a = Archive("no array"); }, "'x.npy': expected an .npy file");
  refused([](A a) { a = Archive(npy_of("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", "aaaabbbb")); },
          "'x.npy': expected a descr");
  refused([](A a) { a = Archive(two_floats + "c"); }, "8 bytes after the header");
  // An inflate function that fails, and one that works: names say which.
  Archive deflated(two_floats);
  deflated.method = deflated.local_method = 8;
  write(deflated);
  CHECK(test::refuses([&] { NpzFile(folder / "x.npz", [](auto...) { return false; }).array("x"); }, "which is damaged"));
  const NpzFile file(folder / "x.npz", [](const char* from, std::size_t n, char* to, std::size_t wanted) {
    return n == wanted && std::memcpy(to, from, n) != nullptr;
  });
  CHECK(file.read("x", DType::f32).size() == 8);
  // Two entries of one name.
  Archive one(two_floats);
  const std::string text = one.text();
  const std::size_t directory_at = text.find("PK\1\2"), end_at = text.find("PK\5\6");
  const std::string entry = text.substr(directory_at, end_at - directory_at);
  test::write_text(folder / "x.npz", text.substr(0, end_at) + entry + "PK\5\6" + little(0, 4) + little(2, 2) + little(2, 2) +
                                         little(2 * entry.size(), 4) + little(directory_at, 4) + little(0, 2));
  CHECK(test::refuses([&] { NpzFile(folder / "x.npz"); }, "each name once, got 'x' again"));
}

// SPDX-License-Identifier: Apache-2.0
// .npz archives. What stands for deflate here repeats each byte. What is accepted has names of its own and arrays inside the
// file, and written again is read as the same.
#include <cstring>
#include <set>

#include "dpmp/interop/npz.hpp"
#include "fuzz/fuzz.hpp"

namespace {
using namespace dpmp;
using interop::NpzFile;

bool repeat(const char* from, std::size_t bytes, char* to, std::size_t wanted) {
  if (bytes == 0 || wanted % bytes != 0) return false;
  for (std::size_t k = 0; k < wanted; ++k) to[k] = from[k / (wanted / bytes)];
  return true;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(input), size);
  const std::filesystem::path path = fuzz::file_of(bytes);
  try {
    const NpzFile file(path, repeat);
    const std::set<std::string> names(file.names().begin(), file.names().end());
    fuzz::hold(names.size() == file.names().size(), "a name for each");
    std::vector<std::vector<char>> data;
    std::vector<interop::TensorView> arrays;
    for (const std::string& name : file.names()) {
      fuzz::hold(file.contains(name) && bytes.find(name + ".npy") != std::string::npos, "names of the file");
      const interop::NpzArray array = file.array(name);
      ++fuzz::accepted;
      if (array.shape().extents().size() > std::size_t(Shape::max_rank)) return 0;
      data.push_back(array.read(DType::f64));
      fuzz::hold(data.back().size() == 8 * std::size_t(*array.shape().numel()), "as many bytes as the shape has");
      arrays.push_back({name, DType::f64, Shape(array.shape()), nullptr});
    }
    if (size % 8 != 0) return 0;  // a file that is flushed to the disk takes as long as a hundred inputs
    for (std::size_t k = 0; k < data.size(); ++k) arrays[k].data = data[k].data();
    const std::filesystem::path again = path.string() + "_again";
    interop::write_npz(again, arrays);
    const NpzFile second(again);
    fuzz::hold(second.names() == file.names(), "the same names after writing");
    for (std::size_t k = 0; k < data.size(); ++k)
      fuzz::hold(second.read(arrays[k].name, DType::f64) == data[k], "the same numbers after writing");
  } catch (const Error& e) {
    fuzz::hold(std::strlen(e.what()) < 2000, "a short message");
  }
  return 0;
}

std::vector<std::string> fuzz::seeds() {
  fuzz::most_bytes = std::size_t(1) << 26;  // deflate makes up to 1032 bytes of one
  const float x[] = {1, 2, 3, 4, 5, 6};
  std::vector<std::string> all;
  for (std::size_t count = 0; count < 3; ++count) {
    const std::vector<interop::TensorView> arrays{{"a", DType::f32, {2, 3}, x}, {"b/c", DType::i32, {}, x}};
    const std::filesystem::path path = fuzz::file_of("");
    interop::write_npz(path, std::span(arrays).first(count));
    all.push_back(test::read_text(path));
  }
  // A "deflated" entry, whose bytes are the array, and an end of 64 bits.
  std::string packed = all[1];
  packed[8] = packed[packed.find("PK\1\2") + 10] = 8;
  all.push_back(packed);
  const std::size_t directory = packed.find("PK\1\2"), end = packed.find("PK\5\6");
  const auto little = [](std::uint64_t number, int bytes) {
    std::string text;
    for (int k = 0; k < bytes; ++k) text += char(number >> (8 * k) & 0xff);
    return text;
  };
  all.push_back(packed.substr(0, end) + "PK\6\6" + little(44, 8) + little(45, 4) + little(0, 8) + little(1, 8) +
                little(1, 8) + little(end - directory, 8) + little(directory, 8) + "PK\6\7" + little(0, 4) + little(end, 8) +
                little(1, 4) + "PK\5\6" + little(0, 4) + little(0xffffffff, 4) + std::string(8, '\xff') + little(0, 2));
  return all;
}
std::vector<std::string> fuzz::words() {
  return {"PK\1\2",
          "PK\3\4",
          "PK\5\6",
          "PK\6\6",
          "PK\6\7",
          std::string("\xff\xff\xff\xff", 4),
          std::string("\xff\xff", 2),
          std::string("\1\0\x18\0", 4),
          std::string("\0\0\0\0", 4),
          std::string("\0\0", 2),
          "\x08",
          ".npy",
          "a.npy",
          "\x93NUMPY"};
}

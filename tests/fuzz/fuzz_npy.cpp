// SPDX-License-Identifier: Apache-2.0
// .npy files. An input is "R" and a file, or "1", "2" or "3", a header, an ASCII record separator and the elements: the
// format's version and the header's length are put in front.
//
// What is accepted has one entry for each key in its header, as many bytes as its shape and type say, and in every dtype
// that it can be read as the numbers that a reader of single elements finds; written again it is read again.
#include <cstring>

#include "dpmp/interop/npy.hpp"
#include "fuzz/fuzz.hpp"

namespace {
using namespace dpmp;
using interop::NpyFile;

std::string file_of_input(const std::string& input) {
  if (input.empty() || input[0] < '1' || input[0] > '3') return input.empty() ? input : input.substr(1);
  const std::size_t end = std::min(input.find('\x1e'), input.size());
  const std::string header = input.substr(1, end - 1);
  std::string bytes = "\x93NUMPY" + std::string{char(input[0] - '0'), '\0'};
  for (int k = 0; k < (input[0] == '1' ? 2 : 4); ++k) bytes += char(header.size() >> (8 * k) & 0xff);
  return bytes + header + (end == input.size() ? "" : input.substr(end + 1));
}
/// Element `at` (row-major) as the bytes of a little-endian number, found by its coordinates.
std::string element(const std::string& data, const interop::NpyHeader& header, index_t at) {
  const std::vector<index_t>& extents = header.shape.extents();
  const index_t size = *header.dtype.bits() / 8;
  index_t place = at;
  if (header.fortran_order) {
    std::vector<index_t> coordinates(extents.size());
    for (std::size_t axis = extents.size(); axis-- > 0; at /= extents[axis]) coordinates[axis] = at % extents[axis];
    place = 0;
    for (std::size_t axis = extents.size(); axis-- > 0;) place = place * extents[axis] + coordinates[axis];
  }
  std::string bytes = data.substr(std::size_t(place * size), std::size_t(size));
  if (header.big_endian) bytes = {bytes.rbegin(), bytes.rend()};
  return bytes;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
  const std::string bytes = file_of_input(std::string(reinterpret_cast<const char*>(input), size));
  const std::filesystem::path path = fuzz::file_of(bytes);
  std::optional<NpyFile> opened;
  try {
    opened.emplace(path);
  } catch (const Error& e) {
    fuzz::hold(std::strlen(e.what()) < 2000, "a short message");
    return 0;
  }
  ++fuzz::accepted;
  const interop::NpyHeader& header = opened->header();
  for (const char* key : {"descr", "fortran_order", "shape"}) {
    const std::size_t first = bytes.find(key);
    fuzz::hold(first != std::string::npos && first < 10012, "each key is in the header");
  }
  const index_t element_bytes = *header.dtype.bits() / 8, numel = *header.shape.numel();
  fuzz::hold(numel * element_bytes <= index_t(bytes.size()), "no more elements than the file has");
  const std::string data = bytes.substr(bytes.size() - std::size_t(numel * element_bytes));
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32}) {
    std::vector<char> values;
    try {
      values = opened->read(dtype);
    } catch (const Error&) {
      fuzz::hold(header.dtype != interop::StoredType(dtype), "an array of dpmp's own dtypes is read");
      continue;
    }
    fuzz::hold(index_t(values.size()) == numel * size_of(dtype), "as many bytes as the shape has");
    fuzz::hold(interop::converts(header.dtype, dtype), "a dtype that converts");
    for (index_t k = 0; k < numel; k += 1 + numel / 50) {
      const std::string stored = element(data, header, k);
      std::vector<char> one(std::size_t(size_of(dtype)));
      fuzz::hold(interop::convert(header.dtype, stored.data(), dtype, one.data(), 1) == 1, "a value that has a counterpart");
      fuzz::hold(std::memcmp(one.data(), values.data() + k * size_of(dtype), one.size()) == 0, "the element at that place");
    }
    if (header.shape.extents().size() > std::size_t(Shape::max_rank)) continue;
    const std::filesystem::path again = path.string() + "_again";
    interop::write_npy(again, dtype, Shape(header.shape), values.data());
    const NpyFile second(again);
    fuzz::hold(second.shape() == header.shape && second.read(dtype) == values, "the same after writing");
  }
  return 0;
}

std::vector<std::string> fuzz::seeds() {
  std::vector<std::string> all;
  const auto add = [&](const char* version, const char* descr, const char* order, const char* shape, std::size_t data) {
    all.push_back(std::string(version) + "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape +
                  ", }   \n\x1e" + std::string(data, 'd'));
  };
  add("1", "<f4", "False", "(2, 3)", 24);
  add("2", "<f8", "True", "(3, 2, 1)", 48);
  add("3", ">i2", "True", "(2, 2)", 8);
  add("1", "|u1", "False", "(5,)", 5);
  add("1", "<i8", "False", "()", 8);
  add("1", "|b1", "False", "(0, 7)", 0);
  add("1", ">f2", "False", "(1, 1, 1, 1, 1, 1, 1, 2)", 4);
  add("2", "<u4", "False", "(4294967296, 0)", 0);
  all.push_back("R" + file_of_input(all[0]));
  all.push_back("R" + file_of_input(all[1]));
  return all;
}
std::vector<std::string> fuzz::words() {
  return {"'descr': ", "'fortran_order': ",
          "'shape': ", "'<f4'",
          "\">f8\"",   "'|u1'",
          "'<i8'",     "'<f2'",
          "'|b1'",     "'<c8'",
          "'|O'",      "[('x', '<f4')]",
          "True",      "False",
          "None",      "(",
          ")",         "(1,)",
          "(2, 2)",    "9223372036854775807",
          "L",         ",",
          ":",         "{",
          "}",         " ",
          "\n",        "\t",
          "'",         "\"",
          "\\",        "\x1e",
          "dddddddd",  std::string(4, '\0'),
          "\x93NUMPY"};
}

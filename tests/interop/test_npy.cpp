// SPDX-License-Identifier: Apache-2.0
// .npy files: what numpy 2 wrote, byte for byte, is read; what is written is read by the grammar of numpy's format.
#include <doctest/doctest.h>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "dpmp/interop/npy.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using interop::NpyFile;

namespace {
/// A file: the version, the header filled with spaces up to its line end, and elements.
std::string file_of(int major, std::string header, std::size_t length, const std::string& data) {
  if (header.size() < length) header.append(length - 1 - header.size(), ' ') += '\n';
  std::string start = "\x93NUMPY" + std::string{char(major), '\0'};
  for (int k = 0; k < (major == 1 ? 2 : 4); ++k) start += char(header.size() >> (8 * k) & 0xff);
  return start + header + data;
}
std::string bytes_of_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t k = 0; k + 1 < hex.size(); k += 2) bytes += char(std::stoi(hex.substr(k, 2), nullptr, 16));
  return bytes;
}
template <class T>
std::vector<T> as(const std::vector<char>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}
std::string header_of(const std::string& descr, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
}
}  // namespace

TEST_CASE("npy: files that numpy.lib.format wrote, in all three formats, both byte orders and both orders of the axes") {
  struct Case {
    int major;
    std::size_t length;
    const char *header, *data;
    std::vector<double> values;
  };
  const test::TemporaryFolder folder;
  for (const Case& c : std::vector<Case>{
           {1,
            118,
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
            "0000803f000020c0a69b443bcdcccc3dcaf2497100000080",
            {1.0, -2.5, 0.003000000026077032, 0.10000000149011612, 1.0000000150474662e+30, -0.0}},
           {1,
            118,
            "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }",
            "9a9999999999f13f9c7500883ce437fe",
            {1.1, -1e+300}},
           {1,
            118,
            "{'descr': '<f2', 'fortran_order': False, 'shape': (1, 3, 1), }",
            "003efffb0100",
            {1.5, -65504.0, 5.960464477539063e-08}},
           {1, 118, "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }", "0000008007000000", {-2147483648.0, 7.0}},
           {2,
            116,
            "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }",
            "0500000000000000faffffffffffffffffffff7f00000000",
            {5.0, -6.0, 2147483647.0}},
           {3, 116, "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", "00ff07", {0.0, 255.0, 7.0}},
           {1, 118, "{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }", "0100", {1.0, 0.0}},
           {1,
            118,
            "{'descr': '>i2', 'fortran_order': False, 'shape': (2, 2), }",
            "00010002012cfffc",
            {1.0, 2.0, 300.0, -4.0}},
           {1,
            118,
            "{'descr': '>f4', 'fortran_order': False, 'shape': (2, 2), }",
            "3fa00000c0e000004040000000045b0a",
            {1.25, -7.0, 3.0, 4.00000646641519e-40}},
           {1,
            118,
            "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3, 2), }",
            "000000000000c040000000400000004100008040000020410000803f0000e04000004040000010410000a04000003041",
            {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0}},
           {2,
            116,
            "{'descr': '>f8', 'fortran_order': True, 'shape': (3, 2), }",
            "0000000000000000400000000000000040100000000000003ff000000000000040080000000000004014000000000000",
            {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}},
           {1, 118, "{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "00009040", {4.5}},
           {1, 118, "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }", "", {}},
           {1, 118, "{'descr': '>u4', 'fortran_order': False, 'shape': (2,), }", "0000000300000004", {3.0, 4.0}}}) {
    CAPTURE(c.header);
    const std::string bytes = file_of(c.major, c.header, c.length, bytes_of_hex(c.data));
    test::write_text(folder / "x", bytes);
    const NpyFile file(folder / "x");
    const bool real =
        file.header().dtype == DType::f32 || file.header().dtype == DType::f64 || file.header().dtype == DType::f16;
    std::vector<double> values;
    if (real)
      values = as<double>(file.read(DType::f64));
    else
      for (const std::int32_t v : as<std::int32_t>(file.read(DType::i32))) values.push_back(v);
    REQUIRE(values.size() == c.values.size());
    for (std::size_t k = 0; k < values.size(); ++k)
      CHECK(std::bit_cast<std::uint64_t>(values[k]) == std::bit_cast<std::uint64_t>(c.values[k]));
    if (real) CHECK(test::refuses([&] { file.read(DType::i32); }, "expected an array that can be read as i32"));
    // Cut off anywhere, or longer.
    for (std::size_t length = 0; length < bytes.size(); ++length) {
      test::write_text(folder / "y", bytes.substr(0, length));
      CHECK(test::refuses([&] { NpyFile(folder / "y"); }, "expected"));
    }
    test::write_text(folder / "y", bytes + '\0');
    CHECK(test::refuses([&] { NpyFile(folder / "y"); }, "bytes after the header for"));
  }
}

TEST_CASE("npy: what is written is read again, in the layout of numpy.save") {
  test::Rng rng(test::seed(), 1);
  const test::TemporaryFolder folder;
  for (int k = 0; k < 40; ++k) {
    Shape shape;
    for (auto left = rng.integer(0, 5); left > 0; --left) shape.push_back(rng.integer(k % 8 == 0 ? 0 : 1, 5));
    for (const DType dtype : {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i32}) {
      std::vector<char> data(std::size_t(shape.numel() * size_of(dtype)));
      for (char& byte : data) byte = char(rng.bits() & 0x3f);  // every dtype's numbers are finite
      interop::write_npy(folder / "x", dtype, shape, data.data());
      const NpyFile file(folder / "x");
      CHECK(file.shape() == interop::StoredShape(shape));
      CHECK(file.header().dtype == (dtype == DType::bf16 ? DType::f32 : dtype));
      CHECK(file.read(dtype) == data);
      const std::string bytes = test::read_text(folder / "x");
      CHECK((bytes.size() - data.size() * (dtype == DType::bf16 ? 2 : 1)) % 64 == 0);
      CHECK(bytes.starts_with(std::string("\x93NUMPY\1\0", 8)));
    }
  }
  const double values[] = {1, 2, 3, 4, 5, 6};
  interop::write_npy(folder / "x", DType::f64, {2, 3}, values);
  CHECK(test::read_text(folder / "x") ==
        file_of(1, header_of("<f8", "(2, 3)"), 118, std::string(reinterpret_cast<const char*>(values), sizeof values)));
  interop::write_npy(folder / "x", DType::f64, {6}, values, FileAccess::owner_only);
  CHECK(test::read_text(folder / "x").find("'shape': (6,), }") != std::string::npos);
  CHECK(test::refuses([&] { interop::write_npy(folder / "x", DType::f32, {2}, nullptr); }, "a null pointer"));
  CHECK(folder.entries() == 1);
}

TEST_CASE("npy: a header is read by its grammar, and everything else in it is refused") {
  const test::TemporaryFolder folder;
  const auto write = [&](const std::string& header, const std::string& data = "dddddddd", int major = 1) {
    test::write_text(folder / "x", file_of(major, header, header.size() + 1, data));
  };
  const auto refusal = [&](const std::string& header, const std::string& data = "dddddddd") {
    write(header, data);
    return test::error_of([&] { NpyFile(folder / "x"); });
  };
  const auto refused = [&](const std::string& header, const std::string& says) {
    CAPTURE(header);
    const std::string text = refusal(header);
    CHECK_MESSAGE(text.find(says) != std::string::npos, text);
  };
  // Python says the same in many ways.
  for (const char* header :
       {"{'descr':'<f4','fortran_order':False,'shape':(2,)}",
        "{  'shape' : ( 2 , ) ,'descr' :\"<f4\", \"fortran_order\":True}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (), }", "{'descr': '<u1', 'fortran_order': False, 'shape': (8,)}",
        "{'descr': '>u1', 'fortran_order': False, 'shape': (8,)}"}) {
    CAPTURE(header);
    CHECK(refusal(header).empty());
  }
  refused("", "expected '{', got");
  refused("{'descr': '<f4', 'fortran_order': False, }", "expected the key shape, got none");
  refused("{'fortran_order': False, 'shape': (2,)}", "expected the key descr, got none");
  refused("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "each key once, got 'descr' again");
  refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}", "got 'more'");
  refused("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (2,)}", "got one of records");
  for (const char* descr :
       {"|O", "<U4", "|S8", "<c8", "<M8", "=f4", "|f4", "f4", "<f3", "<f16", "<i3", "", "<", "<f44", "|V8"})
    refused(header_of(descr, "(2,)"), "expected a descr of real numbers or booleans");
  refused(header_of("<f4' + '", "(2,)"), "got '+'");
  refused("{'descr': '\\x3cf4', 'fortran_order': False, 'shape': (2,)}", "plain characters");
  refused("{'descr': '" + std::string(50, 'x') + "', 'fortran_order': False, 'shape': (2,)}", "plain characters");
  for (const char* order : {"0", "false", "None", "'False'", "Fals"})
    refused(std::string("{'descr': '<f4', 'fortran_order': ") + order + ", 'shape': (2,)}", "expected True or False");
  for (const char* shape : {"(-2,)", "(+2,)", "(02,)", "(2L,)", "(2.0,)", "(1_0,)", "(2,,)", "(,)", "(2", "2", "[2]", "(2)",
                            "(9223372036854775808,)", "('2',)", "(2, x)", "(0x2,)"})
    CHECK(refusal(header_of("<f4", shape)).find("expected") != std::string::npos);
  refused(header_of("<f4", "(3,)"), "expected 12 bytes after the header for f32[3], got 8");
  refused(header_of("<f4", "(4294967296, 4294967296)"), "at most 2^63 - 1 bytes");
  refused(header_of("<f8", "(2305843009213693952,)"), "at most 2^63 - 1 bytes");
  refused(header_of("<f4", "(9223372036854775807, 9223372036854775807, 0)"), "at most 2^63 - 1 bytes");
  refused(header_of("<f4", "(2,)") + "x", "another end");
  refused(header_of("<f4", "(2,)") + "\n", "another end");
  refused("{'descr':\t'<f4', 'fortran_order': False, 'shape': (2,)}", "got the byte 9");
  refused("{'descr': '<f4'", "expected ',', got the byte 10");
  refused("{'descr': '<f4", "got the byte 10");
  // What is not accepted before the header.
  const std::string good = file_of(1, header_of("<f4", "(2,)"), 118, "dddddddd");
  const auto changed = [&](std::size_t at, char to) {
    std::string bytes = good;
    bytes[at] = to;
    test::write_text(folder / "x", bytes);
    return test::error_of([&] { NpyFile(folder / "x"); });
  };
  CHECK(changed(0, '\x92').find("got other bytes") != std::string::npos);
  CHECK(changed(6, 0).find("expected the format 1.0, 2.0 or 3.0, got 0.0") != std::string::npos);
  CHECK(changed(6, 4).find("got 4.0") != std::string::npos);
  CHECK(changed(7, 1).find("got 1.1") != std::string::npos);
  CHECK(changed(9, 64).find("a header inside the file of at most 10000 bytes, got 16502 bytes") != std::string::npos);
  write(std::string(10001, ' '));
  CHECK(test::refuses([&] { NpyFile(folder / "x"); }, "of at most 10000 bytes, got 10002"));
  // Values without a counterpart, and arrays of more axes than a Shape has.
  write("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}", std::string("\0\0\0\0\1\0\0\0", 8));
  CHECK(test::refuses([&] { NpyFile(folder / "x").read(DType::i32); }, "values that i32 has, got another one of I64"));
  write("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1, 1, 2, 1, 1, 1, 1, 1)}", "ddddeeee");
  const NpyFile deep(folder / "x");
  CHECK(deep.read(DType::f32).size() == 8);
  CHECK(test::refuses([&] { Shape(deep.shape()); }, "axes"));
}

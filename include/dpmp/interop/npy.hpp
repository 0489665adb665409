// SPDX-License-Identifier: Apache-2.0
// NumPy's .npy files of one array of numbers, formats 1.0, 2.0 and 3.0. Source: NEP 1 and numpy.lib.format. Six bytes
// "\x93NUMPY", two of the version, the header's length (two bytes, from 2.0 on four, little-endian), the header, which is a
// Python dictionary in text, and the elements.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "dpmp/core/function_ref.hpp"
#include "dpmp/interop/convert.hpp"
#include "dpmp/runtime/atomic_file.hpp"
#include "dpmp/runtime/input_file.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// What the header of a file says.
struct NpyHeader {
  StoredType dtype = DType::f32;  // F16, F32, F64, BOOL, I8 to I64 or U8 to U64
  bool big_endian = false;
  bool fortran_order = false;  // the first axis runs fastest
  StoredShape shape;
};

namespace detail {
/// The text of a header, without what stands in front of it. `place` stands in front of what is refused.
NpyHeader parse_npy_header(const std::string& text, const std::string& place);

/// Reads bytes [offset, offset + count) and returns how many there were.
using ReadAt = FunctionRef<index_t(index_t offset, void* to, index_t count)>;
struct NpyLayout {
  NpyHeader header;
  index_t data_start = 0, element_bytes = 0, numel = 0;
};
/// Throws unless these bytes are a complete .npy file; `place` stands in front of the message.
NpyLayout npy_layout(const std::string& place, index_t file_bytes, ReadAt read);
/// Its elements, as NpyFile::read has them.
std::vector<char> npy_elements(const std::string& place, const NpyLayout& layout, ReadAt read, DType dtype);
/// What stands before the elements, and the dtype that they are written in.
std::string npy_start(const Shape& shape, DType dtype);
inline DType npy_dtype(DType dtype) { return dtype == DType::bf16 ? DType::f32 : dtype; }
}  // namespace detail

/// An open file whose header has been checked: one array of numbers that is exactly as long as the file. The header is read
/// by its grammar, not as a program: a dictionary of "descr" (a string such as "<f4"), "fortran_order" and "shape", each
/// once, in at most 10000 bytes, numpy's own limit. Nothing else is accepted: no pickled objects, records, strings or
/// complex numbers, and no bytes behind the array.
class NpyFile {
 public:
  /// Throws on everything that is not a complete file of that kind.
  explicit NpyFile(const std::filesystem::path& path);
  const NpyHeader& header() const { return layout_.header; }
  const StoredShape& shape() const { return layout_.header.shape; }
  /// The elements as `dtype`, row-major and little-endian whatever the file's order is: as they are stored, or converted,
  /// exactly or with one rounding to nearest (interop/convert.hpp). Throws where the dtype cannot be converted, when a value
  /// would become infinite or is none that `dtype` has, and when the file has become shorter since it was opened.
  std::vector<char> read(DType dtype) const;

 private:
  std::string place_;
  InputFile file_;
  detail::NpyLayout layout_;
};

/// Writes a row-major array in host memory, atomically, as numpy.save does: format 1.0, little-endian. bf16, which numpy
/// does not have, is written as FP32, exactly. Throws where AtomicFile does.
void write_npy(const std::filesystem::path& path, DType dtype, const Shape& shape, const void* data,
               FileAccess access = FileAccess::by_umask);
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
#include <bit>
#include <charconv>
#include <cstring>
#include <string_view>

namespace dpmp::inline DPMP_ABI::interop {
static_assert(std::endian::native == std::endian::little, "elements are read as little-endian");
namespace detail {
inline constexpr std::string_view npy_magic = "\x93NUMPY";
inline constexpr index_t longest_npy_header = 10000;

/// Reads the dictionary from left to right.
class NpyHeaderReader {
 public:
  NpyHeaderReader(std::string_view text, const std::string& place) : text_(text), place_(place) {}
  NpyHeader read() {
    NpyHeader header;
    bool seen[3] = {};
    take('{');
    while (!at('}')) {
      const std::string key = quoted("a key");
      const int k = key == "descr" ? 0 : key == "fortran_order" ? 1 : key == "shape" ? 2 : 3;
      check(k < 3, "the keys descr, fortran_order and shape", "'" + key + "'");
      check(!seen[k], "each key once", "'" + key + "' again");
      seen[k] = true;
      take(':');
      if (k == 0)
        take_descr(header);
      else if (k == 1)
        header.fortran_order = take_boolean();
      else
        header.shape = StoredShape(take_extents());
      if (!at('}')) take(',');
    }
    take('}');
    const char* const names[] = {"descr", "fortran_order", "shape"};
    for (int k = 0; k < 3; ++k) check(seen[k], std::string("the key ") + names[k], "none");
    const std::size_t end = text_.find_first_not_of(' ', place_in_text_);
    check(end != std::string_view::npos && end + 1 == text_.size() && text_[end] == '\n',
          "a header that ends with spaces and a line end", "another end");
    return header;
  }

 private:
  void check(bool holds, const std::string& expected, const std::string& got) const {
    if (!holds) throw Error(place_ + "expected " + expected + ", got " + got);
  }
  void skip_spaces() {
    while (place_in_text_ < text_.size() && text_[place_in_text_] == ' ') ++place_in_text_;
  }
  /// Whether that character is next, after spaces.
  bool at(char c) {
    skip_spaces();
    return place_in_text_ < text_.size() && text_[place_in_text_] == c;
  }
  void take(char c) {
    check(at(c), std::string("'") + c + "'", what_is_next());
    ++place_in_text_;
  }
  std::string what_is_next() const {
    if (place_in_text_ >= text_.size()) return "the end of the header";
    const unsigned char c = static_cast<unsigned char>(text_[place_in_text_]);
    return c >= ' ' && c <= '~' ? std::string("'") + char(c) + "'" : "the byte " + std::to_string(int(c));
  }
  /// A string of printable characters; none of numpy's has an escape in it.
  std::string quoted(const char* what) {
    const char quote = at('"') ? '"' : '\'';
    check(at(quote), std::string(what) + " in quotation marks", what_is_next());
    std::string value;
    constexpr std::size_t longest = 40;
    for (++place_in_text_; place_in_text_ < text_.size() && text_[place_in_text_] != quote; ++place_in_text_) {
      const char c = text_[place_in_text_];
      check(c >= ' ' && c <= '~' && c != '\\' && value.size() < longest, std::string(what) + " of some plain characters",
            what_is_next());
      value += c;
    }
    check(place_in_text_ < text_.size(), "a closing quotation mark", "none");
    ++place_in_text_;
    return value;
  }
  bool take_boolean() {
    skip_spaces();
    for (const std::string_view word : {"True", "False"})
      if (text_.substr(place_in_text_).starts_with(word)) {
        place_in_text_ += word.size();
        return word == "True";
      }
    check(false, "True or False as fortran_order", what_is_next());
    return false;
  }
  void take_descr(NpyHeader& header) {
    check(!at('['), "an array of numbers", "one of records");
    const std::string descr = quoted("a descr");
    static constexpr std::pair<std::string_view, const char*> types[] = {
        {"f2", "F16"}, {"f4", "F32"}, {"f8", "F64"}, {"b1", "BOOL"}, {"i1", "I8"},  {"u1", "U8"},
        {"i2", "I16"}, {"u2", "U16"}, {"i4", "I32"}, {"u4", "U32"},  {"i8", "I64"}, {"u8", "U64"}};
    const std::string_view type = descr.size() == 3 ? std::string_view(descr).substr(1) : std::string_view();
    const char order = descr.empty() ? ' ' : descr[0];
    for (const auto& [name, stored] : types)
      if (type == name && (order == '<' || order == '>' || (order == '|' && type[1] == '1'))) {
        header.dtype = StoredType(stored);
        header.big_endian = order == '>';
        return;
      }
    check(false, "a descr of real numbers or booleans such as '<f4'", "'" + descr + "'");
  }
  /// "()", "(3,)", "(3, 4)" or "(3, 4,)"; "(3)" is no tuple in Python.
  std::vector<index_t> take_extents() {
    std::vector<index_t> extents;
    take('(');
    while (!at(')')) {
      const char *begin = text_.data() + place_in_text_, *end = text_.data() + text_.size();
      index_t extent = 0;
      const auto parsed = std::from_chars(begin, end, extent);
      check(parsed.ec == std::errc() && *begin != '-' && (*begin != '0' || parsed.ptr == begin + 1),
            "whole numbers from 0 to 2^63 - 1 as shape", what_is_next());
      place_in_text_ += std::size_t(parsed.ptr - begin);
      extents.push_back(extent);
      if (extents.size() == 1 || !at(')')) take(',');
    }
    take(')');
    return extents;
  }

  std::string_view text_;
  const std::string& place_;
  std::size_t place_in_text_ = 0;
};

DPMP_KEPT_BODY inline NpyHeader parse_npy_header(const std::string& text, const std::string& place) {
  return NpyHeaderReader(text, place).read();
}

/// Elements of a file of the other byte order.
inline void turn_bytes(std::vector<char>& data, std::size_t element) {
  for (std::size_t at = 0; at + element <= data.size(); at += element)
    std::reverse(data.begin() + std::ptrdiff_t(at), data.begin() + std::ptrdiff_t(at + element));
}
/// Column-major to row-major.
inline std::vector<char> row_major(const std::vector<char>& data, const std::vector<index_t>& extents, index_t element) {
  std::vector<char> rows(data.size());
  std::vector<index_t> strides, at(extents.size(), 0);
  index_t stride = element;
  for (const index_t extent : extents) strides.push_back(std::exchange(stride, stride * extent));
  index_t from = 0;
  for (index_t to = 0; to < index_t(data.size()); to += element) {
    std::memcpy(rows.data() + to, data.data() + from, std::size_t(element));
    for (std::size_t axis = extents.size(); axis-- > 0;) {  // the next index, the last axis fastest
      from += strides[axis];
      if (++at[axis] < extents[axis]) break;
      from -= strides[axis] * std::exchange(at[axis], 0);
    }
  }
  return rows;
}

DPMP_KEPT_BODY inline NpyLayout npy_layout(const std::string& place, index_t file_bytes, ReadAt read) {
  const auto check = [&](bool holds, const std::string& expected, const auto&... got) {
    if (!holds) throw Error(place + "expected " + expected + ", got " + dpmp::detail::concat(got...));
  };
  unsigned char start[12] = {};
  const index_t got = read(0, start, std::min(file_bytes, index_t(sizeof start)));
  check(got >= 10 && std::memcmp(start, npy_magic.data(), npy_magic.size()) == 0, "an .npy file, the bytes \\x93NUMPY first",
        got < 10 ? "fewer than 10 bytes" : "other bytes");
  const int major = start[6], minor = start[7];
  check(major >= 1 && major <= 3 && minor == 0, "the format 1.0, 2.0 or 3.0", major, '.', minor);
  const index_t lengths = major == 1 ? 2 : 4;
  check(got >= 8 + lengths, "the header's length in 4 bytes", "fewer");
  index_t length = 0;
  for (index_t k = lengths; k-- > 0;) length = length << 8 | start[8 + k];
  NpyLayout layout;
  layout.data_start = 8 + lengths + length;
  check(length <= longest_npy_header && layout.data_start <= file_bytes,
        dpmp::detail::concat("a header inside the file of at most ", longest_npy_header, " bytes"), length,
        " bytes in a file of ", file_bytes);
  std::string text(std::size_t(length), '\0');
  check(read(8 + lengths, text.data(), length) == length, "a readable header", "a read error");
  NpyHeader& header = layout.header = parse_npy_header(text, place);
  layout.element_bytes = *header.dtype.bits() / 8;
  const auto numel = header.shape.numel();
  index_t bytes = 0;
  check(numel && !__builtin_mul_overflow(*numel, layout.element_bytes, &bytes), "an array of at most 2^63 - 1 bytes",
        header.dtype, header.shape);
  check(bytes == file_bytes - layout.data_start,
        dpmp::detail::concat(bytes, " bytes after the header for ", header.dtype, header.shape),
        file_bytes - layout.data_start);
  layout.numel = *numel;
  return layout;
}

DPMP_KEPT_BODY inline std::vector<char> npy_elements(const std::string& place, const NpyLayout& layout, ReadAt read,
                                                     DType dtype) {
  const auto check = [&](bool holds, const std::string& expected, const auto&... got) {
    if (!holds) throw Error(place + "expected " + expected + ", got " + dpmp::detail::concat(got...));
  };
  const NpyHeader& header = layout.header;
  check(converts(header.dtype, dtype), dpmp::detail::concat("an array that can be read as ", dtype), header.dtype);
  std::vector<char> data(std::size_t(layout.numel * layout.element_bytes));
  const index_t got = read(layout.data_start, data.data(), index_t(data.size()));
  check(got == index_t(data.size()), dpmp::detail::concat(data.size(), " bytes of elements"), "only ", got);
  if (header.big_endian) turn_bytes(data, std::size_t(layout.element_bytes));
  if (header.fortran_order && !data.empty()) data = row_major(data, header.shape.extents(), layout.element_bytes);
  if (header.dtype == StoredType(dtype)) return data;
  std::vector<char> converted(std::size_t(layout.numel * size_of(dtype)));
  const index_t done = convert(header.dtype, data.data(), dtype, converted.data(), layout.numel);
  check(done == layout.numel, dpmp::detail::concat("values that ", dtype, " has"), "another one of ", header.dtype,
        " as element ", done);
  return converted;
}

DPMP_KEPT_BODY inline std::string npy_start(const Shape& shape, DType dtype) {
  const DType written = npy_dtype(dtype);
  const char* descr = written == DType::f32 ? "<f4" : written == DType::f64 ? "<f8" : written == DType::f16 ? "<f2" : "<i4";
  std::string text = std::string("{'descr': '") + descr + "', 'fortran_order': False, 'shape': (";
  for (int axis = 0; axis < shape.rank(); ++axis)
    text += std::to_string(shape[axis]) + (axis == 0 || axis + 1 < shape.rank() ? ", " : "");
  if (shape.rank() == 1) text.pop_back();
  text += "), }";
  constexpr std::size_t front = 10, alignment = 64;  // of the elements, which may then be mapped
  text.append(alignment - 1 - (front + text.size()) % alignment, ' ') += '\n';
  return std::string(npy_magic) + '\1' + '\0' + char(text.size() & 0xff) + char(text.size() >> 8) + text;
}
}  // namespace detail

DPMP_KEPT_BODY inline NpyFile::NpyFile(const std::filesystem::path& path)
    : place_("reading '" + path.string() + "': "),
      file_(path),
      layout_(detail::npy_layout(place_, file_.size(),
                                 [&](index_t at, void* to, index_t count) { return file_.read(at, to, count); })) {}

DPMP_KEPT_BODY inline std::vector<char> NpyFile::read(DType dtype) const {
  return detail::npy_elements(
      place_, layout_, [&](index_t at, void* to, index_t count) { return file_.read(at, to, count); }, dtype);
}

DPMP_KEPT_BODY inline void write_npy(const std::filesystem::path& path, DType dtype, const Shape& shape, const void* data,
                                     FileAccess access) {
  const index_t numel = shape.numel();
  DPMP_CHECK(data || numel == 0, "expected the elements of an array, got a null pointer");
  const DType written = detail::npy_dtype(dtype);
  const std::string start = detail::npy_start(shape, dtype);
  std::vector<char> widened;
  if (written != dtype) {
    widened.resize(std::size_t(numel) * sizeof(float));
    convert(StoredType(dtype), data, written, widened.data(), numel);
    data = widened.data();
  }
  AtomicFile file(path, access);
  file.write(start.data(), start.size());
  file.write(data, std::size_t(numel * size_of(written)));
  file.commit();
}
}  // namespace dpmp::inline DPMP_ABI::interop
#endif

// SPDX-License-Identifier: Apache-2.0
// NumPy's .npz files: a zip archive whose entries are .npy files, stored as they are (numpy.savez) or compressed
// (numpy.savez_compressed). Source: APPNOTE.TXT, PKWARE's .ZIP file format specification 6.3.10, and numpy.lib.npyio.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "dpmp/interop/npy.hpp"
#include "dpmp/interop/safetensors.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// Writes the `wanted` bytes that deflate made `bytes` of; false where these are not what it makes of exactly so many.
/// inflate_with_zlib (interop/npz_zlib.hpp) is one.
using Inflate = bool (*)(const char* from, std::size_t bytes, char* to, std::size_t wanted);

/// An array of an .npz file, in memory: what NpyFile is of an .npy file.
class NpzArray {
 public:
  const NpyHeader& header() const { return layout_.header; }
  const StoredShape& shape() const { return layout_.header.shape; }
  /// As NpyFile::read.
  std::vector<char> read(DType dtype) const;

 private:
  friend class NpzFile;
  NpzArray(std::string place, std::vector<char> bytes);
  index_t read_at(index_t offset, void* to, index_t count) const;
  std::string place_;
  std::vector<char> bytes_;
  detail::NpyLayout layout_;
};

/// An open archive whose directory has been checked: every entry is an .npy file that is stored or deflated, inside the
/// file, under a name of its own. Encrypted, split and otherwise compressed archives are refused, and what is no array.
class NpzFile {
 public:
  /// inflate: null where compressed entries are refused, when they are asked for. Throws on everything that is not a
  /// complete archive of that kind.
  explicit NpzFile(const std::filesystem::path& path, Inflate inflate = nullptr);
  /// Without ".npy", in the order of the file.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(const std::string& name) const { return find(name) < names_.size(); }
  /// Reads the array into memory and compares its checksum. Throws when there is none of that name, or its bytes are no .npy
  /// file.
  NpzArray array(const std::string& name) const;
  /// array(name).read(dtype).
  std::vector<char> read(const std::string& name, DType dtype) const { return array(name).read(dtype); }

 private:
  struct Entry {
    std::string name;  // as in the file
    index_t header_at = 0, stored_bytes = 0, bytes = 0;
    unsigned method = 0;
    std::uint32_t crc = 0;
  };
  template <class... Parts>
  void check(bool holds, const char* expected, const Parts&... got) const {
    if (!holds) throw Error(place_ + "expected " + expected + ", got " + dpmp::detail::concat(got...));
  }
  std::string bytes_at(index_t offset, index_t count) const;
  void read_directory(index_t at, index_t bytes, index_t count);
  void take_entry(std::string_view directory, std::size_t& at);
  std::size_t find(const std::string& name) const;
  std::string place_;
  InputFile file_;
  Inflate inflate_;
  index_t directory_at_ = 0;
  std::vector<Entry> entries_;
  std::vector<std::string> names_;
};

/// Writes row-major arrays in host memory as numpy.savez does: not compressed, at most 4 GiB in all; bf16 as FP32. The same
/// arrays give the same bytes. Throws, before anything is written, on names that are empty, equal, no UTF-8 or have control
/// characters, and on more than 4 GiB; and where AtomicFile does.
void write_npz(const std::filesystem::path& path, std::span<const TensorView> arrays,
               FileAccess access = FileAccess::by_umask);
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
#include <algorithm>
#include <cstring>
#include <string_view>

#include "dpmp/core/crc32.hpp"
#include "dpmp/core/escaped_text.hpp"

namespace dpmp::inline DPMP_ABI::interop {
namespace detail {
/// The unsigned number of `bytes` bytes, little-endian; those of eight bytes are at most 2^63 - 1 where they count bytes.
inline std::uint64_t zip_number(std::string_view text, std::size_t at, std::size_t bytes) {
  std::uint64_t x = 0;
  for (std::size_t k = bytes; k-- > 0;) x = x << 8 | static_cast<unsigned char>(text[at + k]);
  return x;
}
inline void add_zip_number(std::string& text, std::uint64_t x, std::size_t bytes) {
  for (std::size_t k = 0; k < bytes; ++k) text += char(x >> (8 * k) & 0xff);
}
inline constexpr std::string_view zip_local = "PK\3\4", zip_central = "PK\1\2", zip_end = "PK\5\6", zip64_end = "PK\6\6",
                                  zip64_locator = "PK\6\7", npy_ending = ".npy";
inline constexpr std::uint64_t zip_none16 = 0xffff, zip_none32 = 0xffffffffu;  // "see the 64-bit field"
inline constexpr std::uint64_t zip_utf8 = 1u << 11, zip_encrypted = 1u << 0 | 1u << 6 | 1u << 13;
inline constexpr unsigned zip_stored = 0, zip_deflated = 8;
inline bool plain_name(std::string_view name) {
  return !name.empty() && utf8_prefix(name) == name.size() &&
         std::none_of(name.begin(), name.end(), [](unsigned char c) { return c < ' ' || c == 0x7f; });
}
inline bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x80; });
}
}  // namespace detail

DPMP_KEPT_BODY inline index_t NpzArray::read_at(index_t offset, void* to, index_t count) const {
  const index_t there = std::clamp<index_t>(index_t(bytes_.size()) - offset, 0, count);
  if (there > 0) std::memcpy(to, bytes_.data() + offset, std::size_t(there));
  return there;
}

DPMP_KEPT_BODY inline NpzArray::NpzArray(std::string place, std::vector<char> bytes)
    : place_(std::move(place)),
      bytes_(std::move(bytes)),
      layout_(detail::npy_layout(place_, index_t(bytes_.size()),
                                 [&](index_t at, void* to, index_t count) { return read_at(at, to, count); })) {}

DPMP_KEPT_BODY inline std::vector<char> NpzArray::read(DType dtype) const {
  return detail::npy_elements(
      place_, layout_, [&](index_t at, void* to, index_t count) { return read_at(at, to, count); }, dtype);
}

DPMP_KEPT_BODY inline std::string NpzFile::bytes_at(index_t offset, index_t count) const {
  check(offset >= 0 && count >= 0 && offset <= file_.size() && count <= file_.size() - offset,
        "a complete archive: its parts inside the file", count, " bytes at ", offset, " of ", file_.size());
  std::string bytes(std::size_t(count), '\0');
  const index_t got = file_.read(offset, bytes.data(), count);
  check(got == count, "a readable file", "only ", got, " of ", count, " bytes");
  return bytes;
}

DPMP_KEPT_BODY inline NpzFile::NpzFile(const std::filesystem::path& path, Inflate inflate)
    : place_("reading '" + path.string() + "': "), file_(path), inflate_(inflate) {
  constexpr index_t end_bytes = 22, longest_comment = 0xffff, locator_bytes = 20, end64_bytes = 56;
  const index_t tail_at = std::max<index_t>(0, file_.size() - end_bytes - longest_comment);
  const std::string tail = bytes_at(tail_at, file_.size() - tail_at);
  const auto number = [](std::string_view text, std::size_t at, std::size_t bytes) {
    return detail::zip_number(text, at, bytes);
  };
  // The last record that is as long as it says.
  std::size_t end = tail.rfind(detail::zip_end);
  while (end != std::string::npos && end > 0 &&
         (tail.size() - end < std::size_t(end_bytes) ||
          number(tail, end + 20, 2) != tail.size() - end - std::size_t(end_bytes)))
    end = tail.rfind(detail::zip_end, end - 1);
  check(end != std::string::npos && tail.size() - end >= std::size_t(end_bytes) &&
            number(tail, end + 20, 2) == tail.size() - end - std::size_t(end_bytes),
        "an .npz file: a zip archive with the record at its end", "none: it is another file, or cut off");
  const std::string_view record = std::string_view(tail).substr(end);
  const index_t end_at = tail_at + index_t(end);
  std::uint64_t disk = number(record, 4, 2) | number(record, 6, 2), count = number(record, 10, 2),
                bytes = number(record, 12, 4), at = number(record, 16, 4);
  index_t directory_end = end_at;
  if (count == detail::zip_none16 || bytes == detail::zip_none32 || at == detail::zip_none32) {
    const std::string locator = bytes_at(end_at - locator_bytes, locator_bytes);
    check(locator.starts_with(detail::zip64_locator), "the 64-bit record's place", "none");
    directory_end = index_t(number(locator, 8, 8));
    const std::string end64 = bytes_at(directory_end, end64_bytes);
    check(end64.starts_with(detail::zip64_end), "the 64-bit record at the archive's end", "none");
    disk = number(end64, 16, 4) | number(end64, 20, 4);
    count = number(end64, 32, 8), bytes = number(end64, 40, 8), at = number(end64, 48, 8);
  }
  check(disk == 0, "an archive in one file", "a part of one");
  check(bytes <= std::uint64_t(directory_end) && at == std::uint64_t(directory_end) - bytes,
        "the directory right before the archive's end", bytes, " bytes at ", at);
  directory_at_ = index_t(at);
  read_directory(directory_at_, index_t(bytes), index_t(count));
}

DPMP_KEPT_BODY inline void NpzFile::read_directory(index_t at, index_t bytes, index_t count) {
  const std::string directory = bytes_at(at, bytes);
  for (std::size_t place = 0; place < directory.size();) take_entry(directory, place);
  check(index_t(entries_.size()) == count, "as many entries as the archive says", entries_.size(), ", not ", count);
  std::vector<std::string> sorted = names_;
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  check(twice == sorted.end(), "each name once", "'", twice == sorted.end() ? "" : twice->substr(0, 200), "' again");
}

DPMP_KEPT_BODY inline void NpzFile::take_entry(std::string_view directory, std::size_t& at) {
  constexpr std::size_t fixed = 46;
  const std::string_view rest = directory.substr(at);
  check(rest.size() >= fixed && rest.starts_with(detail::zip_central), "an entry of the directory", "something else");
  const auto number = [&](std::size_t place, std::size_t bytes) { return detail::zip_number(rest, place, bytes); };
  const std::size_t name_bytes = number(28, 2), extra_bytes = number(30, 2), comment_bytes = number(32, 2);
  check(rest.size() - fixed >= name_bytes + extra_bytes + comment_bytes, "an entry inside the directory", "a longer one");
  at += fixed + name_bytes + extra_bytes + comment_bytes;
  Entry entry;
  entry.name = rest.substr(fixed, name_bytes);
  const std::uint64_t flags = number(8, 2);
  check(detail::plain_name(entry.name) && (flags & detail::zip_utf8 || detail::is_ascii(entry.name)),
        "names of printable UTF-8", "another one");
  const std::string quoted = "'" + entry.name.substr(0, 200) + "'";
  check(entry.name.ends_with(detail::npy_ending), "entries that are .npy files", quoted);
  check((flags & detail::zip_encrypted) == 0, "entries that are not encrypted", quoted);
  entry.method = unsigned(number(10, 2));
  check(entry.method == detail::zip_stored || entry.method == detail::zip_deflated, "entries that are stored or deflated",
        quoted, " with method ", entry.method);
  entry.crc = std::uint32_t(number(16, 4));
  std::uint64_t sizes[] = {number(24, 4), number(20, 4), number(42, 4)};  // bytes, stored, where
  const std::string_view extra = rest.substr(fixed + name_bytes, extra_bytes);
  for (std::size_t k = 0; k + 4 <= extra.size();) {
    const std::size_t kind = detail::zip_number(extra, k, 2), length = detail::zip_number(extra, k + 2, 2);
    const std::size_t begin = k + 4, end = begin + length;
    check(end <= extra.size(), "additional fields inside their entry", quoted);
    if (kind == 1)  // 64-bit numbers of what has no room, in this order
      for (std::size_t field = begin; std::uint64_t & size : sizes)
        if (size == detail::zip_none32 && field + 8 <= end) size = detail::zip_number(extra, field, 8), field += 8;
    k = end;
  }
  const std::uint64_t most = std::uint64_t(directory_at_);
  check(sizes[1] <= most && sizes[2] <= most - sizes[1], "entries inside the file", quoted, " of ", sizes[1], " bytes at ",
        sizes[2]);
  // Deflate makes at most 258 bytes of two bits (RFC 1951), so that a small file cannot ask for much memory.
  constexpr std::uint64_t most_of_a_byte = 1032;
  const bool fits = entry.method == detail::zip_stored ? sizes[0] == sizes[1] : sizes[0] / most_of_a_byte <= sizes[1];
  check(fits, "a size that the stored bytes can have", quoted, " of ", sizes[0], " bytes stored in ", sizes[1]);
  entry.bytes = index_t(sizes[0]), entry.stored_bytes = index_t(sizes[1]), entry.header_at = index_t(sizes[2]);
  names_.push_back(entry.name.substr(0, entry.name.size() - detail::npy_ending.size()));
  entries_.push_back(std::move(entry));
}

DPMP_KEPT_BODY inline std::size_t NpzFile::find(const std::string& name) const {
  return std::size_t(std::find(names_.begin(), names_.end(), name) - names_.begin());
}

DPMP_KEPT_BODY inline NpzArray NpzFile::array(const std::string& name) const {
  const std::size_t k = find(name);
  check(k < entries_.size(), "an array of the file", "'", name, "'");
  const Entry& entry = entries_[k];
  constexpr index_t fixed = 30;
  const std::string quoted = "'" + entry.name.substr(0, 200) + "'", local = bytes_at(entry.header_at, fixed);
  const index_t name_bytes = index_t(detail::zip_number(local, 26, 2)),
                data_at = entry.header_at + fixed + name_bytes + index_t(detail::zip_number(local, 28, 2));
  check(local.starts_with(detail::zip_local) && detail::zip_number(local, 8, 2) == entry.method &&
            bytes_at(entry.header_at + fixed, name_bytes) == entry.name,
        "an entry as the directory says it is", quoted, " with another name or method");
  check(data_at <= directory_at_ - entry.stored_bytes, "an entry before the directory", quoted, " reaching into it");
  check(entry.method == detail::zip_stored || inflate_,
        "arrays that are not compressed, or an Inflate function for them (interop/npz_zlib.hpp)", quoted);
  std::vector<char> bytes(std::size_t(entry.bytes));
  std::vector<char> packed(entry.method == detail::zip_stored ? 0 : std::size_t(entry.stored_bytes));
  std::vector<char>& read = entry.method == detail::zip_stored ? bytes : packed;
  const index_t got = file_.read(data_at, read.data(), entry.stored_bytes);
  check(got == entry.stored_bytes, "a readable file", "only ", got, " bytes of ", quoted);
  if (entry.method == detail::zip_deflated)
    check(inflate_(packed.data(), packed.size(), bytes.data(), bytes.size()), "a deflated entry of its size", quoted,
          ", which is damaged");
  check(crc32(bytes.data(), bytes.size()) == entry.crc, "the entry's checksum", "another one for ", quoted,
        ": it is damaged");
  return NpzArray(place_.substr(0, place_.size() - 2) + ", " + quoted + ": ", std::move(bytes));
}

DPMP_KEPT_BODY inline void write_npz(const std::filesystem::path& path, std::span<const TensorView> arrays,
                                     FileAccess access) {
  const auto refuse = [&](const std::string& expected, const std::string& got) {
    throw Error("writing '" + path.string() + "': expected " + expected + ", got " + got);
  };
  // What is written: for each array its header and elements.
  struct Part {
    std::string name, start;
    index_t bytes = 0;  // of the elements
  };
  std::vector<Part> parts;
  std::vector<std::string> sorted;
  index_t total = 22;
  for (const TensorView& array : arrays) {
    if (!detail::plain_name(array.name) || array.name.size() > 1000)
      refuse("names of 1 to 1000 printable bytes of UTF-8", "another one");
    if (!array.data && array.shape.numel() > 0) refuse("the elements of '" + array.name + "'", "a null pointer");
    Part part{array.name + std::string(detail::npy_ending), detail::npy_start(array.shape, array.dtype)};
    if (__builtin_mul_overflow(array.shape.numel(), size_of(detail::npy_dtype(array.dtype)), &part.bytes) ||
        __builtin_add_overflow(total, part.bytes, &total))
      total = index_t(detail::zip_none32);
    total = std::min(total, index_t(detail::zip_none32)) + index_t(part.start.size() + 2 * part.name.size()) + 30 + 46;
    sorted.push_back(part.name);
    parts.push_back(std::move(part));
  }
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) refuse("each name once", "one again");
  if (std::uint64_t(total) >= detail::zip_none32 || parts.size() >= detail::zip_none16)
    refuse("less than 4 GiB and 65535 arrays", "more: write_safetensors() has no such limits");

  AtomicFile file(path, access);
  std::string directory;
  std::uint64_t at = 0;
  for (std::size_t k = 0; k < parts.size(); ++k) {
    const Part& part = parts[k];
    const TensorView& array = arrays[k];
    const void* elements = array.data;
    std::vector<char> widened;
    if (const DType written = detail::npy_dtype(array.dtype); written != array.dtype) {
      widened.resize(std::size_t(part.bytes));
      convert(StoredType(array.dtype), array.data, written, widened.data(), array.shape.numel());
      elements = widened.data();
    }
    const std::uint32_t crc = crc32(elements, std::size_t(part.bytes), crc32(part.start.data(), part.start.size()));
    const std::uint64_t bytes = part.start.size() + std::uint64_t(part.bytes);
    std::string common;                     // of the entry's header and the directory
    detail::add_zip_number(common, 20, 2);  // version 2.0
    detail::add_zip_number(common, detail::is_ascii(part.name) ? 0 : detail::zip_utf8, 2);
    detail::add_zip_number(common, detail::zip_stored, 2);
    detail::add_zip_number(common, 0x00210000, 4);  // the first of January 1980, in the format's way
    detail::add_zip_number(common, crc, 4);
    detail::add_zip_number(common, bytes, 4);
    detail::add_zip_number(common, bytes, 4);
    detail::add_zip_number(common, part.name.size(), 2);
    detail::add_zip_number(common, 0, 2);
    const std::string header = std::string(detail::zip_local) + common + part.name;
    file.write(header.data(), header.size());
    file.write(part.start.data(), part.start.size());
    file.write(elements, std::size_t(part.bytes));
    directory += detail::zip_central;
    detail::add_zip_number(directory, 3 << 8 | 20, 2);  // made on Unix
    directory += common;
    detail::add_zip_number(directory, 0, 6);            // comment, disk, internal attributes
    detail::add_zip_number(directory, 0600u << 16, 4);  // permissions
    detail::add_zip_number(directory, at, 4);
    directory += part.name;
    at += header.size() + bytes;
  }
  const std::size_t directory_bytes = directory.size();
  directory += detail::zip_end;
  detail::add_zip_number(directory, 0, 4);
  detail::add_zip_number(directory, parts.size(), 2);
  detail::add_zip_number(directory, parts.size(), 2);
  detail::add_zip_number(directory, directory_bytes, 4);
  detail::add_zip_number(directory, at, 4);
  detail::add_zip_number(directory, 0, 2);
  file.write(directory.data(), directory.size());
  file.commit();
}
}  // namespace dpmp::inline DPMP_ABI::interop
#endif

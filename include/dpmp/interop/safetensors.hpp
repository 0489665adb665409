// SPDX-License-Identifier: Apache-2.0
// The safetensors format: 8 bytes little-endian header length N, N bytes of JSON, then the tensors' bytes without gaps.
// Source: github.com/huggingface/safetensors, README "Format". The header maps a name to
// {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}; "__metadata__" maps strings to strings.
#pragma once
#include <algorithm>
#include <bit>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "dpmp/core/xxhash64.hpp"
#include "dpmp/interop/convert.hpp"
#include "dpmp/interop/safetensors_header.hpp"
#include "dpmp/runtime/atomic_file.hpp"
#include "dpmp/runtime/input_file.hpp"

namespace dpmp::inline DPMP_ABI::interop {
static_assert(std::endian::native == std::endian::little, "safetensors are little-endian; so must the machine be");

/// A named row-major tensor in host memory, not owned.
struct TensorView {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  const void* data = nullptr;
};

/// Whether a file has a checksum of all its bytes, the metadata entry "checksum": 16 hexadecimal digits, XXH64 of the file
/// with zeros in place of these digits. Programs that change such a file and keep its metadata leave a wrong one.
enum class Checksum : std::uint8_t { none, of_all };

/// Writes the tensors and the metadata to `path`, which is replaced only when everything is written. Tensors are laid out by
/// falling element size, then name, so that each is aligned. Throws on equal or empty names, names or metadata that are not
/// UTF-8, metadata with an entry "checksum" where the file gets one, and where AtomicFile does.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata = {}, FileAccess access = FileAccess::by_umask,
                       Checksum checksum = Checksum::none);

/// An open file whose header has been checked: every offset is inside the file, no two tensors overlap, no byte is
/// unclaimed, sizes fit dtypes and shapes. Tensors of dtypes and numbers of axes that dpmp does not have are listed, and
/// refused when they are asked for; of a dtype that the format does not define no size is checked. Tensors are read one by
/// one, so that a large file needs no second copy in memory.
class SafetensorsFile {
 public:
  /// Throws on everything that is not a complete and valid file.
  explicit SafetensorsFile(const std::filesystem::path& path);

  /// In the order of their bytes in the file.
  const std::vector<TensorEntry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool has_checksum() const { return metadata_.contains(detail::checksum_key); }
  /// Reads the whole file. Throws unless it has a checksum and that is its own: no bit was changed since it was written, but
  /// for a chance of 2^-64.
  void check_checksum() const;
  bool contains(const std::string& name) const { return find(name) != entries_.end(); }
  /// Throws when there is no such tensor.
  const TensorEntry& entry(const std::string& name) const;
  /// The tensor's elements as `dtype`, row-major: as they are stored, or converted, exactly or with one rounding to nearest
  /// (interop/convert.hpp). Throws when the file has another shape or a dtype that cannot be converted, when a value would
  /// become infinite or is none that `dtype` has, and when the file has become shorter since it was opened.
  std::vector<char> read(const std::string& name, DType dtype, const Shape& shape) const;
  /// The same, copied to `destination`, which is unchanged where this throws.
  void read(const std::string& name, DType dtype, const Shape& shape, void* destination) const;

 private:
  template <class... Parts>
  void check(bool holds, const std::string& expected, const Parts&... got) const {
    if (!holds)
      throw Error("reading '" + path_.string() + "': expected " + expected + ", got " + dpmp::detail::concat(got...));
  }
  std::vector<TensorEntry>::const_iterator find(const std::string& name) const;
  void check_layout(index_t data_bytes) const;

  std::filesystem::path path_;
  InputFile file_;
  index_t data_start_ = 0;
  std::size_t checksum_at_ = std::string::npos;  // of its digits in the header
  std::vector<TensorEntry> entries_;
  std::map<std::string, std::string> metadata_;
};
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::interop {
namespace detail {
/// Bytes of a tensor; throws when they do not fit into 63 bits.
inline index_t bytes_of(DType dtype, const Shape& shape) {
  index_t bytes = 0;
  DPMP_CHECK(!__builtin_mul_overflow(shape.numel(), size_of(dtype), &bytes), "expected at most 2^63 - 1 bytes, got ", dtype,
             shape);
  return bytes;
}
/// Where the digits of the checksum are in the text of a header; npos where it has none, or is written in another way than
/// by write_safetensors. Quotation marks inside of a string are escaped, so this is a key.
inline std::size_t checksum_place(const std::string& header) {
  const std::string key = std::string("\"") + checksum_key + "\":\"";
  const std::size_t at = header.find(key);
  return at == std::string::npos ? at : at + key.size();
}
inline std::string checksum_text(std::uint64_t hash) {
  std::string text(no_checksum);
  for (std::size_t k = text.size(); k-- > 0; hash >>= 4) text[k] = "0123456789abcdef"[hash & 15];
  return text;
}
}  // namespace detail

DPMP_KEPT_BODY inline void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                                             const std::map<std::string, std::string>& metadata, FileAccess access,
                                             Checksum checksum) {
  std::vector<const TensorView*> order;
  for (const TensorView& t : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const TensorView* x, const TensorView* y) {
    return std::pair(-size_of(x->dtype), x->name) < std::pair(-size_of(y->dtype), y->name);
  });
  detail::SafetensorsHeader header{.tensors = {}, .metadata = metadata};
  if (checksum == Checksum::of_all)
    DPMP_CHECK(header.metadata.emplace(detail::checksum_key, detail::no_checksum).second, "expected no metadata entry '",
               detail::checksum_key, "' of a file that gets one, got '", metadata.at(detail::checksum_key), "'");
  std::set<std::string> names{detail::metadata_key};
  index_t end = 0;
  for (const TensorView* t : order) {
    DPMP_CHECK(!t->name.empty(), "expected a name for each tensor, got an empty one");
    DPMP_CHECK(names.insert(t->name).second, "expected different tensor names other than ", detail::metadata_key, ", got '",
               t->name, "' again");
    DPMP_CHECK(t->data || t->shape.numel() == 0, "expected data for the tensor '", t->name, "', got a null pointer");
    const index_t begin = end, bytes = detail::bytes_of(t->dtype, t->shape);
    DPMP_CHECK(!__builtin_add_overflow(begin, bytes, &end), "expected at most 2^63 - 1 bytes in a file, got more");
    header.tensors.push_back({t->name, t->dtype, t->shape, begin, end});
  }
  std::string text = detail::safetensors_header_text(header, "writing '" + path.string() + "': ");
  text.resize((text.size() + 7) / 8 * 8, ' ');
  DPMP_CHECK(index_t(text.size()) <= detail::longest_header, "expected a header of at most ", detail::longest_header,
             " bytes, got ", text.size());
  const std::uint64_t length = text.size();
  if (checksum == Checksum::of_all) {
    Xxh64 hash;
    hash.add(&length, sizeof length);
    hash.add(text.data(), text.size());
    for (const TensorView* t : order) hash.add(t->data, std::size_t(detail::bytes_of(t->dtype, t->shape)));
    const std::string digits = detail::checksum_text(hash.value());
    text.replace(detail::checksum_place(text), digits.size(), digits);
  }
  AtomicFile file(path, access);
  file.write(&length, sizeof length);
  file.write(text.data(), text.size());
  for (const TensorView* t : order) file.write(t->data, std::size_t(detail::bytes_of(t->dtype, t->shape)));
  file.commit();
}

DPMP_KEPT_BODY inline SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path), file_(path) {
  check(file_.size() >= 8, "at least 8 bytes", file_.size());
  std::uint64_t length = 0;
  check(file_.read(0, &length, 8) == 8, "a readable header", "a read error");
  check(length <= std::uint64_t(detail::longest_header) && length <= std::uint64_t(file_.size() - 8),
        dpmp::detail::concat("a header inside the file of at most ", detail::longest_header, " bytes"), length,
        " bytes in a file of ", file_.size());
  std::string text(std::size_t(length), '\0');
  check(file_.read(8, text.data(), index_t(length)) == index_t(length), "a readable header", "a read error");
  data_start_ = index_t(8 + length);
  checksum_at_ = detail::checksum_place(text);
  detail::SafetensorsHeader header = detail::parse_safetensors_header(text, "reading '" + path_.string() + "': ");
  entries_ = std::move(header.tensors);
  metadata_ = std::move(header.metadata);
  std::sort(entries_.begin(), entries_.end(), [](const TensorEntry& x, const TensorEntry& y) {
    return std::tuple(x.begin, x.end, x.name) < std::tuple(y.begin, y.end, y.name);
  });
  check_layout(file_.size() - data_start_);
}

DPMP_KEPT_BODY inline void SafetensorsFile::check_checksum() const {
  check(has_checksum(), "a checksum", "none");
  const std::string& said = metadata_.at(detail::checksum_key);
  check(checksum_at_ != std::string::npos && said.size() == detail::no_checksum.size(), "a checksum of 16 digits as written",
        detail::shown(said));
  constexpr index_t most = index_t(1) << 20;
  std::vector<char> bytes(std::size_t(std::min(most, file_.size())));
  Xxh64 hash;
  const index_t first = 8 + index_t(checksum_at_), last = first + index_t(said.size());
  for (index_t at = 0; at < file_.size(); at += index_t(bytes.size())) {
    const index_t count = std::min(index_t(bytes.size()), file_.size() - at), got = file_.read(at, bytes.data(), count);
    check(got == count, dpmp::detail::concat(file_.size(), " bytes"), "only ", at + got);
    for (index_t k = std::max(first, at); k < std::min(last, at + count); ++k) bytes[std::size_t(k - at)] = '0';
    hash.add(bytes.data(), std::size_t(count));
  }
  const std::string here = detail::checksum_text(hash.value());
  check(here == said, "the checksum that the file was written with, " + detail::shown(said), "that of other bytes, ",
        detail::shown(here), ": it is damaged");
}

DPMP_KEPT_BODY inline std::vector<TensorEntry>::const_iterator SafetensorsFile::find(const std::string& name) const {
  return std::find_if(entries_.begin(), entries_.end(), [&](const TensorEntry& e) { return e.name == name; });
}

DPMP_KEPT_BODY inline const TensorEntry& SafetensorsFile::entry(const std::string& name) const {
  const auto at = find(name);
  check(at != entries_.end(), "a tensor " + detail::shown(name), "none of that name");
  return *at;
}

DPMP_KEPT_BODY inline void SafetensorsFile::check_layout(index_t data_bytes) const {
  index_t at = 0;
  for (const TensorEntry& e : entries_) {
    const std::string name = detail::shown(e.name);
    check(e.begin == at, dpmp::detail::concat(name, " to begin at ", at, ", where the tensor before it ends"), e.begin);
    check(e.end >= e.begin, "data_offsets of " + name + " that do not fall", "[", e.begin, ", ", e.end, "]");
    const auto numel = e.shape.numel();
    check(numel.has_value(), "a shape of at most 2^63 - 1 elements for " + name, e.shape);
    if (const auto bits = e.dtype.bits()) {
      index_t all = 0;
      check(!__builtin_mul_overflow(*numel, *bits, &all), "at most 2^63 - 1 bits for " + name, e.dtype, e.shape);
      check(all % 8 == 0, "whole bytes for " + name, all, " bits in ", e.dtype, e.shape);
      check(e.end - e.begin == all / 8, dpmp::detail::concat(all / 8, " bytes for ", name, " of ", e.dtype, e.shape),
            "data_offsets [", e.begin, ", ", e.end, "]");
    }
    check(e.end <= data_bytes, dpmp::detail::concat(e.end, " bytes after the header for ", name), data_bytes);
    at = e.end;
  }
  check(at == data_bytes, dpmp::detail::concat(at, " bytes after the header"), data_bytes);
}

DPMP_KEPT_BODY inline std::vector<char> SafetensorsFile::read(const std::string& name, DType dtype,
                                                              const Shape& shape) const {
  const TensorEntry& e = entry(name);
  check(e.shape == StoredShape(shape) && converts(e.dtype, dtype),
        dpmp::detail::concat(detail::shown(name), " as ", dtype, shape), e.dtype, e.shape);
  std::vector<char> stored(std::size_t(e.end - e.begin));
  const index_t got = file_.read(data_start_ + e.begin, stored.data(), e.end - e.begin);
  check(got == e.end - e.begin, dpmp::detail::concat(e.end - e.begin, " bytes for ", detail::shown(name)), "only ", got);
  if (e.dtype == StoredType(dtype)) return stored;
  std::vector<char> converted(std::size_t(shape.numel() * size_of(dtype)));
  const index_t done = convert(e.dtype, stored.data(), dtype, converted.data(), shape.numel());
  check(done == shape.numel(), dpmp::detail::concat("values of ", detail::shown(name), " that ", dtype, " has"),
        "another one of ", e.dtype, " as element ", done);
  return converted;
}

DPMP_KEPT_BODY inline void SafetensorsFile::read(const std::string& name, DType dtype, const Shape& shape,
                                                 void* destination) const {
  const std::vector<char> values = read(name, dtype, shape);
  std::copy(values.begin(), values.end(), static_cast<char*>(destination));
}
}  // namespace dpmp::inline DPMP_ABI::interop
#endif

#if DPMP_BODIES && !(defined(DPMP_COMPILED) && defined(__CUDACC__))
#include "dpmp/interop/safetensors_json.hpp"
#endif

// SPDX-License-Identifier: Apache-2.0
// The safetensors format: 8 bytes little-endian header length N, N bytes of JSON, then the tensors' bytes without gaps.
// Source: github.com/huggingface/safetensors, README "Format". The header maps a name to
// {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}; "__metadata__" maps strings to strings.
#pragma once
#include <algorithm>
#include <bit>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "dpmp/interop/safetensors_header.hpp"
#include "dpmp/runtime/atomic_file.hpp"

namespace dpmp::inline DPMP_ABI::interop {
static_assert(std::endian::native == std::endian::little, "safetensors are little-endian; so must the machine be");

/// A named row-major tensor in host memory, not owned.
struct TensorView {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  const void* data = nullptr;
};

namespace detail {
/// Bytes of a tensor; throws when they do not fit into 63 bits.
inline index_t bytes_of(DType dtype, const Shape& shape) {
  index_t bytes = 0;
  DPMP_CHECK(!__builtin_mul_overflow(shape.numel(), size_of(dtype), &bytes), "expected at most 2^63 - 1 bytes, got ", dtype,
             shape);
  return bytes;
}
}  // namespace detail

/// Writes the tensors and the metadata to `path`, which is replaced only when everything is written. Tensors are laid out by
/// falling element size, then name, so that each is aligned. Throws on equal names, names or metadata that are not UTF-8,
/// and where the file cannot be written.
inline void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
  std::vector<const TensorView*> order;
  for (const TensorView& t : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const TensorView* x, const TensorView* y) {
    return std::pair(-size_of(x->dtype), x->name) < std::pair(-size_of(y->dtype), y->name);
  });
  detail::SafetensorsHeader header{.tensors = {}, .metadata = metadata};
  std::set<std::string> names{detail::metadata_key};
  index_t end = 0;
  for (const TensorView* t : order) {
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
  AtomicFile file(path);
  file.write(&length, sizeof length);
  file.write(text.data(), text.size());
  for (const TensorView* t : order) file.write(t->data, std::size_t(detail::bytes_of(t->dtype, t->shape)));
  file.commit();
}

/// An open file whose header has been checked: every offset is inside the file, no two tensors overlap, no byte is
/// unclaimed, sizes fit dtypes and shapes. Tensors are read one by one, so that a large file needs no second copy in memory.
class SafetensorsFile {
 public:
  /// Throws on everything that is not a complete and valid file of the dtypes that dpmp has.
  explicit SafetensorsFile(const std::filesystem::path& path) : path_(path), file_(path, std::ios::binary) {
    std::error_code code;
    const auto size = std::filesystem::is_regular_file(path, code) ? std::filesystem::file_size(path, code) : 0;
    check(file_.good() && !code && std::filesystem::is_regular_file(path), "a readable file", "none");
    check(size >= 8, "at least 8 bytes", size);
    std::uint64_t length = 0;
    file_.read(reinterpret_cast<char*>(&length), 8);
    check(length <= std::uint64_t(detail::longest_header) && length <= size - 8,
          "a header inside the file of at most 100000000 bytes", length, " bytes in a file of ", size);
    std::string text(std::size_t(length), '\0');
    file_.read(text.data(), std::streamsize(length));
    check(file_.good(), "a readable header", "a read error");
    check(text.starts_with('{'), "a header that starts with '{'", text.empty() ? "an empty one" : "another byte");
    data_start_ = index_t(8 + length);
    parse(text);
    check_layout(index_t(size) - data_start_);
  }

  /// In the order of their bytes in the file.
  const std::vector<TensorEntry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(const std::string& name) const { return find(name) != entries_.end(); }
  /// Throws when there is no such tensor.
  const TensorEntry& entry(const std::string& name) const {
    const auto at = find(name);
    check(at != entries_.end(), "a tensor '" + name + "'", "none of that name");
    return *at;
  }
  /// Copies the tensor's bytes to `destination`, a tensor of exactly this dtype and shape; throws when the file has another
  /// one.
  void read(const std::string& name, DType dtype, const Shape& shape, void* destination) {
    const TensorEntry& e = entry(name);
    check(e.dtype == dtype && e.shape == shape, dpmp::detail::concat("'", name, "' as ", dtype, shape), e.dtype, e.shape);
    if (e.begin == e.end) return;
    file_.clear();
    file_.seekg(data_start_ + e.begin);
    file_.read(static_cast<char*>(destination), e.end - e.begin);
    check(file_.good(), dpmp::detail::concat(e.end - e.begin, " bytes for '", name, "'"), "only ", file_.gcount());
  }

 private:
  template <class... Parts>
  void check(bool holds, const std::string& expected, const Parts&... got) const {
    if (!holds)
      throw Error("reading '" + path_.string() + "': expected " + expected + ", got " + dpmp::detail::concat(got...));
  }
  std::vector<TensorEntry>::const_iterator find(const std::string& name) const {
    return std::find_if(entries_.begin(), entries_.end(), [&](const TensorEntry& e) { return e.name == name; });
  }

  void parse(const std::string& text) {
    detail::SafetensorsHeader header = detail::parse_safetensors_header(text, "reading '" + path_.string() + "': ");
    entries_ = std::move(header.tensors);
    metadata_ = std::move(header.metadata);
    std::sort(entries_.begin(), entries_.end(), [](const TensorEntry& x, const TensorEntry& y) {
      return std::tuple(x.begin, x.end, x.name) < std::tuple(y.begin, y.end, y.name);
    });
  }

  void check_layout(index_t data_bytes) const {
    index_t at = 0;
    for (const TensorEntry& e : entries_) {
      const index_t bytes = detail::bytes_of(e.dtype, e.shape);
      check(e.begin == at, dpmp::detail::concat("'", e.name, "' to begin at ", at, ", where the tensor before it ends"),
            e.begin);
      check(e.end >= e.begin && e.end - e.begin == bytes,
            dpmp::detail::concat(bytes, " bytes for '", e.name, "' of ", e.dtype, e.shape), "data_offsets [", e.begin, ", ",
            e.end, "]");
      check(e.end <= data_bytes, dpmp::detail::concat(e.end, " bytes after the header for '", e.name, "'"), data_bytes);
      at = e.end;
    }
    check(at == data_bytes, dpmp::detail::concat(at, " bytes after the header"), data_bytes);
  }

  std::filesystem::path path_;
  std::ifstream file_;
  index_t data_start_ = 0;
  std::vector<TensorEntry> entries_;
  std::map<std::string, std::string> metadata_;
};
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES && !(defined(DPMP_COMPILED) && defined(__CUDACC__))
#include "dpmp/interop/safetensors_json.hpp"
#endif

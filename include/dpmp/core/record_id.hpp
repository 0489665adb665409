// SPDX-License-Identifier: Apache-2.0
// What names a record for the randomness inside of it (dropout, augmentation). The clipped contributions of the *other*
// records must not change when one is removed, so a record's masks may depend on nothing that then moves: not on its slot,
// and not on its place in the data set either, where all later records move up by one (P35).
#pragma once
#include <string_view>

#include "dpmp/core/chacha20.hpp"
#include "dpmp/core/siphash.hpp"

namespace dpmp::inline DPMP_ABI {
/// 64 bits, a hash under a secret key. Two records of one value share their masks, which costs nothing: each is still
/// clipped alone.
class RecordId {
 public:
  /// empty: of a slot without a record. content: a function of what the record says; stable: of a name that it keeps
  /// whatever becomes of the others. Both serve every neighbouring relation. place: of its index in the data set, which
  /// serves only relations in which no record moves (zero_out, replace_one); trainers refuse it for add_or_remove_one.
  enum class Kind : std::uint8_t { empty, content, stable, place };
  RecordId() = default;
  Kind kind() const { return kind_; }
  std::uint64_t value() const { return value_; }
  friend bool operator==(const RecordId&, const RecordId&) = default;

 private:
  RecordId(Kind kind, std::uint64_t value) : kind_(kind), value_(value) {}
  friend RecordId content_id(const Key256& key, std::span<const std::byte> content);
  friend RecordId stable_id(const Key256& key, std::uint64_t name);
  friend RecordId place_id(const Key256& key, index_t place);
  Kind kind_ = Kind::empty;
  std::uint64_t value_ = 0;
};

namespace detail {
inline std::uint64_t keyed_hash(const Key256& key, std::size_t half, std::span<const std::byte> bytes) {
  const auto wide = [&](std::size_t k) { return key.words[k] | std::uint64_t(key.words[k + 1]) << 32; };
  return siphash24(wide(4 * half), wide(4 * half + 2), bytes);
}
/// Of a tag and a number: names and places never meet under one key.
inline std::uint64_t keyed_number(const Key256& key, std::uint8_t tag, std::uint64_t number) {
  std::byte bytes[9] = {std::byte{tag}};
  for (int k = 0; k < 8; ++k) bytes[1 + k] = std::byte(number >> (8 * k));
  return keyed_hash(key, 1, bytes);
}
}  // namespace detail

/// key: a secret of the run (dp::Stream::record_identity). content: all that makes the record what it is, as it is stored.
inline RecordId content_id(const Key256& key, std::span<const std::byte> content) {
  return {RecordId::Kind::content, detail::keyed_hash(key, 0, content)};
}
/// The same of a string's bytes.
inline RecordId content_id(const Key256& key, std::string_view content) {
  return content_id(key, std::as_bytes(std::span(content.data(), content.size())));
}
/// name: a number that belongs to the record and to nobody else (a primary key), and stays when other records go.
inline RecordId stable_id(const Key256& key, std::uint64_t name) {
  return {RecordId::Kind::stable, detail::keyed_number(key, 1, name)};
}
/// place: the record's index in a data set whose records keep their places in every neighbour.
inline RecordId place_id(const Key256& key, index_t place) {
  return {RecordId::Kind::place, detail::keyed_number(key, 2, std::uint64_t(place))};
}
}  // namespace dpmp::inline DPMP_ABI

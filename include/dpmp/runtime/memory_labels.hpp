// SPDX-License-Identifier: Apache-2.0
// Whose memory it is: bytes in use by the name of what asked for them, now and when there were most.
#pragma once
#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "dpmp/core/error.hpp"
#include "dpmp/core/sorted_places.hpp"

namespace dpmp::inline DPMP_ABI {
struct MemoryUse {
  std::string name;
  index_t bytes = 0;
};

namespace detail {
/// Counts by the number of a name; name 0 is "other".
class LabelledBytes {
 public:
  LabelledBytes() { number_of("other"); }
  int number_of(std::string_view name) {
    if (const auto at = numbers_.find(name); at != numbers_.end()) return at->second;
    const int number = int(now_.size());
    now_.push_back(0);
    at_peak_.push_back(0);
    numbers_.emplace(name, number);
    return number;
  }
  void add(int label, index_t bytes) { now_[std::size_t(label)] += bytes; }
  void subtract(int label, index_t bytes) {
    keep_peak();
    now_[std::size_t(label)] -= bytes;
  }
  void move(int from, int to, index_t bytes) {
    now_[std::size_t(from)] -= bytes;
    now_[std::size_t(to)] += bytes;
  }
  /// There were never as many bytes in use as now. What they are is written down when the first of them is given back: once
  /// for a climb, not at every step of it.
  void at_new_peak() { climbing_ = true; }
  /// Largest first, without names of nothing.
  std::vector<MemoryUse> now() const { return sorted(now_); }
  std::vector<MemoryUse> at_peak() const { return sorted(climbing_ ? now_ : at_peak_); }

 private:
  void keep_peak() {
    if (!climbing_) return;
    std::copy(now_.begin(), now_.end(), at_peak_.begin());
    climbing_ = false;
  }
  std::vector<MemoryUse> sorted(const std::vector<index_t>& bytes) const {
    std::vector<MemoryUse> by_name, uses;
    for (const auto& [name, number] : numbers_)
      if (bytes[std::size_t(number)] > 0) by_name.push_back({name, bytes[std::size_t(number)]});
    const auto larger = [&](index_t a, index_t b) { return by_name[std::size_t(a)].bytes > by_name[std::size_t(b)].bytes; };
    for (const index_t k : sorted_places(by_name.size(), larger)) uses.push_back(by_name[std::size_t(k)]);
    return uses;
  }
  std::map<std::string, int, std::less<>> numbers_;
  std::vector<index_t> now_, at_peak_;
  bool climbing_ = false;
};

/// "a 5 bytes, b 3 bytes and 4 bytes of others", of the largest ones.
inline std::string largest_uses(const std::vector<MemoryUse>& uses) {
  constexpr std::size_t named = 5;
  std::string text;
  index_t others = 0;
  for (std::size_t k = 0; k < uses.size(); ++k) {
    if (k < named)
      text += concat(k > 0 ? ", " : "", uses[k].name, " ", uses[k].bytes, " bytes");
    else
      others += uses[k].bytes;
  }
  return others > 0 ? concat(text, " and ", others, " bytes of others") : text;
}
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI

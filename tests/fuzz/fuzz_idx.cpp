// SPDX-License-Identifier: Apache-2.0
// IDX files: what is accepted is, written by the format's definition, the same bytes again.
#include "dpmp/interop/idx.hpp"
#include "fuzz/fuzz.hpp"

namespace {
template <class T>
bool accepted_as(const std::string& content) {
  dpmp::interop::IdxArray<T> array;
  try {
    array = dpmp::interop::parse_idx<T>("input", content);
  } catch (const dpmp::Error&) {
    return false;
  }
  std::string again = content.substr(0, 4);
  fuzz::hold(again[3] == array.shape.rank(), "the number of axes");
  for (int axis = 0; axis < array.shape.rank(); ++axis)
    for (int shift : {24, 16, 8, 0}) again += char(array.shape[axis] >> shift & 0xff);
  fuzz::hold(dpmp::index_t(array.values.size()) == array.shape.numel(), "as many values as the shape has");
  for (const T& value : array.values) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof value);
    for (std::size_t k = sizeof(T); k > 0; --k) again += bytes[k - 1];
  }
  fuzz::hold(again == content, "the same bytes again");
  return true;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string content(reinterpret_cast<const char*>(data), size);
  const int times = accepted_as<std::uint8_t>(content) + accepted_as<std::int8_t>(content) +
                    accepted_as<std::int16_t>(content) + accepted_as<std::int32_t>(content) + accepted_as<float>(content) +
                    accepted_as<double>(content);
  fuzz::hold(times <= 1, "one element type");
  fuzz::accepted += std::uint64_t(times);
  return 0;
}

std::vector<std::string> fuzz::seeds() {
  std::vector<std::string> all;
  const std::pair<int, std::size_t> types[] = {{8, 1}, {9, 1}, {11, 2}, {12, 4}, {13, 4}, {14, 8}};
  for (const auto& [type, size] : types) {
    const std::string start{0, 0, char(type)};
    all.push_back(start + std::string("\1\0\0\0\3", 5) + std::string(3 * size, '\x7f'));
    all.push_back(start + std::string("\2\0\0\0\2\0\0\0\3", 9) + std::string(6 * size, '\xff'));
    all.push_back(start + std::string("\1\0\0\0\0", 5));
    all.push_back(start + std::string("\5\0\0\0\1\0\0\0\1\0\0\0\2\0\0\0\1\0\0\0\1", 21) + std::string(2 * size, 'v'));
  }
  return all;
}
std::vector<std::string> fuzz::words() {
  return {std::string(4, '\0'),         std::string(4, '\xff'),
          std::string("\0\0\0\1", 4),   std::string("\x7f\xff\xff\xff", 4),
          std::string("\0\0\x08\3", 4), std::string("\0\0\x0e\1", 4),
          std::string(8, 'v')};
}

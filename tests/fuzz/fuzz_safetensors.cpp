// SPDX-License-Identifier: Apache-2.0
// safetensors files. An input is "R" and a file, or "H", a header, an ASCII record separator and the tensors' bytes, whose
// length is put in front: changes of a header then seldom end at the length.
//
// What is accepted has the header that a JSON parser reads into a tree, covers the file without holes, gives the bytes that
// it was said to have, and is read again after it was written by write_safetensors.
#include <cstring>
#include <nlohmann/json.hpp>

#include "dpmp/interop/safetensors.hpp"
#include "fuzz/fuzz.hpp"

namespace {
using namespace dpmp;
using interop::SafetensorsFile;

std::string image(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}
std::string file_of_input(const std::string& input) {
  if (input.empty() || input[0] == 'R') return input.empty() ? input : input.substr(1);
  const std::size_t end = input.find('\x1e');
  return image(input.substr(1, end == std::string::npos ? end : end - 1),
               end == std::string::npos ? "" : input.substr(end + 1));
}

void compare_with_tree(const SafetensorsFile& file, const std::string& header) {
  const nlohmann::json tree = nlohmann::json::parse(header);
  fuzz::hold(tree.size() == file.entries().size() + tree.contains("__metadata__"), "one entry for each key");
  for (const auto& e : file.entries()) {
    const auto& said = tree.at(e.name);
    fuzz::hold(said.at("dtype") == e.dtype.name(), "the dtype");
    fuzz::hold(said.at("shape") == nlohmann::json(e.shape.extents()), "the shape");
    fuzz::hold(said.at("data_offsets") == nlohmann::json({e.begin, e.end}), "the offsets");
  }
  if (tree.contains("__metadata__")) fuzz::hold(tree.at("__metadata__") == nlohmann::json(file.metadata()), "the metadata");
  if (!tree.contains("__metadata__")) fuzz::hold(file.metadata().empty(), "no metadata");
}

/// Whether the tensor is of a dtype and a rank that dpmp has; its bytes are then those of the file, in every dtype that it
/// can be read as.
bool check_tensor(const SafetensorsFile& file, const interop::TensorEntry& e, const std::string& data) {
  if (e.shape.extents().size() > std::size_t(Shape::max_rank)) return false;
  const Shape shape(e.shape);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32}) {
    try {
      const std::vector<char> values = file.read(e.name, dtype, shape);
      fuzz::hold(index_t(values.size()) == shape.numel() * size_of(dtype), "as many bytes as the shape has");
      fuzz::hold(interop::converts(e.dtype, dtype), "a dtype that converts");
      if (e.dtype == interop::StoredType(dtype))
        fuzz::hold(std::equal(values.begin(), values.end(), data.begin() + e.begin), "the bytes of the file");
    } catch (const Error&) {
      fuzz::hold(e.dtype != interop::StoredType(dtype), "a tensor of dpmp's own dtypes is read");
    }
  }
  return e.dtype.native().has_value();
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
  const std::string bytes = file_of_input(std::string(reinterpret_cast<const char*>(input), size));
  const std::filesystem::path path = fuzz::file_of(bytes);
  std::optional<SafetensorsFile> opened;
  try {
    opened.emplace(path);
  } catch (const Error& e) {
    fuzz::hold(std::strlen(e.what()) < 2000, "a short message");
    return 0;
  }
  ++fuzz::accepted;
  const SafetensorsFile& file = *opened;
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  const std::string header = bytes.substr(8, length), data = bytes.substr(8 + length);
  compare_with_tree(file, header);
  index_t covered = 0;
  bool all_known = true;
  std::vector<interop::TensorView> views;
  for (const auto& e : file.entries()) {
    fuzz::hold(e.begin == covered && e.end >= e.begin && e.end <= index_t(data.size()), "no hole and no overlap");
    covered = e.end;
    const bool known = check_tensor(file, e, data);
    all_known = all_known && known;
    if (known) views.push_back({e.name, *e.dtype.native(), Shape(e.shape), data.data() + e.begin});
  }
  fuzz::hold(covered == index_t(data.size()), "every byte is claimed");
  const std::filesystem::path again = path.string() + "_again";
  interop::write_safetensors(again, views, file.metadata());
  const SafetensorsFile second(again);
  fuzz::hold(second.metadata() == file.metadata() && second.entries().size() == views.size(), "the same after writing");
  for (const auto& view : views) {
    const std::vector<char> values = second.read(view.name, view.dtype, view.shape);
    fuzz::hold(std::equal(values.begin(), values.end(), static_cast<const char*>(view.data)),
               "the same values after writing");
  }
  fuzz::hold(!all_known || views.size() == file.entries().size(), "all tensors were written");
  return 0;
}

std::vector<std::string> fuzz::seeds() {
  const std::string entry = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])", one = "{\"a\":{" + entry + "}}";
  std::vector<std::string> all{
      "H{\"a\":{" + entry +
          "}}\x1e"
          "dddd",
      "H{\"a\":{" + entry +
          R"(,"more":[{"k":1}]}})"
          "   \x1e"
          "dddd",
      "H{\"__metadata__\":{\"k\":\"v\"},\"a\":{" + entry +
          "}}\x1e"
          "dddd",
      R"(H{"a":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})"
      "\x1e"
      "dddddddd",
      R"(H{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"F4","shape":[2],"data_offsets":[8,9]}})"
      "\x1e"
      "ddddddddd",
      R"(H{"\u00e9":{"dtype":"F64","shape":[0,7],"data_offsets":[0,0]}})",
      R"(H{"a":{"dtype":"F32","shape":[1,1,1,1,1,1],"data_offsets":[0,4]}})"
      "\x1e"
      "dddd",
      R"(H{"a":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}})",
      "H{}",
      "R" + image(one, "dddd"),
      "R" + image("{}", "")};
  for (const char* dtype : {"BOOL", "F8_E4M3", "F8_E5M2", "U8", "I8"})
    all.push_back(std::string("H{\"a\":{\"dtype\":\"") + dtype +
                  R"(","shape":[4],"data_offsets":[0,4]}})"
                  "\x1e" +
                  std::string("\0\1\x7f\xff", 4));
  return all;
}
std::vector<std::string> fuzz::words() {
  return {"{",
          "}",
          "[",
          "]",
          ",",
          ":",
          "\"",
          "\\u0061",
          "\\ud800",
          "\"a\":{",
          "\"dtype\":",
          "\"F16\"",
          "\"BOOL\"",
          "\"F64\"",
          "\"shape\":[",
          "\"data_offsets\":[",
          "\"__metadata__\":{",
          "null",
          "true",
          "1e9",
          "-0",
          "1.5",
          " ",
          "\n",
          std::string(1, '\0'),
          "\x1e",
          "dddd",
          "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]",
          "\xc3\xa4",
          "\xff",
          "9223372036854775807",
          "18446744073709551615",
          "[[[[",
          "{\"k\":",
          "\"k\":\"v\","};
}

// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <cstring>

#include "dpmp/interop/safetensors.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using interop::SafetensorsFile;
using interop::TensorView;

namespace {
/// A file image: header length, header, data.
std::string image(const std::string& header, const std::string& data, std::uint64_t length) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}
std::string image(const std::string& header, const std::string& data) { return image(header, data, header.size()); }

/// What opening a file of these bytes says; "" when it is accepted.
std::string refusal(const test::TemporaryFolder& folder, const std::string& bytes) {
  test::write_text(folder / "x", bytes);
  return test::error_of([&] { SafetensorsFile(folder / "x"); });
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
}  // namespace

TEST_CASE("safetensors: the bytes written are those of the format's definition") {
  const test::TemporaryFolder folder;
  const float w[2] = {1.0f, -2.0f};
  const bf16 b[1] = {{0x3f80}};
  const TensorView views[] = {{"b", DType::bf16, {1}, b}, {"w", DType::f32, {2, 1}, w}};
  interop::write_safetensors(folder / "x", views, {{"k", "v"}});
  std::string header = R"({"__metadata__":{"k":"v"},"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                       R"("b":{"dtype":"BF16","shape":[1],"data_offsets":[8,10]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  CHECK(test::read_text(folder / "x") == image(header, std::string("\0\0\x80\x3f\0\0\0\xc0\x80\x3f", 10)));
  CHECK(folder.entries() == 1);
}

TEST_CASE("safetensors: random tensors of every dtype come back bit for bit") {
  const test::TemporaryFolder folder;
  test::Rng rng(test::seed());
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string> data;
    std::vector<TensorView> views;
    const auto count = rng.integer(0, 12);
    for (int k = 0; k < count; ++k) {
      TensorView view;
      view.name = "t\"\\\xc3\xa9/" + std::to_string(k);
      view.dtype = DType(rng.integer(0, 4));
      for (auto axes = rng.integer(0, Shape::max_rank); axes > 0; --axes) view.shape.push_back(rng.integer(0, 4));
      std::string bytes(std::size_t(view.shape.numel() * size_of(view.dtype)), '\0');
      for (char& c : bytes) c = char(rng.bits());
      data.push_back(bytes);
      views.push_back(view);
    }
    for (std::size_t k = 0; k < views.size(); ++k) views[k].data = data[k].data();
    const std::map<std::string, std::string> metadata = {{"round", std::to_string(round)}, {"", "empty key"}};
    interop::write_safetensors(folder / "x", views, metadata);

    SafetensorsFile file(folder / "x");
    CHECK(file.metadata() == metadata);
    CHECK(file.entries().size() == views.size());
    for (std::size_t k = 0; k < views.size(); ++k) {
      std::string bytes(data[k].size(), '\1');
      REQUIRE(file.contains(views[k].name));
      CHECK(file.entry(views[k].name).begin % size_of(views[k].dtype) == 0);
      file.read(views[k].name, views[k].dtype, views[k].shape, bytes.data());
      CHECK(bytes == data[k]);
    }
  }
}

TEST_CASE("safetensors: a file cut at any length, or one byte too long, is refused") {
  const test::TemporaryFolder folder;
  const float w[3] = {1, 2, 3};
  const TensorView views[] = {{"w", DType::f32, {3}, w}, {"empty", DType::i32, {0, 4}, nullptr}};
  interop::write_safetensors(folder / "whole", views);
  const std::string whole = test::read_text(folder / "whole");
  CHECK(refusal(folder, whole) == "");
  for (std::size_t n = 0; n < whole.size(); ++n) {
    CAPTURE(n);
    CHECK(has(refusal(folder, whole.substr(0, n)), "expected"));
  }
  CHECK(has(refusal(folder, whole + "x"), "expected 12 bytes after the header, got 13"));
}

TEST_CASE("safetensors: damaged headers are refused with what was expected") {
  const test::TemporaryFolder folder;
  const std::string data(8, 'd');
  const std::string good =
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})";
  CHECK(refusal(folder, image(good, data)) == "");
  CHECK(refusal(folder, image(good + "   ", data)) == "");
  CHECK(refusal(folder, image("{}", "")) == "");

  CHECK(has(refusal(folder, image(good, data, ~std::uint64_t(0))), "a header inside the file"));
  CHECK(has(refusal(folder, image(good, data, std::uint64_t(1) << 63)), "a header inside the file"));
  CHECK(has(refusal(folder, image(good, data, good.size() + 9)), "a header inside the file"));
  CHECK(has(refusal(folder, image(good, data, good.size() + 1)), "a header in JSON"));
  CHECK(has(refusal(folder, image(" " + good, data)), "starts with '{'"));
  CHECK(has(refusal(folder, image("", data)), "starts with '{'"));
  CHECK(has(refusal(folder, image("[]", "")), "starts with '{'"));
  CHECK(has(refusal(folder, image("{\"a\":", data)), "a header in JSON"));
  CHECK(has(refusal(folder, image("{\"a\xff\":1}", data)), "a header in JSON"));
  CHECK(has(refusal(folder, image("{\"a\":" + std::string(100000, '['), data)), "nesting depth"));
  CHECK(has(refusal(folder, image("{\"a\":3}", "")), "a JSON object for 'a'"));
  CHECK(has(refusal(folder, image("{\"__metadata__\":{\"k\":3}}", "")), "a string for the metadata 'k'"));

  auto one = [](const std::string& entry) { return image("{\"a\":" + entry + "}", "dddd"); };
  CHECK(refusal(folder, one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})")) == "");
  CHECK(refusal(folder, one(R"({"dtype":"I32","shape":[],"data_offsets":[0,4]})")) == "");
  CHECK(has(refusal(folder, one(R"({"shape":[1],"data_offsets":[0,4]})")), "a dtype for 'a'"));
  CHECK(has(refusal(folder, one(R"({"dtype":"F32","data_offsets":[0,4]})")), "a shape for 'a'"));
  CHECK(has(refusal(folder, one(R"({"dtype":"F32","shape":[1]})")), "a data_offsets for 'a'"));
  CHECK(has(refusal(folder, one(R"({"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]})")), "F32, BF16, F16, F64 or I32"));
  CHECK(has(refusal(folder, one(R"({"dtype":7,"shape":[4],"data_offsets":[0,4]})")), "F32, BF16, F16, F64 or I32"));
  for (const char* shape : {"[-1]", "[1.0]", "[\"1\"]", "[18446744073709551615]", "[null]"})
    CHECK(has(refusal(folder, one(std::string(R"({"dtype":"F32","shape":)") + shape + R"(,"data_offsets":[0,4]})")),
              "whole numbers"));
  CHECK(has(refusal(folder, one(R"({"dtype":"F32","shape":4,"data_offsets":[0,4]})")), "at most 5 axes"));
  CHECK(has(refusal(folder, one(R"({"dtype":"F32","shape":[1,1,1,1,1,1],"data_offsets":[0,4]})")), "at most 5 axes"));
  CHECK(has(refusal(folder, one(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]})")),
            "2^63 - 1 elements"));
  CHECK(
      has(refusal(folder, one(R"({"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]})")), "2^63 - 1 bytes"));
  CHECK(has(refusal(folder, one(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})")), "two data_offsets"));
  CHECK(has(refusal(folder, one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,-4]})")), "whole numbers"));
  CHECK(has(refusal(folder, one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})")), "8 bytes for 'a'"));
  CHECK(has(refusal(folder, one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})")),
            "8 bytes after the header for 'a', got 4"));
  CHECK(has(refusal(folder, one(R"({"dtype":"F32","shape":[0],"data_offsets":[4,0]})")), "to begin at 0"));

  auto two = [](const std::string& a, const std::string& b) {
    return image(R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":)" + a +
                     R"(},"b":{"dtype":"BF16","shape":[2],"data_offsets":)" + b + "}}",
                 std::string(8, 'd'));
  };
  CHECK(refusal(folder, two("[4,8]", "[0,4]")) == "");
  CHECK(has(refusal(folder, two("[0,4]", "[2,6]")), "'b' to begin at 4"));
  CHECK(has(refusal(folder, two("[0,4]", "[0,4]")), "'b' to begin at 4"));
  CHECK(has(refusal(folder, two("[0,4]", "[5,9]")), "'b' to begin at 4"));
  CHECK(has(
      refusal(
          folder,
          image(
              R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
              "dddd")),
      "each name once, got 'a' again"));
}

TEST_CASE("safetensors: a missing file, a missing tensor and another dtype or shape are refused") {
  const test::TemporaryFolder folder;
  const float w[2] = {1, 2}, a[1] = {7};
  const TensorView views[] = {{"w", DType::f32, {2}, w}, {"a", DType::f32, {1}, a}};
  interop::write_safetensors(folder / "x", views);
  float out[2] = {};
  CHECK(test::refuses([&] { SafetensorsFile(folder / "none"); }, "a readable file"));
  CHECK(test::refuses([&] { SafetensorsFile(folder.path()); }, "a readable file"));
  SafetensorsFile file(folder / "x");
  CHECK(test::refuses([&] { file.read("v", DType::f32, {2}, out); }, "a tensor 'v'"));
  CHECK(test::refuses([&] { file.read("w", DType::i32, {2}, out); }, "'w' as i32[2], got f32[2]"));
  CHECK(test::refuses([&] { file.read("w", DType::f32, {1, 2}, out); }, "'w' as f32[1, 2], got f32[2]"));
  std::filesystem::resize_file(folder / "x", std::filesystem::file_size(folder / "x") - 1);
  CHECK(test::refuses([&] { file.read("w", DType::f32, {2}, out); }, "8 bytes for 'w', got only 7"));
  file.read("a", DType::f32, {1}, out);  // a failed read does not spoil the next one
  CHECK(out[0] == 7);
}

TEST_CASE("safetensors: what cannot be written is refused and leaves the old file") {
  const test::TemporaryFolder folder;
  const float w[1] = {1};
  auto write = [&](const std::string& file, std::vector<TensorView> views,
                   std::map<std::string, std::string> metadata = {}) {
    return test::error_of([&] { interop::write_safetensors(folder / file, views, metadata); });
  };
  test::write_text(folder / "x", "old");
  CHECK(has(write("x", {{"w\xff", DType::f32, {1}, w}}), "UTF-8"));
  CHECK(has(write("x", {{"w", DType::f32, {1}, w}}, {{"k", "\xc0\x80"}}), "UTF-8"));
  CHECK(has(write("x", {{"w", DType::f32, {1}, w}, {"w", DType::f32, {1}, w}}), "got 'w' again"));
  CHECK(has(write("x", {{"__metadata__", DType::f32, {1}, w}}), "__metadata__"));
  CHECK(has(write("x", {{"w", DType::f32, {1}, nullptr}}), "a null pointer"));
  CHECK(has(write("none/x", {{"w", DType::f32, {1}, w}}), "a folder that can be written to"));
  CHECK(has(write("x/x", {{"w", DType::f32, {1}, w}}), "a folder that can be written to"));
  CHECK(test::read_text(folder / "x") == "old");
  CHECK(folder.entries() == 1);
}

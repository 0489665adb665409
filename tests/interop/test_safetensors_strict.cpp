// SPDX-License-Identifier: Apache-2.0
// Where readers of safetensors disagree, dpmp refuses; what it does not compute with, it lists.
#include <doctest/doctest.h>
#include <cstring>
#include <sstream>

#include "dpmp/interop/safetensors.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/source_folder.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using interop::SafetensorsFile;
using interop::StoredShape;
using interop::StoredType;

namespace {
std::string image(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}
struct Reader {
  test::TemporaryFolder folder;
  SafetensorsFile open(const std::string& bytes) const {
    test::write_text(folder / "x", bytes);
    return SafetensorsFile(folder / "x");
  }
  bool refuses(const std::string& header, const std::string& part, const std::string& data = "dddd") const {
    return test::refuses([&] { open(image(header, data)); }, part);
  }
  bool accepts(const std::string& header, const std::string& data = "dddd") const {
    return test::error_of([&] { open(image(header, data)); }).empty();
  }
};
const std::string entry = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
}  // namespace

TEST_CASE("safetensors: a key twice in one object is refused at every depth, also when it is spelled in two ways") {
  const Reader reader;
  CHECK(reader.accepts("{\"a\":{" + entry + "}}"));
  CHECK(reader.refuses("{\"a\":{" + entry + "},\"a\":{" + entry + "}}", "each name once, got 'a' again"));
  CHECK(reader.refuses("{\"a\":{" + entry + "},\"\\u0061\":{" + entry + "}}", "each name once, got 'a' again"));
  for (const char* again : {R"("dtype":"F32")", R"("shape":[1])", R"("data_offsets":[0,4])", R"("shape":[2,2])"})
    CHECK(reader.refuses("{\"a\":{" + entry + "," + again + "}}", "each name once"));
  CHECK(reader.refuses("{\"__metadata__\":{},\"__metadata__\":{},\"a\":{" + entry + "}}", "got '__metadata__' again"));
  CHECK(reader.refuses("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"},\"a\":{" + entry + "}}", "got 'k' again"));
  CHECK(reader.accepts("{\"a\":{" + entry + R"(,"more":{"k":1,"l":[{"k":1}]}}})"));
  CHECK(reader.refuses("{\"a\":{" + entry + R"(,"more":{"k":1,"k":1}}})", "got 'k' again"));
  CHECK(reader.refuses("{\"a\":{" + entry + R"(,"more":[[{"k":1,"k":1}]]}})", "got 'k' again"));
}

TEST_CASE("safetensors: nothing follows the header's last brace but spaces, and nothing is in it that is no JSON") {
  const Reader reader;
  const std::string good = "{\"a\":{" + entry + "}}";
  CHECK(reader.accepts(good + std::string(99, ' ')));
  CHECK(reader.accepts("{ \"a\"\n:\t{" + entry + "}\r\n}"));
  for (const std::string tail : {"\n", "\t", " \r", "x", "{}", " {}", "\x0c", "\xc2\xa0"})
    CHECK(reader.refuses(good + tail, "a header in JSON"));
  CHECK(reader.refuses(good + std::string(1, '\0'), "a NUL byte"));
  CHECK(reader.refuses(good + std::string("\0{\"b\":1}", 8), "a NUL byte"));
  CHECK(reader.refuses("\xef\xbb\xbf" + good, "starts with '{'"));
  for (const char* bad : {"'x'",      "1,",        "01",     "+1",          ".5",       "1.",
                          "NaN",      "-Infinity", "1e999",  "\"\\ud800\"", "\"\x01\"", "\"\xed\xa0\x80\"",
                          "\"\xff\"", "\"\\x41\"", "/**/ 1", "True",        "[1,]",     "[1 2]",
                          "{1:2}",    "{\"k\"}",   ""})
    CHECK(reader.refuses("{\"a\":{" + entry + ",\"more\":" + bad + "}}", "a header in JSON"));
  for (const char* bad : {"{,}", "{a:{}}", "{\"a\" {}}", "{/**/}"}) CHECK(reader.refuses(bad, "a header in JSON", ""));
}

TEST_CASE("safetensors: numbers are whole, spelled without fraction, exponent or sign, and of 63 bits") {
  const Reader reader;
  const auto with_shape = [](const std::string& extent) {
    return "{\"a\":{\"dtype\":\"F32\",\"shape\":[" + extent + "],\"data_offsets\":[0,4]}}";
  };
  CHECK(reader.accepts(with_shape("1")));
  for (const char* bad : {"-0", "-1", "1.0", "1e0", "1E0", "9223372036854775808", "18446744073709551616",
                          "99999999999999999999999999", "\"1\"", "null", "true", "[1]", "{}", "{\"1\":1}"})
    CHECK(reader.refuses(with_shape(bad), "whole numbers"));
  CHECK(reader.refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4.0]}})", "whole numbers"));
  CHECK(reader.refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}})", "two data_offsets"));
  CHECK(reader.refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":{"0":4}}})", "a list of two data_offsets"));
  CHECK(reader.refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "to begin at 0"));
  CHECK(reader.refuses(R"({"a":{"dtype":"what","shape":[1],"data_offsets":[0,9223372036854775807]}})", "after the header"));
}

TEST_CASE("safetensors: what readers understand in different ways is refused") {
  const Reader reader;
  CHECK(reader.refuses(R"({"a":["F32",[1],[0,4]]})", "a JSON object for 'a', got a list"));
  CHECK(reader.refuses("{\"__metadata__\":null,\"a\":{" + entry + "}}", "a JSON object for '__metadata__', got null"));
  CHECK(reader.refuses("{\"__metadata__\":{\"k\":{}},\"a\":{" + entry + "}}", "a string for the metadata 'k'"));
  CHECK(reader.refuses("{\"__metadata__\":{\"k\":[\"v\"]},\"a\":{" + entry + "}}", "a string for the metadata 'k'"));
  CHECK(reader.refuses(R"({"a":{"dtype":{"F32":null},"shape":[1],"data_offsets":[0,4]}})", "a name as dtype"));
  CHECK(reader.refuses("{\"\":{" + entry + "}}", "a name for each tensor, got an empty one"));
  CHECK(reader.accepts("{\"__metadata__\":{\"\":\"\"},\"a\":{" + entry + "}}"));
}

TEST_CASE("safetensors: dtypes and numbers of axes that dpmp does not have are listed, and refused when asked for") {
  const Reader reader;
  const std::string header = R"({"ids":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},)"
                             R"("w":{"dtype":"F32","shape":[2],"data_offsets":[16,24]},)"
                             R"("axes":{"dtype":"F32","shape":[1,1,1,1,1,1],"data_offsets":[24,28]},)"
                             R"("packed":{"dtype":"F4","shape":[3,2],"data_offsets":[28,31]},)"
                             R"("complex":{"dtype":"C64","shape":[],"data_offsets":[31,39]},)"
                             R"("later":{"dtype":"Q5_NEW","shape":[7],"data_offsets":[39,44]}})";
  const std::int64_t ids[2] = {-5, std::int64_t(1) << 40};
  const float w[2] = {1.5f, -2};
  std::string data(44, 'x');
  std::memcpy(data.data(), ids, 16);
  std::memcpy(data.data() + 16, w, 8);
  const SafetensorsFile file = reader.open(image(header, data));
  REQUIRE(file.entries().size() == 6);
  CHECK(file.entry("ids").dtype == StoredType("I64"));
  CHECK(file.entry("w").dtype == DType::f32);
  CHECK(file.entry("axes").shape == StoredShape(std::vector<index_t>(6, 1)));
  CHECK(file.entry("later").dtype.name() == "Q5_NEW");
  CHECK_FALSE(file.entry("later").dtype.bits().has_value());
  float got[2] = {};
  file.read("w", DType::f32, {2}, got);
  CHECK(got[1] == -2);
  file.read("ids", DType::f32, {2}, got);
  CHECK(got[0] == -5);
  CHECK(got[1] == 0x1p40f);
  const auto refused = [&](const char* name, DType dtype, const Shape& shape, const char* part) {
    return test::refuses([&] { file.read(name, dtype, shape); }, part);
  };
  CHECK(refused("ids", DType::i32, {2}, "values of 'ids' that i32 has, got another one of I64 as element 1"));
  CHECK(refused("axes", DType::f32, {1, 1, 1, 1, 1}, "'axes' as f32[1, 1, 1, 1, 1], got f32[1, 1, 1, 1, 1, 1]"));
  CHECK(test::refuses([&] { static_cast<void>(Shape(file.entry("axes").shape)); }, "at most 5 axes"));
  CHECK(refused("packed", DType::f32, {3, 2}, "'packed' as f32[3, 2], got F4[3, 2]"));
  CHECK(refused("complex", DType::f32, {}, "got C64[]"));
  CHECK(refused("later", DType::f32, {7}, "got Q5_NEW[7]"));
  // Sizes of what the format defines are checked, of half bytes too.
  CHECK(reader.refuses(R"({"a":{"dtype":"F4","shape":[7],"data_offsets":[0,4]}})", "whole bytes for 'a', got 28 bits"));
  CHECK(reader.refuses(R"({"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,4]}})", "3 bytes for 'a'"));
  CHECK(reader.refuses(R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,4]}})", "8 bytes for 'a'"));
}

TEST_CASE("safetensors: weights of 16 and 64 bits are read as FP32, a value that would become infinite is not") {
  const Reader reader;
  const double f64[2] = {1 + 0x1p-24 + 0x1p-50, 1e300};
  const f16 half[2] = {{0x3c01}, {0x0001}};
  std::string data(20, '\0');
  std::memcpy(data.data(), f64, 16);
  std::memcpy(data.data() + 16, half, 4);
  const SafetensorsFile file = reader.open(image(R"({"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
                                                 R"("huge":{"dtype":"F64","shape":[1],"data_offsets":[8,16]},)"
                                                 R"("h":{"dtype":"F16","shape":[2],"data_offsets":[16,20]}})",
                                                 data));
  float got[2] = {7, 7};
  file.read("d", DType::f32, {1}, got);
  CHECK(got[0] == 1 + 0x1p-23f);
  file.read("h", DType::f32, {2}, got);
  CHECK(got[0] == 1 + 0x1p-10f);
  CHECK(got[1] == 0x1p-24f);
  CHECK(test::refuses([&] { file.read("huge", DType::f32, {1}, got); }, "values of 'huge' that f32 has, got another one"));
  CHECK(got[0] == 1 + 0x1p-10f);
}

TEST_CASE("safetensors: a header longer than the format allows is refused before it is read") {
  const Reader reader;
  const std::uint64_t length = 100'000'001;
  std::string start(8, '\0');
  std::memcpy(start.data(), &length, 8);
  test::write_text(reader.folder / "x", start + "{");
  std::filesystem::resize_file(reader.folder / "x", 200'000'000);  // a hole: no disk is used
  CHECK(test::refuses([&] { SafetensorsFile(reader.folder / "x"); }, "of at most 100000000 bytes, got 100000001 bytes"));
}

TEST_CASE("safetensors: names and texts of a file that are long do not make a long message") {
  const Reader reader;
  const std::string name(1000000, 'n');
  for (const std::string& header :
       {"{\"" + name + "\":3}", "{\"" + name + "\":{},\"" + name + "\":{}}", "{\"a\":" + name + "}",
        "{\"a\":{\"dtype\":\"" + name + "\",\"shape\":[1" + std::string(1000, '0') + "]}}"})
    CHECK(test::error_of([&] { reader.open(image(header, "")); }).size() - reader.folder.path().string().size() < 700);
}

namespace {
std::string from_hex(const std::string& text) {
  std::string bytes;
  for (std::size_t k = 0; k + 1 < text.size(); k += 2) bytes += char(std::stoi(text.substr(k, 2), nullptr, 16));
  return bytes;
}
std::string listing(const SafetensorsFile& file) {
  std::ostringstream text;
  for (const auto& e : file.entries()) {
    for (const std::string& word : {e.name, e.dtype.name()}) {
      for (const char c : word) text << "0123456789abcdef"[c >> 4 & 15] << "0123456789abcdef"[c & 15];
      text << ':';
    }
    for (const index_t extent : e.shape.extents()) text << extent << ',';
    text << ':' << e.begin << ':' << e.end << ';';
  }
  return text.str();
}
}  // namespace

TEST_CASE("safetensors: recorded files are accepted and refused as tests/oracle/safetensors_cases.py says") {
  const Reader reader;
  std::ifstream table(test::source_folder() / "tests/interop/safetensors_cases.txt");
  REQUIRE(table.good());
  int accepted = 0, refused = 0;
  for (std::string line; std::getline(table, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream parts(line);
    std::string name, theirs, json, ours, expected, bytes;
    REQUIRE((parts >> name >> theirs >> json >> ours >> expected >> bytes));
    CAPTURE(name);
    std::string said, list;
    try {
      list = listing(reader.open(from_hex(bytes)));
    } catch (const Error& e) {
      said = e.what();
    }
    CAPTURE(said);
    CHECK((ours == "accept") == said.empty());
    if (said.empty()) CHECK((expected == "-" ? "" : expected) == list);
    (said.empty() ? accepted : refused) += 1;
    // What one of them refuses is accepted for one reason only: a dtype that the format does not define yet.
    if (theirs == "refuse" || json == "refuse") CHECK((ours == "refuse" || name.starts_with("unknown_dtype")));
  }
  CHECK(accepted > 20);
  CHECK(refused > 80);
}

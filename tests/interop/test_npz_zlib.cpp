// SPDX-License-Identifier: Apache-2.0
// What numpy.savez_compressed wrote, by zlib. Built where zlib is installed.
#include <doctest/doctest.h>
#include <cstring>
#include <vector>

#include "dpmp/interop/npz_zlib.hpp"
#include "interop/recorded_npz.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using interop::inflate_with_zlib;
using interop::NpzFile;

TEST_CASE("npz: compressed arrays of NumPy are read; without zlib they are refused by name") {
  const test::TemporaryFolder folder;
  test::write_text(folder / "x.npz", test::bytes_of_hex(test::deflated_npz));
  const NpzFile file(folder / "x.npz", inflate_with_zlib);
  CHECK(file.names() == std::vector<std::string>{"weights", "flags"});
  CHECK(file.array("weights").shape() == interop::StoredShape(Shape{5, 8}));
  std::vector<double> weights(40);
  const std::vector<char> read = file.read("weights", DType::f64);
  REQUIRE(read.size() == sizeof(double) * weights.size());
  std::memcpy(weights.data(), read.data(), read.size());
  for (std::size_t k = 0; k < weights.size(); ++k) CHECK(weights[k] == double(k));
  CHECK(file.read("flags", DType::i32) == std::vector<char>{1, 0, 0, 0, 0, 0, 0, 0});
  CHECK(test::refuses([&] { NpzFile(folder / "x.npz").array("weights"); }, "npz_zlib.hpp), got 'weights.npy'"));
}

TEST_CASE("npz: what zlib deflated comes back whole or not at all") {
  test::Rng rng;
  for (int trial = 0; trial < 60; ++trial) {
    std::vector<char> data(std::size_t(rng.integer(0, 5000)));
    for (char& c : data) c = char(rng.integer(0, trial % 7));
    z_stream stream{};
    REQUIRE(::deflateInit2(&stream, int(rng.integer(1, 9)), Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    std::vector<char> packed(::deflateBound(&stream, data.size()) + 1);
    stream.next_in = reinterpret_cast<Bytef*>(data.data());
    stream.avail_in = uInt(data.size());
    stream.next_out = reinterpret_cast<Bytef*>(packed.data());
    stream.avail_out = uInt(packed.size());
    REQUIRE(::deflate(&stream, Z_FINISH) == Z_STREAM_END);
    packed.resize(packed.size() - stream.avail_out);
    ::deflateEnd(&stream);
    std::vector<char> back(data.size() + 1);
    CHECK(inflate_with_zlib(packed.data(), packed.size(), back.data(), data.size()));
    back.resize(data.size());
    CHECK(back == data);
    back.resize(data.size() + 1);
    CHECK_FALSE(inflate_with_zlib(packed.data(), packed.size(), back.data(), data.size() + 1));
    if (!data.empty()) CHECK_FALSE(inflate_with_zlib(packed.data(), packed.size(), back.data(), data.size() - 1));
    CHECK_FALSE(inflate_with_zlib(packed.data(), packed.size() - 1, back.data(), data.size()));
    packed.push_back(0);
    CHECK_FALSE(inflate_with_zlib(packed.data(), packed.size(), back.data(), data.size()));
  }
}

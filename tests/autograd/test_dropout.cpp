// SPDX-License-Identifier: Apache-2.0
// Dropout's mask: a function of (key, identity of the record, element) and nothing else.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/autograd/rules/dropout.hpp"
#include "dpmp/core/philox.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
Key256 secret_of(std::uint32_t word) {
  Key256 key;
  key.words = {word, 2, 3, 4, 5, 6, 7, 8};
  return key;
}
std::vector<RecordId> named(const std::vector<std::uint64_t>& names) {
  std::vector<RecordId> ids;
  for (const std::uint64_t name : names) ids.push_back(stable_id(secret_of(99), name));
  return ids;
}

/// What dropout leaves of ones [names, ..width].
std::vector<double> mask(const std::vector<std::uint64_t>& names, const Shape& inner, double rate, DropoutKey key,
                         DType dtype = DType::f32, int threads = 1) {
  Context ctx(Device::cpu(), threads);
  const std::vector<RecordId> ids = named(names);
  Shape shape{index_t(ids.size())};
  for (int k = 0; k < inner.rank(); ++k) shape.push_back(inner[k]);
  Tape tape(ctx, shape.front(), TapeMode::training);
  return dropout(tape.input(Tensor::full(ctx, shape, dtype, 1)), rate, key, SampleIdentities(ctx, ids)).value().to_doubles();
}
std::vector<double> row(const std::vector<double>& values, std::size_t width, std::size_t r) {
  return {values.begin() + std::ptrdiff_t(r * width), values.begin() + std::ptrdiff_t((r + 1) * width)};
}
const DropoutKey key{.secret = secret_of(1), .step = 7, .layer = 2};
}  // namespace

TEST_CASE("dropout: the mask is the stated word of Philox, in every dtype and at every length") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
    for (const index_t width : {0, 1, 3, 4, 15, 16, 17, 63, 130}) {
      const std::vector<std::uint64_t> names{5, ~std::uint64_t(0), 2000000000};
      const auto found = mask(names, {width}, 0.5, key, dtype);
      const ChaChaBlock of_step = chacha20_block(secret_of(1), 2, 7);  // counter: layer, nonce: step
      std::size_t at = 0;
      for (const RecordId& id : named(names))
        for (index_t e = 0; e < width; ++e) {
          const auto block =
              philox4x32({{std::uint32_t(e / 4), std::uint32_t(id.value()), std::uint32_t(id.value() >> 32), 0}}, of_step[0],
                         of_step[1]);
          CHECK(found[at++] == (block.word[e % 4] >= 0x80000000u ? 2 : 0));
        }
    }
}

TEST_CASE("P15: dropout masks a sample alike wherever it stands, whoever is beside it and however many threads work") {
  test::Rng rng;
  std::vector<std::uint64_t> ids(50);
  for (auto& id : ids) id = rng.bits();
  const std::size_t width = 999;
  const auto whole = mask(ids, {3, 333}, 0.3, key);
  CHECK(mask(ids, {3, 333}, 0.3, key, DType::f32, 3) == whole);
  for (const std::size_t k : {0u, 17u, 49u}) {
    CHECK(mask({ids[k]}, {999}, 0.3, key) == row(whole, width, k));
    CHECK(row(mask({1, 2, 3, ids[k]}, {9, 111}, 0.3, key), width, 3) == row(whole, width, k));
  }
}

TEST_CASE("dropout: every part of the key and the identity change the mask; the share of zeros is the rate") {
  const auto base = mask({1}, {1000}, 0.5, key);
  const auto differs = [&](std::uint64_t id, DropoutKey other) {
    const auto found = mask({id}, {1000}, 0.5, other);
    int different = 0;
    for (std::size_t k = 0; k < 1000; ++k) different += found[k] != base[k];
    return different > 400 && different < 600;  // 500 on average, standard deviation 16
  };
  CHECK(differs(2, key));
  CHECK(differs(1 + (std::uint64_t(1) << 40), key));
  CHECK(differs(1, {.secret = secret_of(2), .step = key.step, .layer = key.layer}));
  CHECK(differs(1, {.secret = key.secret, .step = key.step + 1, .layer = key.layer}));
  CHECK(differs(1, {.secret = key.secret, .step = key.step, .layer = key.layer + 1}));

  test::Rng rng;
  for (const double rate : {0.1, 0.5, 0.9}) {
    const index_t n = 100000;
    double zeros = 0, sum = 0;
    for (double x :
         mask({7}, {n}, rate, {.secret = secret_of(std::uint32_t(rng.bits())), .step = 1, .layer = 1}, DType::f64)) {
      zeros += x == 0;
      sum += x;
    }
    const double deviation = std::sqrt(double(n) * rate * (1 - rate));
    CHECK(std::fabs(zeros - double(n) * rate) < 6 * deviation);
    CHECK(std::fabs(sum - double(n)) < 6 * deviation / (1 - rate));
  }
}

TEST_CASE("dropout: the backward pass draws the same mask again") {
  Context ctx(Device::cpu(), 2);
  Tape tape(ctx, 3);
  const Variable x = tape.input(Tensor::full(ctx, {3, 100}, DType::f32, 1), true);
  const Variable y = dropout(x, 0.4, key, SampleIdentities(ctx, named({4, 5, 6})));
  DefinitionSink sink;
  tape.backward(weighted_sum(y, std::vector<double>(300, 1)), sink);
  CHECK(tape.gradient_of(x).to_doubles() == y.value().to_doubles());
}

TEST_CASE("dropout: identity for inference and rate 0; bad rates and numbers of identities are refused") {
  Context ctx(Device::cpu(), 1);
  const Tensor value = Tensor::full(ctx, {2, 3}, DType::f32, 1);
  const SampleIdentities ids(ctx, named({1, 2})), three(ctx, named({1, 2, 3}));
  Tape inference(ctx, 2, TapeMode::inference), tape(ctx, 2);
  CHECK(dropout(inference.input(value), 0.5, key, ids).value().raw() == value.raw());
  const Variable x = tape.input(value);
  CHECK(dropout(x, 0, key, ids).value().raw() == value.raw());
  for (const double rate : {-0.1, 1.0, 2.0, std::nan("")})
    CHECK(test::refuses([&] { dropout(x, rate, key, ids); }, "dropout: expected a rate in [0, 1)"));
  CHECK(test::refuses([&] { dropout(x, 0.5, key, three); }, "identities of shape [2, 2], got [3, 2]"));
}

// SPDX-License-Identifier: Apache-2.0
// The sum of several tables: its definition by loops, gradients, a site for each table, private training.
#include <doctest/doctest.h>

#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/nn/summed_embedding.hpp"
#include "support/errors.hpp"
#include "support/oracle.hpp"
#include "support/sites.hpp"
#include "support/tensors.hpp"

using namespace dpmp;
using nn::SummedEmbedding;

TEST_CASE("a summed embedding is the sum of a row of each table, by loops, with positions or without, in every dtype") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16})
    for (const index_t positions : {0, 9}) {
      nn::Parameters parameters(ctx, dtype, test::seed());
      const SummedEmbedding embed(parameters / "embed", 6,
                                  {.tables = {{"tokens", 13}, {"types", 2}, {"cases", 3}}, .positions = positions});
      test::randomise(parameters, rng, 1);
      CHECK(parameters.all().size() == std::size_t(positions ? 4 : 3));
      CHECK(&embed.table(1) == &parameters.find("embed.types.weight"));
      const Tensor tokens = test::id_tensor(ctx, rng, {3, 7}, 0, 12), types = test::id_tensor(ctx, rng, {3, 7}, 0, 1),
                   cases = test::id_tensor(ctx, rng, {3, 7}, 0, 2);
      Tape tape(ctx, 3);
      const std::vector<double> got = embed(tape, {tokens, types, cases}).value().to_doubles();
      const auto row = [&](const char* name, index_t r, index_t k) {
        return parameters.find(name).value().to_doubles()[std::size_t(r * 6 + k)];
      };
      for (index_t i = 0; i < 3 * 7; ++i)
        for (index_t k = 0; k < 6; ++k) {
          const double terms[] = {row("embed.tokens.weight", tokens.data<std::int32_t>()[i], k),
                                  row("embed.types.weight", types.data<std::int32_t>()[i], k),
                                  row("embed.cases.weight", cases.data<std::int32_t>()[i], k),
                                  positions ? row("embed.positions.weight", i % 7, k) : 0};
          double sum = 0, size = 0;
          for (const double t : terms) sum += t, size += std::abs(t);
          // Rounded after each of three additions.
          CHECK(std::abs(got[std::size_t(i * 6 + k)] - sum) <= 3.1 * unit_roundoff(dtype) * size);
        }
    }
}

TEST_CASE("a summed embedding: gradients equal differences, and each table has a site of its own") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::Parameters parameters(ctx, DType::f64, test::seed());
  const SummedEmbedding embed(parameters, 5, {.tables = {{"tokens", 7}, {"types", 2}}, .positions = 4});
  const Tensor tokens = test::id_tensor(ctx, rng, {3, 4}, 0, 6), types = test::id_tensor(ctx, rng, {3, 4}, 0, 1);
  const std::vector<Parameter*> all(parameters.all().begin(), parameters.all().end());
  const auto forward = [&](Tape& tape, const std::vector<Variable>&) {
    const Variable x = embed(tape, {tokens, types});
    return std::vector<Variable>{multiply(x, x)};
  };
  const auto result = check_gradients(ctx, 3, {}, all, forward, {.elements = 20, .weight = {}});
  CHECK_MESSAGE(result.error < 1e-7, result.where);
  Tape tape(ctx, 3);
  test::CountingSink sink;
  tape.backward(test::losses_of(tape, embed(tape, {tokens, types})), sink);
  CHECK(sink.sites == std::map<std::string, int>{{"tokens.weight", 1}, {"types.weight", 1}, {"positions.weight", 1}});
}

TEST_CASE("bad input: tables and ids that do not fit") {
  Context ctx(Device::cpu(), 1);
  nn::Parameters parameters(ctx, DType::f32, 1);
  CHECK(test::refuses([&] { SummedEmbedding(parameters / "a", 4, {}); }, "a: expected at least one table"));
  CHECK(test::refuses(
      [&] {
        SummedEmbedding(parameters / "b", 4, {.tables = {{"x", 0}}});
      },
      "b.x: expected a table of at least one row, got 0"));
  CHECK(test::refuses([&] { SummedEmbedding(parameters / "c", 0, {.tables = {{"x", 2}}}); }, "a width >= 1"));
  CHECK(test::refuses(
      [&] {
        SummedEmbedding(parameters / "d", 4, {.tables = {{"x", 2}, {"x", 3}}});
      },
      "'d.x.weight' twice"));
  CHECK(test::refuses(
      [&] {
        SummedEmbedding(parameters / "e", 4, {.tables = {{"x", 2}}, .positions = -1});
      },
      "positions >= 0"));
  const SummedEmbedding embed(parameters / "f", 4, {.tables = {{"x", 2}, {"y", 2}}, .positions = 3});
  Tape tape(ctx, 2);
  const Tensor ids = Tensor::zeros(ctx, {2, 3}, DType::i32), longer = Tensor::zeros(ctx, {2, 4}, DType::i32);
  CHECK(test::refuses([&] { embed(tape, {ids}); }, "ids for each of 2 tables, got 1"));
  CHECK(test::refuses([&] { embed(tape, {ids, longer}); }, "the ids of a table of shape [2, 3], got [2, 4]"));
  CHECK(test::refuses([&] { embed(tape, {longer, longer}); }, "a table [at least T, width]"));
  CHECK(test::refuses([&] { embed.table(2); }, "a table in [0, 2), got 2"));
}

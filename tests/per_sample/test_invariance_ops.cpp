// SPDX-License-Identifier: Apache-2.0
// P34 for every operation of the op table. DPMP_INVARIANCE_FULL=1 draws more problems and takes every way to a sum for each.
#include <doctest/doctest.h>

#include "autograd/ops.hpp"
#include "per_sample/invariance.hpp"

namespace {
using namespace dpmp;

bool full_run() { return std::getenv("DPMP_INVARIANCE_FULL") != nullptr; }

/// Random uses of an operation in slots. Returns the first dependence, or "".
std::string try_op(const test::Op& op, const test::FixedSizes& sizes, int threads, DType dtype, std::uint64_t stream,
                   index_t& seen) {
  Context ctx(Device::cpu(), threads);
  test::Rng rng(test::seed(), stream);
  test::Draw draw(stream, 1, sizes);
  for (int k = 0; k < (full_run() ? 10 : 1); ++k) {
    test::Problem problem = op.make(draw);
    if (problem.samples < 2) continue;
    const test::OpInSlots model(ctx, rng, std::move(problem), dtype, rng.integer(0, 2) > 0);
    if (model.parameters().empty()) continue;
    const std::string found = test::find_dependence(ctx, rng, model, seen, full_run() ? 0 : 3);
    if (!found.empty()) return detail::concat(name_of(dtype), ", ", threads, " threads: ", found);
  }
  return "";
}
constexpr DType dtypes[] = {DType::f32, DType::bf16, DType::f16, DType::f64};
}  // namespace

TEST_CASE("P34: every operation: a record's numbers and its contribution are the same bits in every slot") {
  std::uint64_t stream = 0;
  for (const test::Op& op : test::op_table()) {
    CAPTURE(op.name);
    index_t seen = 0;
    // Eight slots and thirteen: more than one block of rows of any product, the last one not full.
    for (const index_t slots : {8, 13})
      for (const int threads : {1, 2})
        for (const DType dtype : dtypes) CHECK(try_op(op, {.samples = slots}, threads, dtype, ++stream, seen) == "");
    // Many draws are empty; an operation of which no contribution was seen would have shown nothing.
    for (int more = 0; seen == 0 && more < 200; ++more)
      CHECK(try_op(op, {.samples = 8}, 1, dtypes[more % 3], ++stream, seen) == "");
    CHECK(seen > 0);
  }
}

TEST_CASE("P34: every operation at sizes that are spread over threads") {
  std::uint64_t stream = 5000;
  index_t seen = 0;
  for (const test::Op& op : test::op_table()) {
    CAPTURE(op.name);
    ++stream;
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
      if (full_run() || dtype == dtypes[stream % 3])
        CHECK(try_op(op, {.samples = 9, .tokens = 30, .width = 67}, 2, dtype, 10 * stream + std::uint64_t(dtype), seen) ==
              "");
  }
  CHECK(seen > 0);
}

TEST_CASE("P34: every operation at every width from 1 to 67: no record sees the tail of a vector") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 900);
  for (const test::Op& op : test::op_table()) {
    CAPTURE(op.name);
    for (index_t width = 1; width <= 67; ++width) {
      test::Draw draw(1000 + std::uint64_t(width), 1, {.samples = 3, .tokens = 1 + width % 2, .width = width});
      test::Problem problem = op.make(draw);
      if (problem.samples < 2) continue;
      const DType dtype = std::array{DType::f32, DType::bf16, DType::f16}[std::size_t(width % 3)];
      const test::OpInSlots model(ctx, rng, std::move(problem), dtype, width % 2 == 0);
      if (model.parameters().empty()) continue;
      CAPTURE(width);
      CHECK(test::InvarianceCheck(ctx, rng, model).pass() == "");
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// An addition and the norm behind it in one operation: the bits of both apart, forward and backward.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "autograd/add_norm_bits.hpp"

using namespace dpmp;
using test::AddNormCase;
using test::differing;
using test::run_add_norm;

TEST_CASE("in one operation: the bits of add and norm apart in every dtype, whatever the row's length") {
  for (const int threads : {1, 2}) {
    Context ctx(Device::cpu(), threads);
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16})
      for (const bool centred : {true, false})
        for (const Shape& shape : {Shape{3, 5, 1}, Shape{2, 9, 64}, Shape{2, 7, 83}, Shape{1, 3, 4100}, Shape{40, 13, 40},
                                   Shape{2, 0, 8}, Shape{0, 4, 8}, Shape{2, 3, 0}}) {
          CAPTURE(name_of(dtype));
          CAPTURE(centred);
          CAPTURE(shape.numel());
          const AddNormCase c{shape, centred};
          CHECK(differing(run_add_norm(ctx, dtype, c, true), run_add_norm(ctx, dtype, c, false)) == "");
        }
  }
}

TEST_CASE("either result may be unused, either term may want no gradient, parameters may be frozen") {
  Context ctx(Device::cpu(), 2);
  for (const bool centred : {true, false})
    for (int bits = 0; bits < 32; ++bits) {
      CAPTURE(centred);
      CAPTURE(bits);
      AddNormCase c{{2, 9, 37}, centred};
      c.sum_used = (bits & 1) != 0, c.normed_used = (bits & 2) != 0, c.x_trained = (bits & 4) != 0;
      c.branch_trained = (bits & 8) != 0, c.parameters_trained = (bits & 16) != 0;
      const auto one = run_add_norm(ctx, DType::bf16, c, true);
      CHECK(differing(one, run_add_norm(ctx, DType::bf16, c, false)) == "");
      CHECK(one.count("vectors of gain") == (c.normed_used && c.parameters_trained));
      CHECK(one.count("vectors of bias") == (centred && c.normed_used && c.parameters_trained));
      // Both terms of the sum are handed the one tensor that the norm wrote.
      if (const auto found = one.find("one tensor"); found != one.end()) CHECK(found->second[0] == 1);
    }
}

TEST_CASE("inference keeps the bits; NaN and infinity in one row leave those of the others") {
  Context ctx(Device::cpu(), 2);
  for (const bool centred : {true, false}) {
    AddNormCase c{{3, 5, 37}, centred};
    const auto clean = run_add_norm(ctx, DType::f16, c, true);
    c.mode = TapeMode::inference;
    const auto inference = run_add_norm(ctx, DType::f16, c, true);
    CHECK(inference.at("sum") == clean.at("sum"));
    CHECK(inference.at("normed") == clean.at("normed"));
    c.mode = TapeMode::training;
    for (const double spoil : {std::nan(""), double(std::numeric_limits<float>::infinity())}) {
      c.spoil = spoil;
      const auto spoiled = run_add_norm(ctx, DType::f16, c, true);
      CHECK(std::isnan(spoiled.at("normed")[0]));
      for (const char* name : {"sum", "normed", "gradient of x", "gradient of branch"})
        CHECK(std::equal(clean.at(name).begin() + 37, clean.at(name).end(), spoiled.at(name).begin() + 37));
      CHECK(std::equal(clean.at("vectors of gain").begin() + 37, clean.at("vectors of gain").end(),
                       spoiled.at("vectors of gain").begin() + 37));
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Clipped sums as whole numbers: each record's is the nearest integers of its contribution alone, their sum has the same
// bits however the records are split, and its noise is discrete.
#include <doctest/doctest.h>
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "dpmp/dp/discrete_gaussian.hpp"
#include "dpmp/train/integer_sums.hpp"
#include "support/errors.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using test::TinyTraining;
using train::IntegerSums;

namespace {
using Integers = std::vector<std::int64_t>;
constexpr index_t none = train::masked_slot;

index_t trained_values(const per_sample::GradientSums& sums) {
  index_t n = 0;
  for (const Parameter* p : sums.parameters()) n += p->numel();
  return n;
}
Integers all_of(const IntegerSums& integers, const per_sample::GradientSums& sums) {
  Integers all;
  for (std::size_t k = 0; k < sums.parameters().size(); ++k)
    all.insert(all.end(), integers.of(k).begin(), integers.of(k).end());
  return all;
}
struct Setting {
  dp::FlatClipping clipping;
  dp::IntegerGrid grid;
  LossScaling scaling;
};
Integers summed(TinyTraining& run, const Setting& s, const std::vector<index_t>& records, index_t slots) {
  per_sample::GradientSums sums(run.ctx, run.model.parameters().all());
  IntegerSums integers;
  integers.begin(sums, trained_values(sums));
  std::vector<index_t> batch(static_cast<std::size_t>(slots));
  for (index_t k = 0; k < train::physical_batches(index_t(records.size()), slots); ++k) {
    train::fill_physical_batch(records, k, batch);
    integers.accumulate(run.ctx, run.losses(), {.slots = batch}, s.clipping, s.grid, sums, {.loss_scaling = s.scaling});
  }
  return all_of(integers, sums);
}
/// What one record releases by the clipped sum of a batch of its own, [all trained values].
std::vector<double> contribution(TinyTraining& run, const Setting& s, index_t record) {
  per_sample::GradientSums sums(run.ctx, run.model.parameters().all());
  per_sample::ClippedSumSink sink(per_sample::Groups::flat(run.model.parameters().all()),
                                  {.strategy = per_sample::Strategy::materialised});
  train::accumulate_clipped(run.ctx, run.losses(), {.slots = std::span(&record, 1)}, {&s.clipping, 1}, sink, sums,
                            {.loss_scaling = s.scaling});
  std::vector<double> all;
  for (const Tensor& t : sums.tensors())
    for (const double x : t.to_doubles()) all.push_back(x);
  return all;
}
/// Of a record's contribution the nearest integers and their squared norm.
std::pair<Integers, double> rounded(const std::vector<double>& x, double spacing) {
  std::pair<Integers, double> r;
  for (const double v : x) {
    r.first.push_back(std::llrint(v / spacing));
    r.second += double(r.first.back()) * double(r.first.back());
  }
  return r;
}
Setting setting(TinyTraining& run, DType dtype, double C, index_t bits) {
  index_t n = 0;
  for (const Parameter* p : run.model.parameters().all()) n += p->numel();
  return {dp::FlatClipping(C), dp::IntegerGrid(C, bits, n), dtype == DType::f16 ? LossScaling::per_sample() : LossScaling()};
}
}  // namespace

TEST_CASE("P2: sums of whole numbers are the records' own, one by one, whatever the split, the order and the threads") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
    for (const index_t bits : {8, 20}) {
      CAPTURE(name_of(dtype));
      CAPTURE(bits);
      Context ctx(Device::cpu(), 2), one(Device::cpu(), 1);
      TinyTraining run(ctx, dtype), serial(one, dtype);
      test::Rng rng(test::seed(), 31);
      const Setting s = setting(run, dtype, std::exp2(rng.uniform(-3, 1)), bits);
      std::vector<index_t> records(std::size_t(run.records()));
      std::iota(records.begin(), records.end(), 0);
      Integers wanted;
      index_t far = 0;
      for (const index_t record : records) {
        const auto [own, square] = rounded(contribution(run, s, record), s.grid.spacing);
        CHECK(square <= double(s.grid.largest_square));
        far += square > 0.9 * double(s.grid.largest_square);
        wanted.resize(own.size());
        for (std::size_t j = 0; j < own.size(); ++j) wanted[j] += own[j];
      }
      if (bits == 20) CHECK(far > 0);  // records that are clipped come close to the bound
      for (const index_t slots : {1, 4, 7, 30}) {
        std::shuffle(records.begin(), records.end(), std::mt19937_64(rng.bits()));
        CHECK(summed(run, s, records, slots) == wanted);
        CHECK(summed(serial, s, records, slots) == wanted);
      }
    }
}

TEST_CASE("P2: a contribution that is longer than the grid's bound counts as 0, whatever let it through") {
  Context ctx(Device::cpu(), 1);
  TinyTraining run(ctx, DType::f32);
  Setting s = setting(run, DType::f32, 0.25, 20);
  s.clipping = dp::FlatClipping(64);  // a certificate that does not hold: factors of 1
  std::vector<index_t> records(std::size_t(run.records()));
  std::iota(records.begin(), records.end(), 0);
  Integers wanted;
  std::vector<double> norms;
  for (const index_t record : records) {
    const auto own = rounded(contribution(run, s, record), s.grid.spacing);
    norms.push_back(std::sqrt(own.second) * s.grid.spacing);
  }
  std::vector<double> sorted = norms;
  std::sort(sorted.begin(), sorted.end());
  // Half of the records are beyond the bound.
  const index_t values = index_t(contribution(run, s, 0).size());
  s.grid = dp::IntegerGrid(sorted[sorted.size() / 2], 20, values);
  index_t counted = 0;
  for (const index_t record : records) {
    const auto [own, square] = rounded(contribution(run, s, record), s.grid.spacing);
    wanted.resize(own.size());
    if (square > double(s.grid.largest_square)) continue;
    ++counted;
    for (std::size_t j = 0; j < own.size(); ++j) wanted[j] += own[j];
  }
  CHECK(counted > 0);
  CHECK(counted < run.records());
  CHECK(summed(run, s, records, 7) == wanted);
}

TEST_CASE("P23: what is released is the sum and discrete noise of the step's key, times the spacing, and on the grid") {
  Context ctx(Device::cpu(), 2);
  TinyTraining run(ctx, DType::f32);
  const Setting s = setting(run, DType::f32, 0.5, 16);
  per_sample::GradientSums sums(ctx, run.model.parameters().all());
  IntegerSums integers;
  integers.begin(sums, trained_values(sums));
  const index_t slots[] = {3, 8, none, 1};
  integers.accumulate(ctx, run.losses(), {.slots = slots}, s.clipping, s.grid, sums);
  const Integers before = all_of(integers, sums);
  test::Rng rng(test::seed(), 32);
  dp::NoiseStream stream{{}, 4};
  for (auto& word : stream.key.words) word = std::uint32_t(rng.bits());
  const index_t sigma = 123457;
  integers.release(ctx, sigma, stream, s.grid, sums);
  std::size_t at = 0;
  double square = 0;
  for (std::size_t k = 0; k < sums.parameters().size(); ++k)
    for (index_t j = 0; j < sums.parameters()[k]->numel(); ++j, ++at) {
      dp::ElementBits bits(stream, sums.places()[k], j);
      const index_t noise = dp::discrete_gaussian(sigma, bits);
      CHECK(sums.tensors()[k].data<double>()[j] == double(before[at] + noise) * s.grid.spacing);
      square += double(noise) * double(noise) / double(sigma * sigma);
    }
  CHECK(std::fabs(square / double(at) - 1) < 6 * std::sqrt(2.0 / double(at)));
}

TEST_CASE("P2: the grid's bound is that of rounding: no vector of norm C has longer integers") {
  test::Rng rng(test::seed(), 33);
  for (const index_t dimensions : {1, 2, 50, 3000})
    for (const index_t bits : {8, 13, 24}) {
      const double C = std::exp2(rng.uniform(-20, 20));
      const dp::IntegerGrid grid(C, bits, dimensions);
      CHECK(std::exp2(std::round(std::log2(grid.spacing))) == grid.spacing);
      CHECK(C / grid.spacing >= std::exp2(bits));
      CHECK(C / grid.spacing < std::exp2(bits + 1));
      CHECK(grid.bound() >= C);
      CHECK(grid.bound() <= C + grid.spacing * (0.5 * std::sqrt(double(dimensions)) + 1.0 / 256));
      for (int trial = 0; trial < 50; ++trial) {
        std::vector<double> x(static_cast<std::size_t>(dimensions));
        double length = 0;
        // Many coordinates just above half a unit, which are all rounded up, or normal ones.
        for (double& v : x) v = trial % 2 ? rng.normal() : 1, length += v * v;
        for (double& v : x) v *= C / std::sqrt(length) * (1 - 1e-12);
        CHECK(rounded(x, grid.spacing).second <= double(grid.largest_square));
      }
      const double sigma = double(grid.sigma(1.5, dp::NeighbouringRelation::add_or_remove_one, 1));
      CHECK(sigma * grid.spacing >= 1.5 * grid.bound());
      CHECK(sigma * grid.spacing <= 1.5 * grid.bound() + grid.spacing * 1.001);
      CHECK(grid.sigma(1.5, dp::NeighbouringRelation::replace_one, 3) >= index_t(6 * sigma) - 6);
    }
}

TEST_CASE("bad input: grids out of range, more values than stated, no noise") {
  CHECK(test::refuses([] { dp::IntegerGrid(1, 7, 10); }, "2^-8 to 2^-24"));
  CHECK(test::refuses([] { dp::IntegerGrid(1, 25, 10); }, "2^-8 to 2^-24"));
  CHECK(test::refuses([] { dp::IntegerGrid(1, 20, 0); }, "the number of trained values"));
  CHECK(test::refuses([] { dp::IntegerGrid(0, 20, 1); }, "a clip threshold"));
  const dp::IntegerGrid grid(1, 8, 1);
  CHECK(test::refuses([&] { grid.sigma(1e-4, dp::NeighbouringRelation::zero_out, 1); }, "1 to 2^40 units"));
  CHECK(test::refuses([&] { grid.sigma(1e30, dp::NeighbouringRelation::zero_out, 1); }, "1 to 2^40 units"));
  Context ctx(Device::cpu(), 1);
  TinyTraining run(ctx, DType::f32);
  per_sample::GradientSums sums(ctx, run.model.parameters().all());
  IntegerSums integers;
  CHECK(test::refuses([&] { integers.begin(sums, trained_values(sums) - 1); }, "trained values"));
}

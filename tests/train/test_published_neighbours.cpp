// SPDX-License-Identifier: Apache-2.0
// Published ways to make a private sum, with every gradient clipped in double as it should be, beside ours: removing one
// record moves theirs by many times C, because it also moves what other records contribute. The printed rows are a table of
// docs/certified_clipping.md.
#include <doctest/doctest.h>

#include <cstdio>

#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/autograd/rules/linear.hpp"
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/train/trainer.hpp"
#include "support/oracle.hpp"
#include "support/tiny_training.hpp"

namespace {
using namespace dpmp;
using Rows = std::vector<std::vector<double>>;

constexpr index_t records = 128, slots = 8, d = 64;
constexpr double C = 1e-3;

/// sum_i min(1, C / |g_i|) g_i, all of it in double.
std::vector<double> clipped_sum(const Rows& gradients) {
  std::vector<double> sum(std::size_t(d), 0.0);
  for (const std::vector<double>& g : gradients) {
    const double n = test::norm(g), c = n > C ? C / n : 1;
    for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += c * g[k];
  }
  return sum;
}
/// The library's sum of the same losses over records 0 .. count - 1, in physical batches.
template <class Losses>
std::vector<double> library_sum(Context& ctx, Parameter& w, index_t count, Losses&& losses) {
  std::vector<Parameter*> all{&w};
  per_sample::GradientSums sums(ctx, all);
  per_sample::ClippedSumSink sink(per_sample::Groups::flat(all), {});
  const dp::FlatClipping clipping[] = {dp::FlatClipping(C)};
  std::vector<index_t> draw, at(static_cast<std::size_t>(slots));
  for (index_t i = 0; i < count; ++i) draw.push_back(i);
  for (index_t k = 0; k < train::physical_batches(count, slots); ++k) {
    train::fill_physical_batch(draw, k, at);
    train::accumulate_clipped(ctx, losses, {at}, clipping, sink, sums);
  }
  return test::flat(sums);
}
Tensor inputs(Context& ctx, const Rows& data, std::span<const index_t> at) {
  std::vector<double> x;
  for (const index_t i : at)
    for (index_t k = 0; k < d; ++k) x.push_back(data[std::size_t(i)][std::size_t(k)]);
  return Tensor::from(ctx, {index_t(at.size()), d}, DType::f32, x);
}
Rows without_first(const Rows& data) { return {data.begin() + 1, data.end()}; }

/// What removing record 0 moves the sums by, over C.
void row(const char* way, const char* input, double theirs, double ours) {
  std::printf("| %s | %s | %.6f | %.6f |\n", way, input, theirs, ours);
  CAPTURE(way);
  CAPTURE(input);
  CHECK(theirs > 2);
  CHECK(ours <= 1 + dp::FlatClipping(C).sensitivity(dp::NeighbouringRelation::add_or_remove_one, records).rho);
  CHECK(ours > 0.5);
}

/// x . w of each slot as products do it: six rows at a time, each with two sums that are added at the end; what is left
/// over, row by row with one sum.
std::vector<double> product_of_six(const Rows& x, const std::vector<double>& w) {
  std::vector<double> y;
  for (std::size_t i = 0; i < x.size(); ++i) {
    float even = 0, odd = 0, all = 0;
    for (std::size_t k = 0; k < w.size(); ++k) {
      const float term = float(x[i][k]) * float(w[k]);
      (k % 2 ? odd : even) += term;
      all += term;
    }
    y.push_back(double(i < x.size() / 6 * 6 ? even + odd : all));
  }
  return y;
}
}  // namespace

TEST_CASE("P34: published ways: a product that gives a row other bits in the last rows of a batch") {
  test::Rng rng(test::seed(), 5000);
  Context ctx(Device::cpu(), 2);
  nn::Parameters parameters(ctx, DType::f32, rng.bits());
  Parameter& w = parameters.normal("w", {1, d}, 1);
  const std::vector<double> weights = w.value().to_doubles();
  // An input whose product with the weights is 0 up to roundings, of another sign in slot 5 than in slot 6.
  std::vector<double> flip(std::size_t(d), 0.0);
  const auto output = [&](std::size_t slot) {
    Rows batch(std::size_t(slots), std::vector<double>(std::size_t(d), 0.0));
    batch[slot] = flip;
    return product_of_six(batch, weights)[slot];
  };
  int tries = 0;
  do {
    REQUIRE(++tries < 10000);
    for (double& x : flip) x = double(float(100 * rng.normal()));
    for (int again = 0; again < 2; ++again)
      for (std::size_t k = 0; k < 8; ++k) {
        double rest = 0;
        for (std::size_t j = 0; j < flip.size(); ++j) rest += j == k ? 0 : flip[j] * weights[j];
        flip[k] = double(float(-rest / weights[k]));
      }
  } while (!(output(5) * output(6) < 0));
  Rows data;
  for (index_t i = 0; i < records; ++i) data.push_back(i % slots == 6 ? flip : std::vector<double>(std::size_t(d), 0.0));
  data[0][1] = 1;
  const auto theirs = [&](const Rows& rows) {
    Rows gradients;
    for (std::size_t first = 0; first < rows.size(); first += std::size_t(slots)) {
      Rows batch(rows.begin() + std::ptrdiff_t(first),
                 rows.begin() + std::ptrdiff_t(std::min(rows.size(), first + std::size_t(slots))));
      batch.resize(std::size_t(slots), std::vector<double>(std::size_t(d), 0.0));
      const std::vector<double> y = product_of_six(batch, weights);
      for (std::size_t i = 0; i < batch.size(); ++i) {
        for (double& x : batch[i]) x *= 2 * y[i];  // of y^2
        gradients.push_back(batch[i]);
      }
    }
    return clipped_sum(gradients);
  };
  const auto ours = [&](const Rows& rows) {
    return library_sum(ctx, w, index_t(rows.size()), [&](const train::Batch& batch) {
      const Variable y = linear(batch.tape.input(inputs(ctx, rows, batch.records)), w);
      return mean_squared_error(y, Tensor::zeros(ctx, y.shape(), DType::f32));
    });
  };
  row("product in blocks of six rows, exact clipping", "128 records, outputs that cancel",
      test::distance(theirs(data), theirs(without_first(data))) / C,
      test::distance(ours(data), ours(without_first(data))) / C);
}

TEST_CASE("P35: published ways: dropout masks drawn by a record's place in the data set") {
  test::Rng rng(test::seed(), 5001);
  Context ctx(Device::cpu(), 2);
  nn::Parameters parameters(ctx, DType::f32, rng.bits());
  Parameter& w = parameters.normal("w", {1, d}, 1);
  Rows data;
  for (index_t i = 0; i < records; ++i) {
    data.emplace_back();
    for (index_t k = 0; k < d; ++k) data.back().push_back(double(float(rng.normal())));
  }
  const dp::StreamKeys keys = test::random_keys(rng);
  std::vector<RecordId> ids;
  for (index_t i = 0; i < records; ++i) ids.push_back(stable_id(keys.key(dp::Stream::record_identity), std::uint64_t(i)));
  for (const double rate : {0.1, 0.3}) {
    const auto theirs = [&](Rows rows) {
      test::Rng masks(7);  // as a framework's generator goes through the batch
      for (std::vector<double>& x : rows)
        for (double& v : x) v *= masks.uniform() >= rate ? 1 / (1 - rate) : 0;
      return clipped_sum(rows);
    };
    const auto ours = [&](const Rows& rows) {
      const std::span<const RecordId> own = std::span(ids).last(rows.size());
      return library_sum(ctx, w, index_t(rows.size()), [&](const train::Batch& batch) {
        batch.tape.key_randomness({keys.key(dp::Stream::dropout), 0, train::identities(ctx, batch.records, own)});
        const Variable x = nn::Dropout(rate, 1)(batch.tape.input(inputs(ctx, rows, batch.records)));
        return weighted_sum(linear(x, w), std::vector<double>(batch.records.size(), 1.0));
      });
    };
    row("dropout masks by place, exact clipping", rate < 0.2 ? "128 records, rate 0.1" : "128 records, rate 0.3",
        test::distance(theirs(data), theirs(without_first(data))) / C,
        test::distance(ours(data), ours(without_first(data))) / C);
  }
}

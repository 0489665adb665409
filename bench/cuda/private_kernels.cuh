// SPDX-License-Identifier: Apache-2.0
// Benchmarks of the kernels that privacy needs: norms of per-sample gradients, weighted sums, lookups.
#pragma once
#include <dpmp/kernels/cuda/norms/ghost_norm.cuh>
#include <dpmp/kernels/cuda/norms/instantiate_norm.cuh>
#include <dpmp/kernels/cuda/sums/segment_sum.cuh>
#include <dpmp/kernels/cuda/sums/weighted_sum.cuh>
#include <optional>

#include "suite.cuh"

namespace bench {
namespace kernels = dpmp::kernels;

/// The use of a matrix [p, d] on `tokens` rows of each sample.
struct SiteExtents {
  index_t samples, tokens, d, p;
  std::string text() const { return shape_text(samples, tokens, d, p); }
  double multiply_adds() const { return double(samples) * double(tokens) * double(p) * double(d); }
};

/// A site's operands a [samples, tokens, d] and b [samples, tokens, p].
template <class T>
struct SiteArrays {
  static constexpr std::uint64_t a_seed = 1, b_seed = 2;
  SiteExtents e;
  Array<T> a, b;
  SiteArrays(dpmp::Context& ctx, const SiteExtents& extents)
      : e(extents), a(ctx, e.samples * e.tokens * e.d, a_seed), b(ctx, e.samples * e.tokens * e.p, b_seed) {}
  double bytes() const { return double(a.size() + b.size()) * sizeof(T); }
  kernels::SampleRows<T> input() const { return {a.data(), e.d, e.d}; }
  kernels::SampleRows<T> output() const { return {b.data(), e.p, e.p}; }
  double squared_norm(index_t sample) const {
    const index_t first = sample * e.tokens;
    return squared_norm_of_outer_products(test_values(a_seed, first * e.d, e.tokens * e.d),
                                          test_values(b_seed, first * e.p, e.tokens * e.p), std::size_t(e.tokens));
  }
};

template <class T>
void bench_norms(Suite& suite, const SiteExtents& e) {
  const SiteArrays<T> site(suite.ctx, e);
  const double pairs = double(e.samples) * double(e.tokens) * double(e.tokens + 1) / 2;
  const index_t last = e.samples - 1;
  std::optional<double> known;  // takes the host a while
  const auto error_of = [&](double squared) {
    if (!known) known = site.squared_norm(last);
    LargestError error;
    error.add(squared, *known);
    return error.share();
  };
  if (suite.wants("ghost_norm")) {
    const Array<double> scratch(suite.ctx, kernels::ghost_norm_scratch<T>(e.samples, e.tokens, 1));
    const Array<double> results(suite.ctx, kernels::GhostNormResults::arrays * e.samples);
    const kernels::SampleRows<T> output = site.output();
    suite.add<T>(
        "ghost_norm", e.text(), product_work<T>(2 * pairs * double(e.d + e.p), site.bytes()),
        [&] {
          kernels::ghost_norm<T>(suite.stream(), e.samples, e.tokens, site.input(), {&output, 1}, scratch.data(),
                                 kernels::GhostNormResults::in(results.data(), e.samples));
        },
        [&] { return error_of(results.read_one(last)); });
  }
  if (suite.wants("instantiate_norm")) {
    const Array<double> scratch(suite.ctx, kernels::instantiate_norm_scratch<T>(e.samples, e.d, e.p)),
        squared(suite.ctx, e.samples);
    suite.add<T>(
        "instantiate_norm", e.text(), product_work<T>(2 * e.multiply_adds(), site.bytes()),
        [&] {
          kernels::instantiate_norm<T>(suite.stream(), e.samples, e.tokens, site.input(), site.output(), scratch.data(),
                                       squared.data());
        },
        [&] { return error_of(squared.read_one(last)); });
  }
}

template <class T>
void bench_weighted_sum(Suite& suite, const SiteExtents& e) {
  if (!suite.wants("weighted_sum")) return;
  const SiteArrays<T> site(suite.ctx, e);
  std::vector<float> c(static_cast<std::size_t>(e.samples));
  for (std::size_t i = 0; i < c.size(); ++i) c[i] = float(i % 3) / 2;
  const Array<float> factors(suite.ctx, c);
  const Array<double> sum(suite.ctx, e.p * e.d);
  const kernels::WeightedSumPlan plan =
      kernels::plan_weighted_sum<T>(e.samples, e.tokens, e.p, e.d, suite.ctx.backend().multiprocessors());
  const Array<double> scratch(suite.ctx, plan.scratch(e.p, e.d));
  const auto work = [&] {
    kernels::weighted_sum<T>(suite.stream(),
                             {site.a.data(), site.b.data(), factors.data(), sum.data(), e.samples, e.tokens, e.p, e.d}, plan,
                             scratch.data(), scratch.size());
  };
  sum.set_zero();
  suite.add<T>(
      "weighted_sum", e.text(), product_work<T>(2 * e.multiply_adds(), site.bytes() + 16.0 * double(sum.size())), work, [&] {
        sum.set_zero();
        work();
        LargestError error;
        for (index_t k = 0; k < 16; ++k) {
          const index_t row = k * 37 % e.p, column = k * 101 % e.d;
          double want = 0;
          for (index_t i = 0; i < e.samples; ++i)
            want += double(c[std::size_t(i)]) *
                    dot(test_values(site.b_seed, i * e.tokens * e.p + row, e.tokens, e.p).data(),
                        test_values(site.a_seed, i * e.tokens * e.d + column, e.tokens, e.d).data(), std::size_t(e.tokens));
          error.add(sum.read_one(row * e.d + column), want);
        }
        return error.share();
      });
}

/// Lookups in a table [rows, columns]: sorting, norms and the weighted sum.
template <class T>
void bench_segments(Suite& suite, index_t samples, index_t tokens, index_t rows, index_t columns) {
  const index_t count = samples * tokens;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
  for (std::size_t k = 0; k < ids.size(); ++k) ids[k] = std::int32_t(k * 2654435761u % std::size_t(rows));
  const Array<std::int32_t> device_ids(suite.ctx, ids);
  const Array<T> a(suite.ctx, count * columns, 1);
  const Array<kernels::TokenKey> first(suite.ctx, count), second(suite.ctx, count);
  const std::string shape = shape_text(samples, tokens, rows, columns);
  const double read = double(count) * double(columns * index_t(sizeof(T)) + 8);

  kernels::TokenKeys keys{};
  const auto sort = [&] {
    keys = kernels::sort_tokens(suite.stream(), device_ids.data(), {first.data(), second.data()}, samples, tokens);
  };
  const auto merge = [&] {
    sort();
    keys = kernels::merge_samples(suite.stream(), keys, samples, tokens);
  };
  const auto operands = [&]() -> kernels::SegmentOperands<T> {
    return {a.data(), keys.keys, samples, tokens, rows, columns};
  };
  /// The gradient of a table row in one sample: the sum of its tokens' rows.
  const auto segment = [&](index_t sample, std::int32_t id, index_t column) {
    double sum = 0;
    for (index_t t = sample * tokens; t < (sample + 1) * tokens; ++t)
      if (ids[std::size_t(t)] == id) sum += test_value(1, t * columns + column);
    return sum;
  };
  if (suite.wants("sort_tokens"))
    suite.add<std::int32_t>("sort_tokens", shape_text(samples, tokens), {.bytes = double(count) * 12}, merge, [&] {
      const std::vector<kernels::TokenKey> sorted([&] {
        Array<kernels::TokenKey> copy(suite.ctx, count);
        suite.ctx.backend().copy(copy.data(), keys.keys, count * 8);
        return copy.read(0, count);
      }());
      return std::is_sorted(sorted.begin(), sorted.end()) ? 0.0 : 1.0;
    });
  if (suite.wants("segment_norms")) {
    const Array<double> squared(suite.ctx, samples);
    sort();
    suite.add<T>(
        "segment_norms", shape, {.bytes = read}, [&] { kernels::segment_norms(suite.stream(), operands(), squared.data()); },
        [&] {
          std::vector<std::int32_t> seen(ids.begin(), ids.begin() + tokens);
          std::sort(seen.begin(), seen.end());
          seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
          double want = 0;
          for (const std::int32_t id : seen) {
            Numbers sums(static_cast<std::size_t>(columns));
            for (index_t t = 0; t < tokens; ++t)
              if (ids[std::size_t(t)] == id)
                for (index_t k = 0; k < columns; ++k) sums[std::size_t(k)] += test_value(1, t * columns + k);
            want += dot(sums.data(), sums.data(), sums.size());
          }
          LargestError error;
          error.add(squared.read_one(0), want);
          return error.share();
        });
  }
  if (suite.wants("segment_sum")) {
    std::vector<float> c(static_cast<std::size_t>(samples));
    for (std::size_t i = 0; i < c.size(); ++i) c[i] = float(i % 3) / 2;
    const Array<float> factors(suite.ctx, c);
    const Array<double> table(suite.ctx, rows * columns);
    merge();
    const auto work = [&] { kernels::segment_sum(suite.stream(), operands(), factors.data(), table.data()); };
    table.set_zero();
    suite.add<T>("segment_sum", shape, {.bytes = read + 16.0 * double(std::min(rows, count) * columns)}, work, [&] {
      table.set_zero();
      work();
      LargestError error;
      for (index_t k = 0; k < 16; ++k) {
        const std::int32_t id = ids[std::size_t(k * 13 % count)];
        const index_t column = k * 29 % columns;
        double want = 0;
        for (index_t i = 0; i < samples; ++i) want += double(c[std::size_t(i)]) * segment(i, id, column);
        error.add(table.read_one(index_t(id) * columns + column), want);
      }
      return error.share();
    });
  }
}
}  // namespace bench

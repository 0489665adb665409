// SPDX-License-Identifier: Apache-2.0
// Every sampler has the law that the accountant composes. Statistics are compared with their means at z standard errors;
// what each would see is said next to it: a deviation of d standard errors is missed with probability Phi(z - d).
#include <doctest/doctest.h>
#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "dpmp/dp/sampler.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::SamplingKind;

namespace {
dp::StreamKeys test_keys(std::uint64_t stream, std::uint64_t run = 5) {
  test::Rng rng(test::seed(), stream);
  Key256 key;
  for (auto& w : key.words) w = std::uint32_t(rng.bits());
  return dp::StreamKeys::repeat(key, run);
}

/// What is counted over T steps of a sampler of N units.
struct Counts {
  Counts(const dp::Sampler& sampler, index_t steps) : T(double(steps)), N(sampler.units()) {
    const std::size_t n = std::size_t(N);
    hits.assign(n, 0), with_next.assign(n, 0), with_last.assign(n, 0);
    std::vector<char> previous(n, 0), now(n, 0);
    std::vector<index_t> draw;
    for (index_t t = 0; t < steps; ++t) {
      sampler.draw(t, draw);
      std::fill(now.begin(), now.end(), char(0));
      for (std::size_t k = 0; k < draw.size(); ++k) {
        REQUIRE((draw[k] >= 0 && draw[k] < N));
        if (k) REQUIRE(draw[k] > draw[k - 1]);  // ascending, so no duplicates
        now[std::size_t(draw[k])] = 1;
      }
      sizes.push_back(double(draw.size()));
      for (std::size_t i = 0; i < n; ++i) {
        hits[i] += now[i];
        with_next[i] += now[i] & now[(i + 1) % n];
        with_last[i] += now[i] & previous[i];
      }
      previous = now;
    }
  }
  double mean_size() const {
    double sum = 0;
    for (double s : sizes) sum += s;
    return sum / T;
  }
  double size_variance(double mean) const {
    double sum = 0;
    for (double s : sizes) sum += (s - mean) * (s - mean);
    return sum / T;
  }
  double T;
  index_t N;
  std::vector<double> hits, with_next, with_last, sizes;
};

/// (sum over cells of (count - T p)^2 / (T p (1 - p)) - cells) / sqrt(2 cells): about standard normal where the cells are
/// independent binomials. A bias of all cells by the share b of p adds T p b^2 cells / ((1 - p) sqrt(2 cells)).
double chi(const std::vector<double>& counts, double T, double p) {
  double sum = 0;
  for (double c : counts) sum += (c - T * p) * (c - T * p) / (T * p * (1 - p));
  return (sum - double(counts.size())) / std::sqrt(2 * double(counts.size()));
}
constexpr index_t draws = 100000;
}  // namespace

TEST_CASE("P6: integers below n are uniform, and the interval that is left over is drawn again") {
  const dp::StreamKeys keys = test_keys(1);
  dp::UniformStream stream(keys.key(dp::Stream::selection), 3);
  // 3 2^62 numbers: without rejection the first 2^62 of them would be hit twice as often as the others: 1/2 instead of 1/3,
  // 70 standard errors of 1e5 draws.
  const std::uint64_t n = std::uint64_t(3) << 62;
  double low = 0;
  for (index_t t = 0; t < draws; ++t) {
    const std::uint64_t x = stream.below(n);
    REQUIRE(x < n);
    low += x < n / 3;
  }
  CHECK(std::fabs(low - double(draws) / 3) < 5 * std::sqrt(double(draws) * 2 / 9));
  std::vector<double> cells(7, 0);
  for (index_t t = 0; t < 7 * draws; ++t) ++cells[stream.below(7)];
  // Cells of one multinomial have p (1 - p) variance but 6 degrees of freedom: within 6 of its standard deviations.
  CHECK(std::fabs(chi(cells, 7 * double(draws), 1.0 / 7)) < 6);
  for (int k = 0; k < 10; ++k) CHECK(stream.below(1) == 0);
  CHECK(test::refuses([&] { stream.below(0); }, "at least one number"));
  // The numbers are those of the key stream, in its order.
  dp::UniformStream again(keys.key(dp::Stream::selection), 8);
  for (std::uint64_t k = 0; k < 300; ++k) {
    const ChaChaBlock block = chacha20_block(keys.key(dp::Stream::selection), k / 8, 8);
    const std::size_t at = 2 * std::size_t(k % 8);
    REQUIRE(again.next() == ((std::uint64_t(block[at + 1]) << 32) | block[at]));
  }
}

TEST_CASE("P6: every subset is as likely as every other") {
  const dp::StreamKeys keys = test_keys(2);
  dp::UniformStream stream(keys.key(dp::Stream::selection), 0);
  std::map<int, double> seen;  // of the 20 subsets of 3 of 6
  for (index_t t = 0; t < draws; ++t) {
    int bits = 0;
    dp::for_random_subset(6, 3, stream, [&](index_t k) { bits |= 1 << k; });
    ++seen[bits];
  }
  REQUIRE(seen.size() == 20);
  std::vector<double> counts;
  for (const auto& [bits, count] : seen) counts.push_back(count);
  // 5000 expected in each: one subset that is 10 % too likely adds 50 to a statistic of mean 19 and deviation 6.2.
  CHECK(std::fabs(chi(counts, double(draws), 1.0 / 20)) < 6);
  dp::for_random_subset(6, 0, stream, [&](index_t) { FAIL("nothing was wanted"); });
  index_t all = 0;
  dp::for_random_subset(6, 6, stream, [&](index_t k) { CHECK(k == all++); });
  CHECK(all == 6);
}

TEST_CASE("P5, P6: Poisson draws are those of PoissonSampler, bit for bit; a full batch is everything") {
  const dp::StreamKeys keys = test_keys(3);
  const dp::Sampler sampler(keys, {}, 0.07, 500), full(keys, {.kind = SamplingKind::full_batch}, 1, 500);
  const dp::PoissonSampler poisson(keys.key(dp::Stream::sampler), 500, 0.07);
  std::vector<index_t> got, expected;
  for (index_t t = 0; t < 50; ++t) {
    sampler.draw(t, got);
    poisson.draw(t, expected);
    REQUIRE(got == expected);
    full.draw(t, got);
    REQUIRE(index_t(got.size()) == 500);
    REQUIRE((got.front() == 0 && got.back() == 499 && std::is_sorted(got.begin(), got.end())));
  }
  CHECK(sampler.fixed_slots() == 0);
  CHECK(full.fixed_slots() == 500);
}

TEST_CASE("P5, P6: truncated Poisson: the Poisson draw, or a uniformly random part of it") {
  const index_t N = 60, B = 7;
  const double q = 0.1;
  const dp::StreamKeys keys = test_keys(4);
  const dp::Sampler sampler(keys, {.kind = SamplingKind::truncated_poisson, .batch_size = B}, q, N);
  CHECK(sampler.fixed_slots() == B);
  const dp::PoissonSampler poisson(keys.key(dp::Stream::sampler), N, q);
  std::vector<index_t> got, drawn;
  std::vector<double> place(9, 0), with_last_place(9, 0);
  double nines = 0, larger = 0;
  for (index_t t = 0; t < draws; ++t) {
    sampler.draw(t, got);
    poisson.draw(t, drawn);
    if (index_t(drawn.size()) <= B) {
      REQUIRE(got == drawn);
      continue;
    }
    ++larger;
    REQUIRE(index_t(got.size()) == B);
    REQUIRE(std::includes(drawn.begin(), drawn.end(), got.begin(), got.end()));
    if (drawn.size() != 9) continue;
    ++nines;  // P[Binomial(60, 0.1) = 9] = 0.08
    const bool last = got.back() == drawn.back();
    for (std::size_t k = 0; k < 9; ++k) {
      const bool kept = std::binary_search(got.begin(), got.end(), drawn[k]);
      place[k] += kept;
      with_last_place[k] += kept && last;
    }
  }
  double above = 1, exactly = std::pow(1 - q, double(N));  // P[Binomial(60, 0.1) = k]
  for (index_t k = 0; k <= B; ++k) {
    above -= exactly;
    exactly *= double(N - k) / double(k + 1) * q / (1 - q);
  }
  // 0.24: a threshold that is off by one is 80 standard errors.
  CHECK(std::fabs(larger / double(draws) - above) < 6 * std::sqrt(above * (1 - above) / double(draws)));
  REQUIRE(nines > 5000);
  // Each of 9 is kept with 7/9, each pair with 7/9 6/8. To keep the first seven, or to cut from one end, fails by 30
  // standard errors and more; a bias of 3 % of one place by 5.
  for (std::size_t k = 0; k < 9; ++k) {
    CHECK(std::fabs(place[k] / nines - 7.0 / 9) < 5 * std::sqrt(7.0 / 9 * 2 / 9 / nines));
    if (k < 8) CHECK(std::fabs(with_last_place[k] / nines - 7.0 / 12) < 5 * std::sqrt(7.0 / 12 * 5 / 12 / nines));
  }
}

TEST_CASE("P5, P6: without replacement: exact size, uniform, independent over steps") {
  const index_t N = 100, m = 13;
  const dp::Sampler sampler(test_keys(5), {.kind = SamplingKind::without_replacement, .batch_size = m}, 0.13, N);
  CHECK(sampler.fixed_slots() == m);
  const Counts c(sampler, draws);
  for (double size : c.sizes) REQUIRE(size == double(m));
  const double q = 0.13, pair = 13.0 * 12 / (100 * 99);
  // A share b of bias in all places moves the statistic by 1e5 0.15 b^2 7: 1 % by 10; one place that is off by 3 % by 2 of
  // these standard deviations, and by 11 of its own, which the second check sees.
  CHECK(std::fabs(chi(c.hits, c.T, q)) < 6);
  for (double h : c.hits) CHECK(std::fabs(h - c.T * q) < 6 * std::sqrt(c.T * q * (1 - q)));
  CHECK(std::fabs(chi(c.with_next, c.T, pair)) < 8);
  // Steps are independent: q^2 = 0.0169, while a permutation that is shared by steps would give 0 or q.
  CHECK(std::fabs(chi(c.with_last, c.T, q * q)) < 8);
}

TEST_CASE("P5, P6: balls in bins: each unit once an epoch, in a uniformly random step, independently of the others") {
  const index_t N = 50, E = 8;
  const dp::Sampler sampler(test_keys(6), {.kind = SamplingKind::balls_in_bins, .period = E}, 0.125, N);
  CHECK(sampler.fixed_slots() == 0);
  const index_t epochs = draws / E;
  std::vector<std::vector<index_t>> step_of(std::size_t(epochs), std::vector<index_t>(std::size_t(N), -1));
  std::vector<index_t> draw;
  std::vector<double> cells(std::size_t(N * E), 0), together(std::size_t(N), 0), again(std::size_t(N), 0), sizes(1, 0);
  double squares = 0;
  for (index_t e = 0; e < epochs; ++e) {
    for (index_t t = 0; t < E; ++t) {
      sampler.draw(e * E + t, draw);
      for (index_t r : draw) {
        REQUIRE(step_of[std::size_t(e)][std::size_t(r)] == -1);  // at most once an epoch
        step_of[std::size_t(e)][std::size_t(r)] = t;
        ++cells[std::size_t(r * E + t)];
      }
      const double centred = double(draw.size()) - double(N) / double(E);
      squares += centred * centred;
    }
    for (std::size_t r = 0; r < std::size_t(N); ++r) {
      const index_t here = step_of[std::size_t(e)][r];
      REQUIRE(here >= 0);  // at least once
      together[r] += here == step_of[std::size_t(e)][(r + 1) % std::size_t(N)];
      if (e > 0) again[r] += here == step_of[std::size_t(e - 1)][r];
    }
  }
  const double e = double(epochs), p = 1.0 / double(E);
  // 12500 epochs, 1562 expected in each of 400 cells: all of them off by 4 % would be 32 standard deviations; bins in a
  // fixed order of the units, or a permutation shared by epochs, fail `together` and `again` by more than 1000.
  CHECK(std::fabs(chi(cells, e, p)) < 6);
  CHECK(std::fabs(chi(together, e, p)) < 6);
  CHECK(std::fabs(chi(again, e - 1, p)) < 6);
  // The size of a step is Binomial(50, 1/8): bins of equal sizes (a shuffled data set) would have no variance. Sizes of one
  // epoch are correlated by -1/7, which makes the variance of their squares no larger.
  const double variance = double(N) * p * (1 - p);
  CHECK(std::fabs(squares / double(epochs * E) - variance) < 6 * variance * std::sqrt(2.2 / double(epochs * E)));
}

TEST_CASE("P5, P6: cyclic Poisson: steps of a unit are a period apart, and within its group it is drawn by Poisson") {
  const index_t N = 40, b = 5;
  const double q = 0.3;
  const dp::SamplingOptions cyclic{.kind = SamplingKind::cyclic_poisson, .period = b};
  CHECK(cyclic.least_separation() == b);
  const dp::Sampler sampler(test_keys(7), cyclic, q, N), other_run(test_keys(7, 6), cyclic, q, N);
  std::vector<index_t> last(std::size_t(N), -b), group(std::size_t(N), -1), draw;
  std::vector<double> hits(std::size_t(N), 0), twice(std::size_t(N), 0);
  for (index_t t = 0; t < draws; ++t) {
    sampler.draw(t, draw);
    for (index_t r : draw) {
      const std::size_t k = std::size_t(r);
      REQUIRE((group[k] == -1 || group[k] == t % b));
      group[k] = t % b;
      REQUIRE(t - last[k] >= b);
      twice[k] += t - last[k] == b && last[k] >= 0;
      last[k] = t;
      ++hits[k];
    }
  }
  const double rounds = double(draws / b);
  CHECK(std::fabs(chi(hits, rounds, q)) < 6);  // a bias of 3 % in all: 1e5 / 5 0.43 0.0009 4.5 = 35 more
  CHECK(std::fabs(chi(twice, rounds - 1, q * q)) < 8);
  // A run that is resumed with draws of its own keeps the groups of its root key, and draws otherwise.
  index_t equal = 0;
  std::vector<index_t> others;
  for (index_t t = 0; t < 500; ++t) {
    other_run.draw(t, others);
    sampler.draw(t, draw);
    equal += others == draw;
    for (index_t r : others) REQUIRE(group[std::size_t(r)] == t % b);
  }
  CHECK(equal < 250);
}

TEST_CASE("P5: groups of cyclic Poisson are independent and uniform over the units") {
  const index_t b = 4, N = 20000;
  const dp::Sampler sampler(test_keys(8), {.kind = SamplingKind::cyclic_poisson, .period = b}, 1, N);
  std::vector<double> sizes, next;
  std::vector<index_t> draw;
  for (index_t t = 0; t < b; ++t) {
    sampler.draw(t, draw);
    sizes.push_back(double(draw.size()));
    double pairs = 0;
    for (std::size_t k = 1; k < draw.size(); ++k) pairs += draw[k] == draw[k - 1] + 1;
    next.push_back(pairs);
  }
  // 5000 expected: 5 standard errors are 6 % of it. Neighbours share a group with 1/16 (dealt in turn: never; in blocks:
  // 1/4).
  for (double s : sizes) CHECK(std::fabs(s - double(N) / 4) < 5 * std::sqrt(double(N) * 3 / 16));
  for (double p : next) CHECK(std::fabs(p - double(N) / 16) < 7 * std::sqrt(double(N) / 16));
}

TEST_CASE("P20: every sampler is random access by step, and another run draws otherwise") {
  const std::vector<std::pair<dp::SamplingOptions, double>> all{
      {{}, 0.2},
      {{.kind = SamplingKind::truncated_poisson, .batch_size = 10}, 0.2},
      {{.kind = SamplingKind::without_replacement, .batch_size = 20}, 0.2},
      {{.kind = SamplingKind::balls_in_bins, .period = 5}, 0.2},
      {{.kind = SamplingKind::cyclic_poisson, .period = 3}, 0.2}};
  for (const auto& [options, rate] : all) {
    CAPTURE(options.kind);
    const dp::Sampler sampler(test_keys(9), options, rate, 100), same(test_keys(9), options, rate, 100),
        other(test_keys(9, 77), options, rate, 100);
    std::vector<std::vector<index_t>> forwards(40);
    for (index_t t = 0; t < 40; ++t) sampler.draw(t, forwards[std::size_t(t)]);
    std::vector<index_t> draw;
    int differ = 0, differ_by_step = 0;
    for (index_t t = 39; t >= 0; --t) {
      same.draw(t, draw);
      REQUIRE(draw == forwards[std::size_t(t)]);
      other.draw(t, draw);
      differ += draw != forwards[std::size_t(t)];
      differ_by_step += t > 0 && forwards[std::size_t(t)] != forwards[std::size_t(t - 1)];
    }
    CHECK(differ > 30);
    CHECK(differ_by_step > 30);
    CHECK(test::refuses([&] { sampler.draw(-1, draw); }, "[0, 2^40)"));
    CHECK(test::refuses([&] { sampler.draw(dp::max_steps, draw); }, "[0, 2^40)"));
  }
}

TEST_CASE("P5, P6: users are drawn, and of each a uniformly random part of k records") {
  test::Rng rng(test::seed(), 10);
  std::vector<index_t> user_of_record;
  // Ids in no order, far from 0: user 1000 - 7 u has u % 6 + 1 records, shuffled among the others.
  const index_t users = 30, k = 3;
  for (index_t u = 0; u < users; ++u)
    for (index_t r = 0; r <= u % 6; ++r) user_of_record.push_back(1000 - 7 * u);
  for (std::size_t i = user_of_record.size(); i > 1; --i)
    std::swap(user_of_record[i - 1], user_of_record[std::size_t(rng.integer(0, index_t(i) - 1))]);
  const dp::UserRecords grouped(user_of_record);
  REQUIRE(grouped.users() == users);
  REQUIRE(grouped.records() == index_t(user_of_record.size()));
  for (index_t u = 0; u < users; ++u)
    for (index_t r : grouped.of(u)) REQUIRE(user_of_record[std::size_t(r)] == user_of_record[std::size_t(grouped.of(u)[0])]);

  const double q = 0.2;
  const dp::Sampler sampler(test_keys(11), {.records_per_user = k}, q, grouped);
  CHECK(sampler.units() == users);
  CHECK(sampler.records() == grouped.records());
  std::vector<double> drawn(std::size_t(users), 0), of_record(user_of_record.size(), 0);
  std::vector<index_t> draw;
  for (index_t t = 0; t < draws; ++t) {
    sampler.draw(t, draw);
    std::map<index_t, index_t> count;
    for (index_t r : draw) ++count[user_of_record[std::size_t(r)]], ++of_record[std::size_t(r)];
    for (index_t u = 0; u < users; ++u) {
      const auto at = count.find(user_of_record[std::size_t(grouped.of(u)[0])]);
      if (at == count.end()) continue;
      REQUIRE(at->second == std::min(k, index_t(grouped.of(u).size())));
      ++drawn[std::size_t(u)];
    }
    std::sort(draw.begin(), draw.end());
    REQUIRE(std::adjacent_find(draw.begin(), draw.end()) == draw.end());
  }
  CHECK(std::fabs(chi(drawn, double(draws), q)) < 6);
  // Of a user of 6 each record in half of the user's steps: to take the first three fails by 100 standard errors.
  for (index_t u = 0; u < users; ++u)
    for (index_t r : grouped.of(u)) {
      const double p = q * std::min(1.0, double(k) / double(grouped.of(u).size()));
      CHECK(std::fabs(of_record[std::size_t(r)] - double(draws) * p) < 6 * std::sqrt(double(draws) * p * (1 - p)));
    }
  CHECK(dp::Sampler(test_keys(11), {.kind = SamplingKind::full_batch, .records_per_user = 2}, 1, grouped).fixed_slots() ==
        60);
}

TEST_CASE("P5: a sampler of other numbers than its kind's is refused") {
  const dp::StreamKeys keys = test_keys(12);
  const auto refused = [&](const dp::SamplingOptions& o, double rate, index_t units, const char* part) {
    return test::refuses([&] { dp::Sampler(keys, o, rate, units); }, part);
  };
  using enum SamplingKind;
  CHECK(refused({.batch_size = 3}, 0.1, 10, "no batch size for poisson"));
  CHECK(refused({.kind = full_batch, .period = 3}, 1, 10, "no period for full_batch"));
  CHECK(refused({.kind = full_batch}, 0.5, 10, "one that it makes, 1"));
  CHECK(refused({.kind = truncated_poisson}, 0.1, 10, "to be chosen yet"));
  CHECK(refused({.kind = truncated_poisson, .batch_size = -2}, 0.1, 10, "batch size >= 1"));
  for (index_t size : {index_t(0), index_t(11), index_t(-1)})
    CHECK(refused({.kind = without_replacement, .batch_size = size}, 0.5, 10, "batch size in [1, 10]"));
  CHECK(refused({.kind = without_replacement, .batch_size = 5}, 0.25, 10, "one that it makes, 0.5"));
  for (const SamplingKind kind : {balls_in_bins, cyclic_poisson})
    for (index_t period : {index_t(0), index_t(-1), dp::max_steps})
      CHECK(refused({.kind = kind, .period = period}, 0.5, 10, "period in [1, 2^40)"));
  CHECK(refused({.kind = balls_in_bins, .period = 4}, 0.5, 10, "one that it makes, 0.25"));
  CHECK(refused({.records_per_user = -1}, 0.5, 10, "records of a user"));
  CHECK(refused({.records_per_user = 2}, 0.5, 10, "records of each user"));
  CHECK(refused({.kind = SamplingKind(9)}, 0.5, 10, "SamplingKind"));
  CHECK(refused({}, 0, 10, "probability in (0, 1]"));
  const std::vector<index_t> one{4};
  CHECK(test::refuses([&] { dp::Sampler(keys, {}, 0.5, dp::UserRecords(one)); }, "whose unit is a record"));
  CHECK(test::refuses([&] { dp::UserRecords(std::span<const index_t>()); }, "at least one record"));
  CHECK(test::refuses([&] { dp::UserRecords(one).of(1); }, "user in [0, 1)"));
  CHECK(test::refuses([&] { dp::UserRecords(one).of(-1); }, "user in [0, 1)"));
  // A rate that is no exact number is rounded up: never below what is drawn.
  for (index_t n = 1; n < 200; ++n)
    for (index_t m = 1; m <= n; m += 7) {
      const double rate = dp::sampling_rate_of({.kind = without_replacement, .batch_size = m}, 0, n);
      CHECK((long double)rate * (long double)n >= (long double)m);
      CHECK((long double)rate * (long double)n <= (long double)m * (1 + 0x1p-52L));
    }
}

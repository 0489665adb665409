// SPDX-License-Identifier: Apache-2.0
// A black-box experiment on private training: what a plan claims, and a program that trains once on one of two neighbouring
// data sets and makes numbers of what is released (the weights, and the threshold of an adaptive plan), nothing else.
#pragma once
#include <dpmp/autograd/gradcheck.hpp>
#include <dpmp/dp/audit.hpp>
#include <dpmp/train/trainer.hpp>
#include <functional>
#include <random>
#include <string>

namespace audit {
using namespace dpmp;

struct Experiment {
  std::string name;
  double delta = 1e-5, claimed_epsilon = 0;
  /// The largest true positive rate that the claim allows at a false positive rate: its trade-off function.
  std::function<double(double false_positive)> claimed_power;
  /// One training run from the start. noise_share: of the noise that the claim is about, 1 or, to see whether the experiment
  /// could find a broken mechanism, 1/2.
  std::function<std::vector<double>(std::mt19937_64&, bool with, double noise_share)> scores;
};

/// Of mu-Gaussian differential privacy.
inline std::function<double(double)> gaussian_power(double mu) {
  return [mu](double a) { return 0.5 * std::erfc(-(dp::normal_quantile(a) + mu) / std::sqrt(2.0)); };
}
/// What that is at a false positive rate, as a mu; no bound where the rate is 1.
inline double claimed_mu(const Experiment& e, double false_positive) {
  if (!(false_positive < 1)) return HUGE_VAL;
  return dp::normal_quantile(e.claimed_power(false_positive)) - dp::normal_quantile(false_positive);
}
/// mu of the steps of a plan in which every record is used in every step.
inline double mu_of(const dp::Plan& plan) {
  double sum = 0;
  for (index_t t = 0; t < plan.steps(); ++t)
    sum += std::pow(plan.noise_multiplier() * plan.options().noise_schedule.at(t), -2);
  return std::sqrt(sum);
}

struct Outcome {
  dp::AuditResult result;
  double claimed_mu = 0;  // at the rates of the result
  bool above = false;     // what was seen is more than the claim allows
};
/// runs: of each data set. confidence: that `above` is no accident.
inline Outcome run(const Experiment& e, index_t runs, double noise_share, double confidence, std::mt19937_64& random) {
  std::vector<dp::AuditScores> scores;
  for (index_t k = 0; k < runs; ++k)
    for (const bool with : {false, true}) {
      const std::vector<double> numbers = e.scores(random, with, noise_share);
      scores.resize(numbers.size());
      for (std::size_t c = 0; c < numbers.size(); ++c) (with ? scores[c].with : scores[c].without).push_back(numbers[c]);
    }
  Outcome o{dp::audit(scores, e.delta, 1 - (1 - confidence) / 2)};  // two bounds
  o.claimed_mu = claimed_mu(e, o.result.false_positive);
  o.above = o.result.epsilon > e.claimed_epsilon || o.result.mu > o.claimed_mu;
  return o;
}

inline dp::StreamKeys fresh_keys(std::mt19937_64& random) {
  Key256 root;
  for (auto& word : root.words) word = std::uint32_t(random());
  return dp::StreamKeys(root);
}
inline std::vector<double> masters(const nn::Parameters& parameters) {
  std::vector<double> all;
  for (const Parameter* p : parameters.all()) {
    const std::vector<double> part = p->master().to_doubles();
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}
inline std::vector<double> minus(std::vector<double> x, const std::vector<double>& y) {
  for (std::size_t k = 0; k < x.size(); ++k) x[k] -= y[k];
  return x;
}
inline double dot(const std::vector<double>& x, const std::vector<double>& y) {
  double sum = 0;
  for (std::size_t k = 0; k < x.size(); ++k) sum += x[k] * y[k];
  return sum;
}
inline std::vector<double> unit(std::vector<double> x) {
  const double n = std::sqrt(dot(x, x));
  for (double& v : x) v /= n;
  return x;
}
/// The clipped sum over all records of a data set, which an adversary who knows them can compute.
template <class Losses>
std::vector<double> clipped_sum(Context& ctx, const nn::Parameters& parameters, const dp::Plan& plan, Losses&& losses,
                                index_t records, index_t physical_batch) {
  std::vector<Parameter*> all(parameters.all().begin(), parameters.all().end());
  per_sample::GradientSums sums(ctx, all);
  per_sample::ClippedSumSink sink(per_sample::Groups::flat(all), {});
  std::vector<index_t> draw, slots(static_cast<std::size_t>(physical_batch));
  for (index_t i = 0; i < records; ++i) draw.push_back(i);
  for (index_t k = 0; k < train::physical_batches(records, physical_batch); ++k) {
    train::fill_physical_batch(draw, k, slots);
    train::accumulate_clipped(ctx, losses, {slots}, plan.first_step().groups, sink, sums);
  }
  std::vector<double> sum;
  for (const Tensor& t : sums.tensors()) {
    const std::vector<double> part = t.to_doubles();
    sum.insert(sum.end(), part.begin(), part.end());
  }
  return sum;
}
}  // namespace audit

// SPDX-License-Identifier: Apache-2.0
// Biases that come along with their weights on a GPU: whatever takes the norm or forms the gradients of a weight sums the
// rows for its bias too, however weights, biases and inputs are shared. Against sums in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "dpmp/per_sample/group_pass.hpp"
#include "dpmp/runtime/cuda_backend.cuh"
#include "support/difference.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

namespace {
using namespace dpmp;
using per_sample::GradientStorage;
using per_sample::NormChoice;
using per_sample::Strategy;
using per_sample::StrategyOptions;
constexpr index_t input_width = 20;

/// Which parameters are finished at their last use. A tape says it of all.
enum class Finished { all, weights, none };

/// Of each sample and element of a parameter: the gradient, and the sum of the absolute values of its terms.
struct Exact {
  std::vector<double> gradient, magnitude;
};
struct Use {
  Parameter *weight, *bias;  // bias: or null
  Tensor a, b;
  bool together;  // the bias comes along
};

/// Uses of a few weights, biases and inputs, drawn so that all of them are shared now and then.
struct DrawnPass {
  DrawnPass(Context& context, test::Rng& rng, DType dtype, index_t sample_count) : ctx(context), samples(sample_count) {
    std::vector<Tensor> inputs;
    const int last_input = int(rng.integer(0, 1));
    for (int k = 0; k <= last_input; ++k) {
      constexpr index_t lengths[] = {1, 3, 20, 70, 200};
      inputs.push_back(test::normal_tensor(ctx, rng, {samples, lengths[rng.integer(0, 4)], input_width}, dtype));
    }
    for (int k = 0; k < 16; ++k) {
      constexpr index_t widths[] = {8, 24, 33, 72};
      const index_t p = widths[k % 4];
      weights.push_back(make("weight", {p, input_width}, dtype));
      if (k < 12) biases.push_back(make("bias", {p}, dtype));
    }
    for (int k = int(rng.integer(1, 14)); k > 0; --k) {
      Use x{weights[std::size_t(rng.integer(0, 15))].get(), nullptr, inputs[std::size_t(rng.integer(0, 3) / 3 * last_input)],
            Tensor(), rng.integer(0, 5) > 0};
      const index_t p = x.weight->shape()[0];
      x.b = test::normal_tensor(ctx, rng, {samples, x.a.shape()[1], p}, dtype, 0.1);
      for (const auto& bias : biases)
        if (bias->numel() == p && rng.integer(0, 2) > 0) x.bias = bias.get();
      uses.push_back(x);
    }
    const auto used_once = [&](const Parameter* p) {
      return std::count_if(uses.begin(), uses.end(), [&](const Use& x) { return x.weight == p || x.bias == p; }) == 1;
    };
    for (Use& x : uses) x.together = x.together && x.bias && used_once(x.weight) && used_once(x.bias);
    for (const Use& x : uses) add(x);
  }

  /// As a tape does: weights are finished before biases.
  void walk(per_sample::GroupPass& sink, Finished finished) {
    for (auto x = uses.begin(); x != uses.end(); ++x) {
      sink.accept(ctx, ParameterSite::outer_product(*x->weight, x->a, x->b, x->together ? x->bias : nullptr));
      if (x->bias && !x->together) sink.accept(ctx, bias_site(ctx, *x->bias, x->b));
      for (Parameter* done : {x->weight, x->bias}) {
        const bool last = std::none_of(x + 1, uses.end(), [&](const Use& y) { return y.weight == done || y.bias == done; });
        if (done && last && (finished == Finished::all || (finished == Finished::weights && done == x->weight)))
          sink.finish(ctx, *done);
      }
    }
  }
  std::vector<Parameter*> parameters() const {
    std::vector<Parameter*> all;
    for (const auto* list : {&weights, &biases})
      for (const auto& p : *list) all.push_back(p.get());
    return all;
  }
  index_t along() const {
    return index_t(std::count_if(uses.begin(), uses.end(), [](const Use& x) { return x.together; }));
  }
  index_t rows() const {
    index_t total = 0;
    for (const Use& x : uses) total += x.b.shape()[1];
    return total;
  }

  Context& ctx;
  index_t samples;
  std::vector<std::unique_ptr<Parameter>> weights, biases;
  std::vector<Use> uses;
  std::map<const Parameter*, Exact> exact;

 private:
  std::unique_ptr<Parameter> make(const char* name, const Shape& shape, DType dtype) {
    return std::make_unique<Parameter>(ctx, name, Tensor::zeros(ctx, shape, DType::f32), dtype);
  }
  void add(const Use& x) {
    const std::vector<double> a = x.a.to_doubles(), b = x.b.to_doubles();
    const index_t tokens = x.b.shape()[1], p = x.b.shape()[2], d = input_width;
    const auto term = [](Exact& to, index_t at, double value) {
      to.gradient[std::size_t(at)] += value;
      to.magnitude[std::size_t(at)] += std::fabs(value);
    };
    for (Parameter* parameter : {x.weight, x.bias}) {
      if (!parameter) continue;
      Exact& to = exact[parameter];
      to.gradient.resize(std::size_t(samples * parameter->numel()));
      to.magnitude.resize(to.gradient.size());
    }
    for (index_t row = 0; row < samples * tokens; ++row)
      for (index_t j = 0; j < p; ++j) {
        const double y = b[std::size_t(row * p + j)];
        for (index_t k = 0; k < d; ++k)
          term(exact[x.weight], (row / tokens * p + j) * d + k, y * a[std::size_t(row * d + k)]);
        if (x.bias) term(exact[x.bias], row / tokens * p + j, y);
      }
  }
};

/// Returns how many biases came along.
index_t check_pass(Context& ctx, test::Rng& rng, DType dtype, const StrategyOptions& options, Finished finished) {
  DrawnPass pass(ctx, rng, dtype, rng.integer(1, 3));
  CAPTURE(dtype);
  CAPTURE(int(finished));
  CAPTURE(per_sample::name_of(options.strategy));
  CAPTURE(int(options.norms));
  per_sample::GroupPass sink(options);
  pass.walk(sink, finished);
  const per_sample::NormBounds bounds = sink.norms(ctx, pass.samples);
  std::vector<float> factors;
  for (index_t i = 0; i < pass.samples; ++i) factors.push_back(float(rng.integer(0, 16)) / 16);
  per_sample::GradientSums sums(ctx, pass.parameters());
  sink.weighted_sum(ctx, factors, sums);

  // Sums of given factors need no norms.
  per_sample::GroupPass again(options);
  pass.walk(again, finished);
  per_sample::GradientSums same(ctx, pass.parameters());
  again.weighted_sum(ctx, factors, same);
  for (const Parameter* parameter : pass.parameters())
    CHECK(test::difference(same.of(*parameter).to_doubles(), sums.of(*parameter).to_doubles()) == "");

  // A column of 128 rows and of slices on tensor cores, tokens one by one elsewhere; then the uses, and the sum over
  // samples.
  const double narrow = options.gradients == GradientStorage::compute && dtype == DType::bf16 ? 0x1p-8 : 0,
               chain = 1.25 * double(std::max<index_t>(pass.rows(), 128) + 16) + double(pass.rows()) / 32 +
                       double(pass.uses.size()) + 5,
               share = narrow + per_sample::gamma(chain, 0x1p-24);
  // Norms of kept gradients, and of vectors, are those of what is stored: its distance from the exact gradients counts.
  const bool may_be_kept = options.strategy != Strategy::book_keeping;
  std::vector<double> squared(std::size_t(pass.samples), 0.0), distance(squared);
  for (Parameter* parameter : pass.parameters()) {
    const std::vector<double> found = sums.of(*parameter).to_doubles();
    const auto at = pass.exact.find(parameter);
    double worst = 0;
    for (index_t j = 0; j < parameter->numel(); ++j) {
      double sum = 0, bound = 0;
      if (at != pass.exact.end())
        for (index_t i = 0; i < pass.samples; ++i) {
          const auto k = std::size_t(i * parameter->numel() + j);
          sum += double(factors[std::size_t(i)]) * at->second.gradient[k];
          bound += double(factors[std::size_t(i)]) * share * at->second.magnitude[k];
          squared[std::size_t(i)] += at->second.gradient[k] * at->second.gradient[k];
          if (may_be_kept || parameter->shape().rank() == 1)
            distance[std::size_t(i)] += std::pow(share * at->second.magnitude[k], 2);
        }
      const double off = std::fabs(found[std::size_t(j)] - sum);
      if (off > 0) worst = std::max(worst, off / bound);
      if (!(off >= 0)) worst = off;
    }
    CAPTURE(parameter->name());
    CHECK(worst <= 1);
  }
  for (index_t i = 0; i < pass.samples; ++i) {
    // What the certificate allows below the norm is at most twice what it allows above.
    const double norm = bounds.norm(i), off = std::sqrt(distance[std::size_t(i)]);
    CHECK(std::fabs(norm - std::sqrt(squared[std::size_t(i)])) <= 2 * (bounds.upper(i) - norm) + off);
    CHECK(norm > 0);
  }
  CHECK(sink.lists().size() == pass.exact.size());
  return pass.along();
}
}  // namespace

TEST_CASE("biases along with their weights on CUDA: sums and norms, however weights, biases and inputs are shared") {
  Context ctx(Device::cuda(0), 1);
  test::Rng rng;
  index_t along = 0;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const StrategyOptions& options :
         {StrategyOptions{.strategy = Strategy::book_keeping, .norms = NormChoice::gram},
          StrategyOptions{.strategy = Strategy::book_keeping, .norms = NormChoice::instantiate},
          StrategyOptions{.strategy = Strategy::book_keeping}, StrategyOptions{.strategy = Strategy::automatic},
          StrategyOptions{.strategy = Strategy::materialised, .gradients = GradientStorage::compute}})
      for (const Finished finished : {Finished::all, Finished::weights, Finished::none})
        along += check_pass(ctx, rng, dtype, options, finished);
  CHECK(along > 0);
}

TEST_CASE("biases along with their weights on CUDA: of one token, and what is refused") {
  Context ctx(Device::cuda(0), 1);
  test::Rng rng;
  const auto parameter = [&](const char* name, const Shape& shape) {
    return std::make_unique<Parameter>(ctx, name, Tensor::zeros(ctx, shape, DType::f32), DType::f32);
  };
  const auto w = parameter("w", {4, 6}), other = parameter("other", {4, 6}), bias = parameter("bias", {4});
  const auto site = [&](Parameter& weight, index_t tokens, Parameter* along) {
    return ParameterSite::outer_product(weight, test::normal_tensor(ctx, rng, {2, tokens, 6}, DType::f32),
                                        test::normal_tensor(ctx, rng, {2, tokens, 4}, DType::f32), along);
  };
  const ParameterSite one_token = site(*w, 1, bias.get());
  per_sample::NormBounds bounds(ctx, 2);
  const per_sample::Biases biases =
      per_sample::squared_norms_outer(ctx, {one_token}, bounds, per_sample::NormMethod::rank_one);
  REQUIRE(biases.size() == 1);
  CHECK(biases[0].parameter == bias.get());
  CHECK(biases[0].b.to_doubles() == one_token.b.to_doubles());

  const auto refuses = [&](const std::vector<ParameterSite>& sites, const char* why) {
    per_sample::GroupPass pass;
    for (const ParameterSite& x : sites) pass.accept(ctx, x);
    return test::refuses([&] { pass.norms(ctx, 2); }, why);
  };
  CHECK(refuses({site(*w, 3, bias.get()), site(*w, 3, nullptr)}, "with the only site of w"));
  CHECK(refuses({site(*w, 3, bias.get()), site(*other, 3, bias.get())}, "expected all sites of bias"));
  CHECK(refuses({site(*w, 3, bias.get()), bias_site(ctx, *bias, site(*w, 3, nullptr).b)}, "expected all sites of bias"));
}

// SPDX-License-Identifier: Apache-2.0
// Biases that are part of their weights' sites: whoever takes the site forms the bias' vectors or hands them on, whatever
// the method and the grouping. On a GPU: tests/cuda/test_affine_biases.cu.
#include <doctest/doctest.h>

#include "dpmp/autograd/rules/linear.hpp"
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/nn/linear.hpp"
#include "dpmp/per_sample/clipped_sum_sink.hpp"
#include "dpmp/per_sample/sum_sink.hpp"
#include "support/oracle.hpp"
#include "support/tensors.hpp"

namespace {
using namespace dpmp;
using per_sample::GradientSums;
using per_sample::NormBounds;
using per_sample::NormMethod;

struct Layer {
  Layer(Context& ctx, test::Rng& rng, index_t tokens, DType dtype)
      : weight(ctx, "weight", Tensor::zeros(ctx, {5, 7}, DType::f32), dtype),
        bias(ctx, "bias", Tensor::zeros(ctx, {5}, DType::f32), dtype),
        site(ParameterSite::outer_product(weight, test::normal_tensor(ctx, rng, {3, tokens, 7}, dtype),
                                          test::normal_tensor(ctx, rng, {3, tokens, 5}, dtype), &bias)) {}
  Parameter weight, bias;
  ParameterSite site;
};

/// The sums of b's rows of each sample.
std::vector<double> row_sums(const Tensor& b) {
  const std::vector<double> values = b.to_doubles();
  const index_t samples = b.shape()[0], tokens = b.shape()[1], p = b.shape()[2];
  std::vector<double> sums(std::size_t(samples * p), 0.0);
  for (index_t row = 0; row < samples * tokens; ++row)
    for (index_t j = 0; j < p; ++j) sums[std::size_t(row / tokens * p + j)] += values[std::size_t(row * p + j)];
  return sums;
}
}  // namespace

TEST_CASE("whatever norms or forms a weight's gradients returns the bias that comes along, and leaves its norm out") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const index_t tokens : {1, 9}) {
      Layer x(ctx, rng, tokens, dtype), y(ctx, rng, tokens, dtype);
      const std::vector<double> expected = row_sums(x.site.b);
      const auto check = [&](const per_sample::Biases& biases, const NormBounds& bounds) {
        REQUIRE(biases.size() == 1);
        CHECK(biases[0].parameter == &x.bias);
        CHECK(test::distance(biases[0].b.to_doubles(), expected) <= 1e-6 * test::norm(expected));
        for (index_t i = 0; i < 3; ++i)
          CHECK(bounds.norm(i) == doctest::Approx(test::norm(test::oracle_gradient({&x.site, 1}, i))).epsilon(1e-5));
      };
      for (const NormMethod method : {NormMethod::gram, NormMethod::instantiate, NormMethod::rank_one}) {
        if (method == NormMethod::rank_one && tokens > 1) continue;
        NormBounds bounds(ctx, 3);
        check(per_sample::squared_norms_outer(ctx, {x.site}, bounds, method), bounds);
      }
      NormBounds stored(ctx, 3), shared(ctx, 3);
      check(per_sample::stored_gradients_outer(ctx, {x.site}, stored, DType::f32).biases, stored);
      y.site.a = x.site.a;
      const per_sample::SiteList lists[] = {{y.site}, {x.site}};
      const per_sample::Biases both = per_sample::squared_norms_shared_input(ctx, lists, shared);
      REQUIRE(both.size() == 2);
      CHECK(both[0].parameter == &y.bias);
      CHECK(test::distance(both[1].b.to_doubles(), expected) <= 1e-6 * test::norm(expected));
    }
}

TEST_CASE("a pass of a group on a CPU, and groups of a weight and a bias of their own, take a site with a bias as two") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  Layer x(ctx, rng, 9, DType::f32);
  Parameter* const parameters[] = {&x.weight, &x.bias};
  const std::vector<float> factors{0.5f, 1, 0.25f};
  per_sample::GroupPass one, two;
  one.accept(ctx, x.site);
  for (const ParameterSite& part : separate(ctx, x.site)) two.accept(ctx, part);
  for (index_t i = 0; i < 3; ++i) CHECK(one.norms(ctx, 3).norm(i) == two.norms(ctx, 3).norm(i));
  GradientSums of_one(ctx, parameters), of_two(ctx, parameters), of_groups(ctx, parameters);
  one.weighted_sum(ctx, factors, of_one);
  two.weighted_sum(ctx, factors, of_two);
  per_sample::ClippedSumSink groups(per_sample::Groups::by_parameter(parameters), {});
  groups.begin(
      3, [&](index_t, const NormBounds&) { return factors; }, of_groups);
  groups.accept(ctx, x.site);
  groups.end(ctx);
  for (const Parameter* p : parameters) {
    CHECK(of_one.of(*p).to_doubles() == of_two.of(*p).to_doubles());
    CHECK(of_groups.of(*p).to_doubles() == of_two.of(*p).to_doubles());
  }
}

TEST_CASE("plain sums: a bias along with its weight, and one that many layers use, each use added once") {
  Context ctx(Device::cpu(), 4);
  test::Rng rng;
  const index_t width = 2048, samples = 64;  // a row of a launch for each use, for the threads to run at a time
  Parameter bias(ctx, "bias", Tensor::zeros(ctx, {width}, DType::f32), DType::f32);
  Parameter* const parameters[] = {&bias};
  GradientSums sums(ctx, parameters);
  per_sample::SumSink sink(sums);
  std::vector<double> expected(std::size_t(width), 0.0);
  for (int use = 0; use < 200; ++use) {
    const Tensor b = test::normal_tensor(ctx, rng, {samples, 1, width}, DType::f32);
    sink.accept(ctx, bias_site(ctx, bias, b));
    const std::vector<double> values = b.to_doubles();
    for (std::size_t k = 0; k < values.size(); ++k) expected[k % expected.size()] += values[k];
  }
  sink.end(ctx);
  CHECK(test::distance(sums.of(bias).to_doubles(), expected) <= 1e-12 * test::norm(expected));

  Layer x(ctx, rng, 9, DType::f32);
  Parameter* const of_layer[] = {&x.weight, &x.bias};
  GradientSums along(ctx, of_layer), apart(ctx, of_layer);
  per_sample::SumSink first(along), second(apart);
  first.accept(ctx, x.site);
  first.end(ctx);
  for (const ParameterSite& part : separate(ctx, x.site)) second.accept(ctx, part);
  second.end(ctx);
  for (const Parameter* p : of_layer) {
    const std::vector<double> a = along.of(*p).to_doubles(), b = apart.of(*p).to_doubles();
    CHECK(test::distance(a, b) <= 1e-6 * test::norm(b));
  }
}

// SPDX-License-Identifier: Apache-2.0
// Sums over many samples: every way to a weighted sum against the sum in more than twice the precision, to the share of
// rounding that noise is calibrated for.
#include <doctest/doctest.h>

#include "dpmp/dp/clipping.hpp"
#include "dpmp/nn/parameters.hpp"
#include "dpmp/per_sample/group_pass.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
/// A parameter of each form with one element, and how many samples a pass adds to it.
struct OneElement {
  Context& ctx;
  nn::Parameters parameters;
  Parameter &matrix, &tokens, &vector, &table;
  per_sample::GradientSums sums;

  explicit OneElement(Context& context)
      : ctx(context),
        parameters(ctx, DType::f32, 1),
        matrix(parameters.constant("matrix", {1, 1}, 0)),
        tokens(parameters.constant("tokens", {1, 1}, 0)),
        vector(parameters.constant("vector", {1}, 0)),
        table(parameters.constant("table", {1, 1}, 0)),
        sums(ctx, parameters.all()) {}

  /// Adds a pass with these per-sample gradients to every parameter; factors all 1.
  void add(const std::vector<double>& x) {
    const index_t n = index_t(x.size());
    std::vector<double> twice;
    for (double v : x) twice.insert(twice.end(), {v, 0.0});
    const Tensor rows = Tensor::from(ctx, {n, 1, 1}, DType::f32, x);
    per_sample::BookKeepingSink book;
    book.accept(ctx, ParameterSite::outer_product(matrix, rows, Tensor::full(ctx, {n, 1, 1}, DType::f32, 1)));
    book.accept(ctx, ParameterSite::outer_product(tokens, Tensor::from(ctx, {n, 2, 1}, DType::f32, twice),
                                                  Tensor::full(ctx, {n, 2, 1}, DType::f32, 1)));
    book.accept(ctx, ParameterSite::vector(vector, rows.reshaped({n, 1})));
    book.accept(ctx, ParameterSite::outer_product(table, rows, Tensor::zeros(ctx, {n, 1}, DType::i32)));
    book.weighted_sum(ctx, std::vector<float>(x.size(), 1.0f), sums);
  }
};
}  // namespace

TEST_CASE("P2: sums of many samples, in passes of any size, are off by less than noise allows for") {
  test::Rng rng(test::seed(), 41);
  Context ctx(Device::cpu(), 2);
  for (index_t pass : {1, 3, 64, 511, 512, 513, 3000}) {
    CAPTURE(pass);
    OneElement model(ctx);
    model.sums.set_zero();
    const index_t passes = std::max<index_t>(2, 6000 / pass);
    long double exact = 0;
    for (index_t k = 0; k < passes; ++k) {
      std::vector<double> x(static_cast<std::size_t>(pass));
      // Contributions of at most 1 whose last bits go on below the last bit of the sum.
      for (double& v : x) v = double(float(rng.uniform())), exact += static_cast<long double>(v);
      model.add(x);
    }
    // Half of rho times C: what one of two neighbours may be off by.
    const double bound = dp::rounding_share(pass * passes) / 2;
    for (const Tensor& sum : model.sums.tensors())
      CHECK(std::fabs(double(static_cast<long double>(sum.item()) - exact)) <= bound);
  }
}

TEST_CASE("P2: chains in double that are never folded lose more than noise allows for, folded ones do not") {
  // 1 + 2^-53 is a tie that rounds to even, to 1: in one chain behind a large first sample every later one is lost.
  Context ctx(Device::cpu(), 1);
  OneElement model(ctx);
  model.sums.set_zero();
  const index_t pass = 256, passes = 400;
  std::vector<double> x(static_cast<std::size_t>(pass), 0x1p-53);
  double unfolded = 1;
  for (index_t k = 0; k < passes; ++k) {
    x[0] = k == 0 ? 1 : 0x1p-53;
    model.add(x);
    for (double v : x) unfolded += k == 0 && v == 1 ? 0 : v;
  }
  const double exact = 1 + double(pass * passes - 1) * 0x1p-53, first_chain = 512 * 0x1p-53;
  CHECK(unfolded == 1);
  for (const Tensor& sum : model.sums.tensors()) CHECK(std::fabs(sum.item() - exact) <= first_chain + 0x1p-52);
  CHECK(exact - unfolded > 100 * first_chain);
}

TEST_CASE("sums keep their values when they are read between passes, and are zeros again after set_zero") {
  Context ctx(Device::cpu(), 1);
  OneElement model(ctx);
  const std::vector<double> x(300, 0.5);
  for (int round = 0; round < 2; ++round) {
    model.sums.set_zero();
    for (int k = 1; k <= 5; ++k) {
      model.add(x);
      if (k % 2 == 0) continue;
      for (const Tensor& sum : model.sums.tensors()) CHECK(sum.item() == 150.0 * k);
      CHECK(model.sums.of(model.vector).item() == 150.0 * k);
    }
    // What is folded and never read is gone, too.
    for (int k = 0; k < 3; ++k) model.add(x);
  }
  CHECK_THROWS_AS(model.sums.chain(model.vector, samples_per_chain + 1), Error);
}

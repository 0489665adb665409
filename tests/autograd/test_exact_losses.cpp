// SPDX-License-Identifier: Apache-2.0
// Losses and means as exact as their dtype: logits of any size, sums over many elements, f64 in double throughout; what is
// ignored or masked contributes nothing, whatever it holds.
#include <doctest/doctest.h>
#include <cmath>
#include <limits>

#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/autograd/rules/attention.hpp"
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/autograd/rules/pooling.hpp"
#include "dpmp/autograd/rules/reduce.hpp"
#include "dpmp/autograd/rules/softmax.hpp"
#include "support/errors.hpp"
#include "support/row_losses.hpp"
#include "support/tensors.hpp"

using namespace dpmp;
using test::refuses;

namespace {
using List = std::vector<double>;
constexpr double infinity = std::numeric_limits<double>::infinity();

Tensor targets_of(Context& ctx, const Shape& shape, const std::vector<std::int32_t>& values) {
  return Tensor::from(ctx, shape, values);
}
}  // namespace

TEST_CASE("cross-entropy is as exact for logits of 10^4 as for small ones, and for a loss near 0") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
    for (const double offset : {0.0, 100.0, -1e4, 1e4, 3e4})
      for (const double spread : {0.5, 4.0})
        for (const index_t classes : {1, 2, 10, 333}) test::check_cross_entropy(ctx, dtype, offset, spread, classes, rng);
  test::check_cross_entropy(ctx, DType::f32, 1e6, 4, 100, rng);
  test::check_cross_entropy(ctx, DType::f64, 1e9, 4, 100, rng);
}

TEST_CASE("cross-entropy: values known by hand") {
  Context ctx(Device::cpu(), 1);
  const auto of = [&](const List& x, int target) {
    return test::cross_entropy_of(ctx, Tensor::from(ctx, {1, 2}, DType::f32, x), targets_of(ctx, {1}, {target}));
  };
  const test::LossAndGradient large = of({10000, 10001}, 0), sure = of({30, 15}, 0), surer = of({100, 20}, 0);
  CHECK(large.losses[0] == doctest::Approx(1.3132616875182228).epsilon(1e-7));
  CHECK(large.gradient[0] == doctest::Approx(-0.7310585786300049).epsilon(1e-6));
  CHECK(large.gradient[1] == doctest::Approx(0.7310585786300049).epsilon(1e-6));
  CHECK(sure.losses[0] == doctest::Approx(3.0590227e-7).epsilon(1e-6));
  CHECK(sure.gradient[0] == doctest::Approx(-3.0590223e-7).epsilon(1e-6));
  CHECK(surer.losses[0] == doctest::Approx(std::exp(-80.0)).epsilon(1e-5));
  // A class that is masked out; the target that is.
  CHECK(of({0, -infinity}, 0).losses[0] == 0.0);
  CHECK(of({0, -infinity}, 0).gradient == List{0, 0});
  CHECK(of({0, -infinity}, 1).losses[0] == infinity);
  CHECK(of({0, -infinity}, 1).gradient == List{1, -1});
  for (const double broken : {infinity, std::nan("")}) CHECK(std::isnan(of({0, broken}, 0).losses[0]));
}

TEST_CASE("ignored targets contribute nothing, whatever their logits are and whichever number means ignored") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
    for (const std::int32_t ignored : {-1, -100, 0, std::numeric_limits<std::int32_t>::min()}) {
      const index_t tokens = 4, classes = 9;
      const Tensor logits = test::normal_tensor(ctx, rng, {2, tokens, classes}, dtype);
      // Sample 0: tokens 1 and 3 are ignored and hold what no number is; sample 1 is ignored as a whole.
      std::vector<double> values = logits.to_doubles(), broken = values;
      for (std::size_t k = 0; k < broken.size(); ++k) {
        const std::size_t token = k / std::size_t(classes);
        if (token == 1 || token >= 3) broken[k] = k % 2 ? NAN : INFINITY;
      }
      const Tensor targets = targets_of(ctx, {2, tokens}, {3, ignored, 5, ignored, ignored, ignored, ignored, ignored});
      const CrossEntropyOptions options{.ignore_index = ignored, .divisor = 4};
      const test::LossAndGradient clean = test::cross_entropy_of(ctx, logits, targets, options),
                                  other = test::cross_entropy_of(ctx, Tensor::from(ctx, logits.shape(), dtype, broken),
                                                                 targets, options);
      CHECK(clean.losses == other.losses);
      CHECK(clean.gradient == other.gradient);
      CHECK(other.losses[1] == 0.0);
      CHECK(other.losses[0] > 0.0);
      for (std::size_t k = 0; k < other.gradient.size(); ++k) {
        const std::size_t token = k / std::size_t(classes);
        if (token == 1 || token >= 3) CHECK(other.gradient[k] == 0.0);
      }
    }
}

TEST_CASE("targets that are neither a class nor ignored are counted before training, and refused where records are open") {
  Context ctx(Device::cpu(), 1);
  const Tensor targets = targets_of(ctx, {4, 2}, {0, 4, -100, 2, 5, -7, -1, -100});
  CHECK(samples_with_bad_targets(targets, 5) == 3);
  CHECK(samples_with_bad_targets(targets, 5, {.ignore_index = -100}) == 2);
  CHECK(samples_with_bad_targets(targets, 6, {.ignore_index = -100}) == 2);
  CHECK(samples_with_bad_targets(targets_of(ctx, {0, 2}, {}), 5) == 0);
  CHECK(refuses([&] { samples_with_bad_targets(Tensor::zeros(ctx, {4}, DType::f32), 5); }, "targets i32 [B, ..]"));

  const auto losses = [&](RecordsAre records, CrossEntropyOptions options) {
    Tape tape(ctx, 4, TapeMode::training, records);
    return cross_entropy(tape.input(Tensor::zeros(ctx, {4, 2, 5}, DType::f32)), targets, options).value().to_doubles();
  };
  CHECK(refuses([&] { losses(RecordsAre::open, {}); },
                "targets in [0, 5) or -1 (ignored), got -100 at sample 1, position 0: CrossEntropyOptions::ignore_index"));
  CHECK(refuses([&] { losses(RecordsAre::open, {.ignore_index = -100}); }, "or -100 (ignored), got 5 at sample 2"));
  const List found = losses(RecordsAre::confidential, {.ignore_index = -100});
  for (const std::size_t i : {0u, 1u}) CHECK(std::isfinite(found[i]));
  for (const std::size_t i : {2u, 3u}) CHECK(std::isnan(found[i]));
}

// Rounded once: half a unit in the last place of the result, and what is left is of second order. A difference that is
// squared brings one rounding of each term, factors another.
TEST_CASE("sums, means and losses over 10^6 elements are off by roundings that do not add up") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const index_t many = 1000003;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    List values(std::size_t(2 * many));
    for (double& v : values) v = rng.uniform(0.1, 1.3);
    const Tensor data = Tensor::from(ctx, {2, many}, dtype, values);
    const List stored = data.to_doubles();
    Tape tape(ctx, 2, TapeMode::inference);
    const Variable x = tape.input(data);
    const double once = 1.01 * unit_roundoff(dtype) + 2 * 0x1p-24;
    const Variable loss = mean_squared_error(x, Tensor::full(ctx, {2, many}, DType::f32, 1e-3));
    const Variable mean_of_row = mean(x, 1), sum_of_row = sum(x, 1);
    for (std::size_t i = 0; i < 2; ++i) {
      double sum = 0, squares = 0;
      for (std::size_t k = 0; k < std::size_t(many); ++k) {
        const double v = stored[i * std::size_t(many) + k], d = v - double(float(1e-3));
        sum += v;
        squares += d * d;
      }
      CHECK(std::fabs(loss.value().to_doubles()[i] * double(many) / squares - 1) <= 4 * 0x1p-24);
      CHECK(std::fabs(mean_of_row.value().to_doubles()[i] * double(many) / sum - 1) <= once);
      CHECK(std::fabs(sum_of_row.value().to_doubles()[i] / sum - 1) <= once);
    }
  }
}

TEST_CASE("sums down columns, averages of images and losses of many tokens do not add their roundings up") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const index_t height = 512, width = 301, channels = 5, many = height * width;
  const Tensor image = Tensor::from(ctx, {1, height, width, channels}, DType::f32, [&] {
    List values(std::size_t(many * channels));
    for (double& v : values) v = rng.uniform(0.1, 1.3);
    return values;
  }());
  const List stored = image.to_doubles();
  Tape tape(ctx, 1, TapeMode::inference);
  const Variable x = tape.input(image), rows = tape.input(image.reshaped({1, many, channels}));
  const List pooled = global_average_pool(x).value().to_doubles(), means = mean(rows, 1).value().to_doubles();
  for (std::size_t c = 0; c < std::size_t(channels); ++c) {
    double sum = 0;
    for (std::size_t k = c; k < stored.size(); k += std::size_t(channels)) sum += stored[k];
    CHECK(std::fabs(pooled[c] * double(many) / sum - 1) <= 4 * 0x1p-24);
    CHECK(std::fabs(means[c] * double(many) / sum - 1) <= 4 * 0x1p-24);
  }
  // Infinite sums stay infinite.
  List with_infinity(std::size_t(40 * 3), 1);
  with_infinity[7] = infinity;
  with_infinity[8] = -infinity;
  const List sums = sum(tape.input(Tensor::from(ctx, {1, 40, 3}, DType::f32, with_infinity)), 1).value().to_doubles();
  CHECK(sums == List{40, infinity, -infinity});

  const index_t tokens = 200001;
  const Variable logits = tape.input(test::normal_tensor(ctx, rng, {1, tokens, 3}, DType::f32));
  const List of_logits = logits.value().to_doubles();
  const double loss =
      cross_entropy(logits, targets_of(ctx, {1, tokens}, std::vector<std::int32_t>(std::size_t(tokens), 1))).value().item();
  double total = 0, distance = 0;
  for (std::size_t t = 0; t < std::size_t(tokens); ++t) {
    const test::RowLoss row = test::row_loss(of_logits.data() + 3 * t, 3, 1);
    total += row.loss;
    distance = std::max(distance, row.distance);
  }
  CHECK(std::fabs(loss / total - 1) <= (distance + 16) * 0x1p-24);
}

TEST_CASE("a softmax in which nothing is visible is zeros with a gradient of zeros; other rows notice nothing") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
    for (const index_t width : {1, 3, 40}) {
      List values(std::size_t(3 * width));
      for (double& v : values) v = rng.normal();
      std::fill(values.begin() + width, values.begin() + 2 * width, -infinity);
      Tape tape(ctx, 3);
      const Variable x = tape.input(Tensor::from(ctx, {3, width}, dtype, values), true), y = softmax(x);
      List weights(values.size());
      for (double& w : weights) w = rng.normal();
      test::NoSites sink;
      tape.backward(weighted_sum(y, weights), sink);
      const List found = y.value().to_doubles(), gradient = tape.gradient_of(x).to_doubles();
      for (std::size_t k = 0; k < found.size(); ++k) {
        const bool hidden = k / std::size_t(width) == 1;
        CHECK(std::isfinite(gradient[k]));
        CHECK((found[k] == 0) == hidden);
        if (hidden) CHECK(gradient[k] == 0.0);
      }
    }
}

TEST_CASE("attention of a sample that is all padding is zeros with a gradient of zeros") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64})
    for (const bool causal : {false, true}) {
      Tape tape(ctx, 2);
      const Variable qkv = tape.input(test::normal_tensor(ctx, rng, {2, 3, 12}, dtype), true);
      const Variable y = attention(qkv, {.heads = 2, .causal = causal, .keep = targets_of(ctx, {2, 3}, {0, 0, 0, 1, 1, 1})});
      test::NoSites sink;
      tape.backward(weighted_sum(y, List(24, 1)), sink);
      const List found = y.value().to_doubles(), gradient = tape.gradient_of(qkv).to_doubles();
      for (std::size_t k = 0; k < 12; ++k) CHECK(found[k] == 0.0);
      for (std::size_t k = 0; k < 36; ++k) CHECK(gradient[k] == 0.0);
      for (std::size_t k = 36; k < 72; ++k) CHECK(std::isfinite(gradient[k]));
    }
}

// Scores are sums of `width` products divided by sqrt(width); weights exp, a sum over tokens, a division; then a sum over
// tokens. All of it is relative to sums of magnitudes below, in double: a few hundred units are far more than the roundings
// come to, and far less than the 2^-25 of a scale in FP32.
TEST_CASE("f64 attention is in double throughout") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const index_t tokens = 7;
  for (const index_t width : {3, 5, 6}) {
    Tape tape(ctx, 1);
    const Tensor data = test::normal_tensor(ctx, rng, {1, tokens, 3 * width}, DType::f64);
    const Variable qkv = tape.input(data, true), y = attention(qkv, {.heads = 1, .causal = false});
    const List x = data.to_doubles(), found = y.value().to_doubles();
    List upstream(found.size());
    for (double& g : upstream) g = rng.normal();
    test::NoSites sink;
    tape.backward(weighted_sum(y, upstream), sink);
    const List gradient = tape.gradient_of(qkv).to_doubles();
    const auto at = [&](index_t t, index_t part, index_t k) { return x[std::size_t((t * 3 + part) * width + k)]; };
    const std::size_t n = std::size_t(tokens), w = std::size_t(width);
    List want(found.size()), want_query(found.size());
    for (index_t t = 0; t < tokens; ++t) {
      List p(n), gp(n);
      double total = 0, mean = 0;
      for (index_t s = 0; s < tokens; ++s) {
        double score = 0;
        for (index_t k = 0; k < width; ++k) score += at(t, 0, k) * at(s, 1, k);
        total += p[std::size_t(s)] = std::exp(score / std::sqrt(double(width)));
      }
      for (index_t s = 0; s < tokens; ++s) {
        p[std::size_t(s)] /= total;
        for (index_t k = 0; k < width; ++k) {
          want[std::size_t(t * width + k)] += p[std::size_t(s)] * at(s, 2, k);
          gp[std::size_t(s)] += upstream[std::size_t(t * width + k)] * at(s, 2, k);
        }
        mean += p[std::size_t(s)] * gp[std::size_t(s)];
      }
      for (index_t s = 0; s < tokens; ++s)
        for (index_t k = 0; k < width; ++k)
          want_query[std::size_t(t * width + k)] +=
              p[std::size_t(s)] * (gp[std::size_t(s)] - mean) * at(s, 1, k) / std::sqrt(double(width));
    }
    for (std::size_t t = 0; t < n; ++t)
      for (std::size_t k = 0; k < w; ++k) {
        CHECK(std::fabs(found[t * w + k] - want[t * w + k]) <= 1000 * 0x1p-53);
        CHECK(std::fabs(gradient[t * 3 * w + k] - want_query[t * w + k]) <= 4000 * 0x1p-53);
      }
  }
}

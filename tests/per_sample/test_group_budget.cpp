// SPDX-License-Identifier: Apache-2.0
// The byte budget of a pass with several clipping groups: groups that are open at a time share it.
#include <doctest/doctest.h>

#include <map>
#include <numeric>

#include "dpmp/nn/transformer.hpp"
#include "dpmp/per_sample/clipped_sum_sink.hpp"
#include "support/gpt.hpp"
#include "support/oracle.hpp"
#include "support/tensors.hpp"

namespace {
using namespace dpmp;
using per_sample::Groups;
using per_sample::NormBounds;
using per_sample::StrategyOptions;

/// Factors of each group and sample.
using Factors = std::vector<std::vector<float>>;
struct Outcome {
  std::vector<double> sum;
  std::vector<std::vector<double>> norms;  // of each group and sample
  index_t most_kept = 0, most_open = 0;    // bytes, and groups that kept some, at any time
  bool walked_again = false;
};

Outcome outcome(Context& ctx, const nn::Transformer& model, const test::Tokens& data, const Groups& groups,
                const StrategyOptions& options, const Factors& factors) {
  Outcome result;
  std::vector<index_t> kept(std::size_t(groups.count()), 0);
  per_sample::ClippedSumSink sink(
      groups, options, [&](const Parameter& p, const per_sample::SiteShape&, const per_sample::NormPlan& plan) {
        kept[std::size_t(groups.of(p))] += plan.kept_bytes;
        result.most_kept = std::max(result.most_kept, std::accumulate(kept.begin(), kept.end(), index_t(0)));
        const auto open = std::count_if(kept.begin(), kept.end(), [](index_t bytes) { return bytes > 0; });
        result.most_open = std::max(result.most_open, index_t(open));
      });
  result.norms.resize(kept.size());
  per_sample::GradientSums sums(ctx, model.parameters().all());
  Tape tape(ctx, data.samples());
  const Variable losses = cross_entropy(model(tape, data.ids), data.targets);
  per_sample::clipped_backward(
      tape, losses, Tensor(), sink,
      [&](index_t g, const NormBounds& bounds) {
        for (index_t i = 0; i < data.samples(); ++i) result.norms[std::size_t(g)].push_back(bounds.norm(i));
        kept[std::size_t(g)] = 0;  // a group whose factors are known is summed and forgotten
        return factors[std::size_t(g)];
      },
      sums);
  result.walked_again = sink.walks_again();
  result.sum = test::flat(sums);
  return result;
}
}  // namespace

TEST_CASE("P13: groups that interleave keep together what the byte budget allows, and release the same") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  index_t walked_again = 0, met = 0, most_open = 0;
  for (int draw = 0; draw < 24; ++draw) {
    const DType dtype = draw % 2 == 0 ? DType::f32 : DType::bf16;
    const nn::Transformer model(ctx,
                                {.vocabulary = 23,
                                 .width = 16,
                                 .layers = 2,
                                 .heads = 2,
                                 .context = 12,
                                 .tied = rng.integer(0, 1) == 1,
                                 .seed = test::seed()},
                                dtype);
    const auto parameters = model.parameters().all();
    const test::Tokens data = test::random_tokens(ctx, rng, rng.integer(1, 6), 12, 23);
    const index_t count = rng.integer(2, 6);
    const Groups groups =
        Groups::by(parameters, [&](const Parameter&) { return "group " + std::to_string(rng.integer(1, count)); });
    Factors factors(std::size_t(groups.count()));
    for (std::vector<float>& of_group : factors)
      for (index_t i = 0; i < data.samples(); ++i) of_group.push_back(float(rng.uniform(0.1, 1)));

    const Outcome all = outcome(ctx, model, data, groups, {.byte_budget = index_t(1) << 30}, factors);
    CHECK(!all.walked_again);
    const index_t budget = rng.integer(0, all.most_kept);
    const Outcome some = outcome(ctx, model, data, groups, {.byte_budget = budget}, factors);
    CAPTURE(draw);
    CAPTURE(groups.count());
    CAPTURE(budget);
    CHECK(some.most_kept <= budget);
    double scale = 0;
    for (std::size_t g = 0; g < factors.size(); ++g) {
      REQUIRE(some.norms[g].size() == factors[g].size());
      for (std::size_t i = 0; i < factors[g].size(); ++i) {
        CHECK(std::fabs(some.norms[g][i] - all.norms[g][i]) <= 1e-5 * all.norms[g][i]);
        scale += double(factors[g][i]) * all.norms[g][i];
      }
    }
    CHECK(test::distance(some.sum, all.sum) <= 1e-5 * scale);
    walked_again += some.walked_again;
    met += some.most_kept > budget / 2;
    most_open = std::max(most_open, some.most_open);
  }
  // The draws try what they are for.
  CHECK(walked_again > 0);
  CHECK(met > 0);
  CHECK(most_open > 1);
}

// SPDX-License-Identifier: Apache-2.0
// P2 on data sets as they are: a record is really removed, so that draws, slots and physical batches of the others shift,
// and the sums over both data sets differ by at most the sensitivity that the noise is calibrated to. DPMP_NEIGHBOURS_FULL=1
// tries more than 10^5 pairs and prints the counts.
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "autograd/ops.hpp"
#include "dpmp/dp/group_clipping.hpp"
#include "dpmp/train/trainer.hpp"
#include "per_sample/slot_models.hpp"
#include "per_sample/sum_ways.hpp"

namespace {
using namespace dpmp;
using dp::NeighbouringRelation;
using DataSet = std::vector<index_t>;  // record i of the data set is this one of the model's pool

/// How one private sum is made.
struct Setting {
  test::SumWay way;
  dp::ClipRule rule;
  std::vector<double> thresholds;  // one, or one a parameter
  index_t physical_batch;
};

struct Counts {
  index_t pairs = 0, above = 0, not_drawn = 0, not_drawn_and_moved = 0;
  double largest = 0;  // |S(D) - S(D')| over the sensitivity
  void add(double moved, double declared) {
    ++pairs;
    above += !(moved <= declared);
    largest = std::max(largest, moved / declared);
  }
};

/// The clipped sum over the drawn records of a data set, batch by batch as the trainer forms it.
std::vector<double> clipped_sum(Context& ctx, const test::SlotModel& model, const DataSet& data,
                                const std::vector<index_t>& draw, const Setting& s) {
  using per_sample::Groups;
  const auto& parameters = model.parameters();
  per_sample::GradientSums sums(ctx, parameters);
  per_sample::ClippedSumSink sink(s.way.grouped ? Groups::by_parameter(parameters) : Groups::flat(parameters),
                                  s.way.options);
  std::vector<dp::FlatClipping> clipping;
  for (const double C : s.thresholds) clipping.emplace_back(C, s.rule);
  std::vector<index_t> slots(static_cast<std::size_t>(s.physical_batch));
  for (index_t k = 0; k < train::physical_batches(index_t(draw.size()), s.physical_batch); ++k) {
    train::fill_physical_batch(draw, k, slots);
    const auto losses = [&](const train::Batch& batch) {
      test::Arrangement at;
      for (const index_t i : batch.records) at.push_back({data[std::size_t(i)]});
      return model.record(batch.tape, at);
    };
    train::accumulate_clipped(ctx, losses, {slots}, clipping, sink, sums);
  }
  std::vector<double> all;
  for (const Tensor& t : sums.tensors()) {
    const std::vector<double> part = t.to_doubles();
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

Setting random_setting(test::Rng& rng, const test::SlotModel& model, index_t physical_batch) {
  using dp::ClipRule;
  const std::vector<ClipRule> rules{ClipRule::abadi(), ClipRule::automatic(0.01), ClipRule::normalise(), ClipRule::global(4),
                                    ClipRule::custom("square root", [](double n) { return 1 / std::sqrt(n); })};
  Setting s{test::sum_ways()[std::size_t(rng.integer(0, std::int64_t(test::sum_ways().size()) - 1))],
            rules[std::size_t(rng.integer(0, 4))],
            {},
            physical_batch};
  for (std::size_t g = 0; g < (s.way.grouped ? model.parameters().size() : 1); ++g)
    s.thresholds.push_back(std::ldexp(rng.uniform(1, 2), int(rng.integer(-10, 3))));
  return s;
}

/// One data set and every removal, a replacement and an emptied record of it; or, where the model is large, some of them.
void try_neighbours(Context& ctx, test::Rng& rng, const test::SlotModel& model, const Setting& s, index_t records, double q,
                    Counts& counts) {
  DataSet data;
  for (index_t i = 0; i < records; ++i) data.push_back(i);
  std::vector<index_t> draw;
  Key256 key;
  for (auto& word : key.words) word = std::uint32_t(rng.bits());
  dp::PoissonSampler(key, records, q).draw(rng.integer(0, 1000), draw);
  const std::vector<double> whole = clipped_sum(ctx, model, data, draw, s);
  const auto declared = [&](NeighbouringRelation relation) {
    return dp::GroupClipping(s.thresholds, s.rule).sensitivity(relation, records).bound;
  };
  for (index_t r = 0; r < records; ++r) {
    // Really removed: every later record has another number, and is drawn where it was drawn before.
    DataSet without = data;
    without.erase(without.begin() + r);
    std::vector<index_t> shifted;
    for (const index_t i : draw)
      if (i != r) shifted.push_back(i - (i > r));
    const double moved = test::distance(whole, clipped_sum(ctx, model, without, shifted, s));
    counts.add(moved, declared(NeighbouringRelation::add_or_remove_one));
    if (shifted.size() == draw.size()) {
      ++counts.not_drawn;
      counts.not_drawn_and_moved += moved != 0;
    }
  }
  const index_t r = rng.integer(0, records - 1);
  DataSet replaced = data;
  replaced[std::size_t(r)] = model.records() > records ? records : (r + 1) % records;
  counts.add(test::distance(whole, clipped_sum(ctx, model, replaced, draw, s)), declared(NeighbouringRelation::replace_one));
  std::vector<index_t> emptied = draw;
  std::replace(emptied.begin(), emptied.end(), r, train::masked_slot);
  counts.add(test::distance(whole, clipped_sum(ctx, model, data, emptied, s)), declared(NeighbouringRelation::zero_out));
}

constexpr DType dtypes[] = {DType::f32, DType::bf16, DType::f16};
bool full_run() { return std::getenv("DPMP_NEIGHBOURS_FULL") != nullptr; }
void report(const char* what, const Counts& c) {
  std::printf(
      "%s: %lld pairs, above the declared sensitivity %lld, largest share %.9f; removed record not drawn %lld, moved %lld\n",
      what, (long long)c.pairs, (long long)c.above, c.largest, (long long)c.not_drawn, (long long)c.not_drawn_and_moved);
  CHECK(c.pairs > 0);
  CHECK(c.above == 0);
  CHECK(c.not_drawn_and_moved == 0);
}
}  // namespace

TEST_CASE("P2, P34: a record removed from a layer's data set moves the sum by at most the declared sensitivity") {
  test::Rng rng(test::seed(), 4000);
  std::vector<test::LayerCase> layers = test::layer_cases();
  const auto linear = [](nn::Parameters& p, index_t d) -> test::AnyLayer {
    return [a = nn::Linear(p / "a", d, 5)](const Variable& x) { return a(x); };
  };
  layers.push_back({"linear", false, linear});
  layers.push_back({"linear, layer norm, linear", false, [](nn::Parameters& p, index_t d) -> test::AnyLayer {
                      return [a = nn::Linear(p / "a", d, 9), norm = nn::LayerNorm(p / "norm", 9),
                              b = nn::Linear(p / "b", 9, 3)](const Variable& x) { return b(gelu(norm(a(x)))); };
                    }});
  for (const test::LayerCase& layer : layers) {
    Counts counts;
    for (int round = 0; round < (full_run() ? 150 : 8); ++round) {
      Context ctx(Device::cpu(), 1 + round % 2);
      for (const DType dtype : dtypes) {
        const index_t records = rng.integer(10, 20), tokens = rng.integer(0, 1) ? 1 : 3, width = 2 * rng.integer(1, 20);
        const Shape input = layer.images ? Shape{records + 1, 4, 4, 4} : Shape{records + 1, tokens, width};
        const test::LayerInSlots model(ctx, rng, layer, input, dtype, rng.integer(0, 3) > 0);
        const Setting s = random_setting(rng, model, rng.integer(5, 13));
        try_neighbours(ctx, rng, model, s, records, rng.integer(0, 2) ? 1 : 0.6, counts);
      }
    }
    CAPTURE(layer.name);
    report(layer.name.c_str(), counts);
  }
}

TEST_CASE("P2, P34: a record removed from a GPT's data set moves the sum by at most the declared sensitivity") {
  test::Rng rng(test::seed(), 4001);
  Counts counts;
  for (int round = 0; round < (full_run() ? 250 : 12); ++round) {
    Context ctx(Device::cpu(), 1 + round % 2);
    for (const DType dtype : dtypes) {
      const index_t records = rng.integer(9, 14);
      const nn::TransformerConfig config{.vocabulary = 17,
                                         .width = 8,
                                         .layers = 1,
                                         .heads = 2,
                                         .context = 5,
                                         .tied = rng.integer(0, 1) == 1,
                                         .seed = rng.bits()};
      const test::GptInSlots model(ctx, rng, config, records + 1, dtype);
      try_neighbours(ctx, rng, model, random_setting(rng, model, rng.integer(4, 9)), records, rng.integer(0, 1) ? 1 : 0.6,
                     counts);
    }
  }
  report("GPT", counts);
}

TEST_CASE("P2, P34: every operation, random and cancelling: a removed record moves the sum by at most the sensitivity") {
  test::Rng rng(test::seed(), 4002);
  Counts counts;
  std::uint64_t stream = 4100;
  for (int round = 0; round < (full_run() ? 60 : 6); ++round)
    for (const test::Op& op : test::op_table()) {
      Context ctx(Device::cpu(), 1 + round % 2);
      for (const DType dtype : dtypes) {
        test::Draw draw(++stream, 1, {.samples = rng.integer(8, 13)});
        test::Problem problem = op.make(draw);
        if (problem.samples < 2) continue;
        const test::OpInSlots model(ctx, rng, std::move(problem), dtype, rng.integer(0, 3) > 0);
        if (model.parameters().empty()) continue;
        try_neighbours(ctx, rng, model, random_setting(rng, model, model.records()), model.records(), 1, counts);
      }
    }
  report("operations", counts);
}

// SPDX-License-Identifier: Apache-2.0
// P35: dropout on data sets that differ by a record really removed: slots and indices of all others shift, their masks do
// not.
#include <doctest/doctest.h>

#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "support/errors.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using train::Trainer;
using train::TrainerOptions;

namespace {
constexpr index_t width = 16, records = 96;
constexpr double rate = 0.3;

struct Records {
  std::vector<std::vector<double>> rows;
  std::vector<std::uint64_t> names;
  Records without(std::size_t k) const {
    Records r = *this;
    r.rows.erase(r.rows.begin() + std::ptrdiff_t(k));
    r.names.erase(r.names.begin() + std::ptrdiff_t(k));
    return r;
  }
};
Records random_records(test::Rng& rng) {
  Records r;
  for (index_t k = 0; k < records; ++k) {
    std::vector<double> row;
    for (index_t j = 0; j < width; ++j) row.push_back(rng.normal());
    r.rows.push_back(row);
    r.names.push_back(rng.bits());
  }
  return r;
}

using Identify = std::function<RecordId(const Key256& key, const Records& data, std::size_t record)>;
RecordId by_content(const Key256& key, const Records& data, std::size_t k) {
  return content_id(key, std::as_bytes(std::span(data.rows[k])));
}
RecordId by_name(const Key256& key, const Records& data, std::size_t k) { return stable_id(key, data.names[k]); }
RecordId by_place(const Key256& key, const Records&, std::size_t k) { return place_id(key, index_t(k)); }

dp::Plan plan_of(dp::NeighbouringRelation relation = dp::NeighbouringRelation::add_or_remove_one) {
  return dp::Plan::with_noise_multiplier(
      {.delta = 1e-5, .sampling_rate = 1, .steps = 1, .clip_threshold = 0.5, .dataset_size = records, .relation = relation},
      1);
}

/// What a step on these records releases, of a linear model behind dropout. around_the_trainer: the masks are keyed by
/// hand, without the trainer's check.
std::vector<double> released(Context& ctx, const dp::StreamKeys& keys, const Records& data, const Identify& identify,
                             bool around_the_trainer = false) {
  nn::Parameters parameters(ctx, DType::f64, test::seed());
  const nn::Linear layer(parameters / "layer", width, 3);
  const nn::Dropout dropped(rate, 1);
  const dp::Plan plan = plan_of();
  const auto identity = [&](const Key256& secret, index_t record) { return identify(secret, data, std::size_t(record)); };
  train::TrainerOptions options{
      .physical_batch = 7, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(1)};
  if (!around_the_trainer) options.identity = identity;
  Trainer trainer(ctx, parameters, plan, keys, index_t(data.rows.size()), options);
  const std::vector<double> before = test::masters(parameters);
  trainer.step([&](const train::Batch& batch) {
    std::vector<double> x;
    for (const index_t record : batch.records) {
      const std::vector<double>& row = data.rows[std::size_t(record)];
      x.insert(x.end(), row.begin(), row.end());
    }
    const index_t n = index_t(batch.records.size());
    if (around_the_trainer) {
      std::vector<RecordId> ids;
      for (const index_t record : batch.records)
        ids.push_back(identity(trainer.keys().key(dp::Stream::record_identity), record));
      batch.tape.key_randomness({trainer.keys().key(dp::Stream::dropout), batch.step, SampleIdentities(ctx, ids)});
    }
    const Variable y = layer(dropped(batch.tape.input(Tensor::from(ctx, {n, width}, DType::f64, x))));
    return mean_squared_error(y, Tensor::full(ctx, {n, 3}, DType::f64, 1));
  });
  std::vector<double> sum = test::masters(parameters);
  for (std::size_t j = 0; j < sum.size(); ++j) sum[j] = (before[j] - sum[j]) * plan.expected_batch();
  return sum;
}
}  // namespace

TEST_CASE("P35, A3: one record less moves a sum with dropout by at most C where identities are contents or names") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const Records data = random_records(rng);
  const dp::StreamKeys keys = test::random_keys(rng);  // repeats: both runs add the same noise
  const double declared = plan_of().sensitivity().bound,
               bound = declared + test::grid_slack(plan_of().noise_standard_deviation(), 3 * (width + 1));
  for (const Identify& identify : {Identify(by_content), Identify(by_name)}) {
    const std::vector<double> whole = released(ctx, keys, data, identify);
    double largest = 0;
    for (std::size_t k : {std::size_t(0), std::size_t(1), std::size_t(47), std::size_t(records - 1)})
      largest = std::max(largest, test::distance(whole, released(ctx, keys, data.without(k), identify)));
    MESSAGE("largest distance over the declared sensitivity: " << largest / declared);
    CHECK(largest <= bound);
    CHECK(largest > 0.5 * declared);  // records are clipped, so one of them is about as long as C
  }
  // Planted: masks by the place in the data set. All later records change theirs.
  const std::vector<double> whole = released(ctx, keys, data, by_place, true),
                            without = released(ctx, keys, data.without(0), by_place, true);
  CHECK(test::distance(whole, without) > 2 * bound);
}

TEST_CASE("P35: a trainer refuses places as identities where one record less moves them, and takes them where none moves") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const Records data = random_records(rng);
  CHECK(test::refuses([&] { released(ctx, test::random_keys(rng), data, by_place); },
                      "identities that stay when another record is removed"));
  nn::Parameters parameters(ctx, DType::f32, 1);
  parameters.constant("w", {1}, 0);
  const Trainer zero_out(
      ctx, parameters, plan_of(dp::NeighbouringRelation::zero_out), test::random_keys(rng), records,
      {.identity = [](const Key256& secret, index_t record) { return place_id(secret, std::uint64_t(record)); }});
  const std::vector<index_t> slots{1, train::masked_slot};
  CHECK(zero_out.randomness(slots, 0)->records.by_place());
  const std::vector<RecordId> ids{place_id({}, 0), place_id({}, 1)};
  const std::vector<index_t> beyond{2};
  CHECK(test::refuses([&] { train::identities(ctx, beyond, ids); }, "an identity for each record"));
}

TEST_CASE("a model with dropout needs to know what records are known by, and says where to say it") {
  Context ctx(Device::cpu(), 1);
  Tape tape(ctx, 2);
  const Variable x = tape.input(Tensor::zeros(ctx, {2, 3}, DType::f32));
  CHECK(test::refuses([&] { nn::Dropout(0.1, 0)(x); }, "TrainerOptions::identity"));
}

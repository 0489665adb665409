// SPDX-License-Identifier: Apache-2.0
// Private training without train::Trainer: the same step, in a loop that can be changed. What the guarantee rests on stays
// with the plan: its ledger counts steps and hands out their noise, its sampler draws, its clipping makes the factors.
#include <dpmp/dpmp.hpp>
#include <iostream>
using namespace dpmp;

int main() {
  Context ctx;
  nn::Parameters parameters(ctx, DType::f32, 1);
  const nn::Linear layer(parameters / "layer", 2, 1);
  const index_t records = 1000, slots = 64;  // record r: a point of the plane, and whether it is above the diagonal
  const auto coordinate = [](index_t r, int k) { return uniform_open(philox_block(3, std::uint64_t(r), 0).word[k]) - 0.5; };
  const auto losses = [&](const train::Batch& batch) {
    std::vector<double> x, y;
    for (const index_t r : batch.records) {
      x.insert(x.end(), {coordinate(r, 0), coordinate(r, 1)});
      y.push_back(coordinate(r, 0) < coordinate(r, 1) ? 1 : -1);
    }
    const Variable predicted = layer(batch.tape.input(Tensor::from(ctx, {batch.size(), 2}, DType::f32, x)));
    return mean_squared_error(predicted, Tensor::from(ctx, {batch.size(), 1}, DType::f32, y));
  };
  const auto plan =
      dp::Plan::calibrate({.epsilon = 3, .delta = 1e-5, .sampling_rate = 0.1, .steps = 60, .dataset_size = records});

  dp::StepLedger ledger = plan.ledger(dp::StreamKeys(dp::random_key()));
  const dp::Sampler sampler = plan.sampler(ledger.keys(), records);
  optim::OptimiserState optimiser(ctx, parameters.all(), optim::AdamW{});
  per_sample::GradientSums sums(ctx, parameters.all());
  per_sample::ClippedSumSink sink(per_sample::Groups::flat(parameters.all()), {});
  std::vector<index_t> draw, batch(static_cast<std::size_t>(slots));
  while (ledger.steps() < plan.steps()) {
    dp::StepTicket ticket = ledger.begin_step();  // accounted before anything is drawn
    const dp::StepPlan step = plan.at(ticket.step());
    sampler.draw(ticket.step(), draw);
    sums.set_zero();
    for (index_t k = 0; k < train::physical_batches(index_t(draw.size()), slots); ++k) {
      train::fill_physical_batch(draw, k, batch);
      train::accumulate_clipped(ctx, losses, {.slots = batch, .step = ticket.step()}, step.groups, sink, sums);
    }
    const optim::StepNoise noise{ticket.noise(), step.noise_standard_deviation};
    optimiser.step(ctx, sums, 1 / plan.expected_batch(), 3e-2, &noise);
  }

  // Of points that nobody was trained on.
  std::cout << "squared error " << train::evaluate(ctx, losses, records, 500) << " (1 before training)\n"
            << dp::privacy_statement(plan, ledger.steps()) << '\n';
}

// SPDX-License-Identifier: Apache-2.0
// An audit of private training in one run: records that are made up are in the data or not by fair coins, and whoever sees
// the weights guesses the coins. Too many right guesses would refute the epsilon that the plan claims. The same audit with
// half of the noise shows that it could have: there the claim is refuted.
#include <cstdio>
#include <dpmp/dpmp.hpp>
using namespace dpmp;

namespace {
constexpr index_t features = 256, own_records = 64, gradient_canaries = 4000, input_canaries = 1000;
constexpr double confidence = 0.95;

/// Features of -1 and 1, and a label that those of the caller's own records have something to do with.
std::vector<float> row(std::uint64_t kind, index_t r) {
  std::vector<float> x;
  for (index_t k = 0; k < features; ++k)
    x.push_back(philox_block(kind, std::uint64_t(r), std::uint64_t(k)).word[0] % 2 ? 1.0f : -1.0f);
  return x;
}
struct Batch {
  std::vector<float> x;
  std::vector<std::int32_t> labels;
  void own(index_t r) { add(row(1, r), row(1, r)[0] > 0); }
  void canary(index_t k) { add(row(2, k), std::int32_t(philox_block(3, std::uint64_t(k), 0).word[0] % 2)); }
  void add(const std::vector<float>& features_of_it, std::int32_t label) {
    x.insert(x.end(), features_of_it.begin(), features_of_it.end());
    labels.push_back(label);
  }
};
struct Model {
  explicit Model(Context& context) : ctx(context), parameters(ctx, DType::bf16, 1) {}
  Variable losses(Tape& tape, const Batch& batch) const {
    const index_t n = index_t(batch.labels.size());
    const Variable x = tape.input(Tensor::from(ctx, {n, features}, DType::bf16, batch.x));
    return cross_entropy(second(relu(first(x))), Tensor::from(ctx, {n}, batch.labels));
  }
  Context& ctx;
  nn::Parameters parameters;
  nn::Linear first{parameters / "first", features, 16}, second{parameters / "second", 16, 2};
};

dp::PlanOptions options(index_t canaries) {
  return {.delta = 1e-5, .sampling_rate = 1, .steps = 4, .dataset_size = own_records + canaries};
}
void print(const char* what, index_t canaries, const dp::OneRunResult& r) {
  std::printf(
      "%s: %lld canaries, %lld of %lld guesses right: epsilon is at least %.2f, mu at least %.2f (%.0f %% confidence)\n",
      what, (long long)canaries, (long long)r.of_epsilon.right, (long long)r.of_epsilon.guesses, r.epsilon, r.mu,
      100 * r.confidence);
}

/// Canaries of known gradient, seen after every step. noise: of `audited`, which is held to `claim`.
dp::AuditNote by_gradients(Context& ctx, const char* what, const dp::Plan& claim, const dp::Plan& audited) {
  const Model model(ctx);
  train::GradientCanaries canaries(ctx, model.parameters, claim, own_records, {.physical_batch = 128},
                                   {.canaries = gradient_canaries});
  train::Trainer trainer(ctx, model.parameters, audited, dp::StreamKeys(dp::random_key()), canaries.records(),
                         canaries.trainer_options());
  const auto own = [&](const train::Batch& batch) {
    Batch rows;
    for (const index_t r : batch.records) rows.own(r);
    return model.losses(batch.tape, rows);
  };
  const auto losses = [&](const train::Batch& batch) { return canaries.losses(batch, own); };
  while (trainer.steps() < claim.steps()) {
    trainer.step(losses);
    canaries.observe();
  }
  const dp::OneRunResult result = canaries.result(confidence);
  print(what, gradient_canaries, result);
  return canaries.note(result);
}

/// Canaries with labels by chance, known by their losses at the end.
void by_inputs(Context& ctx, const char* what, const dp::Plan& plan) {
  const Model model(ctx);
  const train::CanaryCoins coins(plan, input_canaries, own_records);
  train::Trainer trainer(
      ctx, model.parameters, plan, dp::StreamKeys(dp::random_key()), coins.records(),
      {.physical_batch = 128, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(1)});
  const auto canary_losses = [&](const train::Batch& batch) {
    Batch rows;
    for (const index_t k : batch.records) rows.canary(k);
    return model.losses(batch.tape, rows);
  };
  const std::vector<double> before = train::loss_scores(ctx, canary_losses, input_canaries, 128);
  while (trainer.steps() < plan.steps())
    trainer.step([&](const train::Batch& batch) {
      Batch rows;
      for (const index_t r : batch.records) coins.canary(r) >= 0 ? rows.canary(coins.canary(r)) : rows.own(coins.own(r));
      return model.losses(batch.tape, rows);
    });
  print(what, input_canaries,
        dp::audit_one_run(train::loss_scores(ctx, canary_losses, input_canaries, 128, before), coins.included(),
                          plan.options().delta, confidence, dp::claimed_trade_off(plan, plan.steps())));
}
}  // namespace

int main() {
  Context ctx;
  const double sigma = 2;
  const auto plan = dp::Plan::with_noise_multiplier(options(gradient_canaries), sigma),
             half = dp::Plan::with_noise_multiplier(options(gradient_canaries), sigma / 2);
  std::printf("claim: epsilon %.2f at delta 1e-5, mu %.2f, after %lld steps\n", plan.epsilon(), 2 / sigma,
              (long long)plan.steps());
  const dp::AuditNote whole = by_gradients(ctx, "gradients", plan, plan),
                      power = by_gradients(ctx, "gradients, half of the noise", plan, half);
  by_inputs(ctx, "inputs", dp::Plan::with_noise_multiplier(options(input_canaries), sigma));
  std::printf("%s\n", dp::audit_in_words(whole).c_str());
  std::printf("the claim is %s, and with half of the noise it is %s\n", whole.refuted ? "REFUTED" : "not refuted",
              power.refuted ? "refuted, as it should be" : "NOT refuted");
  return whole.refuted || !power.refuted ? 2 : 0;
}

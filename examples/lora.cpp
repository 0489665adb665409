// SPDX-License-Identifier: Apache-2.0
// Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): a model is trained on public records without privacy, then only
// small adapters learn from private records, which are fewer values to clip and to add noise to.
#include <cstdio>
#include <dpmp/dpmp.hpp>
using namespace dpmp;

namespace {
constexpr index_t tokens = 12, vocabulary = 16;
/// Records count upwards; public ones in steps of 1, private ones in steps of 3.
Variable sequence_loss(Context& ctx, const nn::Transformer& model, Tape& tape, std::span<const index_t> records, int step) {
  std::vector<std::int32_t> ids, targets;
  for (const index_t r : records)
    for (index_t t = 0; t < tokens; ++t) {
      ids.push_back(std::int32_t((r + step * t) % vocabulary));
      targets.push_back(std::int32_t((r + step * (t + 1)) % vocabulary));
    }
  const Shape shape{index_t(records.size()), tokens};
  return cross_entropy(model(tape, Tensor::from(ctx, shape, ids)), Tensor::from(ctx, shape, targets), {.divisor = tokens});
}
}  // namespace

int main() {
  Context ctx;
  const index_t records = 2000;
  nn::TransformerConfig config{.vocabulary = vocabulary, .width = 32, .layers = 1, .heads = 2, .context = tokens};
  nn::Transformer base(ctx, config, DType::bf16);
  train::Trainer pretraining(ctx, base.parameters(), train::NoPrivacy{0.05}, dp::StreamKeys(dp::random_key()), records);
  while (pretraining.steps() < 100)
    pretraining.step([&](const train::Batch& b) { return sequence_loss(ctx, base, b.tape, b.records, 1); });
  const auto file = std::filesystem::temp_directory_path() / "dpmp_lora_base.safetensors";
  train::save_weights(file, base.parameters());

  config.lora = {.rank = 4};
  nn::Transformer model(ctx, config, DType::bf16);
  train::load_base_weights(file, model.parameters());
  std::filesystem::remove(file);
  index_t trained = 0;
  for (const Parameter* p : model.parameters().all()) trained += p->trainable() ? p->numel() : 0;
  std::printf("%lld of %lld values are trained\n", static_cast<long long>(trained),
              static_cast<long long>(model.parameters().numel()));

  const auto losses = [&](const train::Batch& b) { return sequence_loss(ctx, model, b.tape, b.records, 3); };
  const auto held_out = [&] { return train::evaluate(ctx, losses, 0, vocabulary); };  // every sequence there is
  const auto plan =
      dp::Plan::calibrate({.epsilon = 3, .delta = 1e-5, .sampling_rate = 0.1, .steps = 100, .dataset_size = records});
  train::Trainer trainer(ctx, model.parameters(), plan, dp::StreamKeys(dp::random_key()), records,
                         {.learning_rate = optim::LearningRate::constant(1e-2)});
  std::printf("private task, adapters at zero: %.3f nats a token\n", held_out());
  while (trainer.steps() < plan.steps()) trainer.step(losses);
  std::printf("after %lld private steps at epsilon %.2f: %.3f\n", static_cast<long long>(trainer.steps()), plan.epsilon(),
              held_out());
}

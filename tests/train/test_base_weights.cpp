// SPDX-License-Identifier: Apache-2.0
// Weights of a base model in a model with adapters, and checkpoints of runs that train adapters only.
#include <doctest/doctest.h>
#include <cstring>

#include "dpmp/autograd/rules/cross_entropy.hpp"
#include "dpmp/nn/transformer.hpp"
#include "dpmp/train/checkpoint.hpp"
#include "support/errors.hpp"
#include "support/oracle.hpp"
#include "support/sites.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using test::refuses;

namespace {
nn::TransformerConfig config(index_t rank, index_t layers = 1) {
  return {.vocabulary = 11,
          .width = 8,
          .layers = layers,
          .heads = 2,
          .context = 6,
          .seed = 1,
          .lora = {.rank = rank, .alpha = 4}};
}
std::vector<double> logits(Context& ctx, const nn::Transformer& model) {
  Tape tape(ctx, 1, TapeMode::inference);
  return model(tape, Tensor::from(ctx, {1, 6}, std::vector<std::int32_t>{1, 2, 3, 4, 5, 6})).value().to_doubles();
}
std::vector<std::vector<double>> masters(const nn::Transformer& model) {
  std::vector<std::vector<double>> all;
  for (const Parameter* p : model.parameters().all()) all.push_back(p->master().to_doubles());
  return all;
}
}  // namespace

TEST_CASE("base weights load into a model with adapters: the base's logits, adapters untouched; a missing tensor is named") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const test::TemporaryFolder folder;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    nn::Transformer base(ctx, config(0), dtype), adapted(ctx, config(3), dtype), deeper(ctx, config(3, 2), dtype);
    test::randomise(base.parameters(), rng, 0.3);
    train::save_weights(folder / "base", base.parameters());
    const std::vector<double> before = adapted.parameters().find("block0.mlp.up.lora_a").master().to_doubles();
    CHECK(logits(ctx, adapted) != logits(ctx, base));
    train::load_base_weights(folder / "base", adapted.parameters());
    // The same formula, though without adapters the GELU is an epilogue of its product: a compiler may contract it
    // differently, and a hidden value be rounded the other way.
    const std::vector<double> wanted = logits(ctx, base);
    CHECK(test::distance(logits(ctx, adapted), wanted) <= 16 * unit_roundoff(dtype) * test::norm(wanted));
    CHECK(adapted.parameters().find("block0.mlp.up.lora_a").master().to_doubles() == before);
    CHECK(refuses([&] { train::load_weights(folder / "base", adapted.parameters()); }, "block0.attention.qkv.lora_a"));
    const auto untouched = masters(deeper);
    CHECK(refuses([&] { train::load_base_weights(folder / "base", deeper.parameters()); }, "block1.attention_norm.gain"));
    CHECK(masters(deeper) == untouched);

    // The file of a model with adapters: all of it, or its base alone.
    test::randomise(adapted.parameters(), rng, 0.3);
    train::save_weights(folder / "adapted", adapted.parameters());
    nn::Transformer again(ctx, config(3), dtype), plain(ctx, config(0), dtype), other_rank(ctx, config(2), dtype);
    train::load_weights(folder / "adapted", again.parameters());
    CHECK(logits(ctx, again) == logits(ctx, adapted));
    train::load_base_weights(folder / "adapted", plain.parameters());
    CHECK(plain.parameters().find("head.weight").master().to_doubles() ==
          adapted.parameters().find("head.weight").master().to_doubles());
    CHECK(refuses([&] { train::load_weights(folder / "adapted", other_rank.parameters()); }, "lora_a"));
  }
}

TEST_CASE(
    "private training of adapters: the base keeps its bits, the checkpoint goes on, and one without adapters refuses it") {
  Context ctx(Device::cpu(), 1);
  const test::TemporaryFolder folder;
  nn::Transformer model(ctx, config(2), DType::f32);
  const auto before = masters(model);
  const dp::Plan plan = dp::Plan::with_noise_multiplier(
      {.delta = 1e-5, .sampling_rate = 0.5, .steps = 4, .clip_threshold = 1, .dataset_size = 8}, 1);
  const dp::StreamKeys keys(dp::random_key());
  const auto trainer_of = [&](const nn::Transformer& m) {
    return train::Trainer(ctx, m.parameters(), plan, keys, 8, {.physical_batch = 4, .data_fingerprint = 1});
  };
  const auto losses_of = [&](const nn::Transformer& m) {
    return [&ctx, &m](const train::Batch& batch) {
      const Tensor ids = Tensor::zeros(ctx, {index_t(batch.records.size()), 6}, DType::i32);
      return cross_entropy(m(batch.tape, ids), ids);
    };
  };
  train::Trainer trainer = trainer_of(model);
  trainer.step(losses_of(model));
  trainer.step(losses_of(model));
  const auto after = masters(model);
  for (std::size_t k = 0; k < after.size(); ++k)
    CHECK((after[k] == before[k]) == !nn::is_lora(*model.parameters().all()[k]));
  train::save_checkpoint(folder / "c", model.parameters(), trainer);
  trainer.step(losses_of(model));

  nn::Transformer resumed(ctx, config(2), DType::f32), plain(ctx, config(0), DType::f32);
  train::Trainer second = trainer_of(resumed), third = trainer_of(plain);
  train::load_checkpoint(folder / "c", resumed.parameters(), second);
  second.step(losses_of(resumed));
  CHECK(masters(resumed) == masters(model));
  const auto untouched = masters(plain);
  CHECK(refuses([&] { train::load_checkpoint(folder / "c", plain.parameters(), third); },
                "checkpoint: block0.attention.qkv.lora_a: f32[2, 8], clipping group 0"));
  CHECK(masters(plain) == untouched);
}

// SPDX-License-Identifier: Apache-2.0
// GPT-2 and LLaMA as transformers saves them: their logits and their per-sample gradient norms are those that it computes.
#include <doctest/doctest.h>

#include "dpmp/nn/huggingface.hpp"
#include "interop/huggingface_cases.hpp"
#include "support/errors.hpp"

using namespace dpmp;
using interop::HuggingFaceFolder;
using List = std::vector<double>;

namespace {
List logits(Context& ctx, const nn::Transformer& model, const Tensor& ids) {
  Tape tape(ctx, ids.shape()[0]);
  return model(tape, ids).value().to_doubles();
}
}  // namespace

TEST_CASE("GPT-2 and LLaMA from the hub: logits and per-sample gradient norms are those of transformers in float64") {
  Context ctx(Device::cpu(), 1);
  for (const std::string name : {"gpt2_tied", "gpt2_sharded_bf16", "llama_plain", "llama_grouped_f16"}) {
    CAPTURE(name);
    const HuggingFaceFolder folder(test::case_folder(name));
    nn::Transformer model(ctx, nn::transformer_config(folder), DType::f64);
    nn::load_huggingface(folder, model);
    const test::Expected expected(ctx, name);
    const Tensor ids = expected.integers("ids"), labels = expected.integers("labels");
    const double difference = test::relative_difference(logits(ctx, model, ids), expected.numbers("f64.logits"));
    CAPTURE(difference);
    CHECK(difference <= test::bound_f64);
    const List norms =
        test::gradient_norms(ctx, ids.shape()[0], [&](Tape& tape) { return model.losses(tape, ids, labels); });
    // The backward pass is as long a chain again, and a norm is a sum of squares of all of it.
    const double of_norms = test::relative_difference(norms, expected.numbers("f64.norms"));
    CAPTURE(of_norms);
    CHECK(of_norms <= 4 * test::bound_f64);
  }
}

TEST_CASE("GPT-2 and LLaMA from the hub in float32: logits are those of the unchanged models") {
  Context ctx(Device::cpu(), 1);
  for (const std::string name : {"gpt2_tied", "gpt2_sharded_bf16", "llama_plain", "llama_grouped_f16"}) {
    CAPTURE(name);
    const HuggingFaceFolder folder(test::case_folder(name));
    nn::Transformer model(ctx, nn::transformer_config(folder), DType::f32);
    nn::load_huggingface(folder, model);
    const test::Expected expected(ctx, name);
    const List got = logits(ctx, model, expected.integers("ids"));
    CHECK(test::relative_difference(got, expected.numbers("f32.logits")) <= test::bound_f32);
  }
}

// SPDX-License-Identifier: Apache-2.0
// Precisions with several dtypes, for transformers.
#pragma once
#include "dpmp/nn/precision.hpp"
#include "support/random.hpp"

namespace test {
/// bf16 blocks, norms, residual stream and head in f32, one layer in f16.
inline dpmp::nn::Precision mixed_precision() {
  return dpmp::nn::Precision::bf16()
      .fp32_residual()
      .override("head", dpmp::DType::f32)
      .override("block0.mlp.down", dpmp::DType::f16);
}
/// Any dtype with any islands, and any of three dtypes for any scope.
inline dpmp::nn::Precision any_precision(Rng& rng) {
  constexpr dpmp::DType choices[] = {dpmp::DType::f32, dpmp::DType::bf16, dpmp::DType::f16};
  const auto any = [&] { return choices[rng.integer(0, 2)]; };
  const auto coin = [&] { return rng.integer(0, 1) == 1; };
  dpmp::nn::Precision p(any());
  if (coin()) return p;
  p = p.fp32_logits(coin()).fp32_residual(coin()).fp32_norms(coin());
  for (const char* scope :
       {"tokens", "positions", "block0", "*.attention", "*.qkv", "*.mlp.up", "*.mlp.down", "*norm", "head"})
    if (rng.integer(0, 2) == 0) p = p.override(scope, any());
  return p;
}
}  // namespace test

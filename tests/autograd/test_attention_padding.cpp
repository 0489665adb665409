// SPDX-License-Identifier: Apache-2.0
// Padding tokens of attention: whatever they hold, nobody sees it, forward or backward.
#include <doctest/doctest.h>

#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/autograd/rules/attention.hpp"
#include "support/tensors.hpp"

using namespace dpmp;

TEST_CASE("P8: padding tokens of attention may hold NaN without changing a bit of the others") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const index_t samples = 3, tokens = 6, width = 4;
  for (DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
    for (bool causal : {false, true}) {
      const Tensor qkv = test::normal_tensor(ctx, rng, {samples, tokens, 3 * 2 * width}, dtype),
                   keep = test::id_tensor(ctx, rng, {samples, tokens}, 0, 1);
      const Tensor broken = qkv.clone(ctx);
      dispatch_real(dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        for (index_t k = 0; k < qkv.numel(); ++k)
          if (keep.data<std::int32_t>()[k / (6 * width)] == 0)
            broken.data<T>()[k] = from_float<T>(compute_t<T>(k % 2 ? NAN : INFINITY));
      });
      std::vector<double> weights(std::size_t(samples * tokens * 2 * width));
      for (double& w : weights) w = rng.normal();
      const auto run = [&](const Tensor& x) {
        Tape tape(ctx, samples);
        const Variable input = tape.input(x, true), y = attention(input, {.heads = 2, .causal = causal, .keep = keep});
        DefinitionSink sink;
        tape.backward(weighted_sum(y, weights), sink);
        return std::pair(y.value().to_doubles(), tape.gradient_of(input).to_doubles());
      };
      const auto clean = run(qkv), other = run(broken);
      CHECK(clean.first == other.first);
      CHECK(clean.second == other.second);
      for (std::size_t k = 0; k < clean.first.size(); ++k)
        if (keep.data<std::int32_t>()[index_t(k) / (2 * width)] == 0) CHECK(clean.first[k] == 0.0);
    }
}

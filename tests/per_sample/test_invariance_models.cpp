// SPDX-License-Identifier: Apache-2.0
// P34 for layers and whole models.
#include <doctest/doctest.h>

#include "per_sample/invariance.hpp"
#include "per_sample/slot_models.hpp"

using namespace dpmp;

TEST_CASE("P34: layers: a record's numbers and its contribution are the same bits in every slot") {
  test::Rng rng(test::seed(), 2000);
  std::vector<test::LayerCase> layers = test::layer_cases();
  layers.push_back({"linear, layer norm, linear", false, [](nn::Parameters& p, index_t d) -> test::AnyLayer {
                      return [a = nn::Linear(p / "a", d, 9), norm = nn::LayerNorm(p / "norm", 9),
                              b = nn::Linear(p / "b", 9, 3)](const Variable& x) { return b(gelu(norm(a(x)))); };
                    }});
  for (const test::LayerCase& layer : layers) {
    CAPTURE(layer.name);
    index_t seen = 0;
    const DType large_dtype = real_dtypes[std::size_t(rng.integer(0, 2))];
    for (const int threads : {1, 2}) {
      CAPTURE(threads);
      Context ctx(Device::cpu(), threads);
      for (const DType dtype : real_dtypes) {
        CAPTURE(name_of(dtype));
        // Small, and spread over threads.
        for (const auto& [slots, tokens, width] :
             {std::tuple<index_t, index_t, index_t>{8, 3, 6}, {13, 1, 8}, {9, 31, 66}}) {
          // The large ones where threads share the work, in one dtype: that is slow.
          if (width > 8 && (threads == 1 || dtype != large_dtype || layer.name == "gru" || layer.name == "lstm")) continue;
          const Shape input = layer.images ? Shape{slots, tokens + 3, 5, width} : Shape{slots, tokens, width};
          const test::LayerInSlots model(ctx, rng, layer, input, dtype, rng.integer(0, 1) == 1);
          CHECK(test::find_dependence(ctx, rng, model, seen, 4) == "");
        }
      }
    }
    CHECK(seen > 0);
  }
}

TEST_CASE("P34: GPTs, tied and untied: a record's numbers and its contribution are the same bits in every slot") {
  test::Rng rng(test::seed(), 2001);
  index_t seen = 0;
  for (const int threads : {1, 2}) {
    CAPTURE(threads);
    Context ctx(Device::cpu(), threads);
    for (const DType dtype : real_dtypes)
      for (const bool tied : {false, true}) {
        CAPTURE(name_of(dtype));
        CAPTURE(tied);
        const nn::TransformerConfig small{
            .vocabulary = 23, .width = 24, .layers = 2, .heads = 3, .context = 12, .tied = tied, .seed = rng.bits()};
        CHECK(test::find_dependence(ctx, rng, test::GptInSlots(ctx, rng, small, 8, dtype), seen, 4) == "");
      }
    // One whose products, norms and attention are spread over threads.
    const nn::TransformerConfig large{
        .vocabulary = 67, .width = 64, .layers = 1, .heads = 2, .context = 48, .tied = true, .seed = rng.bits()};
    for (const DType dtype : {DType::f32, DType::bf16}) {
      if (threads == 1) continue;
      CAPTURE(name_of(dtype));
      CHECK(test::find_dependence(ctx, rng, test::GptInSlots(ctx, rng, large, 9, dtype), seen, 4) == "");
    }
  }
  CHECK(seen > 0);
}

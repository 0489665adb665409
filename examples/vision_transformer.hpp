// SPDX-License-Identifier: Apache-2.0
// A vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929) from public pieces: patches by a strided convolution, a
// class token that is a bare parameter, learned positions, blocks that see everything.
#pragma once
#include <dpmp/dpmp.hpp>
#include <vector>

namespace examples {
using namespace dpmp;

class VisionTransformer {
 public:
  static constexpr index_t side = 8, patch = 4, width = 16, classes = 3, patches = (side / patch) * (side / patch);
  VisionTransformer(Context& ctx, DType dtype, std::uint64_t seed, Checkpointing checkpointing = Checkpointing::none)
      : ctx_(ctx),
        parameters_(ctx, dtype, seed),
        patches_(parameters_ / "patches", 1, width, {.kernel = {patch, patch}, .stride = {patch, patch}}),
        class_token_(parameters_.normal("class_token", {1, width}, 0.02)),
        positions_(parameters_.normal("positions", {patches + 1, width}, 0.02)),
        blocks_(parameters_, {.width = width, .heads = 2, .layers = 2, .causal = false, .checkpointing = checkpointing}),
        head_(parameters_ / "head", width, classes) {}
  nn::Parameters& parameters() { return parameters_; }

  /// Record r is noise with a bright row: its number modulo 3 is the class.
  Variable losses(const train::Batch& batch) const {
    std::vector<float> pixels;
    std::vector<std::int32_t> labels;
    for (const index_t r : batch.records) {
      labels.push_back(std::int32_t(r % classes));
      for (index_t k = 0; k < side * side; ++k) {
        const double noise = uniform_open(philox_block(6, std::uint64_t(r), std::uint64_t(k)).word[0]) - 0.5;
        pixels.push_back(float(noise + (k / side == 2 * (r % classes) ? 1 : 0)));
      }
    }
    const index_t n = batch.size();
    const Tensor images = Tensor::from(ctx_, {n, side, side, 1}, parameters_.dtype(), pixels);
    const Variable embedded = reshape(patches_(batch.tape.input(images)), {n, patches, width});
    const Variable tokens = concat({parameter(batch.tape, class_token_), embedded}, 1);
    const Variable encoded = blocks_(position_embedding(tokens, positions_));
    const Variable class_row = reshape(slice(encoded, 1, 0, 1), {n, width});
    return cross_entropy(head_(class_row), Tensor::from(ctx_, {n}, labels));
  }

 private:
  Context& ctx_;
  nn::Parameters parameters_;
  nn::Conv2d patches_;
  Parameter& class_token_;
  Parameter& positions_;
  nn::Blocks blocks_;
  nn::Linear head_;
};
}  // namespace examples

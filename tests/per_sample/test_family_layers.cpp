// SPDX-License-Identifier: Apache-2.0
// Layers made of several operations: adapters, recurrent cells, gated blocks, frozen and bias-only models.
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/nn/feed_forward.hpp"
#include "dpmp/nn/lora.hpp"
#include "dpmp/nn/recurrent.hpp"
#include "dpmp/nn/vision.hpp"
#include "per_sample/family.hpp"

namespace {
using namespace dpmp;

/// A layer on random inputs [B, T, d], squared outputs as losses.
template <class Layer>
class LayerModel final : public test::Model {
 public:
  LayerModel(Context& ctx, test::Draw& draw, DType dtype, const Shape& input,
             const std::function<Layer(nn::Parameters&, index_t width)>& make)
      : owned_(ctx, dtype, std::uint64_t(draw.integer(0, 1 << 30))),
        layer_(make(owned_, input.back())),
        x_(Tensor::from(ctx, input, dtype, draw.values(input).values)) {
    // Nothing starts at zero: a zero factor of an adapter would hide the other one.
    for (Parameter* p : owned_.all()) {
      const std::vector<double> values = draw.values(p->shape()).values;
      for (index_t k = 0; k < p->numel(); ++k) p->master().template data<float>()[k] += float(values[std::size_t(k)]) / 8;
      p->refresh(ctx);
      parameters_.push_back(p);
    }
  }
  index_t samples() const override { return x_.shape()[0]; }
  const test::Parameters& parameters() const override { return parameters_; }
  Variable record(Tape& tape) const override {
    const Variable y = layer_(tape.input(x_));
    return mean_squared_error(y, Tensor::zeros(tape.ctx(), y.shape(), DType::f32));
  }
  nn::Parameters& owned() { return owned_; }

 private:
  nn::Parameters owned_;
  Layer layer_;
  Tensor x_;
  test::Parameters parameters_;
};

using AnyLayer = std::function<Variable(const Variable&)>;

/// images: the input is [B, H, W, C], else [B, T, C].
test::FamilyCase layer_case(const std::string& name, bool images,
                            const std::function<AnyLayer(nn::Parameters&, index_t width)>& make,
                            const std::function<bool(const Parameter&)>& trains = {}) {
  return {name, [=](Context& ctx, test::Draw& draw, DType dtype) -> std::unique_ptr<test::Model> {
            const index_t samples = draw.samples(), tokens = std::max<index_t>(1, draw.tokens()),
                          width = 2 * draw.integer(1, 4);
            const Shape input = images ? Shape{samples, tokens + 3, 5, width} : Shape{samples, tokens, width};
            auto model = std::make_unique<LayerModel<AnyLayer>>(ctx, draw, dtype, input, make);
            if (trains) model->owned().set_trainable(trains);
            return model;
          }};
}
std::vector<test::FamilyCase> layer_cases() {
  return {
      layer_case(
          "lora", false,
          [](nn::Parameters& p, index_t d) -> AnyLayer {
            nn::LoraLinear layer(p, "layer", d, 5);
            layer.adapt(p, {.rank = 2, .alpha = 3});
            return [layer](const Variable& x) { return layer(x); };
          },
          nn::is_lora),
      layer_case("gru", false,
                 [](nn::Parameters& p, index_t d) -> AnyLayer {
                   return [layer = nn::Gru(p, "layer", d, 3)](const Variable& x) { return layer(x); };
                 }),
      layer_case("lstm", false,
                 [](nn::Parameters& p, index_t d) -> AnyLayer {
                   return [layer = nn::Lstm(p, "layer", d, 3)](const Variable& x) { return layer(x); };
                 }),
      layer_case("swiglu block", false,
                 [](nn::Parameters& p, index_t d) -> AnyLayer {
                   return [layer = nn::SwiGlu(p, "layer", d, 6)](const Variable& x) { return layer(x); };
                 }),
      layer_case(
          "two linears, biases only", false,
          [](nn::Parameters& p, index_t d) -> AnyLayer {
            return [a = nn::Linear(p, "a", d, 7), b = nn::Linear(p, "b", 7, 4)](const Variable& x) { return b(gelu(a(x))); };
          },
          nn::is_bias),
      layer_case(
          "two linears, the first one frozen", false,
          [](nn::Parameters& p, index_t d) -> AnyLayer {
            return [a = nn::Linear(p, "a", d, 7), b = nn::Linear(p, "b", 7, 4)](const Variable& x) { return b(gelu(a(x))); };
          },
          [](const Parameter& p) { return p.name()[0] == 'b'; }),
      layer_case("convolution, group norm, pooling", true,
                 [](nn::Parameters& p, index_t c) -> AnyLayer {
                   return [conv = nn::Conv2d(p, "conv", c, 4, {.kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}}),
                           norm = nn::GroupNorm(p, "norm", 4, 2)](const Variable& x) {
                     return global_average_pool(tanh(norm(conv(x))));
                   };
                 }),
  };
}
}  // namespace

TEST_CASE("P1, P13: layers, every strategy, clip rule and dtype, agree with the oracle; so does the README") {
  test::check_family("layers", layer_cases());
}

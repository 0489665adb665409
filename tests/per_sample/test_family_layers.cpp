// SPDX-License-Identifier: Apache-2.0
// Layers made of several operations: adapters, recurrent cells, gated blocks, frozen and bias-only models.
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "per_sample/family.hpp"
#include "per_sample/layer_cases.hpp"

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

/// A row of the table from a layer.
test::FamilyCase family_case(const test::LayerCase& layer) {
  return {layer.name, [=](Context& ctx, test::Draw& draw, DType dtype) -> std::unique_ptr<test::Model> {
            const index_t samples = draw.samples(), tokens = std::max<index_t>(1, draw.tokens()),
                          width = 2 * draw.integer(1, 4);
            const Shape input = layer.images ? Shape{samples, tokens + 3, 5, width} : Shape{samples, tokens, width};
            auto model = std::make_unique<LayerModel<test::AnyLayer>>(ctx, draw, dtype, input, layer.make);
            if (layer.trains) model->owned().set_trainable(layer.trains);
            return model;
          }};
}
std::vector<test::FamilyCase> family_cases() {
  std::vector<test::FamilyCase> cases;
  for (const test::LayerCase& layer : test::layer_cases()) cases.push_back(family_case(layer));
  return cases;
}
}  // namespace

TEST_CASE("P1, P13: layers, every strategy, clip rule and dtype, agree with the oracle; so does docs/support.md") {
  test::check_family("layers", family_cases());
}

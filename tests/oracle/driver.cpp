// SPDX-License-Identifier: Apache-2.0
// driver IN.json OUT.json: records what the cases of IN.json ask for and writes outputs, gradients, norms, clipped sums and
// updated parameters. compare.py asks, and computes the same with PyTorch.
#include <fstream>
#include <iostream>

#include "oracle/nodes.hpp"
#include "oracle/optimisers.hpp"
#include "oracle/strategies.hpp"

namespace {
using namespace oracle;
using dpmp::DType;

DType dtype_of(const Json& j) {
  const auto name = attribute<std::string>(j, "dtype", "f64");
  return name == "f32" ? DType::f32 : name == "bf16" ? DType::bf16 : DType::f64;
}

/// A case's parameters, and what is made of them.
class Model {
 public:
  Model(dpmp::Context& ctx, const Json& j, DType dtype) : own_(ctx, dtype, 1) {
    test::Rng rng(attribute<std::uint64_t>(j, "seed", 1));
    if (j.contains("transformer")) transformer_.emplace(ctx, transformer_config(j.at("transformer")), dtype);
    if (j.contains("layers"))
      for (const Json& layer : j.at("layers")) {
        const auto name = layer.at("name").get<std::string>();
        layers.emplace(name, make_layer(own_ / name, layer));
      }
    for (dpmp::Parameter* p : all().all()) randomise(ctx, *p, rng);
    if (j.contains("parameters"))
      for (const Json& p : j.at("parameters")) {
        auto& made = own_.add(p.at("name").get<std::string>(), shape_of(p.at("shape")), dpmp::nn::init::constant(0));
        set_values(ctx, made, p.at("values").get<std::vector<double>>());
      }
    for (dpmp::Parameter* p : all().all()) by_name.emplace(p->name(), p);
    if (j.contains("trained"))
      all().set_trainable([&](const dpmp::Parameter& p) { return p.name().ends_with(j.at("trained").get<std::string>()); });
    if (j.contains("frozen"))
      for (const Json& name : j.at("frozen")) by_name.at(name.get<std::string>())->set_trainable(false);
  }
  dpmp::nn::Parameters& all() { return transformer_ ? transformer_->parameters() : own_; }
  const dpmp::nn::Transformer* transformer() const { return transformer_ ? &*transformer_ : nullptr; }
  std::map<std::string, Layer> layers;
  std::map<std::string, dpmp::Parameter*> by_name;

 private:
  dpmp::nn::Parameters own_;
  std::optional<dpmp::nn::Transformer> transformer_;
};

/// Outputs, and the gradients of the sum of the weighted outputs; per-sample norms and clipped sums where a threshold is
/// given.
Json run_case(dpmp::Context& ctx, const Json& j) {
  const DType dtype = dtype_of(j);
  const index_t samples = j.at("samples").get<index_t>();
  Model model(ctx, j, dtype);
  Json answer{{"outputs", Json::object()},
              {"input_gradients", Json::object()},
              {"parameter_gradients", Json::object()},
              {"parameters", Json::object()},
              {"trained", Json::array()}};
  std::map<std::string, Variable> inputs;
  std::map<std::string, Tensor> outputs;
  const auto record = [&](dpmp::Tape& tape) {
    Recording run{tape, model.by_name, model.layers, model.transformer()};
    for (const Json& input : j.at("inputs")) {
      const auto name = input.at("name").get<std::string>();
      run.values.emplace(name, tape.input(tensor_of(ctx, input, dtype), true));
    }
    inputs = run.values;
    run_nodes(run, j.at("nodes"));
    const auto forward = [&](dpmp::Tape&, const std::vector<Variable>&) {
      std::vector<Variable> all;
      for (const Json& output : j.at("outputs")) {
        const auto name = output.at("name").get<std::string>();
        all.push_back(run.values.at(name));
        outputs[name] = all.back().value().clone(ctx);
      }
      return all;
    };
    return dpmp::detail::gradient_check_losses(tape, {}, forward, {});  // weighted by cosines
  };
  {
    dpmp::Tape tape(ctx, samples);
    dpmp::DefinitionSink sink;
    tape.backward(record(tape), sink);
    for (const auto& [name, x] : inputs) answer["input_gradients"][name] = json_of(tape.gradient_of(x));
    for (const auto& [name, y] : outputs) answer["outputs"][name] = json_of(y);
    for (const dpmp::Parameter* p : model.all().all()) {
      answer["parameters"][p->name()] = json_of(p->value());
      if (!p->trainable()) continue;
      answer["trained"].push_back(p->name());
      answer["parameter_gradients"][p->name()] = sink.gradient_of(*p);
    }
  }
  if (j.contains("clip_threshold") && !answer["trained"].empty())
    answer["strategies"] = run_strategies(ctx, samples, model.all().all(), j.at("clip_threshold").get<double>(), record);
  return answer;
}
}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: oracle_driver IN.json OUT.json\n";
    return 2;
  }
  std::ifstream in(argv[1]);
  const Json asked = Json::parse(in);
  dpmp::Context ctx(dpmp::Device::cpu(), 2);
  Json answers = Json::array();
  for (const Json& j : asked.at("cases")) try {
      answers.push_back(j.contains("optimiser") ? run_optimiser(ctx, j) : run_case(ctx, j));
    } catch (const std::exception& error) {
      answers.push_back({{"error", j.at("name").get<std::string>() + ": " + error.what()}});
    }
  std::ofstream(argv[2]) << Json{{"gemm", dpmp::gemm_backend_info(ctx)}, {"answers", answers}};
  return 0;
}

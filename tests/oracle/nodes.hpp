// SPDX-License-Identifier: Apache-2.0
// Runs a case's list of operations on a tape. A node names its operation, its inputs ("in"), its results ("out"), its
// parameters, and has what else the operation asks for under the name that it has in dpmp.
#pragma once
#include "oracle/layers.hpp"

namespace oracle {
/// A recording in progress.
struct Recording {
  dpmp::Tape& tape;
  const std::map<std::string, dpmp::Parameter*>& parameters;
  const std::map<std::string, Layer>& layers;
  const dpmp::nn::Transformer* transformer;
  std::map<std::string, Variable> values = {};
};

/// The node that is being run, with short names for what operations ask for.
struct Node {
  Recording& run;
  const Json& j;
  Variable x(std::size_t k = 0) const { return run.values.at(j.at("in").at(k).get<std::string>()); }
  std::vector<Variable> inputs() const {
    std::vector<Variable> all;
    for (std::size_t k = 0; k < j.at("in").size(); ++k) all.push_back(x(k));
    return all;
  }
  /// Null: not given.
  dpmp::Parameter* parameter(std::size_t k) const {
    const Json& names = j.at("parameters");
    return k < names.size() && !names.at(k).is_null() ? run.parameters.at(names.at(k).get<std::string>()) : nullptr;
  }
  dpmp::Parameter& p(std::size_t k) const { return *parameter(k); }
  Tensor ids(const char* name = "ids") const { return j.contains(name) ? ids_of(run.tape.ctx(), j.at(name)) : Tensor(); }
  index_t integer(const char* name) const { return j.at(name).get<index_t>(); }
  double real(const char* name) const { return j.at(name).get<double>(); }
  bool flag(const char* name) const { return attribute(j, name, false); }
  dpmp::WindowOptions windows() const {
    return {size_of(j.at("kernel")), size_of(j.at("stride")), size_of(j.at("padding")), size_of(j.at("dilation"))};
  }
  dpmp::PoolOptions pool() const { return {size_of(j.at("kernel")), size_of(j.at("stride")), size_of(j.at("padding"))}; }
  dpmp::ReducedAxis reduced() const { return flag("keep_axis") ? dpmp::ReducedAxis::kept : dpmp::ReducedAxis::removed; }
};

using Results = std::vector<Variable>;
using Operation = std::function<Results(const Node&)>;

inline Results both_results(const dpmp::SumAndNorm& r) { return {r.sum, r.normed}; }

inline const std::map<std::string, Operation>& operations() {
  using namespace dpmp;
  using N = const Node&;
  static const std::map<std::string, Operation> table{
      {"add", [](N n) { return Results{add(n.x(), n.x(1))}; }},
      {"subtract", [](N n) { return Results{subtract(n.x(), n.x(1))}; }},
      {"multiply", [](N n) { return Results{multiply(n.x(), n.x(1))}; }},
      {"divide", [](N n) { return Results{divide(n.x(), n.x(1))}; }},
      {"scale", [](N n) { return Results{scale(n.x(), n.real("factor"))}; }},
      {"shift", [](N n) { return Results{shift(n.x(), n.real("constant"))}; }},
      {"gelu", [](N n) { return Results{gelu(n.x())}; }},
      {"gelu_tanh", [](N n) { return Results{gelu_tanh(n.x())}; }},
      {"relu", [](N n) { return Results{relu(n.x())}; }},
      {"tanh", [](N n) { return Results{tanh(n.x())}; }},
      {"sigmoid", [](N n) { return Results{sigmoid(n.x())}; }},
      {"silu", [](N n) { return Results{silu(n.x())}; }},
      {"swiglu", [](N n) { return Results{swiglu(n.x())}; }},
      {"exp", [](N n) { return Results{exp(n.x())}; }},
      {"log", [](N n) { return Results{log(n.x())}; }},
      {"sqrt", [](N n) { return Results{sqrt(n.x())}; }},
      {"square", [](N n) { return Results{square(n.x())}; }},
      {"reciprocal", [](N n) { return Results{reciprocal(n.x())}; }},
      {"softmax", [](N n) { return Results{softmax(n.x())}; }},
      {"layer_norm", [](N n) { return Results{layer_norm(n.x(), n.p(0), n.p(1), n.real("epsilon"))}; }},
      {"rms_norm", [](N n) { return Results{rms_norm(n.x(), n.p(0), n.real("epsilon"))}; }},
      {"add_layer_norm", [](N n) { return both_results(add_layer_norm(n.x(), n.x(1), n.p(0), n.p(1), n.real("epsilon"))); }},
      {"add_rms_norm", [](N n) { return both_results(add_rms_norm(n.x(), n.x(1), n.p(0), n.real("epsilon"))); }},
      {"group_norm", [](N n) { return Results{group_norm(n.x(), n.p(0), n.p(1), n.integer("groups"), n.real("epsilon"))}; }},
      {"instance_norm", [](N n) { return Results{instance_norm(n.x(), n.p(0), n.p(1), n.real("epsilon"))}; }},
      {"linear", [](N n) { return Results{linear(n.x(), n.p(0), n.parameter(1))}; }},
      {"gelu_feed_forward",
       [](N n) {
         return Results{gelu_feed_forward(n.x(), n.p(0), n.parameter(1), n.p(2), n.parameter(3),
                                          n.flag("tanh_form") ? GemmActivation::gelu_tanh : GemmActivation::gelu_erf)};
       }},
      {"matmul", [](N n) { return Results{matmul(n.x(), n.x(1), n.flag("transpose_x"), n.flag("transpose_y"))}; }},
      {"embedding",
       [](N n) {
         const auto padding = n.j.contains("padding") ? std::optional(std::int32_t(n.integer("padding"))) : std::nullopt;
         return Results{embedding(n.run.tape, n.ids(), n.p(0), padding)};
       }},
      {"position_embedding", [](N n) { return Results{position_embedding(n.x(), n.p(0))}; }},
      {"parameter", [](N n) { return Results{parameter(n.run.tape, n.p(0))}; }},
      {"rope", [](N n) { return Results{rope(n.x(), n.integer("heads"), n.integer("width"), n.real("base"))}; }},
      {"attention",
       [](N n) {
         return Results{attention(n.x(), {.heads = n.integer("heads"),
                                          .key_value_heads = attribute<index_t>(n.j, "key_value_heads", 0),
                                          .causal = n.flag("causal"),
                                          .keep = n.ids("keep")})};
       }},
      {"conv2d",
       [](N n) {
         const WindowOptions w = n.windows();
         return Results{conv2d(n.x(), n.p(0), n.parameter(1),
                               {w.kernel, w.stride, w.padding, w.dilation, attribute<index_t>(n.j, "groups", 1)})};
       }},
      {"conv1d",
       [](N n) {
         return Results{conv1d(n.x(), n.p(0), n.parameter(1),
                               {n.integer("kernel"), n.integer("stride"), n.integer("padding"), n.integer("dilation"),
                                attribute<index_t>(n.j, "groups", 1)})};
       }},
      {"unfold2d", [](N n) { return Results{unfold2d(n.x(), n.windows())}; }},
      {"average_pool2d", [](N n) { return Results{average_pool2d(n.x(), n.pool())}; }},
      {"max_pool2d", [](N n) { return Results{max_pool2d(n.x(), n.pool())}; }},
      {"global_average_pool", [](N n) { return Results{global_average_pool(n.x())}; }},
      {"broadcast_to", [](N n) { return Results{broadcast_to(n.x(), shape_of(n.j.at("shape")))}; }},
      {"reshape", [](N n) { return Results{reshape(n.x(), shape_of(n.j.at("shape")))}; }},
      {"transpose", [](N n) { return Results{transpose(n.x(), int(n.integer("i")), int(n.integer("j")))}; }},
      {"split",
       [](N n) {
         const auto sizes = n.j.at("sizes").get<std::vector<index_t>>();
         return split(n.x(), sizes, int(n.integer("axis")));
       }},
      {"concat", [](N n) { return Results{concat(n.inputs(), int(n.integer("axis")))}; }},
      {"slice", [](N n) { return Results{slice(n.x(), int(n.integer("axis")), n.integer("begin"), n.integer("end"))}; }},
      {"pad", [](N n) { return Results{pad(n.x(), int(n.integer("axis")), n.integer("before"), n.integer("after"))}; }},
      {"sum", [](N n) { return Results{sum(n.x(), int(n.integer("axis")), n.reduced())}; }},
      {"mean", [](N n) { return Results{mean(n.x(), int(n.integer("axis")), n.reduced())}; }},
      {"where", [](N n) { return Results{where(n.ids("mask"), n.x(), n.x(1))}; }},
      {"gather", [](N n) { return Results{gather(n.x(), n.ids())}; }},
      {"cast", [](N n) { return Results{cast(n.x(), DType::f64)}; }},
      {"stop_gradient", [](N n) { return Results{stop_gradient(n.x())}; }},
      {"dropout",
       [](N n) {
         DropoutKey key{.secret = {}, .step = 3, .layer = 2};
         key.secret.words[0] = 12345;
         std::vector<RecordId> records;
         for (index_t i = 0; i < n.run.tape.samples(); ++i) records.push_back(stable_id(Key256{}, std::uint64_t(i)));
         return Results{dropout(n.x(), n.real("rate"), key, SampleIdentities(n.run.tape.ctx(), records))};
       }},
      {"cross_entropy",
       [](N n) { return Results{cross_entropy(n.x(), n.ids(), {.ignore_index = -1, .divisor = n.real("divisor")})}; }},
      {"mean_squared_error",
       [](N n) {
         const DType dtype = n.x().dtype() == DType::f64 ? DType::f64 : DType::f32;
         return Results{mean_squared_error(n.x(), tensor_of(n.run.tape.ctx(), n.j.at("target"), dtype))};
       }},
      {"layer", [](N n) { return Results{n.run.layers.at(n.j.at("name").get<std::string>())(n.x(), n.ids("keep"))}; }},
      {"transformer", [](N n) { return Results{(*n.run.transformer)(n.run.tape, n.ids())}; }},
  };
  return table;
}

inline void run_nodes(Recording& run, const Json& nodes) {
  for (const Json& j : nodes) {
    const auto name = j.at("op").get<std::string>();
    const auto found = operations().find(name);
    if (found == operations().end()) throw dpmp::Error("the oracle has no operation '" + name + "'");
    const Results results = found->second(Node{run, j});
    for (std::size_t k = 0; k < j.at("out").size(); ++k)
      run.values.insert_or_assign(j.at("out").at(k).get<std::string>(), results.at(k));
  }
}
}  // namespace oracle

// SPDX-License-Identifier: Apache-2.0
// The models of examples/models.cpp, which are built from public pieces, against themselves in float64, a record at a time.
#pragma once
#include "../../examples/adaptive_norm.hpp"
#include "../../examples/encoder.hpp"
#include "../../examples/vision_transformer.hpp"
#include "dpmp/per_sample/sum_sink.hpp"
#include "support/gpt.hpp"

namespace test {
/// A model whose initial values are moved a little, so that gates and biases that start at zero have a part in every
/// gradient, and roundings are not amplified by more than in a model as it starts.
template <class Model>
struct Pieces {
  Pieces(dpmp::Context& ctx, dpmp::DType dtype) : model(ctx, dtype, seed()) {
    Rng rng(seed(), 9100);
    for (dpmp::Parameter* p : model.parameters().all()) {
      std::vector<double> values = p->master().to_doubles();
      for (double& v : values) v = double(float(double(float(v)) + rng.normal(0.05)));  // the same in f32 and f64
      set(*p, values, ctx);
    }
  }
  static void set(dpmp::Parameter& p, const std::vector<double>& values, dpmp::Context& ctx) {
    const dpmp::Tensor there = dpmp::Tensor::from(ctx, p.shape(), p.master().dtype(), values);
    std::vector<char> bytes(std::size_t(there.bytes()));
    there.copy_to_host(bytes.data());
    p.master().copy_from_host(bytes.data());
    p.refresh(ctx);
  }
  auto losses() const {
    return [this](const dpmp::train::Batch& batch) { return model.losses(batch); };
  }
  Model model;
};

/// Norm of each record's gradient over all trained parameters, in float64, from a batch of that record alone.
template <class Model>
std::vector<double> norms_of_one(dpmp::Context& cpu, std::span<const dpmp::index_t> records) {
  Pieces<Model> exact(cpu, dpmp::DType::f64);
  std::vector<double> norms;
  for (const dpmp::index_t r : records) {
    dpmp::per_sample::GradientSums sums(cpu, exact.model.parameters().all());
    sums.set_zero();
    dpmp::per_sample::SumSink sink(sums);
    dpmp::Tape tape(cpu, 1);
    tape.backward(exact.losses()({tape, std::vector<dpmp::index_t>{r}}), sink);
    norms.push_back(norm(flat(sums)));
  }
  return norms;
}
}  // namespace test

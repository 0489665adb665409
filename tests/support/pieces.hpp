// SPDX-License-Identifier: Apache-2.0
// The models of examples/models.cpp, which are built from public pieces, against themselves in float64, a record at a time.
#pragma once
#include "../../examples/adaptive_norm.hpp"
#include "../../examples/encoder.hpp"
#include "../../examples/vision_transformer.hpp"
#include "dpmp/per_sample/group_pass.hpp"
#include "dpmp/per_sample/sum_sink.hpp"
#include "support/gpt.hpp"

namespace test {
/// A model whose initial values are moved a little, so that gates and biases that start at zero have a part in every
/// gradient, and roundings are not amplified by more than in a model as it starts.
template <class Model>
struct Pieces {
  /// Draws after the first move each value by another share of up to `nudge` of itself: the same model for all that
  /// the mathematics cares, with other roundings.
  Pieces(dpmp::Context& ctx, dpmp::DType dtype, std::uint64_t draw = 0) : model(ctx, dtype, seed()) {
    Rng rng(seed(), 9100), nudges(seed(), 9100 + draw);
    for (dpmp::Parameter* p : model.parameters().all()) {
      std::vector<double> values = p->master().to_doubles();
      for (double& v : values) {
        v = double(float(v)) + rng.normal(0.05);
        if (draw > 0) v *= 1 + nudges.uniform(-nudge, nudge);
        v = double(float(v));  // the same in f32 and f64
      }
      set(*p, values, ctx);
    }
  }
  static constexpr double nudge = 0x1p-6;
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
std::vector<double> norms_of_one(dpmp::Context& cpu, std::span<const dpmp::index_t> records, std::uint64_t draw = 0) {
  Pieces<Model> exact(cpu, dpmp::DType::f64, draw);
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

/// Per-sample norms as a pass on `ctx` finds them.
template <class Model>
std::vector<double> norms_of_pass(dpmp::Context& ctx, dpmp::DType dtype, const std::vector<dpmp::index_t>& records,
                                  std::uint64_t draw = 0) {
  Pieces<Model> run(ctx, dtype, draw);
  dpmp::per_sample::GroupPass pass;
  const auto samples = dpmp::index_t(records.size());
  dpmp::Tape tape(ctx, samples);
  tape.backward(run.losses()({tape, records}), pass);
  const dpmp::per_sample::NormBounds found = pass.norms(ctx, samples);
  std::vector<double> norms;
  for (dpmp::index_t i = 0; i < samples; ++i) norms.push_back(found.norm(i));
  return norms;
}

/// Root mean square of what rounding to `dtype` changes in each record's norm, over `draws` nudged models on the CPU.
/// How much one rounding moves a gradient depends on the record and the weights, so that no count of roundings bounds it.
template <class Model>
std::vector<double> rounding_of_norms(dpmp::Context& cpu, dpmp::DType dtype, const std::vector<dpmp::index_t>& records,
                                      int draws) {
  std::vector<double> squares(records.size());
  for (int draw = 1; draw <= draws; ++draw) {
    const std::vector<double> exact = norms_of_one<Model>(cpu, records, std::uint64_t(draw));
    const std::vector<double> rounded = norms_of_pass<Model>(cpu, dtype, records, std::uint64_t(draw));
    for (std::size_t i = 0; i < exact.size(); ++i) squares[i] += std::pow(rounded[i] - exact[i], 2) / draws;
  }
  for (double& s : squares) s = std::sqrt(s);
  return squares;
}
}  // namespace test

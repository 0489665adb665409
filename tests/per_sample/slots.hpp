// SPDX-License-Identifier: Apache-2.0
// Records that can be put into any slots of a physical batch, and numbers aimed at the roundings of an operation.
#pragma once
#include <memory>
#include <numeric>
#include <optional>

#include "autograd/run_op.hpp"

namespace test {
using dpmp::DType;

/// What a slot holds that holds no record of the pool. Only inputs can be huge or NaN; ids are then record 0's.
enum Filler : index_t { zeros = -1, huge = -2, nans = -3 };
struct Slot {
  index_t content = zeros;  // a record, or a Filler
  bool masked = false;      // its loss has the weight 0
};
using Arrangement = std::vector<Slot>;

/// Records that can be put into any slots of a physical batch.
class SlotModel {
 public:
  virtual ~SlotModel() = default;
  virtual index_t records() const = 0;
  virtual const Parameters& parameters() const = 0;
  /// Per-sample losses of the records in these slots.
  virtual dpmp::Variable record(dpmp::Tape& tape, const Arrangement& slots) const = 0;
};

/// What the slots hold of rows [records, width], one record a row.
inline std::vector<double> arranged(const std::vector<double>& rows, index_t records, const Arrangement& slots) {
  const std::size_t width = rows.size() / std::size_t(std::max<index_t>(1, records));
  std::vector<double> batch;
  for (const Slot& s : slots)
    for (std::size_t k = 0; k < width; ++k)
      batch.push_back(s.content >= 0      ? rows[std::size_t(s.content) * width + k]
                      : s.content == huge ? (k % 2 ? -1 : 1) * 6e4
                      : s.content == nans ? std::nan("")
                                          : 0);
  return batch;
}
/// The same for ids; a filler has those of record 0.
inline std::vector<std::int32_t> arranged(const std::vector<std::int32_t>& rows, index_t records, const Arrangement& slots) {
  const std::size_t width = rows.size() / std::size_t(std::max<index_t>(1, records));
  std::vector<std::int32_t> batch;
  for (const Slot& s : slots) {
    const auto from = rows.begin() + std::ptrdiff_t(std::size_t(std::max<index_t>(0, s.content)) * width);
    batch.insert(batch.end(), from, from + std::ptrdiff_t(width));
  }
  return batch;
}

/// Numbers in which sums cancel. even: the second half of an axis repeats the first one in another order; odd: with the
/// opposite sign. A sum over an axis of products of an even and an odd tensor is 0 in real arithmetic, so that all that a
/// kernel computes is its roundings, of which every bit shows in any dtype.
enum class Symmetry : std::uint8_t { none, even, odd };
inline void fill_symmetric(Rng& rng, Values& v, Symmetry symmetry, double scale) {
  const Shape& shape = v.shape;
  for (double& x : v.values) x = scale * rng.normal();
  if (symmetry == Symmetry::none) return;
  index_t inner = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    const index_t n = shape[axis], half = n / 2;
    // The same order for all axes of this length.
    std::vector<index_t> order(static_cast<std::size_t>(half));
    std::iota(order.begin(), order.end(), 0);
    Rng shuffle(std::uint64_t(n), 5);
    for (index_t k = half - 1; k > 0; --k) std::swap(order[std::size_t(k)], order[std::size_t(shuffle.integer(0, k))]);
    for (index_t outer = 0; outer < shape.numel() / std::max<index_t>(1, n * inner); ++outer)
      for (index_t i = 0; i < inner; ++i) {
        const auto at = [&](index_t k) -> double& { return v.values[std::size_t((outer * n + k) * inner + i)]; };
        for (index_t k = 0; k < half; ++k) at(half + order[std::size_t(k)]) = (symmetry == Symmetry::odd ? -1 : 1) * at(k);
        if (n % 2 && symmetry == Symmetry::odd && n > 1) at(n - 1) = 0;
      }
    inner *= n;
  }
}
/// The same for each record of v [records, ..].
inline void fill_records(Rng& rng, Values& v, Symmetry symmetry, double scale) {
  const index_t records = v.shape.front(), width = v.shape.numel(1, v.shape.rank());
  Shape of_record{1};
  for (int k = 1; k < v.shape.rank(); ++k) of_record.push_back(v.shape[k]);
  for (index_t r = 0; r < records; ++r) {
    Values one{of_record, std::vector<double>(std::size_t(width))};
    fill_symmetric(rng, one, symmetry, scale);
    std::copy(one.values.begin(), one.values.end(), v.values.begin() + std::ptrdiff_t(r * width));
  }
}

/// Hands over the gradient that passes it as the per-sample gradient of a parameter, so that operations without parameters
/// contribute too.
struct GradientProbe {
  static constexpr std::string_view name = "gradient probe";
  dpmp::GradientSlot x;
  dpmp::Parameter* parameter;
  std::vector<dpmp::Parameter*> parameters() const { return {parameter}; }
  void backward(dpmp::BackwardPass& pass, const dpmp::Tensor& gradient) const {
    const index_t samples = x.shape.front();
    pass.emit(
        dpmp::ParameterSite::vector(*parameter, dpmp::Tensor::from(pass.ctx, {samples, x.shape.numel(1, x.shape.rank())},
                                                                   accumulate_dtype(x.dtype), gradient.to_doubles())));
    pass.accumulate(x, gradient);
  }
};

/// An operation of the op table. Its losses are a weighted sum of its outputs, or of their squares: then the bits of the
/// outputs are the bits of what is walked back.
class OpInSlots final : public SlotModel {
 public:
  OpInSlots(dpmp::Context& ctx, Rng& rng, Problem problem, DType dtype, bool cancel)
      : ctx_(ctx), problem_(std::move(problem)), dtype_(dtype), squares_(rng.integer(0, 1) == 1), seed_(rng.bits()) {
    const auto symmetry = [&] { return cancel ? Symmetry(rng.integer(0, 2)) : Symmetry::none; };
    const auto scale = [&] { return std::ldexp(1.0, int(rng.integer(-1, dtype == DType::f16 ? 2 : 8))); };
    for (Values& v : problem_.inputs) fill_records(rng, v, symmetry(), scale());
    for (Values& v : problem_.parameters) fill_symmetric(rng, v, symmetry(), scale());
    weights_symmetry_ = symmetry();
    for (const Held& h : problem_.held) held_.push_back(*h);
    owned_.emplace(ctx, problem_, dtype);
    parameters_ = owned_->pointers();
    for (const Values& v : problem_.inputs)
      if (v.shape.numel(1, v.shape.rank()) > 0) {
        const Shape shape{v.shape.numel(1, v.shape.rank())};
        probes_.push_back(std::make_unique<dpmp::Parameter>(ctx, "input " + std::to_string(probes_.size()),
                                                            dpmp::Tensor::zeros(ctx, shape, accumulate_dtype(dtype)),
                                                            dtype));
        parameters_.push_back(probes_.back().get());
      }
  }
  index_t records() const override { return problem_.samples; }  // and slots: forward knows of no others
  const Parameters& parameters() const override { return parameters_; }
  dpmp::Variable record(dpmp::Tape& tape, const Arrangement& slots) const override {
    for (std::size_t k = 0; k < held_.size(); ++k) {
      problem_.held[k]->ids = arranged(held_[k].ids, records(), slots);
      problem_.held[k]->numbers = arranged(held_[k].numbers, records(), slots);
    }
    Variables inputs;
    std::size_t probe = 0;
    for (const Values& v : problem_.inputs) {
      inputs.push_back(tape.input(dpmp::Tensor::from(ctx_, v.shape, dtype_, arranged(v.values, records(), slots))));
      if (v.shape.numel(1, v.shape.rank()) > 0)
        inputs.back() =
            tape.record(inputs.back().value(), true, GradientProbe{inputs.back().slot(), probes_[probe++].get()});
    }
    Variable losses;
    Rng rng(seed_, 3);
    for (const Variable& output : problem_.forward(tape, inputs, owned_->pointers())) {
      Values of_record{Shape{1}, {}};
      for (int k = 1; k < output.shape().rank(); ++k) of_record.shape.push_back(output.shape()[k]);
      of_record.values.resize(std::size_t(of_record.shape.numel()));
      fill_symmetric(rng, of_record, weights_symmetry_, 1);
      std::vector<double> weights;
      for (index_t i = 0; i < tape.samples(); ++i)
        weights.insert(weights.end(), of_record.values.begin(), of_record.values.end());
      const Variable term = dpmp::weighted_sum(squares_ ? multiply(output, output) : output, weights);
      losses = losses.value().defined() ? add(losses, term) : term;
    }
    return losses;
  }

 private:
  dpmp::Context& ctx_;
  Problem problem_;
  DType dtype_;
  bool squares_;
  std::uint64_t seed_;
  Symmetry weights_symmetry_;
  std::vector<HeldRows> held_;
  std::optional<OwnedParameters> owned_;
  std::vector<std::unique_ptr<dpmp::Parameter>> probes_;
  Parameters parameters_;
};
}  // namespace test

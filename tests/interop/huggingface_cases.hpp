// SPDX-License-Identifier: Apache-2.0
// The models of tests/interop/data/huggingface, which transformers saved and computed with (record_huggingface.py).
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "dpmp/interop/huggingface.hpp"
#include "dpmp/nn/parameters.hpp"
#include "dpmp/per_sample/group_pass.hpp"
#include "support/source_folder.hpp"

namespace test {
inline std::filesystem::path case_folder(const std::string& name) {
  return source_folder() / "tests/interop/data/huggingface" / name;
}

/// What goes into a model, and what transformers got.
class Expected {
 public:
  Expected(dpmp::Context& ctx, const std::string& name) : ctx_(ctx), file_(case_folder(name) / "expected.safetensors") {}
  bool has(const std::string& name) const { return file_.contains(name); }
  dpmp::Tensor integers(const std::string& name) const {
    if (!has(name)) return dpmp::Tensor();
    dpmp::Tensor t = dpmp::Tensor::empty(ctx_, dpmp::Shape(file_.entry(name).shape), dpmp::DType::i32);
    file_.read(name, dpmp::DType::i32, t.shape(), t.raw());
    return t;
  }
  std::vector<double> numbers(const std::string& name) const {
    const dpmp::Shape shape(file_.entry(name).shape);
    std::vector<double> values(static_cast<std::size_t>(shape.numel()));
    file_.read(name, dpmp::DType::f64, shape, values.data());
    return values;
  }

 private:
  dpmp::Context& ctx_;
  dpmp::interop::SafetensorsFile file_;
};

/// The largest difference, as a share of the largest expected value; rows of `width` of tokens that are padding do not
/// count.
inline double relative_difference(const std::vector<double>& got, const std::vector<double>& want,
                                  const dpmp::Tensor& keep = {}) {
  double difference = got.size() == want.size() ? 0 : INFINITY, size = 0;
  for (std::size_t k = 0; k < std::min(got.size(), want.size()); ++k) {
    if (keep.defined()) {
      const std::size_t width = want.size() / std::size_t(keep.numel());
      if (keep.host_data<std::int32_t>()[k / width] == 0) continue;
    }
    if (!std::isfinite(got[k])) return INFINITY;
    difference = std::max(difference, std::abs(got[k] - want[k]));
    size = std::max(size, std::abs(want[k]));
  }
  return difference / size;
}

/// The norm of each sample's gradient, from losses(tape) of all samples.
template <class Losses>
std::vector<double> gradient_norms(dpmp::Context& ctx, dpmp::index_t samples, const Losses& losses) {
  dpmp::per_sample::BookKeepingSink pass;
  dpmp::Tape tape(ctx, samples);
  tape.backward(losses(tape), pass);
  const dpmp::per_sample::NormBounds bounds = pass.norms(ctx, samples);
  std::vector<double> norms;
  for (dpmp::index_t i = 0; i < samples; ++i) norms.push_back(bounds.norm(i));
  return norms;
}

// A forward pass of these models is a chain of about 40 operations (two blocks). Each forms sums of at most 40 terms of
// order one, so an error of at most 40 u of the largest value in it, u = 2^-53 or 2^-24; and what the next one makes of an
// error that came in is at most twice as large in the norms and branches of these models' scale, of which the residual
// stream takes a share only. With growth by 2 in each of the 4 branches: 40 * 40 * 2^4 u on both sides.
inline constexpr double bound_f64 = 2 * 40 * 40 * 16 * 0x1p-53;
// Of recorded numbers and one program: what transformers computes in float32 is within 10^-6 of its float64 here.
inline constexpr double bound_f32 = 1e-4;
}  // namespace test

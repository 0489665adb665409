// SPDX-License-Identifier: Apache-2.0
// What 16 bits lose of the gradient of one record of a language model.
#pragma once
#include <cmath>
#include <cstdio>
#include <dpmp/dpmp.hpp>
#include <string>
#include <vector>

namespace bench {
using namespace dpmp;

/// What one record adds to the sums of each parameter where nothing is clipped.
inline std::vector<std::vector<double>> gradient_of(Context& ctx, const nn::Transformer& model, train::Losses losses,
                                                    index_t record, const LossScaling& scaling) {
  per_sample::ClippedSumSink sink(per_sample::Groups::flat(model.parameters().all()), {});
  per_sample::GradientSums sums(ctx, model.parameters().all());
  Tape tape(ctx, 1);
  const Variable loss = losses({tape, std::span(&record, 1)});
  const auto all = [](index_t, const per_sample::NormBounds&) { return std::vector<float>{1.0f}; };
  per_sample::clipped_backward(tape, loss, Tensor(), sink, all, sums, scaling);
  std::vector<std::vector<double>> values;
  for (const Tensor& t : sums.tensors()) values.push_back(t.to_doubles());
  return values;
}

/// How far a record's gradient is from that in f32.
class LostGradient {
 public:
  void add(const std::string& name, const std::vector<double>& exact, const std::vector<double>& here) {
    double difference = 0, all = 0;
    for (std::size_t k = 0; k < exact.size(); ++k) {
      difference += (here[k] - exact[k]) * (here[k] - exact[k]);
      all += exact[k] * exact[k];
      values_ += exact[k] != 0;
      zeros_ += exact[k] != 0 && here[k] == 0;
    }
    if (const double share = std::sqrt(difference / all); all > 0 && share > worst_) worst_ = share, name_ = name;
    difference_ += difference;
    all_ += all;
  }
  void print() const {
    std::printf(" %.4f | %.3f (%s) | %.2f %% |", std::sqrt(difference_ / all_), worst_, name_.c_str(),
                100 * double(zeros_) / double(values_));
  }

 private:
  double difference_ = 0, all_ = 0, worst_ = 0;
  index_t values_ = 0, zeros_ = 0;
  std::string name_;
};
}  // namespace bench

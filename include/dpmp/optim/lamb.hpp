// SPDX-License-Identifier: Apache-2.0
// The second and third pass of LAMB over a parameter, after that over its moments: norms, then the move.
#pragma once
#include <span>

#include "dpmp/autograd/parameter.hpp"
#include "dpmp/kernels/lamb.hpp"
#include "dpmp/runtime/launch.hpp"

namespace dpmp::inline DPMP_ABI::optim::detail {
/// Memory for the norms of a model's parameters, made once: a step allocates nothing.
class LambNorms {
 public:
  LambNorms() = default;
  LambNorms(Context& ctx, std::span<Parameter* const> parameters);

  /// p, number `place` of the constructor's: norms of weights and direction in a fixed order, whatever the threads, then the
  /// weights and their copy in T.
  template <class T>
  void move(Context& ctx, Parameter& p, index_t place, const kernels::LambDirection<compute_t<T>>& direction,
            compute_t<T> rate_factor, const kernels::UpdateNumbers* numbers) const {
    using R = compute_t<T>;
    using Squares = kernels::LambSquares<R>;
    const index_t n = p.numel(), rows = rows_of(n);
    double* ratio = ratios_.data<double>() + place;
    launch_library_rows(ctx, rows, Squares::width,
                        Squares{direction, p.master().template data<R>(), n, rows, numbers, squares_.data<double>()});
    launch_library_rows(ctx, 1, rows, kernels::LambTrustRatio{squares_.data<double>(), rows, ratio});
    launch_library_elements(ctx, n,
                            kernels::LambMove<R, T>{direction, p.master().template data<R>(), p.value().template data<T>(),
                                                    rate_factor, numbers, ratio});
  }

 private:
  static index_t rows_of(index_t n) {
    constexpr index_t width = kernels::LambSquares<float>::width;
    return (n + width - 1) / width;
  }
  Tensor squares_;  // of one parameter at a time
  Tensor ratios_;
};
}  // namespace dpmp::inline DPMP_ABI::optim::detail

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::optim::detail {
DPMP_KEPT_BODY inline LambNorms::LambNorms(Context& ctx, std::span<Parameter* const> parameters) {
  const MemoryLabel label(ctx.arena(), "optimiser state");
  index_t most = 1;
  for (const Parameter* p : parameters) most = std::max(most, rows_of(p->numel()));
  squares_ = Tensor::zeros(ctx, {2, most}, DType::f64);
  ratios_ = Tensor::zeros(ctx, {index_t(parameters.size())}, DType::f64);
}
}  // namespace dpmp::inline DPMP_ABI::optim::detail
#endif

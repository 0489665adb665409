// SPDX-License-Identifier: Apache-2.0
// Products by Eigen (GemmBackend::eigen), for comparisons: in programs that include this header, and in all that link
// dpmp::compiled. The only file that includes Eigen; no Eigen type leaves it, because their alignment depends on -march.
#pragma once
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // both: GCC 12 about its own AVX-512 intrinsics
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <Eigen/Core>

#include "dpmp/gemm/blocked_product.hpp"
#include "dpmp/gemm/host.hpp"
#include "dpmp/gemm/openmp_scope.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// A leaf of run_blocked; T is float or double.
struct EigenLeaf {
  static constexpr const char* name = "Eigen";

  template <class T>
  static void multiply(const Product<T>& p) {
    using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using Stride = Eigen::OuterStride<>;
    const OpenMpScope one(1);
    const Eigen::Map<const Matrix, 0, Stride> a(p.a, p.a_transposed ? p.k : p.m, p.a_transposed ? p.m : p.k,
                                                Stride(p.a_stride));
    const Eigen::Map<const Matrix, 0, Stride> b(p.b, p.b_transposed ? p.n : p.k, p.b_transposed ? p.k : p.n,
                                                Stride(p.b_stride));
    Eigen::Map<Matrix, 0, Stride> c(p.c, p.m, p.n, Stride(p.c_stride));
    const T alpha = T(p.alpha);
    if (!p.accumulate) c.setZero();
    if (p.m == 1 && p.n == 1) {  // here Eigen would multiply an operand by alpha
      const auto dot = [&](const auto& x, const auto& y) { return x.dot(y); };
      const auto right = [&](const auto& x) { return p.b_transposed ? dot(x, b.row(0).transpose()) : dot(x, b.col(0)); };
      c(0, 0) += alpha * (p.a_transposed ? right(a.col(0)) : right(a.row(0).transpose()));
      return;
    }
    const auto store = [&](const auto& product) { c.noalias() += alpha * product; };
    if (p.a_transposed && p.b_transposed)
      store(a.transpose() * b.transpose());
    else if (p.a_transposed)
      store(a.transpose() * b);
    else if (p.b_transposed)
      store(a * b.transpose());
    else
      store(a * b);
  }
  /// The instruction sets Eigen was compiled for in this translation unit.
  static const char* instruction_sets() { return Eigen::SimdInstructionSetsInUse(); }
};
/// Makes the back end known to gemm() when the program starts.
inline const bool eigen_is_there = [] {
  eigen_product = &run_blocked<EigenLeaf>;
  return true;
}();
}  // namespace dpmp::inline DPMP_ABI::detail
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

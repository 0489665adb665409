// SPDX-License-Identifier: Apache-2.0
// Sums over the tokens of each sample that a kernel makes slice by slice: where it writes them, how slices become whole
// sums, and the squared norms of these.
#pragma once
#include <optional>

#include "dpmp/kernels/token_slices.hpp"
#include "dpmp/runtime/launch.hpp"
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI {
/// Who takes the squared norms of whole sums: the kernel, where a sample is one slice, and else join; join in any case (the
/// kernel does not know how); or nobody.
enum class TokenSquares : std::uint8_t { by_kernel, by_join, none };

/// What is summed. Extents of the data, not of what is allocated.
struct TokenSumsSpec {
  index_t samples = 0, tokens = 0, width = 0;
  index_t arrays = 1;        ///< sums of that many arrays, made by one kernel
  DType dtype = DType::f32;  ///< of the sums: the accumulate dtype of the data's, f32 or f64
  /// How many slices the kernel cuts a sample into, 0 where there are no tokens; not set: it takes slices().
  std::optional<index_t> slices = {};
  TokenSquares squares = TokenSquares::by_kernel;
  /// False: nothing is to be summed. No memory, and a slice for each token, because none waits for another.
  bool wanted = true;
};

/// The sums of a spec: construct it, run a kernel that writes to sums() and squares(), then join().
class TokenSums {
 public:
  TokenSums(Context& ctx, const TokenSumsSpec& spec);

  /// For the kernel: a row of its launch is a slice, rows() in all.
  const kernels::TokenSlices& slices() const { return slices_; }
  index_t rows() const { return spec_.samples * slices_.count; }
  /// Where it writes array k, [samples, slices, width] of R, the type of the spec's dtype; null where nothing is wanted.
  template <class R>
  R* sums(index_t k = 0) const {
    return sums_.defined() ? sums_.data<R>() + k * rows() * spec_.width : nullptr;
  }
  /// Where it writes the squared norms [samples] of array k; null where it has no whole sums, or is not asked for them.
  double* squares(index_t k = 0) const {
    const bool asked = squares_.defined() && spec_.squares == TokenSquares::by_kernel && slices_.count == 1;
    return asked ? squares_.data<double>() + k * spec_.samples : nullptr;
  }

  /// After the kernel: adds the slices up, in their order, and takes the squared norms that it has not taken.
  void join(Context& ctx);
  /// Instead, for one array without squares: the whole sums, rounded once, to [samples, width] of Out elsewhere. R: as
  /// above.
  template <class R, class Out>
  void join_into(Context& ctx, Out* sums) const {
    join_slices<R, Out>(ctx, spec_.samples, sums, nullptr);
  }
  /// After join: array k, [samples, width], and its squared norms [samples] in f64, or Tensor() where nobody takes them.
  Tensor whole(index_t k = 0) const { return sums_.rows(k, k + 1).reshaped({spec_.samples, spec_.width}); }
  Tensor whole_squares(index_t k = 0) const {
    return squares_.defined() ? squares_.rows(k, k + 1).reshaped({spec_.samples}) : Tensor();
  }

 private:
  template <class R, class Out>
  void join_slices(Context& ctx, index_t rows, Out* sums, double* squares) const {
    launch_library_rows(ctx, rows, slices_.count * spec_.width,
                        kernels::JoinSlices<R, Out>{sums_.data<R>(), sums, squares, slices_.count, spec_.width});
  }
  TokenSumsSpec spec_;
  kernels::TokenSlices slices_;
  Tensor sums_, squares_;  // [arrays, samples, slices, width], 1 slice after join; [arrays, samples]
};
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
namespace detail {
/// A GPU has to be filled; on a CPU the samples do that.
inline kernels::TokenSlices token_slices_of(const Context& ctx, const TokenSumsSpec& spec) {
  if (!spec.wanted) return {std::max<index_t>(spec.tokens, 1), 1};
  if (spec.slices) {
    const index_t count = *spec.slices;
    return {count, (spec.tokens + count - 1) / std::max<index_t>(count, 1)};
  }
  return ctx.on_cuda() ? kernels::token_slices(spec.samples, spec.tokens, rows_that_fill_device(ctx))
                       : kernels::fixed_token_slices(spec.tokens);
}
}  // namespace detail

DPMP_KEPT_BODY inline TokenSums::TokenSums(Context& ctx, const TokenSumsSpec& spec)
    : spec_(spec), slices_(detail::token_slices_of(ctx, spec)) {
  if (!spec.wanted) return;
  sums_ = Tensor::empty(ctx, {spec.arrays, spec.samples, slices_.count, spec.width}, spec.dtype);
  if (spec.squares != TokenSquares::none) squares_ = Tensor::empty(ctx, {spec.arrays, spec.samples}, DType::f64);
}

DPMP_KEPT_BODY inline void TokenSums::join(Context& ctx) {
  if (!spec_.wanted || (slices_.count == 1 && spec_.squares != TokenSquares::by_join)) return;
  const Tensor whole = Tensor::empty(ctx, {spec_.arrays, spec_.samples, 1, spec_.width}, spec_.dtype);
  dispatch_real(spec_.dtype, [&](auto tag) {
    using R = typename decltype(tag)::type;
    if constexpr (std::is_same_v<R, compute_t<R>>)
      join_slices<R, R>(ctx, spec_.arrays * spec_.samples, whole.data<R>(),
                        squares_.defined() ? squares_.data<double>() : nullptr);
  });
  sums_ = whole;
}
}  // namespace dpmp::inline DPMP_ABI
#endif

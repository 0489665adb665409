// SPDX-License-Identifier: Apache-2.0
// The gradients of a tape's values while it is walked: the shares that the uses of a value give, and their sum.
#pragma once
#include <utility>
#include <vector>

#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI {
class SlotGradients {
 public:
  /// One more value. needed: somebody wants its gradient. leaf: the gradient stays after the walk.
  void add(DType dtype, bool needed, bool leaf) { slots_.push_back({{}, {}, 0, dtype, needed, leaf}); }
  bool needed(index_t slot) const { return at(slot).needed; }
  bool leaf(index_t slot) const { return at(slot).leaf; }

  /// Starts a walk from this gradient of one value.
  void start(index_t slot, Tensor gradient);
  /// Shares in 16 bits are added up in FP32 and rounded once.
  void give(Context& ctx, index_t slot, const Tensor& share);
  /// What was given, which leaves the slot; Tensor(): nothing, or more than one share in 16 bits, which stay.
  Tensor take(index_t slot);
  /// The sum of the shares (Tensor(): there are none), which leaves the slot.
  Tensor collect(Context& ctx, index_t slot);
  /// Forgets what values in 16 bits were given; whether there was any.
  bool drop_narrow();
  /// Ends a walk: the gradients of the leaves are what is left.
  void finish(Context& ctx);
  /// Of a leaf after a walk; Tensor(): it got none.
  const Tensor& of_leaf(index_t slot) const { return at(slot).gradient; }

 private:
  struct Slot {
    // What was given so far. In 16 bits a second share waits: two are added and rounded at once where the sum is asked for;
    // with a third one `gradient` becomes their sum in FP32.
    Tensor gradient, second;
    index_t shares = 0;
    DType dtype = DType::f32;
    bool needed = false, leaf = false;
  };
  const Slot& at(index_t slot) const { return slots_[std::size_t(slot)]; }
  /// To the sum of a slot that has two 16-bit shares, or a sum in FP32 already.
  void add_in_fp32(Context& ctx, Slot& slot, const Tensor& share);
  std::vector<Slot> slots_;
};
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/elementwise.hpp"
#include "dpmp/runtime/launch.hpp"

namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline void SlotGradients::start(index_t slot, Tensor gradient) {
  for (Slot& s : slots_) s.gradient = s.second = Tensor(), s.shares = 0;
  slots_[std::size_t(slot)].gradient = std::move(gradient);
}

DPMP_KEPT_BODY inline void SlotGradients::give(Context& ctx, index_t index, const Tensor& share) {
  Slot& slot = slots_[std::size_t(index)];
  const bool narrow = size_of(share.dtype()) == 2;
  ++slot.shares;
  if (!slot.gradient.defined()) {
    slot.gradient = share;
  } else if (narrow && (slot.second.defined() || slot.gradient.dtype() != share.dtype())) {
    add_in_fp32(ctx, slot, share);
  } else {
    slot.second = share;
    if (!narrow) slot.gradient = collect(ctx, index);
  }
}

DPMP_KEPT_BODY inline Tensor SlotGradients::take(index_t index) {
  Slot& slot = slots_[std::size_t(index)];
  // A total that was handed in is a share that was rounded: it is not taken again.
  if (size_of(slot.dtype) == 2 && slot.shares > 1) return Tensor();
  return std::exchange(slot.gradient, Tensor());
}

DPMP_KEPT_BODY inline void SlotGradients::add_in_fp32(Context& ctx, Slot& slot, const Tensor& share) {
  const Tensor sum = slot.second.defined() ? Tensor::empty(ctx, share.shape(), DType::f32) : slot.gradient;
  dispatch_real(share.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (sizeof(T) == 2) {
      if (slot.second.defined())
        launch_library_elements(
            ctx, share.numel(),
            kernels::SumOfThree<T>{slot.gradient.data<T>(), slot.second.data<T>(), share.data<T>(), sum.data<float>()});
      else
        launch_library_elements(ctx, share.numel(), kernels::AddTo<T>{share.data<T>(), sum.data<float>()});
    }
  });
  slot.gradient = sum;
  slot.second = Tensor();
}

DPMP_KEPT_BODY inline Tensor SlotGradients::collect(Context& ctx, index_t index) {
  Slot& slot = slots_[std::size_t(index)];
  const Tensor first = std::exchange(slot.gradient, Tensor()), second = std::exchange(slot.second, Tensor());
  const bool in_fp32 = first.defined() && first.dtype() != slot.dtype;
  if (!in_fp32 && !second.defined()) return first;
  // A shared buffer may be a kept site's or another slot's gradient: then the sum needs a place of its own.
  const Tensor sum = !in_fp32 && !first.shared()    ? first
                     : !in_fp32 && !second.shared() ? second
                                                    : Tensor::empty(ctx, first.shape(), slot.dtype);
  dispatch_real(slot.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (sizeof(T) == 2)
      if (in_fp32)
        return launch_library_elements(ctx, sum.numel(), kernels::Cast<float, T>{first.data<float>(), sum.data<T>()});
    launch_library_elements(ctx, sum.numel(), kernels::Add<T>{first.data<T>(), second.data<T>(), sum.data<T>()});
  });
  return sum;
}

DPMP_KEPT_BODY inline bool SlotGradients::drop_narrow() {
  bool any = false;
  for (Slot& s : slots_) {
    if (size_of(s.dtype) != 2 || !s.gradient.defined()) continue;
    s.gradient = s.second = Tensor();
    any = true;
  }
  return any;
}

DPMP_KEPT_BODY inline void SlotGradients::finish(Context& ctx) {
  for (index_t k = 0; k < index_t(slots_.size()); ++k)
    if (leaf(k)) slots_[std::size_t(k)].gradient = collect(ctx, k);
}
}  // namespace dpmp::inline DPMP_ABI
#endif

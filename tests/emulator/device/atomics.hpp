// SPDX-License-Identifier: Apache-2.0
// atom and red: one compare-and-swap loop on host memory. Blocks may run on several host threads.
#pragma once
#include "floats.hpp"

/// Replaces the value at p by update(old value) in one step; returns the old value.
template <class T, class F>
EMU_INLINE T read_modify_write(uint8_t* p, F update) {
  typedef std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>> Bits;
  Bits expected = __atomic_load_n((Bits*)p, __ATOMIC_RELAXED), desired;
  T old;
  do {
    memcpy(&old, &expected, sizeof old);
    const T value = update(old);
    memcpy(&desired, &value, sizeof desired);
  } while (!__atomic_compare_exchange_n((Bits*)p, &expected, desired, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
  return old;
}

/// atom.add.f32: global memory flushes subnormal inputs and results, shared memory does not.
EMU_INLINE float add_atomic(float old, float x, bool flushes) { return flushes ? flush(flush(old) + flush(x)) : old + x; }

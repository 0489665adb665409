// SPDX-License-Identifier: Apache-2.0
// Registers as C++ variables: PTX lets an instruction read a register of its size as any type, so values are moved as bits.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

#define EMU_INLINE static inline __attribute__((always_inline))
#define EMU_LIKELY(x) __builtin_expect(!!(x), 1)

// Executed instructions by class; only in builds that count.
#ifdef EMU_COUNT
#define COUNT(kind) (C->cnt[kind]++)
#else
#define COUNT(kind) ((void)0)
#endif

/// Value as T: the same bits where sizes agree, else a C++ conversion of integers.
template <class T, class S>
EMU_INLINE T reg_as(S value) {
  if constexpr (sizeof(T) == sizeof(S)) {
    T result;
    memcpy(&result, &value, sizeof result);
    return result;
  } else {
    return (T)value;
  }
}

/// Stores bits of a value in a register; into a wider register zero-extended (floats) or as C++ converts it (integers).
template <class D, class S>
EMU_INLINE void set_reg(D& target, S value) {
  if constexpr (sizeof(D) == sizeof(S)) {
    memcpy(&target, &value, sizeof target);
  } else if constexpr (std::is_floating_point<S>::value) {
    std::conditional_t<sizeof(S) == 4, uint32_t, uint64_t> bits;
    memcpy(&bits, &value, sizeof bits);
    target = (D)bits;
  } else {
    target = (D)value;
  }
}

/// Converts to T first: a load or cvt to a signed type sign-extends into a wider register.
template <class T, class D, class S>
EMU_INLINE void set_reg_as(D& target, S value) {
  T converted;
  if constexpr (sizeof(T) == sizeof(S))
    memcpy(&converted, &value, sizeof converted);
  else
    converted = (T)value;
  set_reg(target, converted);
}

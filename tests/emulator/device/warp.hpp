// SPDX-License-Identifier: Apache-2.0
// Warp collectives. Each lane hands its operands to emu_coll, which waits for all lanes of the member mask and then calls
// a function once that computes the results of all; in[l] and out[l] belong to lane l.
// ("Data Movement and Conversion Instructions: shfl.sync", "Parallel Synchronization and Communication Instructions:
// vote.sync, match.sync, redux.sync")
#pragma once
#include "emu_abi.h"
#include "registers.hpp"

struct ShuffleIn {
  uint32_t value, lane, clamp;
};
struct ShuffleOut {
  uint32_t value, in_range;
};

/// The ISA's pseudo-code of shfl.sync; MODE: 0 idx, 1 up, 2 down, 3 bfly. clamp holds the lane limit in bits 0..4 and
/// the segment mask in bits 8..12. Reading a lane that is not in the mask is undefined: all ones.
template <int MODE>
static void shuffle_all(uint32_t mask, const void* const* in, void* const* out) {
  for (int lane = 0; lane < 32; lane++) {
    if (!(mask >> lane & 1)) continue;
    const ShuffleIn& x = *(const ShuffleIn*)in[lane];
    const int b = x.lane & 31, limit = x.clamp & 31, segment = x.clamp >> 8 & 31;
    const int last = (lane & segment) | (limit & ~segment), first = lane & segment;
    int source;
    bool in_range;
    switch (MODE) {
      case 1: source = lane - b, in_range = source >= last; break;
      case 2: source = lane + b, in_range = source <= last; break;
      case 3: source = lane ^ b, in_range = source <= last; break;
      default: source = first | (b & ~segment), in_range = source <= last;
    }
    if (!in_range) source = lane;
    ShuffleOut& r = *(ShuffleOut*)out[lane];
    r.in_range = in_range;
    r.value = mask >> source & 1 ? ((const ShuffleIn*)in[source])->value : 0xFFFFFFFFu;
  }
}
template <int MODE>
EMU_INLINE bool shuffle(EmuCtx* C, EmuThread* T, uint32_t site, uint32_t mask, uint32_t value, uint32_t lane, uint32_t clamp,
                        uint32_t& result) {
  const ShuffleIn in{value, lane, clamp};
  ShuffleOut out{value, 0};
  emu_coll(C, T, mask, shuffle_all<MODE>, &in, &out, site, 0);
  result = out.value;
  return out.in_range;
}

/// One bit for each lane of the mask whose predicate holds.
static void vote_all(uint32_t mask, const void* const* in, void* const* out) {
  uint32_t votes = 0;
  for (int l = 0; l < 32; l++)
    if ((mask >> l & 1) && *(const uint32_t*)in[l]) votes |= 1u << l;
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1) *(uint32_t*)out[l] = votes;
}
EMU_INLINE uint32_t ballot(EmuCtx* C, EmuThread* T, uint32_t site, uint32_t mask, uint32_t predicate) {
  uint32_t votes = 0;
  emu_coll(C, T, mask, vote_all, &predicate, &votes, site, 0);
  return votes;
}

/// For each lane, the lanes of the mask that hold the same value.
template <class V>
static void match_all(uint32_t mask, const void* const* in, void* const* out) {
  for (int l = 0; l < 32; l++) {
    if (!(mask >> l & 1)) continue;
    uint32_t same = 0;
    for (int j = 0; j < 32; j++)
      if ((mask >> j & 1) && *(const V*)in[j] == *(const V*)in[l]) same |= 1u << j;
    *(uint32_t*)out[l] = same;
  }
}
template <class V>
EMU_INLINE uint32_t match_lanes(EmuCtx* C, EmuThread* T, uint32_t site, uint32_t mask, V value) {
  uint32_t same = 0;
  emu_coll(C, T, mask, match_all<V>, &value, &same, site, 0);
  return same;
}

/// OPERATION: 0 add, 1 min, 2 max, 3 and, 4 or, 5 xor.
template <int OPERATION, class V>
EMU_INLINE V combined(V a, V b) {
  switch (OPERATION) {
    case 0: return (V)((uint32_t)a + (uint32_t)b);
    case 1: return b < a ? b : a;
    case 2: return b > a ? b : a;
    case 3: return (V)(a & b);
    case 4: return (V)(a | b);
    default: return (V)(a ^ b);
  }
}
template <int OPERATION, class V>
static void reduce_all(uint32_t mask, const void* const* in, void* const* out) {
  int lane = __builtin_ctz(mask);
  V total = *(const V*)in[lane];
  for (lane++; lane < 32; lane++)
    if (mask >> lane & 1) total = combined<OPERATION>(total, *(const V*)in[lane]);
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1) *(V*)out[l] = total;
}
template <int OPERATION, class V>
EMU_INLINE V reduce_lanes(EmuCtx* C, EmuThread* T, uint32_t site, uint32_t mask, V value) {
  V total = 0;
  emu_coll(C, T, mask, reduce_all<OPERATION, V>, &value, &total, site, 0);
  return total;
}

/// bar.warp.sync: lanes meet, and memory is ordered among them.
static void nothing(uint32_t, const void* const*, void* const*) {}
EMU_INLINE void sync_warp(EmuCtx* C, EmuThread* T, uint32_t site, uint32_t mask) {
  int unused = 0;
  emu_coll(C, T, mask, nothing, &unused, &unused, site, 1);
}

/// In loops that wait for other threads: lets them run now and then.
EMU_INLINE void spin_hint(EmuCtx* C, EmuThread* T) {
  if (++T->spin > 256) {
    T->spin = 0;
    emu_yield(C, T);
  }
}

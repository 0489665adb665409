// SPDX-License-Identifier: Apache-2.0
// Checked pointers. Template arguments: bytes of the access (a power of two) and its EMU_* flags.
#pragma once
#include "emu_abi.h"
#include "registers.hpp"

/// Whether a generic address lies in a thread-private window (local memory, parameters), where no race can be.
EMU_INLINE bool is_private_address(uint64_t a) { return (a >> 40) == (EMU_LWIN >> 40) || (a >> 40) == (EMU_PWIN >> 40); }
EMU_INLINE bool is_shared_address(uint64_t a) { return (a >> 40) == (EMU_SWIN >> 40); }

// What the race detector and the counters learn of an access by generic address.
#if defined(EMU_RACE) || defined(EMU_COUNT)
template <int N, int FLAGS>
EMU_INLINE void observe_generic(EmuCtx* C, EmuThread* T, uint64_t a, uint32_t site) {
  if (is_private_address(a)) return;
  const bool shared = is_shared_address(a);
  const uint64_t key = shared ? a - EMU_SWIN : a;
  const int flags = shared ? FLAGS | EMU_SH : FLAGS;
#if defined(EMU_RACE)
  emu_race(C, T, key, N, site, flags);
#endif
#if defined(EMU_COUNT)
  emu_note(C, T, key, N, site, flags);
#endif
}
#endif

/// Global or generic address. Each instruction remembers the region it hit last; another one takes the slow path.
template <int N, int FLAGS>
EMU_INLINE uint8_t* at_global(EmuCtx* C, EmuThread* T, uint64_t a, uint32_t site) {
  if (N > 1 && (a & (N - 1))) emu_fail(C, T, site, "misaligned address");
  const EmuSite& s = C->sites[site];
  uint8_t* p = EMU_LIKELY(a - s.lo <= s.m) ? (uint8_t*)(a + s.delta) : emu_resolve(C, T, a, N, site, FLAGS);
#if defined(EMU_RACE) || defined(EMU_COUNT)
  observe_generic<N, FLAGS>(C, T, a, site);
#endif
  return p;
}

/// Offset in the block's shared memory.
template <int N, int FLAGS>
EMU_INLINE uint8_t* at_shared(EmuCtx* C, EmuThread* T, uint64_t a, uint32_t site) {
  a = (uint32_t)a;
  if (N > 1 && (a & (N - 1))) emu_fail(C, T, site, "misaligned shared address");
  if (!EMU_LIKELY(a + N <= C->smem_total)) emu_oob_shared(C, T, a, N, site);
#if defined(EMU_RACE)
  emu_race(C, T, a, N, site, FLAGS | EMU_SH);
#endif
#if defined(EMU_COUNT)
  emu_note(C, T, a, N, site, FLAGS | EMU_SH);
#endif
  return C->smem + a;
}

/// Offset in the thread's local memory, or an address in its generic window.
template <int N, int FLAGS>
EMU_INLINE uint8_t* at_local(EmuCtx* C, EmuThread* T, uint64_t a, uint32_t site) {
  if ((a >> 40) == (EMU_LWIN >> 40)) a -= EMU_LWIN;
  if (N > 1 && (a & (N - 1))) emu_fail(C, T, site, "misaligned local address");
  if (!EMU_LIKELY(a + N <= T->lsp)) emu_fail(C, T, site, "local memory access out of bounds");
  return T->lbase + a;
}

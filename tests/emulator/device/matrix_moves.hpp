// SPDX-License-Identifier: Apache-2.0
// 8x8 matrices of 16-bit elements between the registers of a warp and rows ("Warp-level matrix store instruction: stmatrix",
// "Warp-level matrix transpose instruction: movmatrix"); ldmatrix is in mma_model.hpp.
#pragma once
#include "emu_abi.h"
#include "fragments.hpp"
#include "registers.hpp"

struct MatrixRegisters {
  uint32_t word[4];
};
static inline uint16_t half_of(uint32_t word, int i) { return (uint16_t)(word >> 16 * i); }

/// Lane 8 m + r gets row r of matrix m, 16 bytes.
template <int COUNT_, bool TRANSPOSED>
static void collect_rows(uint32_t, const void* const* in, void* const* out) {
  for (int m = 0; m < COUNT_; m++) {
    for (int lane = 0; lane < 32; lane++) {
      for (int e = 0; e < 2; e++) {
        const fragments::Place p = fragments::place_in_8x8(lane, e, TRANSPOSED);
        ((uint16_t*)out[8 * m + p.row])[p.column] = half_of(((const MatrixRegisters*)in[lane])->word[m], e);
      }
    }
  }
}
EMU_INLINE void collect_row(EmuCtx* C, EmuThread* T, uint32_t site, int count, int transposed, const uint32_t* words,
                            uint32_t* row) {
  const EmuCollFn plain = count == 1 ? collect_rows<1, false> : count == 2 ? collect_rows<2, false> : collect_rows<4, false>;
  const EmuCollFn swapped = count == 1 ? collect_rows<1, true> : count == 2 ? collect_rows<2, true> : collect_rows<4, true>;
  emu_coll(C, T, ~0u, transposed ? swapped : plain, words, row, site, 0);
}

/// Element e of a lane moves to where the place with row and column swapped is held.
static void transpose_all(uint32_t, const void* const* in, void* const* out) {
  uint16_t matrix[8][8];
  for (int lane = 0; lane < 32; lane++) {
    for (int e = 0; e < 2; e++) {
      const fragments::Place p = fragments::place_in_8x8(lane, e, false);
      matrix[p.row][p.column] = half_of(*(const uint32_t*)in[lane], e);
    }
  }
  for (int lane = 0; lane < 32; lane++) {
    const fragments::Place low = fragments::place_in_8x8(lane, 0, true), high = fragments::place_in_8x8(lane, 1, true);
    *(uint32_t*)out[lane] = matrix[low.row][low.column] | (uint32_t)matrix[high.row][high.column] << 16;
  }
}
EMU_INLINE uint32_t transpose_8x8(EmuCtx* C, EmuThread* T, uint32_t site, uint32_t value) {
  uint32_t result = 0;
  emu_coll(C, T, ~0u, transpose_all, &value, &result, site, 0);
  return result;
}

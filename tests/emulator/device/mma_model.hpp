// SPDX-License-Identifier: Apache-2.0
// mma.sync and ldmatrix for a whole warp, as functions for emu_coll: gather the matrices from the lanes' fragments,
// multiply, scatter. Floating sums are done in double and rounded once; hardware rounds more often.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "fragments.hpp"
#include "halves.hpp"

namespace mma_model {

using fragments::Kind;
using fragments::Place;

struct Operands {  // registers of one lane
  uint32_t a[4], b[2], c[4];
};

/// Turns the CPU's flush mode off: tensor cores keep subnormals whatever .ftz says elsewhere in the kernel.
class KeepSubnormals {
 public:
  KeepSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ & ~0x8040u); }
  ~KeepSubnormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
};

// Element i of a fragment as double.
struct F16 {
  static constexpr Kind kind = Kind::bits16;
  static double element(const uint32_t* r, int i) { return half_to_float((uint16_t)(r[i >> 1] >> 16 * (i & 1))); }
};
struct BF16 {
  static constexpr Kind kind = Kind::bits16;
  static double element(const uint32_t* r, int i) { return bf16_to_float((uint16_t)(r[i >> 1] >> 16 * (i & 1))); }
};
struct TF32 {
  static constexpr Kind kind = Kind::tf32;
  static double element(const uint32_t* r, int i) { return float_of(r[i] & 0xffffe000u); }  // lower bits are not read
};

template <class Type, int K, bool HALF_SUM>
void multiply(uint32_t, const void* const* in, void* const* out) {
  KeepSubnormals guard;
  double a[16][K], b[K][8], sum[16][8] = {};
  for (int lane = 0; lane < 32; lane++) {
    const Operands& x = *(const Operands*)in[lane];
    for (int i = 0; i < fragments::elements_of_a(K); i++) {
      const Place p = fragments::place_in_a<Type::kind, K>(lane, i);
      a[p.row][p.column] = Type::element(x.a, i);
    }
    for (int i = 0; i < fragments::elements_of_b(K); i++) {
      const Place p = fragments::place_in_b<Type::kind, K>(lane, i);
      b[p.row][p.column] = Type::element(x.b, i);
    }
  }
  for (int i = 0; i < 16; i++)
    for (int k = 0; k < K; k++)
      for (int j = 0; j < 8; j++) sum[i][j] += a[i][k] * b[k][j];
  for (int lane = 0; lane < 32; lane++) {
    const Operands& x = *(const Operands*)in[lane];
    uint32_t d[4] = {};
    for (int i = 0; i < 4; i++) {
      const Place p = fragments::place_in_c(lane, i);
      if (HALF_SUM) {
        const double c = half_to_float((uint16_t)(x.c[i >> 1] >> 16 * (i & 1)));
        d[i >> 1] |= (uint32_t)double_to_half<RN>(c + sum[p.row][p.column]) << 16 * (i & 1);
      } else {
        d[i] = bits_of((float)(float_of(x.c[i]) + sum[p.row][p.column]));
      }
    }
    memcpy(out[lane], d, HALF_SUM ? 8 : 16);
  }
}

/// 8-bit integers, four to a register; sums wrap at 32 bits.
template <bool UNSIGNED_A, bool UNSIGNED_B, int K>
void multiply_int(uint32_t, const void* const* in, void* const* out) {
  int a[16][K], b[K][8];
  const auto element = [](const uint32_t* r, int i, bool is_unsigned) -> int {
    const uint8_t byte = (uint8_t)(r[i >> 2] >> 8 * (i & 3));
    return is_unsigned ? byte : (int8_t)byte;
  };
  for (int lane = 0; lane < 32; lane++) {
    const Operands& x = *(const Operands*)in[lane];
    for (int i = 0; i < fragments::elements_of_a(K); i++) {
      const Place p = fragments::place_in_a<Kind::bits8, K>(lane, i);
      a[p.row][p.column] = element(x.a, i, UNSIGNED_A);
    }
    for (int i = 0; i < fragments::elements_of_b(K); i++) {
      const Place p = fragments::place_in_b<Kind::bits8, K>(lane, i);
      b[p.row][p.column] = element(x.b, i, UNSIGNED_B);
    }
  }
  for (int lane = 0; lane < 32; lane++) {
    const Operands& x = *(const Operands*)in[lane];
    for (int i = 0; i < 4; i++) {
      const Place p = fragments::place_in_c(lane, i);
      uint32_t sum = x.c[i];
      for (int k = 0; k < K; k++) sum += (uint32_t)(a[p.row][k] * b[k][p.column]);
      ((uint32_t*)out[lane])[i] = sum;
    }
  }
}

/// COUNT 8x8 matrices of 16-bit elements; in[8 m + r] is a pointer to row r of matrix m.
template <int COUNT_, bool TRANSPOSED>
void load_matrices(uint32_t, const void* const* in, void* const* out) {
  for (int m = 0; m < COUNT_; m++) {
    for (int lane = 0; lane < 32; lane++) {
      uint32_t value = 0;
      for (int e = 0; e < 2; e++) {
        const Place p = fragments::place_in_8x8(lane, e, TRANSPOSED);
        const uint8_t* row = *(const uint8_t* const*)in[8 * m + p.row];
        uint16_t element;
        memcpy(&element, row + 2 * p.column, 2);
        value |= (uint32_t)element << 16 * e;
      }
      ((uint32_t*)out[lane])[m] = value;
    }
  }
}

}  // namespace mma_model

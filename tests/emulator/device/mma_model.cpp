// SPDX-License-Identifier: Apache-2.0
// The runtime's entry points for mma.sync and ldmatrix: pick the function for the shape, meet with the other lanes. Part of
// the runtime and not of each kernel, since it is large and the same for all.
#include "mma_model.hpp"

#include "emu_abi.h"

using namespace mma_model;

namespace {

EmuCollFn float_model(int type, int half_sum, int k) {
  if (type == 0 && half_sum) return k == 8 ? multiply<F16, 8, true> : multiply<F16, 16, true>;
  if (type == 0) return k == 8 ? multiply<F16, 8, false> : multiply<F16, 16, false>;
  if (type == 1) return k == 8 ? multiply<BF16, 8, false> : multiply<BF16, 16, false>;
  return k == 4 ? multiply<TF32, 4, false> : multiply<TF32, 8, false>;
}

template <int K>
EmuCollFn int_model(int unsigned_a, int unsigned_b) {
  if (unsigned_a) return unsigned_b ? multiply_int<true, true, K> : multiply_int<true, false, K>;
  return unsigned_b ? multiply_int<false, true, K> : multiply_int<false, false, K>;
}

template <int COUNT_>
EmuCollFn load_model(int transposed) {
  return transposed ? load_matrices<COUNT_, true> : load_matrices<COUNT_, false>;
}

Operands gather(const uint32_t* a, int a_registers, const uint32_t* b, int b_registers, const uint32_t* c, int c_registers) {
  Operands x = {};
  memcpy(x.a, a, 4 * a_registers);
  memcpy(x.b, b, 4 * b_registers);
  memcpy(x.c, c, 4 * c_registers);
  return x;
}

}  // namespace

extern "C" {

void emu_mma(EmuCtx* C, EmuThread* T, uint32_t site, int type, int acc, int k, uint32_t* d, const uint32_t* a,
             const uint32_t* b, const uint32_t* c) {
  const int per_register = type == 2 ? 1 : 2;
  const Operands x =
      gather(a, fragments::elements_of_a(k) / per_register, b, fragments::elements_of_b(k) / per_register, c, acc ? 2 : 4);
  emu_coll(C, T, ~0u, float_model(type, acc, k), &x, d, site, 0);
}

void emu_imma(EmuCtx* C, EmuThread* T, uint32_t site, int ua, int ub, int k, uint32_t* d, const uint32_t* a,
              const uint32_t* b, const uint32_t* c) {
  const Operands x = gather(a, fragments::elements_of_a(k) / 4, b, fragments::elements_of_b(k) / 4, c, 4);
  emu_coll(C, T, ~0u, k == 16 ? int_model<16>(ua, ub) : int_model<32>(ua, ub), &x, d, site, 0);
}

void emu_ldmatrix(EmuCtx* C, EmuThread* T, uint32_t site, int n, int trans, uint32_t* d, const uint8_t* row) {
  const EmuCollFn model = n == 1 ? load_model<1>(trans) : n == 2 ? load_model<2>(trans) : load_model<4>(trans);
  emu_coll(C, T, ~0u, model, &row, d, site, 0);
}
}

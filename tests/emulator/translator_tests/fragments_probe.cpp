// SPDX-License-Identifier: Apache-2.0
// The layout formulas of device/fragments.hpp as a C function: 64 * row + column of element i of a lane.
#include "fragments.hpp"

using namespace fragments;

namespace {

template <Kind KIND, int K>
Place place(char matrix, int lane, int i) {
  return matrix == 'a' ? place_in_a<KIND, K>(lane, i) : matrix == 'b' ? place_in_b<KIND, K>(lane, i) : place_in_c(lane, i);
}

}  // namespace

extern "C" int fragment_place(int bits, int k, char matrix, int lane, int i) {
  Place p = {-1, -1};
  if (bits == 16) p = k == 8 ? place<Kind::bits16, 8>(matrix, lane, i) : place<Kind::bits16, 16>(matrix, lane, i);
  if (bits == 32) p = k == 4 ? place<Kind::tf32, 4>(matrix, lane, i) : place<Kind::tf32, 8>(matrix, lane, i);
  if (bits == 8) p = k == 16 ? place<Kind::bits8, 16>(matrix, lane, i) : place<Kind::bits8, 32>(matrix, lane, i);
  return 64 * p.row + p.column;
}
extern "C" int matrix_8x8_place(int lane, int e, int transposed) {
  const Place p = place_in_8x8(lane, e, transposed);
  return 64 * p.row + p.column;
}

// SPDX-License-Identifier: Apache-2.0
// Which lane holds which element of a warp-level matrix: the row and column formulas that the PTX ISA gives for each shape
// ("Matrix Fragments for mma.m16n8k4", "... m16n8k8", "... m16n8k16 with floating point type", "... m16n8k16 with integer
// type", "... m16n8k32"; "Warp-level matrix load instruction: ldmatrix"). i counts the elements of a lane in order: register
// by register, low bits first.
#pragma once

namespace fragments {

struct Place {
  int row, column;
};
/// Element formats by what decides the layout.
enum class Kind { bits16, tf32, bits8 };

constexpr int group_of(int lane) { return lane >> 2; }
constexpr int place_in_group(int lane) { return lane % 4; }

/// Elements of A (16 x K) a lane holds.
constexpr int elements_of_a(int k) { return 16 * k / 32; }
/// Elements of B (K x 8) a lane holds.
constexpr int elements_of_b(int k) { return k * 8 / 32; }

template <Kind KIND, int K>
constexpr Place place_in_a(int lane, int i) {
  const int group = group_of(lane), t = place_in_group(lane);
  if (KIND == Kind::tf32) {
    if (K == 4) return {i == 0 ? group : group + 8, t};
    return {i == 0 || i == 2 ? group : group + 8, i < 2 ? t : t + 4};
  }
  if (KIND == Kind::bits8) {
    if (K == 16) return {i < 4 ? group : group + 8, t * 4 + (i & 3)};
    return {i < 4 || (i >= 8 && i < 12) ? group : group + 8, t * 4 + (i & 3) + (i >= 8 ? 16 : 0)};
  }
  if (K == 8) return {i < 2 ? group : group + 8, t * 2 + (i & 1)};
  return {i < 2 || (i >= 4 && i < 6) ? group : group + 8, t * 2 + (i & 1) + (i >= 4 ? 8 : 0)};
}

template <Kind KIND, int K>
constexpr Place place_in_b(int lane, int i) {
  const int group = group_of(lane), t = place_in_group(lane);
  if (KIND == Kind::tf32) return {i == 0 ? t : t + 4, group};
  if (KIND == Kind::bits8) return {t * 4 + (i & 3) + (i >= 4 ? 16 : 0), group};
  if (K == 8) return {t * 2 + i, group};
  return {t * 2 + (i & 1) + (i >= 2 ? 8 : 0), group};
}

/// C and D, 16 x 8, four elements a lane in all shapes.
constexpr Place place_in_c(int lane, int i) {
  return {i < 2 ? group_of(lane) : group_of(lane) + 8, place_in_group(lane) * 2 + (i & 1)};
}

/// ldmatrix: element e (0, 1) of a lane's register of an 8x8 matrix; .trans swaps row and column.
constexpr Place place_in_8x8(int lane, int e, bool transposed) {
  const int first = lane / 4, second = 2 * (lane % 4) + e;
  return transposed ? Place{second, first} : Place{first, second};
}

}  // namespace fragments

// SPDX-License-Identifier: Apache-2.0
// Our conversions against those of CUDA's headers, which run on the host too: no GPU is needed.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <doctest/doctest.h>
#include <cmath>
#include <cstring>

#include "dpmp/core/low_precision.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
template <class To, class From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(static_cast<void*>(&to), &from, sizeof to);
  return to;
}
template <class T>
struct Cuda;
template <>
struct Cuda<bf16> {
  static float widen(std::uint16_t bits) { return __bfloat162float(bits_as<__nv_bfloat16>(bits)); }
  static std::uint16_t narrow(float x) { return bits_as<std::uint16_t>(__float2bfloat16_rn(x)); }
};
template <>
struct Cuda<f16> {
  static float widen(std::uint16_t bits) { return __half2float(bits_as<__half>(bits)); }
  static std::uint16_t narrow(float x) { return bits_as<std::uint16_t>(__float2half_rn(x)); }
};

/// The same bits, or both NaN: CUDA gives every NaN one pattern.
template <class T>
bool narrows_alike(float x) {
  const std::uint16_t ours = from_float<T>(x).bits, theirs = Cuda<T>::narrow(x);
  if (std::isnan(x)) return std::isnan(to_float(T{ours})) && std::isnan(Cuda<T>::widen(theirs));
  return ours == theirs;
}
}  // namespace

TEST_CASE_TEMPLATE("conversions equal CUDA's for all 65,536 patterns and at every tie", T, bf16, f16) {
  int widened_otherwise = 0, narrowed_otherwise = 0;
  for (int bits = 0; bits < 0x10000; ++bits) {
    const float ours = to_float(T{std::uint16_t(bits)}), theirs = Cuda<T>::widen(std::uint16_t(bits));
    const bool alike =
        std::isnan(theirs) ? std::isnan(ours) : bits_as<std::uint32_t>(ours) == bits_as<std::uint32_t>(theirs);
    widened_otherwise += !alike;
    if (std::isnan(theirs) || std::isinf(theirs)) continue;
    const float next = to_float(T{std::uint16_t(bits + 1)}), tie = theirs + (next - theirs) / 2;
    for (float x : {theirs, tie, std::nextafter(tie, 0.0f), std::nextafter(tie, tie * 2)})
      narrowed_otherwise += !narrows_alike<T>(x);
  }
  CHECK(widened_otherwise == 0);
  CHECK(narrowed_otherwise == 0);
}

TEST_CASE_TEMPLATE("conversions equal CUDA's for random floats", T, bf16, f16) {
  test::Rng rng(test::seed());
  int otherwise = 0;
  for (int k = 0; k < 4'000'000; ++k) {
    const auto any = bits_as<float>(std::uint32_t(rng.bits()));
    const float small = std::ldexp(float(rng.uniform(-2, 2)), int(rng.integer(-27, 16)));
    otherwise += !narrows_alike<T>(any) + !narrows_alike<T>(small);
  }
  CHECK(otherwise == 0);
}

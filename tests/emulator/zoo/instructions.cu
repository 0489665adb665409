// SPDX-License-Identifier: Apache-2.0
// What CUDA's intrinsics compile to, against plain loops: integers, rounding modes, f16 and bf16, atomics, warp collectives.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cfenv>
#include <cstdint>
#include <cstring>

#include "device_array.hpp"

namespace {

constexpr int kCount = 4096;

/// Reproducible words: random, some of few bits, some zero.
std::vector<unsigned> words(unsigned seed, bool short_ones) {
  std::vector<unsigned> v(kCount);
  for (std::size_t i = 0; i < v.size(); i++) {
    seed = seed * 1664525u + 1013904223u;
    v[i] = (seed ^ seed >> 15) >> (short_ones ? seed >> 8 & 31 : 0);
    if (i % 97 == 0) v[i] = 0;
  }
  return v;
}

/// Differences between results of the device (operation by operation) and of a function of the host.
template <class T, class Host>
double mismatches(const std::vector<T>& got, int operations, Host host) {
  double wrong = 0;
  std::vector<T> wanted(static_cast<std::size_t>(operations));
  for (std::size_t i = 0; i < got.size() / wanted.size(); i++) {
    host(i, wanted.data());
    for (std::size_t o = 0; o < wanted.size(); o++) {
      const bool same = std::memcmp(&got[i * wanted.size() + o], &wanted[o], sizeof(T)) == 0;
      if (!same && wrong == 0) std::printf("  operation %d, input %d\n", int(o), int(i));
      wrong += !same;
    }
  }
  return wrong;
}

constexpr int kIntegerOperations = 24;

__global__ void integers(const unsigned* x, const unsigned* y, unsigned* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned a = x[i], b = y[i];
  const std::uint64_t wide = std::uint64_t(a) << 32 | b;
  unsigned* o = out + i * kIntegerOperations;
  *o++ = __popc(a);
  *o++ = __clz(b);
  *o++ = __ffs(b);
  *o++ = __brev(a);
  *o++ = __byte_perm(a, b, (a ^ b) & 0x7777);
  *o++ = __umulhi(a, b);
  *o++ = __mulhi(int(a), int(b));
  *o++ = __funnelshift_l(a, b, b);
  *o++ = __funnelshift_r(a, b, b);
  *o++ = __funnelshift_lc(a, b, b & 63);
  *o++ = __funnelshift_rc(a, b, a & 63);
  *o++ = unsigned(std::uint64_t(a) * b >> 17);
  *o++ = b ? a / b : 1;
  *o++ = b ? a % b : 2;
  *o++ = b ? int(a >> 1) / int(b | 1) : 3;
  *o++ = __dp4a(int(a), int(b), int(a));
  *o++ = __dp4a(a, b, b);
  *o++ = __usad(a, b, 5);
  *o++ = __sad(int(a), int(b), 6);
  *o++ = __vabsdiffu4(a, b);
  *o++ = int(a) >> (b & 31);
  *o++ = __clzll(static_cast<long long>(wide)) * 100 + __popcll(wide);
  *o++ = unsigned(__umul64hi(wide, wide ^ 12345) >> 7);
  *o++ = __fns(a, 3, 2);
}

void integers_on_host(unsigned a, unsigned b, unsigned* o) {
  const std::uint64_t pair = std::uint64_t(b) << 32 | a, wide = std::uint64_t(a) << 32 | b;
  const auto byte = [](unsigned v, int i) { return v >> 8 * i & 255; };
  unsigned reversed = 0, picked = 0, distances = 0, lead = 0, ones = 0;
  int dot = int(a), found = -1, seen = 0;
  unsigned unsigned_dot = b;
  for (int i = 0; i < 32; i++) {
    reversed |= (a >> i & 1) << (31 - i);
    ones += a >> i & 1;
    if (i >= 3 && (a >> i & 1) && ++seen == 2) found = i;
  }
  for (int i = 0; i < 4; i++) {
    picked |= unsigned(pair >> 8 * ((a ^ b) >> 4 * i & 7) & 255) << 8 * i;
    dot += int(std::int8_t(byte(a, i))) * int(std::int8_t(byte(b, i)));
    unsigned_dot += byte(a, i) * byte(b, i);
    distances |= (byte(a, i) > byte(b, i) ? byte(a, i) - byte(b, i) : byte(b, i) - byte(a, i)) << 8 * i;
  }
  while (lead < 32 && !(b >> (31 - lead) & 1)) lead++;
  unsigned first = 0;
  while (first < 32 && !(b >> first & 1)) first++;
  const auto clamped = [](unsigned s) { return s < 32 ? s : 32; };
  *o++ = ones;
  *o++ = lead;
  *o++ = b ? first + 1 : 0;
  *o++ = reversed;
  *o++ = picked;
  *o++ = unsigned(std::uint64_t(a) * b >> 32);
  *o++ = unsigned(std::int64_t(int(a)) * int(b) >> 32);
  *o++ = unsigned(pair << (b & 31) >> 32);
  *o++ = unsigned(pair >> (b & 31));
  *o++ = unsigned(pair << clamped(b & 63) >> 32);
  *o++ = unsigned(pair >> clamped(a & 63));
  *o++ = unsigned(std::uint64_t(a) * b >> 17);
  *o++ = b ? a / b : 1;
  *o++ = b ? a - a / b * b : 2;
  *o++ = b ? unsigned(std::int64_t(a >> 1) / int(b | 1)) : 3;
  *o++ = unsigned(dot);
  *o++ = unsigned_dot;
  *o++ = (a > b ? a - b : b - a) + 5;
  *o++ = (int(a) > int(b) ? a - b : b - a) + 6;
  *o++ = distances;
  *o++ = unsigned(std::int64_t(int(a)) >> (b & 31));
  *o++ = unsigned(wide ? __builtin_clzll(wide) : 64) * 100 + unsigned(__builtin_popcountll(wide));
  *o++ = unsigned((static_cast<unsigned __int128>(wide) * (wide ^ 12345)) >> 71);
  *o++ = unsigned(found);
}

void test_integers() {
  const std::vector<unsigned> a = words(1, false), b = words(2, true);
  DeviceArray<unsigned> da(a), db(b), out(kCount * kIntegerOperations);
  integers<<<kCount / 256, 256>>>(da, db, out);
  expect("integers",
         mismatches(out.host(), kIntegerOperations, [&](std::size_t i, unsigned* o) { integers_on_host(a[i], b[i], o); }),
         0);
}

constexpr int kRoundedOperations = 14;

__global__ void rounded(const float* x, const float* y, float* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const float a = x[i], b = y[i];
  float* o = out + i * kRoundedOperations;
  *o++ = __fadd_rz(a, b);
  *o++ = __fadd_ru(a, b);
  *o++ = __fmul_rd(a, b);
  *o++ = __fmaf_ru(a, b, 1.25f);
  *o++ = __fmaf_rn(a, b, a);
  *o++ = __fdiv_rn(a, b);
  *o++ = __fdiv_rz(a, b);
  *o++ = __fsqrt_rd(fabsf(a));
  *o++ = __frcp_ru(b);
  *o++ = float(__float2int_rd(a)) + float(__float2uint_rn(b));
  *o++ = __int2float_rz(__float_as_int(a));
  *o++ = __saturatef(a);
  *o++ = fminf(a, b) + rintf(b);
  *o++ = __double2float_rd(double(a) * 1.0000001);
}

/// The host's arithmetic in a rounding mode; volatile keeps the compiler from computing before the mode is set.
template <class Operation>
float in_mode(int mode, float a, float b, Operation operation) {
  std::fesetround(mode);
  volatile float x = a, y = b;
  volatile float result = operation(x, y);
  std::fesetround(FE_TONEAREST);
  return result;
}

void test_rounding() {
  std::vector<float> a = noise(kCount, 3), b = noise(kCount, 4);
  for (int i = 0; i < kCount; i++) {
    a[std::size_t(i)] = std::ldexp(a[std::size_t(i)], i % 40 - 16);
    b[std::size_t(i)] = std::fabs(b[std::size_t(i)]) * 3 + 0.1f;
  }
  DeviceArray<float> da(a), db(b), out(kCount * kRoundedOperations);
  rounded<<<kCount / 256, 256>>>(da, db, out);
  expect("rounding",
         mismatches(out.host(), kRoundedOperations,
                    [&](std::size_t i, float* o) {
                      const float x = a[i], y = b[i];
                      *o++ = in_mode(FE_TOWARDZERO, x, y, [](float p, float q) { return p + q; });
                      *o++ = in_mode(FE_UPWARD, x, y, [](float p, float q) { return p + q; });
                      *o++ = in_mode(FE_DOWNWARD, x, y, [](float p, float q) { return p * q; });
                      *o++ = in_mode(FE_UPWARD, x, y, [](float p, float q) { return std::fma(p, q, 1.25f); });
                      *o++ = std::fma(x, y, x);
                      *o++ = x / y;
                      *o++ = in_mode(FE_TOWARDZERO, x, y, [](float p, float q) { return p / q; });
                      *o++ = in_mode(FE_DOWNWARD, std::fabs(x), y, [](float p, float) { return std::sqrt(p); });
                      *o++ = in_mode(FE_UPWARD, x, y, [](float, float q) { return 1 / q; });
                      *o++ = float(int(std::floor(x))) + float(unsigned(std::nearbyint(y)));
                      int bits;
                      std::memcpy(&bits, &x, 4);
                      float converted = float(bits);  // to nearest; one step back where that went away from zero
                      if (std::fabs(double(converted)) > std::fabs(double(bits))) converted = std::nextafter(converted, 0.f);
                      *o++ = converted;
                      *o++ = x < 0 ? 0.f : x > 1 ? 1.f : x;
                      *o++ = (x < y ? x : y) + std::nearbyint(y);
                      const double product = double(x) * 1.0000001;
                      float below = float(product);
                      if (double(below) > product) below = std::nextafter(below, -INFINITY);
                      *o++ = below;
                    }),
         0);
}

constexpr int kHalfOperations = 12;

__global__ void halves(const std::uint16_t* x, const std::uint16_t* y, std::uint16_t* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const __half a = __ushort_as_half(x[i]), b = __ushort_as_half(y[i]);
  const __nv_bfloat16 c = __ushort_as_bfloat16(x[i]), d = __ushort_as_bfloat16(y[i]);
  const __half2 ab = __halves2half2(a, b), ba = __halves2half2(b, a);
  const __nv_bfloat162 cd = __halves2bfloat162(c, d), dc = __halves2bfloat162(d, c);
  std::uint16_t* o = out + i * kHalfOperations;
  *o++ = __half_as_ushort(__hadd(a, b));
  *o++ = __half_as_ushort(__hmul(a, b));
  *o++ = __half_as_ushort(__high2half(__hsub2(ab, ba)));
  *o++ = __half_as_ushort(__low2half(__hmax2(ab, ba)));
  *o++ = __half_as_ushort(__high2half(__hneg2(ab)));
  *o++ = __hbgt2(ab, ab) + 2 * __hlt(a, b) + 4 * __hgeu(a, b);
  *o++ = __bfloat16_as_ushort(__hadd(c, d));
  *o++ = __bfloat16_as_ushort(__hmul(c, d));
  *o++ = __bfloat16_as_ushort(__high2bfloat16(__hsub2(cd, dc)));
  *o++ = __bfloat16_as_ushort(__low2bfloat16(__hmin2(cd, dc)));
  *o++ = __bfloat16_as_ushort(__hfma_relu(c, d, __float2bfloat16(0.5f)));
  *o++ = __half_as_ushort(__hfma(a, b, __float2half(0.5f)));
}

/// Results on the host: exact in double for the inputs used, rounded once.
void halves_on_host(std::uint16_t x, std::uint16_t y, std::uint16_t* o) {
  const double a = double(__half2float(__ushort_as_half(x))), b = double(__half2float(__ushort_as_half(y)));
  const double c = double(__bfloat162float(__ushort_as_bfloat16(x))), d = double(__bfloat162float(__ushort_as_bfloat16(y)));
  const auto half = [](double v) { return __half_as_ushort(__double2half(v)); };
  const auto bfloat = [](double v) { return __bfloat16_as_ushort(__double2bfloat16(v)); };
  *o++ = half(a + b);
  *o++ = half(a * b);
  *o++ = half(b - a);
  *o++ = half(std::max(a, b));
  *o++ = half(-b);
  *o++ = std::uint16_t(2 * (a < b) + 4 * (a >= b));
  *o++ = bfloat(c + d);
  *o++ = bfloat(c * d);
  *o++ = bfloat(d - c);
  *o++ = bfloat(std::min(c, d));
  *o++ = bfloat(std::max(c * d + 0.5, 0.));
  *o++ = half(a * b + 0.5);
}

void test_halves() {
  std::vector<std::uint16_t> a, b;
  const std::vector<unsigned> random = words(5, false);
  for (unsigned w : random) {
    // exponents near that of 1, where double holds sums and products of both formats exactly; no zeros
    a.push_back(std::uint16_t((w & 0x87ff) | 0x3800));
    b.push_back(std::uint16_t((w >> 16 & 0x87ff) | 0x3800));
  }
  DeviceArray<std::uint16_t> da(a), db(b), out(kCount * kHalfOperations);
  halves<<<kCount / 256, 256>>>(da, db, out);
  expect("halves",
         mismatches(out.host(), kHalfOperations, [&](std::size_t i, std::uint16_t* o) { halves_on_host(a[i], b[i], o); }),
         0);
}

struct Totals {
  int sum, most, least, swapped, any;
  unsigned cleared, set, flipped, up, down;
  float real, shared_real;
  double wide;
  unsigned long long large;
  __half2 pair;  // not of bf16: before sm_90, CUDA's header adds those in a loop whose first load is plain, which is a race
};

__global__ void atomics(Totals* g) {
  __shared__ float in_block;
  const int t = threadIdx.x;
  if (t == 0) in_block = 0;
  __syncthreads();
  atomicAdd(&g->sum, t);
  atomicMax(&g->most, t * 7 % 61);
  atomicMin(&g->least, -t);
  for (int seen = -1; seen != t;)
    seen = atomicCAS(&g->swapped, t, t + 1);  // in the order of t: each waits for the one before
  atomicExch(&g->any, t + 1);
  atomicAnd(&g->cleared, ~(1u << (t & 31)));
  atomicOr(&g->set, 1u << (t & 31));
  atomicXor(&g->flipped, unsigned(t) * 3);
  atomicInc(&g->up, 9);
  atomicDec(&g->down, 9);
  atomicAdd(&g->real, 0.5f);
  atomicAdd(&in_block, 1.f);
  atomicAdd(&g->wide, 0.25);
  atomicAdd(&g->large, 1ull << 33);
  atomicAdd(&g->pair, __floats2half2_rn(1, 2));
  __syncthreads();
  if (t == 0) g->shared_real = in_block;
}

void test_atomics() {
  Totals start{};
  start.cleared = ~0u;
  DeviceArray<Totals> totals(std::vector<Totals>{start});
  atomics<<<1, 64>>>(totals);
  const Totals g = totals.host()[0];
  unsigned flipped = 0, up = 0, down = 0;
  for (unsigned t = 0; t < 64; t++) {
    flipped ^= t * 3;
    up = up >= 9 ? 0 : up + 1;
    down = down == 0 || down > 9 ? 9 : down - 1;
  }
  bool good = g.sum == 2016 && g.most == 60 && g.least == -63 && g.swapped == 64 && g.any >= 1 && g.any <= 64;
  good = good && g.cleared == 0 && g.set == ~0u && g.flipped == flipped && g.up == up && g.down == down;
  good = good && g.real == 32 && g.shared_real == 64 && g.wide == 16 && g.large == 64ull << 33;
  good = good && __low2float(g.pair) == 64 && __high2float(g.pair) == 128;
  expect("atomics", good ? 0 : 1, 0);
}

constexpr int kWarpOperations = 17;

__global__ void collectives(unsigned* out) {
  const unsigned t = threadIdx.x, lane = t % 32;
  unsigned* o = out + t * kWarpOperations;
  int all_same;
  *o++ = __reduce_add_sync(~0u, t);
  *o++ = __reduce_max_sync(~0u, t * 37 % 64);
  *o++ = __ballot_sync(~0u, t % 3 == 0);
  *o++ = __match_any_sync(~0u, t % 5);
  *o++ = __match_all_sync(~0u, 42u, &all_same);
  *o++ = unsigned(all_same);
  *o++ = __shfl_up_sync(~0u, t, 3, 16);
  *o++ = __shfl_down_sync(~0u, t, 5);
  *o++ = __shfl_xor_sync(~0u, t, 9, 16);
  *o++ = __shfl_sync(~0u, t, int(t * 7 & 31), 8);
  *o++ = unsigned(__all_sync(~0u, t < 1000)) + 2 * unsigned(__any_sync(~0u, lane == 99));
  if (lane < 16) {
    *o++ = __shfl_xor_sync(0xffff, t, 1);
  } else {
    *o++ = __reduce_min_sync(0xffff0000u, t);
  }
  unsigned below;
  asm("mov.u32 %0, %%lanemask_lt;" : "=r"(below));
  *o++ = below;
  *o++ = unsigned(__syncthreads_count(int(t & 1)));
  *o++ = unsigned(__syncthreads_and(t != 77));
  *o++ = unsigned(__syncthreads_or(t == 77));
  *o++ = unsigned(__double2int_rn(__shfl_xor_sync(~0u, double(t) + 0.25, 16)));
}

void test_collectives() {
  DeviceArray<unsigned> out(128 * kWarpOperations);
  collectives<<<1, 128>>>(out);
  expect("collectives",
         mismatches(out.host(), kWarpOperations,
                    [](std::size_t thread, unsigned* o) {
                      const unsigned t = unsigned(thread), lane = t % 32, first = t - lane;
                      unsigned sum = 0, most = 0, votes = 0, same = 0;
                      for (unsigned l = 0; l < 32; l++) {
                        sum += first + l;
                        most = std::max(most, (first + l) * 37 % 64);
                        if ((first + l) % 3 == 0) votes |= 1u << l;
                        if ((first + l) % 5 == t % 5) same |= 1u << l;
                      }
                      *o++ = sum;
                      *o++ = most;
                      *o++ = votes;
                      *o++ = same;
                      *o++ = ~0u;
                      *o++ = 1;
                      *o++ = lane % 16 >= 3 ? t - 3 : t;
                      *o++ = lane + 5 < 32 ? t + 5 : t;
                      *o++ = t ^ 9;
                      *o++ = first + lane / 8 * 8 + t * 7 % 8;
                      *o++ = 1;
                      *o++ = lane < 16 ? (t ^ 1) : first + 16;
                      *o++ = (1u << lane) - 1;
                      *o++ = 64;
                      *o++ = 0;
                      *o++ = 1;
                      *o++ = t ^ 16;
                    }),
         0);
}

}  // namespace

int main() {
  test_integers();
  test_rounding();
  test_halves();
  test_atomics();
  test_collectives();
  return report();
}

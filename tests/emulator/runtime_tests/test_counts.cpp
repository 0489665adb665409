// SPDX-License-Identifier: Apache-2.0
// Sectors of global requests, bank conflicts of shared ones, operations of instructions; by hand-counted examples.
#include <doctest/doctest.h>

#include <functional>

#include "counts.hpp"
#include "small_block.hpp"

using emu::Stat;

namespace {

constexpr std::uint64_t base = 0x200000000200ull;  // a multiple of 512, as every allocation

emu::Request request(int flags, std::uint32_t bytes, const std::function<std::uint64_t(int)>& address,
                     std::uint32_t mask = ~0u) {
  emu::Request r;
  r.flags = flags;
  r.bytes = bytes;
  r.mask = mask;
  for (int l = 0; l < 32; l++) r.address[l] = address(l);
  return r;
}

Stat counted(const emu::Request& r) {
  Stat s;
  emu::Touched touched;
  emu::count_request(s, touched, r);
  s.unique_read = emu::sector_bytes * touched.read.sectors();
  s.unique_written = emu::sector_bytes * touched.written.sectors();
  return s;
}
Stat load(std::uint32_t bytes, std::uint64_t first, std::uint64_t stride, std::uint32_t mask = ~0u) {
  return counted(request(
      EMU_LD, bytes, [&](int l) { return base + first + stride * std::uint64_t(l); }, mask));
}
Stat shared(std::uint32_t bytes, std::uint64_t stride, std::uint32_t mask = ~0u) {
  return counted(request(
      EMU_LD | EMU_SH, bytes, [&](int l) { return stride * std::uint64_t(l); }, mask));
}

}  // namespace

TEST_CASE("sectors of global loads") {
  struct Example {
    std::uint32_t bytes;
    std::uint64_t first, stride, sectors, useful;
    std::uint32_t mask;
  };
  const Example examples[] = {
      {4, 0, 4, 4, 128, ~0u},     // aligned: 128 bytes are 4 sectors
      {4, 4, 4, 5, 128, ~0u},     // one word further: a fifth one
      {4, 0, 8, 8, 128, ~0u},     // every other word
      {4, 0, 32, 32, 128, ~0u},   // a sector for each lane
      {4, 0, 128, 32, 128, ~0u},  // no more than one for each
      {4, 0, 0, 1, 4, ~0u},       // all lanes the same word
      {16, 0, 16, 16, 512, ~0u},  // 16-byte accesses
      {2, 0, 2, 2, 64, ~0u},      // halves
      {4, 0, 4, 1, 32, 0xFFu},    // a quarter of the warp
      {4, 28, 4, 2, 8, 0b11u},    // two words on either side of a border
      {8, 0, 8, 8, 256, ~0u},
  };
  for (const Example& e : examples) {
    CAPTURE(e.bytes);
    CAPTURE(e.first);
    CAPTURE(e.stride);
    const Stat s = load(e.bytes, e.first, e.stride, e.mask);
    CHECK(s.loads.requests == 1);
    CHECK(s.loads.sectors == e.sectors);
    CHECK(s.loads.useful == e.useful);
    CHECK(s.loads.ideal == (e.useful + 31) / 32);
    CHECK(s.loads.bytes == e.bytes * std::uint64_t(__builtin_popcount(e.mask)));
    CHECK(s.unique_read == 32 * e.sectors);
    CHECK(s.stores.requests + s.atomics.requests + s.unique_written == 0);
  }
}

TEST_CASE("stores and atomics have traffic of their own; relaxed loads are loads") {
  const auto words = [](int l) { return base + 4 * std::uint64_t(l); };
  const Stat s = counted(request(EMU_ST, 4, words));
  CHECK(s.stores.sectors == 4);
  CHECK(s.unique_written == 128);
  CHECK(s.loads.requests + s.unique_read == 0);
  const Stat a = counted(request(EMU_LD | EMU_ST | EMU_AT, 4, [](int) { return base; }));
  CHECK(a.atomics.sectors == 1);
  CHECK(a.atomics.bytes == 128);
  CHECK(a.atomics.useful == 4);
  CHECK(a.loads.requests + a.stores.requests == 0);
  CHECK(counted(request(EMU_LD | EMU_AT, 4, words)).loads.sectors == 4);
}

TEST_CASE("conflicts of shared memory") {
  struct Example {
    std::uint32_t bytes;
    std::uint64_t stride;
    std::uint64_t wavefronts, conflicts;
  };
  const Example examples[] = {
      {4, 4, 1, 0},       // stride of one word
      {4, 8, 2, 1},       // two words: banks are hit twice
      {4, 128, 32, 31},   // 32 words: one bank
      {4, 132, 1, 0},     // 33 words: padded
      {4, 0, 1, 0},       // all lanes one word
      {2, 2, 1, 0},       // two lanes share a word
      {1, 1, 1, 0},       //
      {8, 8, 2, 0},       // half a warp at a time
      {16, 16, 4, 0},     // a quarter of a warp at a time
      {16, 32, 8, 4},     // 8 lanes hit 16 banks twice
      {16, 128, 32, 28},  // rows of 128 bytes without swizzle: 8 lanes hit the same 4 banks
      {16, 144, 4, 0},    // padded rows of ldmatrix
  };
  for (const Example& e : examples) {
    CAPTURE(e.bytes);
    CAPTURE(e.stride);
    const Stat s = shared(e.bytes, e.stride);
    CHECK(s.shared_requests == 1);
    CHECK(s.wavefronts == e.wavefronts);
    CHECK(s.conflicts() == e.conflicts);
    CHECK(s.loads.requests == 0);
  }
  CHECK(shared(4, 128, 0b101u).conflicts() == 1);   // only lanes that take part
  CHECK(shared(16, 128, 0x101u).conflicts() == 0);  // they are served in different quarters
}

TEST_CASE("footprints count a sector once") {
  emu::Footprint a, b;
  for (std::uint64_t s : {0, 1, 1, 63, 64, 4095, 4096, 0}) a.add(s);
  CHECK(a.sectors() == 6);
  b.add(1);
  b.add(1ull << 40);
  a.merge(b);
  CHECK(a.sectors() == 7);
  a.clear();
  a.add(5);
  CHECK(a.sectors() == 1);
}

TEST_CASE("operations of instructions") {
  Stat s;
  s.instructions[EC_FMA32] = 3;
  s.instructions[EC_ADD32] = 5;
  s.instructions[EC_MUL32] = 7;
  s.instructions[EC_SPECIAL32] = 11;
  s.instructions[EC_FMA64] = 13;
  s.instructions[EC_OP64] = 17;
  s.instructions[EC_FMA16X2] = 19;
  s.instructions[EC_OP16] = 23;
  s.instructions[EC_LDG] = s.instructions[EC_OTHER] = 1000;
  s.instructions[EC_MMA_BF16_K16] = 32;  // one of a whole warp
  s.instructions[EC_MMA_TF32_K8] = 64;
  s.instructions[EC_MMA_I8_K32] = 32;
  emu::count_operations(s);
  CHECK(s.operations[emu::fp32] == 2 * 3 + 5 + 7);
  CHECK(s.operations[emu::special] == 11);
  CHECK(s.operations[emu::fp64] == 2 * 13 + 17);
  CHECK(s.operations[emu::fp16] == 4 * 19 + 23);
  CHECK(s.operations[emu::tensor_bf16] == 2 * 16 * 8 * 16);
  CHECK(s.operations[emu::tensor_tf32] == 2 * 2 * 16 * 8 * 8);
  CHECK(s.operations[emu::tensor_i8] == 2 * 16 * 8 * 32);
  CHECK(s.operations[emu::tensor_f16] == 0);
}

TEST_CASE("lanes are brought together by how often they have executed an instruction") {
  SmallBlock b("together", 48);  // the second warp has 16 lanes
  emu::count_start_block(b.w);
  for (int time = 0; time < 3; time++) {
    for (int t = 0; t < 48; t++) emu_note(&b.w, b.thread(t), base + 4 * std::uint64_t(t), 4, 0, EMU_LD);
  }
  CHECK(b.w.stat.loads.requests == 6);
  CHECK(b.w.stat.loads.sectors == 3 * 6);
  // Each lane three times in a row, and only some lanes: complete at the end of the block.
  for (int t = 0; t < 8; t++) {
    for (int time = 0; time < 3; time++) emu_note(&b.w, b.thread(t), base + 4 * std::uint64_t(t), 4, 1, EMU_ST);
  }
  CHECK(b.w.stat.stores.requests == 0);
  emu::count_end_block(b.w);
  CHECK(b.w.stat.stores.requests == 3);
  CHECK(b.w.stat.stores.sectors == 3);
}

TEST_CASE("both sides of a cp.async are one execution, also where its source is cut short") {
  SmallBlock b("copies", 32);
  b.w.cfg.count = true;
  b.w.async.resize(32);
  emu::count_start_block(b.w);
  std::uint8_t source[16] = {};
  for (int time = 0; time < 2; time++) {
    for (int t = 0; t < 32; t++) {
      const bool cut = t < 8;
      emu_note(&b.w, b.thread(t), 0, 16, 0, EMU_ST | EMU_ASYNC_BEGIN | EMU_SH);
      if (!cut) emu_note(&b.w, b.thread(t), base, 16, 0, EMU_LD);
      emu_cp_async(&b.w, b.thread(t), b.w.smem, 0, source, 16, cut ? 0 : 16, 0);
    }
  }
  CHECK(b.w.stat.shared_requests == 2);
  emu::count_end_block(b.w);
  CHECK(b.w.stat.shared_requests == 2);
  CHECK(b.w.stat.loads.requests == 2);
  CHECK(b.w.stat.loads.bytes == 2 * 24 * 16);
}

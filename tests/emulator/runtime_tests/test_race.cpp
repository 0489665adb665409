// SPDX-License-Identifier: Apache-2.0
// The detector's judgement of single accesses, by its reports. Each case has a kernel name of its own: a place is
// reported once.
#include <doctest/doctest.h>

#include <cstring>

#include "captured.hpp"
#include "memory.hpp"
#include "small_block.hpp"

namespace {

/// The first block of a new launch.
void start(SmallBlock& b) {
  emu::race_start_launch();
  emu::race_start_block(b.w);
}
/// A store as generated code makes it: announced, then done.
void store(SmallBlock& b, int thread, std::uint32_t offset, std::uint32_t value, std::uint32_t site = 0) {
  emu_race(&b.w, b.thread(thread), offset, 4, site, EMU_ST | EMU_SH);
  std::memcpy(b.w.smem + offset, &value, 4);
}
void load(SmallBlock& b, int thread, std::uint32_t offset, std::uint32_t site = 1) {
  emu_race(&b.w, b.thread(thread), offset, 4, site, EMU_LD | EMU_SH);
}
void barrier(SmallBlock& b) {
  std::vector<int> all;
  for (int i = 0; i < b.w.count; i++) all.push_back(i);
  b.w.race.join_barrier(all, {});
}

}  // namespace

TEST_CASE("a read after another thread's write is a race until a barrier") {
  SmallBlock b("read_after_write");
  start(b);
  store(b, 0, 16, 1);
  const std::string report = captured([&] { load(b, 33, 16); });
  CHECK(contains(report, "EMU RACE: kernel read_after_write: read after unsynchronised write at shared+16: "));
  CHECK(contains(report, "thread (33,0,0) after block 0 thread 0"));
  CHECK(contains(report, "this:  site1\n   other: site0"));
  barrier(b);
  CHECK(captured([&] { load(b, 34, 16, 2); }) == "");
}

TEST_CASE("a write after another thread's read is a race, also behind a second reader") {
  SmallBlock b("write_after_read");
  start(b);
  store(b, 0, 0, 1);
  barrier(b);
  load(b, 1, 0);
  load(b, 40, 0);
  barrier(b);
  CHECK(captured([&] { store(b, 0, 0, 2); }) == "");
  barrier(b);
  load(b, 32, 0);
  load(b, 1, 0);  // the later reader is the writer itself
  const std::string report = captured([&] { store(b, 1, 0, 3, 2); });
  CHECK(contains(report, "write after unsynchronised read at shared+0"));
}

TEST_CASE("two writes are a race when the second changes the value") {
  SmallBlock b("write_after_write");
  start(b);
  store(b, 0, 8, 5);
  CHECK(captured([&] {
          store(b, 1, 8, 5);
          emu::race_flush(b.w);
        }) == "");
  CHECK(contains(captured([&] {
                   store(b, 32, 8, 6, 2);
                   emu::race_flush(b.w);
                 }),
                 "write after unsynchronised write (different value) at shared+8"));
}

TEST_CASE("shared memory that nobody has written is reported, in each block anew") {
  SmallBlock b("unwritten");
  start(b);
  CHECK(contains(captured([&] { load(b, 0, 4); }), "EMU UNINITIALISED: kernel unwritten: "));
  store(b, 0, 4, 1);
  CHECK(captured([&] { load(b, 0, 4, 2); }) == "");
  emu::race_start_block(b.w);
  CHECK(contains(captured([&] { load(b, 0, 4, 3); }), "EMU UNINITIALISED"));
}

TEST_CASE("bytes of a cp.async may not be touched before it has landed") {
  SmallBlock b("async_bytes");
  start(b);
  emu_race(&b.w, b.thread(0), 32, 16, 0, EMU_ST | EMU_ASYNC_BEGIN | EMU_SH);
  CHECK(contains(captured([&] { load(b, 0, 44); }), "read of bytes of a cp.async in flight"));
  CHECK(contains(captured([&] { store(b, 0, 40, 1, 2); }), "write to bytes of a cp.async in flight"));
  emu_race(&b.w, b.thread(0), 32, 16, 0, EMU_ST | EMU_ASYNC_END | EMU_SH);
  CHECK(captured([&] { load(b, 0, 36, 3); }) == "");
}

TEST_CASE("a plain read after an atomic is a race, but for the first guess of a compare-and-swap") {
  const std::uint64_t word = emu::allocate(64, emu::Kind::device, "word");
  SmallBlock b("guess");
  start(b);
  const auto read = [&](int thread, std::uint32_t site) { emu_race(&b.w, b.thread(thread), word, 4, site, EMU_LD); };
  const auto swap = [&](int thread, std::uint64_t address) {
    emu_race(&b.w, b.thread(thread), address, 4, 0, EMU_LD | EMU_ST | EMU_AT);
  };
  CHECK(captured([&] {
          for (int t : {0, 1, 33}) {
            read(t, 1);
            swap(t, word);
          }
          emu::race_flush(b.w);
        }) == "");
  const std::string expected = "EMU RACE: kernel guess: read after unsynchronised write at word #";
  CHECK(contains(captured([&] {  // another word is swapped
                   read(2, 1);
                   swap(2, word + 4);
                 }),
                 expected));
  CHECK(contains(captured([&] {  // another thread swaps
                   read(3, 2);
                   swap(4, word);
                 }),
                 expected));
  CHECK(contains(captured([&] {  // nothing follows
                   read(5, 3);
                   emu::race_flush(b.w);
                 }),
                 expected));
}

TEST_CASE("global memory: blocks need a fence and an atomic, launches need nothing") {
  const std::uint64_t a = emu::allocate(64, emu::Kind::device, "array"), flag = a + 32;
  SmallBlock first("across_blocks", 32, 2), second("across_blocks", 32, 2);
  second.w.block = 1;
  const auto write = [&](SmallBlock& b) { emu_race(&b.w, b.thread(0), a, 4, 0, EMU_ST); };
  const auto read = [&](SmallBlock& b, std::uint32_t site) { emu_race(&b.w, b.thread(0), a, 4, site, EMU_LD); };
  const auto count = [&](SmallBlock& b) { emu_race(&b.w, b.thread(0), flag, 4, 3, EMU_LD | EMU_ST | EMU_AT); };
  const auto begin = [&] {
    emu::race_start_launch();
    emu::race_start_block(first.w);
    emu::race_start_block(second.w);
  };
  begin();
  write(first);
  count(first);  // no fence before
  count(second);
  CHECK(contains(captured([&] { read(second, 1); }), "read after unsynchronised write at array #"));
  begin();
  write(first);
  emu_fence(&first.w, first.thread(0));
  count(first);
  count(second);
  CHECK(captured([&] { read(second, 2); }) == "");
  begin();
  CHECK(captured([&] { read(second, 2); }) == "");
}

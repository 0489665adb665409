// SPDX-License-Identifier: Apache-2.0
#include "launch.hpp"

#include <sys/mman.h>
#include <xmmintrin.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "count_table.hpp"
#include "fiber.hpp"
#include "memory.hpp"
#include "race.hpp"
#include "schedule.hpp"

namespace emu {

thread_local Worker* current_worker = nullptr;

namespace {

constexpr unsigned flush_subnormals = 0x8040;  // MXCSR: FTZ and DAZ
constexpr std::size_t shared_capacity = 1 << 20;

void map_stores(Worker& w) {
  if (w.shared_store) return;
  const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  w.shared_store = static_cast<std::uint8_t*>(mmap(nullptr, shared_capacity, protection, flags, -1, 0));
  w.local_store = static_cast<std::uint8_t*>(mmap(nullptr, 1024ull * EMU_LSTRIDE, protection, flags, -1, 0));
  w.ring.resize(ring_size);
}

void number_threads(Worker& w, const std::uint32_t (&block)[3]) {
  int i = 0;
  for (std::uint32_t z = 0; z < block[2]; z++) {
    for (std::uint32_t y = 0; y < block[1]; y++) {
      for (std::uint32_t x = 0; x < block[0]; x++, i++) {
        EmuThread& t = w.threads[std::size_t(i)];
        t = EmuThread();
        t.tid[0] = x;
        t.tid[1] = y;
        t.tid[2] = z;
        t.lin = std::uint32_t(i);
        t.lbase = w.local_store + std::size_t(i) * EMU_LSTRIDE;
      }
    }
  }
}

void start_launch(Worker& w, const LaunchArgs& a) {
  map_stores(w);
  w.launch = &a;
  w.cfg = config();
  w.stat = Stat();
  w.touched.read.clear();
  w.touched.written.clear();
  w.warned = false;
  std::memcpy(w.ntid, a.block, sizeof w.ntid);
  std::memcpy(w.nctaid, a.grid, sizeof w.nctaid);
  w.dyn = a.dynamic_shared;
  w.smem_total = a.kernel->stat_smem + a.dynamic_shared;
  w.smem = w.shared_store;
  w.P = a.parameters.data();
  w.psize = std::uint32_t(a.parameters.size());
  w.poison = w.cfg.poison;
  w.fiber = a.kernel->flags & EK_FIBER;
  std::memset(w.cnt, 0, sizeof w.cnt);
  w.site_cache.assign(a.kernel->nsites, EmuSite{~0ull, 0, 0});
  w.sites = w.site_cache.data();
  w.nsites = a.kernel->nsites;
  w.count = int(a.block[0] * a.block[1] * a.block[2]);
  w.threads.resize(std::size_t(w.count));
  w.warps.resize(std::size_t(w.count + 31) / 32);
  w.async.resize(std::size_t(w.count));
  for (Warp& warp : w.warps) warp.all = ~0u;
  if (w.count & 31) w.warps.back().all = (1u << (w.count & 31)) - 1;
  number_threads(w, a.block);
}

void run_block(Worker& w, std::uint64_t number) {
  const LaunchArgs& a = *w.launch;
  w.block = number;
  w.ctaid[0] = std::uint32_t(number % a.grid[0]);
  w.ctaid[1] = std::uint32_t(number / a.grid[0] % a.grid[1]);
  w.ctaid[2] = std::uint32_t(number / a.grid[0] / a.grid[1]);
  w.alive = w.count;
  w.head = w.tail = 0;
  w.error.clear();
  w.busy_barriers = 0;
  w.idle_yields = w.progress = w.progress_seen = 0;
  w.random = (w.cfg.seed * 0x9E3779B97F4A7C15ull + number * 0xD1B54A32D192ED03ull) | 1;
  for (int i = 0; i < 3; i++) w.draw();  // the first values of near seeds are alike
  if (w.cfg.poison) std::memset(w.smem, 0xFF, w.smem_total);
  const bool race = w.cfg.race != RaceMode::off;
  if (race) race_start_block(w);
  if (w.cfg.count) count_start_block(w);
  run_threads(w);
  if (race) race_flush(w);
  if (w.cfg.count) count_end_block(w);
}

/// Blocks in the order asked for; shared by the OS threads.
class BlockQueue {
 public:
  explicit BlockQueue(std::uint64_t blocks) : blocks_(blocks), order_(config().order) {
    if (order_ != Order::priority) return;
    shuffled_.resize(blocks);
    for (std::uint64_t i = 0; i < blocks; i++) shuffled_[i] = std::uint32_t(i);
    std::uint64_t state = config().seed | 1;
    for (std::uint64_t i = blocks; i-- > 1;) std::swap(shuffled_[i], shuffled_[next_random(state) % (i + 1)]);
  }
  bool take(std::uint64_t* block) {
    const std::uint64_t i = next_++;
    if (i >= blocks_ || stopped_) return false;
    *block = order_ == Order::reverse ? blocks_ - 1 - i : order_ == Order::priority ? shuffled_[i] : i;
    return true;
  }
  void stop() { stopped_ = true; }

 private:
  std::uint64_t blocks_;
  Order order_;
  std::vector<std::uint32_t> shuffled_;
  std::atomic<std::uint64_t> next_{0};
  std::atomic<bool> stopped_{false};
};

void work(Worker& w, const LaunchArgs& a, BlockQueue& queue) {
  Worker* outer = std::exchange(current_worker, &w);
  start_launch(w, a);
  w.running = true;
  const unsigned mode = _mm_getcsr();
  _mm_setcsr((mode & ~flush_subnormals) | (a.kernel->flags & EK_FTZ ? flush_subnormals : 0));
  std::uint64_t block = 0;
  while (queue.take(&block)) {
    run_block(w, block);
    if (!w.error.empty()) queue.stop();
  }
  _mm_setcsr(mode);
  w.running = false;
  current_worker = outer;
}

std::vector<std::unique_ptr<Worker>>& workers() {
  static auto* all = new std::vector<std::unique_ptr<Worker>>();
  return *all;
}

/// Adds what the workers have counted, each for the blocks that it ran.
void add_counts(Stat& s, std::size_t count) {
  Touched all;
  for (std::size_t i = 0; i < count; i++) {
    const Worker& w = *workers()[i];
    for (int k = 0; k < EC_N; k++) s.instructions[k] += w.cnt[k];
    s += w.stat;
    all.read.merge(w.touched.read);
    all.written.merge(w.touched.written);
  }
  s.unique_read = sector_bytes * all.read.sectors();
  s.unique_written = sector_bytes * all.written.sectors();
  count_operations(s);
}

}  // namespace

int run(LaunchArgs& a) {
  init_memory();
  const Config& cfg = config();
  const std::uint64_t blocks = std::uint64_t(a.grid[0]) * a.grid[1] * a.grid[2];
  if (cfg.race != RaceMode::off) race_start_launch();
  // The detector must see one access after another: whether a write changed a value, and which block's atomic came first,
  // is only known while nobody else runs.
  const bool alone = cfg.race != RaceMode::off;
  const std::size_t threads = alone ? 1 : std::size_t(std::min<std::uint64_t>(std::uint64_t(cfg.threads), blocks));
  while (workers().size() < threads) workers().push_back(std::make_unique<Worker>());

  const auto begin = std::chrono::steady_clock::now();
  BlockQueue queue(blocks);
  std::vector<std::thread> helpers;
  for (std::size_t i = 1; i < threads; i++) helpers.emplace_back([&, i] { work(*workers()[i], a, queue); });
  work(*workers()[0], a, queue);
  for (std::thread& t : helpers) t.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  int code = 0;
  for (std::size_t i = 0; i < threads; i++) {
    Worker& w = *workers()[i];
    if (!w.error.empty() && !code) {
      code = w.error_code;
      say("EMU ERROR: kernel %s: %s\n", a.shown, w.error.c_str());
    }
    w.error.clear();
  }
  Stat s;
  s.launches = 1;
  s.blocks = blocks;
  s.threads = blocks * a.block[0] * a.block[1] * a.block[2];
  s.seconds = seconds;
  if (cfg.count) {
    add_counts(s, threads);
    count_work(WorkKind::kernel, a.shown, s);
  }
  if (a.stat) *a.stat += s;
  return code;
}

}  // namespace emu

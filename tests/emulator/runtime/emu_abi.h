// SPDX-License-Identifier: Apache-2.0
// What the runtime and the code generated from PTX know of each other. Generated code is one shared object per kernel;
// it calls the emu_* functions below and reads and writes EmuCtx and EmuThread. Plain C types only, so that a cached
// object stays valid as long as this file is unchanged (its text is part of the cache key).
#pragma once
#include <stddef.h>
#include <stdint.h>

// Generic addresses. Bits 40 and up choose the window; global memory uses the addresses of memory.cpp, all below these.
#define EMU_SWIN 0x600000000000ull  // shared memory of the block
#define EMU_LWIN 0x610000000000ull  // local memory of the thread
#define EMU_PWIN 0x620000000000ull  // kernel parameters
#define EMU_FWIN 0x630000000000ull  // device functions: 16 bytes of token each
#define EMU_LSTRIDE (1u << 19)      // local bytes reserved per thread

// The region that one instruction hit last: an access at a is inside when lo <= a <= lo + m (m = size - access size).
// Its host address is a + delta. Most instructions keep hitting one region, so the map of regions is rarely searched.
typedef struct EmuSite {
  uint64_t lo, m;
  int64_t delta;
} EmuSite;

// What an access does (flags of emu_resolve, emu_race, emu_note).
enum {
  EMU_LD = 1,
  EMU_ST = 2,
  EMU_AT = 4,           // atomic
  EMU_ASYNC_BEGIN = 8,  // cp.async issued: its bytes are in flight
  EMU_ASYNC_END = 16,   // cp.async landed
  EMU_SH = 32,          // shared memory, the address is an offset
  EMU_MATRIX = 64       // a row of ldmatrix
};

// Instruction classes that are counted per thread. X2: packed pairs. MMA: mma.sync.m16n8k<K> by the type of A and B; each of
// the 32 lanes counts it.
enum {
  EC_LDG,
  EC_STG,
  EC_LDS,
  EC_STS,
  EC_ATOM,
  EC_CPASYNC,
  EC_BAR,
  EC_SHFL,
  EC_FMA32,
  EC_ADD32,
  EC_MUL32,
  EC_SPECIAL32,  // reciprocal, roots, ex2, lg2, sin, cos, tanh, division
  EC_FMA64,
  EC_OP64,
  EC_FMA16,
  EC_FMA16X2,
  EC_OP16,
  EC_OP16X2,
  EC_MMA_F16_K8,
  EC_MMA_F16_K16,
  EC_MMA_BF16_K8,
  EC_MMA_BF16_K16,
  EC_MMA_TF32_K4,
  EC_MMA_TF32_K8,
  EC_MMA_I8_K16,
  EC_MMA_I8_K32,
  EC_OTHER,
  EC_N
};

typedef struct EmuThread {
  uint32_t tid[3], lin;  // threadIdx and its linear number in the block
  uint8_t* lbase;        // local memory
  uint32_t lsp, spin;    // bytes of local memory in use; loop counter of spinning threads
  // Scheduler's part; generated code leaves it alone.
  void* sp;        // saved stack pointer of the fiber
  char* stack;     // stack the fiber runs on, null before the first and after the last instruction
  int state;       // emu::ThreadState
  const void* in;  // operands of the collective the thread waits in
  void* out;       // where its result goes
  uint32_t site;   // instruction it waits at
} EmuThread;

typedef struct EmuCtx {
  uint32_t ntid[3], ctaid[3], nctaid[3];
  uint32_t dyn, smem_total;  // bytes of dynamic shared memory, and of all
  uint8_t* smem;
  EmuSite* sites;          // one per instruction that touches memory
  uint64_t cnt[EC_N];      // executed instructions by class (only with EMU_COUNT)
  const uint8_t* P;        // parameters
  uint32_t psize;          // their size
  uint32_t poison, fiber;  // flags: fill fresh memory with 0xFF; threads are fibers (not a plain loop)
  uint32_t* seq;
  uint32_t nsites;
} EmuCtx;

typedef void (*EmuBody)(EmuCtx*, EmuThread*, const uint8_t*);
// A collective is evaluated once for all lanes of mask; in and out are indexed by lane.
typedef void (*EmuCollFn)(uint32_t mask, const void* const* in, void* const* out);

enum {
  EK_FIBER = 1,  // threads wait for each other somewhere
  EK_FTZ = 2,    // all float arithmetic flushes subnormals: done by the CPU's mode
  EK_ATOMICS = 4
};
typedef struct EmuKernelDesc {
  const char* name;
  EmuBody body;
  uint32_t flags, stat_smem, local_bytes, nsites;
  const char* const* sites;  // text of each instruction that may be reported
  uint64_t* globals;         // addresses of the module's variables, filled in by the runtime
  uint32_t nglobals;
} EmuKernelDesc;

#ifdef __cplusplus
extern "C" {
#endif
void emu_fail(EmuCtx*, EmuThread*, uint32_t site, const char* message) __attribute__((noreturn));
uint8_t* emu_resolve(EmuCtx*, EmuThread*, uint64_t address, uint32_t bytes, uint32_t site, int flags);
void emu_oob_shared(EmuCtx*, EmuThread*, uint64_t offset, uint32_t bytes, uint32_t site) __attribute__((noreturn));
// bar.sync / bar.arrive: count 0 means all threads of the block.
void emu_barrier(EmuCtx*, EmuThread*, uint32_t id, uint32_t count, uint32_t site, int aligned, int arrive_only);
// bar.red: op 0 popc, 1 and, 2 or.
uint32_t emu_barred(EmuCtx*, EmuThread*, uint32_t id, uint32_t count, uint32_t site, int op, uint32_t value);
// Warp collective; memsync: it also orders memory among the lanes (bar.warp.sync).
void emu_coll(EmuCtx*, EmuThread*, uint32_t mask, EmuCollFn, const void* in, void* out, uint32_t site, int memsync);
void emu_yield(EmuCtx*, EmuThread*);
void emu_race(EmuCtx*, EmuThread*, uint64_t key, uint32_t bytes, uint32_t site, int flags);
void emu_fence(EmuCtx*, EmuThread*);
void emu_note(EmuCtx*, EmuThread*, uint64_t address, uint32_t bytes, uint32_t site, int flags);
// cp.async: bytes of dst, the first source_bytes from src and the rest zero. dkey: offset of dst in shared memory.
void emu_cp_async(EmuCtx*, EmuThread*, uint8_t* dst, uint64_t dkey, const uint8_t* src, uint32_t bytes,
                  uint32_t source_bytes, uint32_t site);
void emu_cp_commit(EmuCtx*, EmuThread*);
void emu_cp_wait(EmuCtx*, EmuThread*, uint32_t keep);  // all but the newest `keep` groups have landed
uint32_t emu_vprintf(EmuCtx*, EmuThread*, uint64_t format, uint64_t arguments);
void emu_assertfail(EmuCtx*, EmuThread*, uint64_t message, uint64_t file, uint32_t line, uint64_t function,
                    uint64_t char_size) __attribute__((noreturn));
uint64_t emu_dmalloc(EmuCtx*, EmuThread*, uint64_t bytes);
void emu_dfree(EmuCtx*, EmuThread*, uint64_t address);
uint64_t emu_clock(void);
// Tensor core instructions. type: 0 f16, 1 bf16, 2 tf32; acc: 0 f32, 1 f16.
void emu_mma(EmuCtx*, EmuThread*, uint32_t site, int type, int acc, int k, uint32_t* d, const uint32_t* a, const uint32_t* b,
             const uint32_t* c);
void emu_imma(EmuCtx*, EmuThread*, uint32_t site, int ua, int ub, int k, uint32_t* d, const uint32_t* a, const uint32_t* b,
              const uint32_t* c);
void emu_ldmatrix(EmuCtx*, EmuThread*, uint32_t site, int n, int trans, uint32_t* d, const uint8_t* row);
#ifdef __cplusplus
}
#endif

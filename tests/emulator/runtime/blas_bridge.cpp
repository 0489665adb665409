// SPDX-License-Identifier: Apache-2.0
#include "blas_bridge.hpp"

#include <set>

#include "api.hpp"
#include "config.hpp"
#include "count_table.hpp"
#include "memory.hpp"
#include "text.hpp"

namespace {

/// The node of work with this identity: a kernel of its own, in one block. Equal texts share one address.
emu::NodeFacts facts_of_library(const char* identity) {
  static std::set<std::string> known;
  std::lock_guard<std::recursive_mutex> lock(emu::registry().mutex);
  emu::NodeFacts facts;
  facts.type = cudaGraphNodeTypeKernel;
  facts.of_library = true;
  facts.kernel.func = const_cast<char*>(known.emplace(identity).first->c_str());
  facts.kernel.gridDim = facts.kernel.blockDim = {1, 1, 1};
  return facts;
}

}  // namespace

extern "C" {

unsigned char* emu_host_ptr(const void* p, size_t bytes, const char* what) {
  std::string why;
  std::uint8_t* host = emu::host_range(reinterpret_cast<std::uint64_t>(p), bytes, &why);
  if (!host) emu::say("EMU ERROR: %s: %s\n", what, why.c_str());
  return host;
}

int emu_bias_only() { return emu::config().bias_only; }
int emu_algorithms() { return int(emu::config().algorithms); }

void emu_count_product(const EmuProductCount* p) {
  if (!emu::config().count) return;
  emu::Stat s;
  s.launches = 1;
  s.operations[p->unit] = p->operations;
  const auto traffic = [](std::uint64_t bytes) {
    return emu::Traffic{0, (bytes + emu::sector_bytes - 1) / emu::sector_bytes, bytes, bytes};
  };
  s.loads = traffic(s.unique_read = p->bytes_read);
  s.stores = traffic(s.unique_written = p->bytes_written);
  s.seconds = p->seconds;
  emu::count_work(emu::WorkKind::product, p->name, s);
}

int emu_submit(cudaStream_t stream, int (*run)(void*), void (*destroy)(void*), void* argument, const char* identity) {
  const std::shared_ptr<void> owner(argument, destroy);
  if (const int code = emu::refuse_other_device(stream, "cuBLAS")) return code;
  const auto work = [owner, run] { return static_cast<cudaError_t>(run(owner.get())); };
  return emu::submit(stream, "cuBLAS", work, facts_of_library(identity));
}

}  // extern "C"

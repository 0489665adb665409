// SPDX-License-Identifier: Apache-2.0
// Entry points that nvcc's host code calls before main: fat binaries, kernels, variables.
#include <cstdio>

#include "api.hpp"
#include "count_table.hpp"
#include "race.hpp"
#include "text.hpp"

namespace emu {
namespace {

Module& module_of(void** handle) { return *static_cast<Module*>(*handle); }

void print_times() {
  for (const Kernel* k : registry().kernels) {
    if (!k->stat.launches) continue;
    say("EMU TIME: %-50.50s launches %6llu threads %12llu %9.3f s %8.2f M threads/s\n", k->shown.c_str(),
        static_cast<unsigned long long>(k->stat.launches), static_cast<unsigned long long>(k->stat.threads), k->stat.seconds,
        double(k->stat.threads) / k->stat.seconds / 1e6);
  }
}

struct AtExit {
  ~AtExit() { report_at_exit(); }
} at_exit;

}  // namespace

void report_at_exit() {
  static bool done = false;
  if (done) return;
  done = true;
  std::fflush(stdout);
  if (config().count) write_count_table();
  if (config().race != RaceMode::off) race_summary();
  if (config().times) print_times();
}

}  // namespace emu

using emu::module_of;
using emu::registry;

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  auto* m = new emu::Module();
  m->ptx = emu::ptx_of_fat_binary(wrapper);
  registry().modules.push_back(m);
  return new void*(m);
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) { emu::report_at_exit(); }
char __cudaInitModule(void** handle) { return emu::load(module_of(handle)) ? 1 : 0; }

void __cudaRegisterFunction(void** handle, const char* host_function, char*, const char* name, int, uint3*, uint3*, dim3*,
                            dim3*, int*) {
  emu::Kernel* kernel = emu::add_kernel(module_of(handle), name);
  kernel->host_function = host_function;
  registry().by_host_function[host_function] = kernel;
}

void __cudaRegisterVar(void** handle, char* host_variable, char*, const char* name, int, size_t, int, int) {
  registry().host_variables[host_variable] = {&module_of(handle), name};
}

void __cudaRegisterManagedVar(void** handle, void** host_variable, char*, const char* name, int, size_t, int, int) {
  module_of(handle).managed[name] = host_variable;
  registry().host_variables[host_variable] = {&module_of(handle), name};
}

cudaError_t __cudaGetKernel(cudaKernel_t* out, const void* host_function) {
  emu::Kernel* k = emu::kernel_of(host_function);
  *out = reinterpret_cast<cudaKernel_t>(k);
  return k ? cudaSuccess : emu::error(cudaErrorInvalidDeviceFunction);
}
cudaError_t cudaGetKernel(cudaKernel_t* out, const void* host_function) { return __cudaGetKernel(out, host_function); }

}  // extern "C"

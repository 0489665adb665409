// SPDX-License-Identifier: Apache-2.0
// Modules (the PTX of one object file), their kernels and variables, and how the host program names them.
#pragma once
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "launch.hpp"

namespace emu {

struct Module;

/// __device__, __constant__ or __managed__ variable.
struct Variable {
  struct Relocation {  // initialiser that is the address of another symbol
    std::uint64_t offset;
    std::string symbol;
    std::uint64_t add;
  };
  std::string name, initial;  // hexadecimal bytes, "-" for zero
  std::uint32_t alignment = 0;
  std::uint64_t size = 0, address = 0;
  bool managed = false;
  std::vector<Relocation> relocations;
};

struct Kernel {
  Module* module = nullptr;
  const void* host_function = nullptr;                              // what the program launches it by
  std::string name, shown;                                          // mangled, readable
  std::vector<std::pair<std::uint32_t, std::uint32_t>> parameters;  // offset and size
  std::uint32_t parameter_bytes = 0, max_threads = 1024;
  int max_dynamic_shared = 48 * 1024;
  bool in_ptx = false, build_failed = false;
  const EmuKernelDesc* code = nullptr;  // null until it is built
  Stat stat;
};

struct Module {
  std::string ptx, hash;
  bool loaded = false, broken = false;
  std::vector<Variable> variables;
  std::unordered_map<std::string, std::size_t> variable_index;
  std::unordered_map<std::string, int> function_index;
  std::unordered_map<std::string, Kernel*> kernels;
  std::unordered_map<std::string, void**> managed;  // where the host keeps the address
};

/// Everything the host program has registered.
struct Registry {
  std::recursive_mutex mutex;  // of the whole API: device work runs inside the call that submits it
  std::vector<Module*> modules;
  std::vector<Kernel*> kernels;  // in the order of registration
  std::unordered_map<const void*, Kernel*> by_host_function;
  std::unordered_map<const void*, std::pair<Module*, std::string>> host_variables;
};
Registry& registry();

/// PTX of a fat binary for the pretended device: the newest architecture it can run. Empty, with a report, if none.
std::string ptx_of_fat_binary(const void* wrapper);
Kernel* add_kernel(Module& m, const std::string& name);
/// Reads the PTX's list of kernels and variables, creates the variables. Done once; false when that failed.
bool load(Module& m);
/// Compiles the kernel if need be (and, the first time, others that will be needed, in parallel) and links it.
bool build(Kernel& k);
Kernel* kernel_of(const void* host_function);

}  // namespace emu

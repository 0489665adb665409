// SPDX-License-Identifier: Apache-2.0
#include "module.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "memory.hpp"
#include "text.hpp"
#include "tools.hpp"

namespace emu {
namespace {

/// Lines of the translator: kernel NAME COUNT {OFFSET:SIZE} MAX_THREADS | global NAME ALIGN SIZE INITIAL MANAGED |
/// func NAME INDEX | reloc VARIABLE OFFSET SYMBOL ADD.
void read_info(Module& m, const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream in(line);
    std::string what, name;
    in >> what >> name;
    if (what == "kernel") {
      const auto known = m.kernels.find(name);
      Kernel& k = known != m.kernels.end() ? *known->second : *add_kernel(m, name);
      k.in_ptx = true;
      int count = 0;
      in >> count;
      for (int i = 0; i < count; i++) {
        std::uint32_t offset = 0, size = 0;
        char colon = 0;
        in >> offset >> colon >> size;
        k.parameters.emplace_back(offset, size);
        k.parameter_bytes = std::max(k.parameter_bytes, offset + size);
      }
      in >> k.max_threads;
    } else if (what == "global") {
      Variable v;
      v.name = name;
      int managed = 0;
      in >> v.alignment >> v.size >> v.initial >> managed;
      v.managed = managed != 0;
      m.variable_index[name] = m.variables.size();
      m.variables.push_back(v);
    } else if (what == "func") {
      in >> m.function_index[name];
    } else if (what == "reloc") {
      Variable::Relocation r;
      in >> r.offset >> r.symbol >> r.add;
      m.variables[m.variable_index[name]].relocations.push_back(r);
    }
  }
}

void create_variable(Module& m, Variable& v) {
  const auto managed = m.managed.find(v.name);
  if (managed != m.managed.end() || v.managed) {
    const std::uint64_t bytes = (v.size + 4095) / 4096 * 4096;
    void* memory = std::aligned_alloc(4096, bytes);
    std::memset(memory, 0, bytes);
    v.address = allocate(v.size, Kind::host, "managed variable " + v.name, memory);
    if (managed != m.managed.end()) *managed->second = memory;
  } else {
    v.address = allocate(v.size, Kind::variable, "variable " + v.name);
  }
  if (v.initial == "-") return;
  std::uint8_t* bytes = host_of(v.address);
  for (std::size_t i = 0; i + 1 < v.initial.size() && i / 2 < v.size; i += 2) {
    bytes[i / 2] = std::uint8_t(std::strtol(v.initial.substr(i, 2).c_str(), nullptr, 16));
  }
}

bool relocate(Module& m, const Variable& v) {
  for (const Variable::Relocation& r : v.relocations) {
    const auto function = m.function_index.find(r.symbol);
    const auto variable = m.variable_index.find(r.symbol);
    std::uint64_t value = 0;
    if (function != m.function_index.end()) {
      value = EMU_FWIN + 16ull * std::uint64_t(function->second);
    } else if (variable != m.variable_index.end()) {
      value = m.variables[variable->second].address + r.add;
    } else {
      say("EMU ERROR: initializer of %s refers to unknown %s\n", v.name.c_str(), r.symbol.c_str());
      return false;
    }
    std::memcpy(host_of(v.address) + r.offset, &value, sizeof value);
  }
  return true;
}

}  // namespace

Registry& registry() {
  static auto* r = new Registry();  // never destroyed: static objects of the program may still launch kernels
  return *r;
}

Kernel* add_kernel(Module& m, const std::string& name) {
  auto* k = new Kernel();
  k->module = &m;
  k->name = name;
  k->shown = demangle(name);
  m.kernels[name] = k;
  registry().kernels.push_back(k);
  return k;
}

bool load(Module& m) {
  if (m.loaded) return !m.broken;
  m.loaded = true;
  m.broken = true;
  if (m.ptx.empty()) {
    say("EMU ERROR: module holds no uncompressed PTX (build with -gencode arch=compute_80,code=compute_80 "
        "--no-compress)\n");
    return false;
  }
  m.hash = hex(fnv1a(m.ptx, fnv1a(toolchain_hash())));
  const std::string base = cache_folder() + m.hash, ptx = base + ".ptx", info = base + ".info", parsed = base + ".parsed";
  if (!exists(ptx)) write_whole(ptx, m.ptx);
  if (!exists(info)) {
    const std::string temporary = temporary_name(info), temporary_parsed = temporary_name(parsed);
    if (!run_translator_info(ptx, temporary, temporary_parsed)) {
      say("EMU ERROR: PTX module %s could not be read\n", m.hash.c_str());
      return false;
    }
    std::rename(temporary_parsed.c_str(), parsed.c_str());
    std::rename(temporary.c_str(), info.c_str());  // last: where it is, the other is too
  }
  read_info(m, read_file(info));
  for (Variable& v : m.variables) create_variable(m, v);
  bool good = true;
  for (const Variable& v : m.variables) good = relocate(m, v) && good;
  m.broken = !good;
  return good;
}

Kernel* kernel_of(const void* host_function) {
  Registry& r = registry();
  const auto it = r.by_host_function.find(host_function);
  if (it != r.by_host_function.end()) return it->second;
  for (Kernel* k : r.kernels) {  // a cudaKernel_t is the kernel itself
    if (k == host_function) return k;
  }
  return nullptr;
}

}  // namespace emu

// SPDX-License-Identifier: Apache-2.0
// From a kernel's PTX to its function: translated, compiled, cached by content, loaded. A kernel is built when it is
// first launched. Together with it, those are built in parallel that the program used in earlier runs (EMU_PREBUILD=used),
// or all of the module (EMU_PREBUILD=all).
#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <set>
#include <sstream>
#include <thread>

#include "config.hpp"
#include "module.hpp"
#include "text.hpp"
#include "tools.hpp"

namespace emu {
namespace {

std::string object_base(const Kernel& k) {
  return cache_folder() + hex(fnv1a(k.name, fnv1a(compiler_hash(), fnv1a(k.module->hash))));
}

/// Leaves the shared object in the cache. Runs on several OS threads at once.
bool compile(const Kernel& k) {
  const std::string base = object_base(k), object = base + ".so";
  if (exists(object)) return true;
  const auto begin = std::chrono::steady_clock::now();
  const std::string temporary = temporary_name(base), source = temporary + ".cpp";
  if (!run_translator_kernel(k.name, cache_folder() + k.module->hash + ".parsed", source)) {
    say("EMU ERROR: kernel %s cannot be translated (see above)\n", k.shown.c_str());
    return false;
  }
  // Programs share kernels: what was compiled from the same C++ is copied. (A link would be one library to dlopen.)
  const std::string same = cache_folder() + "code-" + hex(fnv1a(read_file(source), fnv1a(compiler_hash()))) + ".so";
  std::error_code failed;
  if (!exists(same) || !std::filesystem::copy_file(same, temporary + ".so", failed)) {
    if (!run_compiler(source, temporary + ".so")) {
      say("EMU ERROR: generated code of kernel %s does not compile (%s)\n", k.shown.c_str(), source.c_str());
      return false;
    }
    if (std::filesystem::copy_file(temporary + ".so", temporary + ".copy", failed))
      std::rename((temporary + ".copy").c_str(), same.c_str());
  }
  std::rename(source.c_str(), (base + ".cpp").c_str());
  std::rename((temporary + ".so").c_str(), object.c_str());
  if (config().verbose) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    say("EMU: built %s in %.2f s\n", k.shown.c_str(), seconds);
  }
  return true;
}

/// File with the names of the kernels that this program has launched so far, one a line. Kept per program, not per
/// content: it is a guess at what will be needed after the next change.
std::string usage_file() {
  std::error_code none;
  const std::string program = std::filesystem::read_symlink("/proc/self/exe", none).string();
  return cache_folder() + "used-" + hex(fnv1a(program)) + ".txt";
}

const std::set<std::string>& used_before() {
  static const auto* names = [] {
    auto* set = new std::set<std::string>();
    std::istringstream in(read_file(usage_file()));
    for (std::string name; std::getline(in, name);) set->insert(name);
    return set;
  }();
  return *names;
}

void remember(const Kernel& k) {
  static auto* known = new std::set<std::string>(used_before());
  if (!known->insert(k.name).second) return;
  std::string text;
  for (const std::string& name : *known) text += name + "\n";
  write_whole(usage_file(), text);
}

void compile_in_parallel(const std::vector<const Kernel*>& list) {
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < list.size(); i = next++) compile(*list[i]);
  };
  std::vector<std::thread> helpers;
  const std::size_t jobs = std::min(std::size_t(config().jobs), list.size());
  for (std::size_t i = 1; i < jobs; i++) helpers.emplace_back(work);
  work();
  for (std::thread& t : helpers) t.join();
}

/// The kernel and those worth building beside it.
void compile_with_others(const Kernel& wanted) {
  std::vector<const Kernel*> list = {&wanted};
  for (const Kernel* k : registry().kernels) {
    if (k == &wanted || k->code || config().prebuild == Prebuild::none) continue;
    if (config().prebuild == Prebuild::used && !used_before().count(k->name)) continue;
    if (load(*k->module) && k->in_ptx && !exists(object_base(*k) + ".so")) list.push_back(k);
  }
  compile_in_parallel(list);
}

}  // namespace

bool build(Kernel& k) {
  if (k.code) return true;
  if (k.build_failed || !load(*k.module)) return false;
  k.build_failed = true;
  if (!k.in_ptx) {
    say("EMU ERROR: kernel %s is not in the PTX\n", k.name.c_str());
    return false;
  }
  const std::string object = object_base(k) + ".so";
  if (!exists(object)) compile_with_others(k);
  if (!exists(object)) return false;  // reported by compile
  void* handle = dlopen(object.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    say("EMU ERROR: %s\n", dlerror());
    return false;
  }
  const auto* code = static_cast<const EmuKernelDesc*>(dlsym(handle, "emu_kernel"));
  if (!code) return false;
  const std::vector<Variable>& variables = k.module->variables;
  for (std::size_t i = 0; i < variables.size() && i < code->nglobals; i++) code->globals[i] = variables[i].address;
  k.code = code;
  k.build_failed = false;
  remember(k);
  return true;
}

}  // namespace emu

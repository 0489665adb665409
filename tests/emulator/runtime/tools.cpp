// SPDX-License-Identifier: Apache-2.0
#include "tools.hpp"

#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "config.hpp"
#include "text.hpp"

namespace fs = std::filesystem;

namespace emu {
namespace {

std::string or_default(const char* variable, const char* fallback) {
  const std::string value = environment(variable);
  return value.empty() ? fallback : value;
}

// The build sets the defaults; the variables serve installed copies and experiments.
const std::string& translator() {
  static const std::string path = or_default("EMU_TRANSLATOR", EMU_DEFAULT_TRANSLATOR);
  return path;
}
const std::string& device_headers() {
  static const std::string path = or_default("EMU_DEVICE_HEADERS", EMU_DEFAULT_DEVICE_HEADERS);
  return path;
}
const std::string& abi_headers() {
  static const std::string path = or_default("EMU_ABI_HEADERS", EMU_DEFAULT_ABI_HEADERS);
  return path;
}

const std::string& own_path() {
  static const std::string path = [] {
    Dl_info info;
    dladdr(reinterpret_cast<void*>(&run_compiler), &info);
    return fs::canonical(info.dli_fname).string();
  }();
  return path;
}

std::string compiler() { return or_default("EMU_CXX", "g++"); }

std::string compiler_flags() {
  // Contraction and strict aliasing would change what the PTX says; -w: generated code has unused labels.
  std::string flags =
      "-std=c++17 -O2 -march=native -ffp-contract=off -fno-strict-aliasing -fno-math-errno -fno-trapping-math -w -shared "
      "-fPIC -fvisibility=hidden";
  if (config().count) flags += " -DEMU_COUNT";
  if (config().race != RaceMode::off) flags += " -DEMU_RACE";
  const std::string more = environment("EMU_CXXFLAGS");
  return more.empty() ? flags : flags + " " + more;
}

bool command(const std::string& text) {
  if (config().verbose) say("EMU: %s\n", text.c_str());
  // The tools must not load the stand-in libraries.
  return std::system(("LD_LIBRARY_PATH= LD_PRELOAD= PYTHONDONTWRITEBYTECODE=1 " + text).c_str()) == 0;
}

void add_sources(const std::string& path, std::vector<std::string>& files) {
  if (!fs::is_directory(path)) {
    files.push_back(path);
    return;
  }
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".py" || extension == ".hpp" || extension == ".h") files.push_back(entry.path().string());
  }
}

}  // namespace

const std::string& toolchain_hash() {
  static const std::string hash = [] {
    std::vector<std::string> files;
    for (const std::string& path : {translator(), device_headers(), abi_headers() + "/emu_abi.h"}) add_sources(path, files);
    std::sort(files.begin(), files.end());
    std::uint64_t h = fnv1a("");
    for (const std::string& file : files) h = fnv1a(read_file(file), h);
    return hex(h);
  }();
  return hash;
}

const std::string& compiler_hash() {
  static const std::string hash = hex(fnv1a(compiler_flags() + compiler() + own_path()));
  return hash;
}

const std::string& cache_folder() {
  static const std::string folder = [] {
    const std::string set = environment("EMU_CACHE"), temporary = or_default("TMPDIR", "/tmp");
    const std::string path = set.empty() ? temporary + "/emucuda-cache-" + std::to_string(getuid()) : set;
    std::error_code ignored;  // a folder that cannot be made shows when the first file is written
    fs::create_directories(path, ignored);
    if (set.empty()) chmod(path.c_str(), 0700);
    return path + "/";
  }();
  return folder;
}

std::string temporary_name(const std::string& base) {
  static std::atomic<int> number{0};
  return base + "." + std::to_string(getpid()) + "." + std::to_string(number++);
}

bool exists(const std::string& path) { return access(path.c_str(), R_OK) == 0; }

void write_whole(const std::string& path, const std::string& text) {
  const std::string temporary = temporary_name(path);
  std::ofstream(temporary, std::ios::binary) << text;
  std::rename(temporary.c_str(), path.c_str());
}

bool run_translator_info(const std::string& ptx, const std::string& out, const std::string& parsed) {
  return command("python3 " + shell_quote(translator()) + " --info " + shell_quote(ptx) + " " + shell_quote(out) + " " +
                 shell_quote(parsed));
}

bool run_translator_kernel(const std::string& kernel, const std::string& parsed, const std::string& out) {
  return command("python3 " + shell_quote(translator()) + " --kernel " + shell_quote(kernel) + " " + shell_quote(parsed) +
                 " " + shell_quote(out));
}

bool run_compiler(const std::string& source, const std::string& out) {
  return command(compiler() + " " + compiler_flags() + " -I" + shell_quote(device_headers()) + " -I" +
                 shell_quote(abi_headers()) + " " + shell_quote(source) + " " + shell_quote(own_path()) + " -o " +
                 shell_quote(out));
}

}  // namespace emu

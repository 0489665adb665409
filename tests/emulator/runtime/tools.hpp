// SPDX-License-Identifier: Apache-2.0
// The translator and the compiler as commands, and the cache of what they made.
#pragma once
#include <string>

namespace emu {

/// Hash of the translator's files and of the ABI header: part of every cache key.
const std::string& toolchain_hash();
/// Hash of compiler, flags and this library.
const std::string& compiler_hash();
/// Folder of cached files, with a slash at its end.
const std::string& cache_folder();
/// Name that no other process or thread uses, for a file that is renamed into place when it is complete.
std::string temporary_name(const std::string& base);
bool exists(const std::string& path);
/// Writes `text` so that readers see nothing or all of it.
void write_whole(const std::string& path, const std::string& text);

/// PTX file -> list of kernels, parameters and variables; and what was read, for run_translator_kernel.
bool run_translator_info(const std::string& ptx, const std::string& out, const std::string& parsed);
/// Parsed module, kernel -> C++ file.
bool run_translator_kernel(const std::string& kernel, const std::string& parsed, const std::string& out);
/// C++ file -> shared object.
bool run_compiler(const std::string& source, const std::string& out);

}  // namespace emu

// SPDX-License-Identifier: Apache-2.0
#include "text.hpp"

#include <cxxabi.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace emu {
namespace {

std::string vformat(const char* text, va_list arguments) {
  va_list copy;
  va_copy(copy, arguments);
  const int length = std::vsnprintf(nullptr, 0, text, copy);
  va_end(copy);
  std::string out(length > 0 ? std::size_t(length) : 0, '\0');
  std::vsnprintf(out.data(), out.size() + 1, text, arguments);
  return out;
}

}  // namespace

std::string format(const char* text, ...) {
  va_list arguments;
  va_start(arguments, text);
  std::string out = vformat(text, arguments);
  va_end(arguments);
  return out;
}

void say(const char* text, ...) {
  va_list arguments;
  va_start(arguments, text);
  const std::string out = vformat(text, arguments);
  va_end(arguments);
  std::fwrite(out.data(), 1, out.size(), stderr);
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

std::uint64_t fnv1a(const std::string& text, std::uint64_t hash) {
  for (unsigned char c : text) {
    hash ^= c;
    hash *= 1099511628211ull;
  }
  return hash;
}

std::string hex(std::uint64_t value) { return format("%016llx", static_cast<unsigned long long>(value)); }

std::string shell_quote(const std::string& text) {
  std::string out = "'";
  for (char c : text) {
    if (c == '\'')
      out += "'\\''";
    else
      out += c;
  }
  return out + "'";
}

std::string demangle(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string out = text ? text : name;
  std::free(text);
  if (out.rfind("void ", 0) == 0) out = out.substr(5);
  const std::string unnamed = "(anonymous namespace)::";
  for (std::size_t at = out.find(unnamed); at != std::string::npos; at = out.find(unnamed)) out.erase(at, unnamed.size());
  int depth = 0;  // of template arguments, which may hold parentheses of their own
  for (std::size_t i = 0; i < out.size(); i++) {
    if (out[i] == '<') depth++;
    if (out[i] == '>') depth--;
    if (out[i] == '(' && depth == 0) return out.substr(0, i);
  }
  return out;
}

}  // namespace emu

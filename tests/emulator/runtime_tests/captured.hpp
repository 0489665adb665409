// SPDX-License-Identifier: Apache-2.0
// What the runtime writes to stderr while a function runs: its reports.
#pragma once
#include <unistd.h>

#include <cstdio>
#include <string>

template <class F>
std::string captured(F run) {
  std::FILE* file = std::tmpfile();
  const int before = dup(2);
  dup2(fileno(file), 2);
  run();
  dup2(before, 2);
  close(before);
  std::string text;
  std::rewind(file);
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) text += char(c);
  std::fclose(file);
  return text;
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

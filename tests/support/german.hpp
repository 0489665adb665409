// SPDX-License-Identifier: Apache-2.0
// A program in German: 1.234.567,5 in C++ and, where the machine has that locale or can make it, in C.
#pragma once
#include <clocale>
#include <cstdlib>
#include <filesystem>
#include <locale>
#include <memory>
#include <string>

#include "support/process.hpp"
#include "support/temporary_folder.hpp"

namespace test {
/// The global locale of C++ and all of C's for as long as this lives.
class German {
 public:
  German() : before_(std::locale::global(std::locale(std::locale::classic(), new Numbers))) {
    c_before_ = std::setlocale(LC_ALL, nullptr);
    if (const char* path = std::getenv("LOCPATH")) path_before_ = std::make_unique<std::string>(path);
    in_c_ = find_in_c() || (make(), find_in_c());
  }
  German(const German&) = delete;
  German& operator=(const German&) = delete;
  ~German() {
    std::locale::global(before_);
    if (made_) path_before_ ? ::setenv("LOCPATH", path_before_->c_str(), 1) : ::unsetenv("LOCPATH");
    std::setlocale(LC_ALL, c_before_.c_str());
  }
  /// Whether printf and strtod have a comma, too.
  bool in_c() const { return in_c_; }

 private:
  struct Numbers : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
  };
  static bool find_in_c() {
    for (const char* name : {"de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8"})
      if (std::setlocale(LC_ALL, name)) return std::string(std::localeconv()->decimal_point) == ",";
    return false;
  }
  void make() {
    made_ = std::make_unique<TemporaryFolder>();
    Process compiler({"/usr/bin/localedef", "-i", "de_DE", "-f", "UTF-8", (made_->path() / "de_DE.UTF-8").string()},
                     made_->path());
    compiler.wait();
    ::setenv("LOCPATH", made_->path().c_str(), 1);
  }
  std::locale before_;
  std::string c_before_;
  std::unique_ptr<std::string> path_before_;
  std::unique_ptr<TemporaryFolder> made_;
  bool in_c_ = false;
};
}  // namespace test

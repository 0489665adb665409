// SPDX-License-Identifier: Apache-2.0
// dpmp::Error and the one macro that throws it. Library code never exits and never prints.
#pragma once
#include <initializer_list>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
/// Thrown for everything the library refuses. what() says what was expected, what was got, and where.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, const char* file = __builtin_FILE(), int line = __builtin_LINE())
      : std::runtime_error(compose(message, file, line)), message_(message) {}
  /// The text without the place in the library that refused.
  const std::string& message() const noexcept { return message_; }

 private:
  static std::string compose(const std::string& message, std::string file, int line) {
    // A path from "dpmp/" on means the same on every machine.
    if (const auto at = file.rfind("dpmp/"); at != std::string::npos) file = file.substr(at);
    return message + " [" + file + ":" + std::to_string(line) + "]";
  }
  std::string message_;
};

/// The same for memory that is not there: work that failed by this may succeed on a smaller batch.
class OutOfMemory : public Error {
 public:
  explicit OutOfMemory(const std::string& message, const char* file = __builtin_FILE(), int line = __builtin_LINE())
      : Error(message, file, line) {}
};

/// A stream whose numbers are the same in every program: without the grouping and the decimal comma of a global locale.
struct TextStream : std::ostringstream {
  TextStream() { imbue(std::locale::classic()); }
};

namespace detail {
/// Something printable, behind a pointer: so that one function composes all texts. Lives as long as the expression it is in.
class TextPart {
 public:
  TextPart(const char* text) : at_(text), write_(write_text) {}
  template <class T>
  TextPart(const T& x) : at_(&x), write_(write<T>) {}
  friend std::ostream& operator<<(std::ostream& out, const TextPart& part) {
    part.write_(out, part.at_);
    return out;
  }

 private:
  static void write_text(std::ostream& out, const void* p) { out << static_cast<const char*>(p); }
  template <class T>
  static void write(std::ostream& out, const void* p) {
    out << *static_cast<const T*>(p);
  }
  const void* at_;
  void (*write_)(std::ostream&, const void*);
};
[[gnu::cold, gnu::noinline]] inline std::string joined(std::initializer_list<TextPart> parts) {
  TextStream out;
  for (const TextPart& part : parts) out << part;
  return out.str();
}
template <class... Parts>
std::string concat(const Parts&... parts) {
  return joined({parts...});
}
/// What a DPMP_CHECK that does not hold comes to: a call, so that no function with a check has a string to clean up.
[[noreturn, gnu::cold, gnu::noinline]] inline void refuse(std::initializer_list<TextPart> parts, const char* file,
                                                          int line) {
  throw Error(joined(parts), file, line);
}
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI

// The list is named because nvcc writes a bare one in parentheses where it has members of a template's argument.
/// Throws dpmp::Error composed of the remaining arguments unless `condition` holds. The arguments are evaluated only then.
#define DPMP_CHECK(condition, ...) \
  do { \
    if (!(condition)) [[unlikely]] \
      ::dpmp::detail::refuse(::std::initializer_list<::dpmp::detail::TextPart>{__VA_ARGS__}, __builtin_FILE(), \
                             __builtin_LINE()); \
  } while (false)

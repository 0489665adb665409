// SPDX-License-Identifier: Apache-2.0
// A file that is read at given places, and whose size does not depend on when it is asked for.
#pragma once
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI {
/// An open regular file. Whoever replaces it by another one under its name (AtomicFile) changes nothing here.
class InputFile {
 public:
  /// Throws unless `path` is a regular file, or a link to one, that can be read.
  explicit InputFile(const std::filesystem::path& path);
  InputFile(InputFile&& from) noexcept : file_(std::exchange(from.file_, -1)), size_(from.size_) {}
  InputFile& operator=(InputFile&& from) noexcept {
    std::swap(file_, from.file_);
    std::swap(size_, from.size_);
    return *this;
  }
  ~InputFile() {
    if (file_ >= 0) ::close(file_);
  }
  /// In bytes, when the file was opened.
  index_t size() const { return size_; }
  /// Reads bytes [offset, offset + count) and returns how many there were: fewer where the file has become shorter or cannot
  /// be read.
  index_t read(index_t offset, void* to, index_t count) const;

 private:
  int file_ = -1;
  index_t size_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline InputFile::InputFile(const std::filesystem::path& path) {
  // Opening a pipe would wait for somebody to write to it.
  file_ = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  struct stat there {};
  if (file_ >= 0 && ::fstat(file_, &there) == 0 && S_ISREG(there.st_mode)) {
    size_ = index_t(there.st_size);
    return;
  }
  if (file_ >= 0) ::close(file_);
  throw Error("reading '" + path.string() + "': expected a readable file, got none");
}

DPMP_KEPT_BODY inline index_t InputFile::read(index_t offset, void* to, index_t count) const {
  index_t done = 0;
  while (done < count) {
    const ssize_t got = ::pread(file_, static_cast<char*>(to) + done, std::size_t(std::min(count - done, index_t(1) << 30)),
                                off_t(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += index_t(got);
  }
  return done;
}
}  // namespace dpmp::inline DPMP_ABI
#endif

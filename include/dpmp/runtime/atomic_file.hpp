// SPDX-License-Identifier: Apache-2.0
// A file that appears under its name complete or not at all: written next to its place, flushed to the disk, then renamed.
#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI {
/// Until commit() returns, whatever was there before stays untouched; without commit() nothing remains.
class AtomicFile {
 public:
  /// Throws when no file can be made in the folder of `path`, or `path` is a folder.
  explicit AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
    DPMP_CHECK(!std::filesystem::is_directory(path_), "writing '", path_.string(),
               "': expected a place for a file, got a folder");
    static std::atomic<unsigned> counter{0};
    temporary_ = path_;
    temporary_ += ".part-" + std::to_string(::getpid()) + "-" + std::to_string(counter.fetch_add(1));
    file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file_ < 0) refuse("a folder that can be written to");
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() {
    if (file_ >= 0) ::close(file_);
    if (!committed_) ::unlink(temporary_.c_str());
  }

  /// Throws when the disk is full or fails.
  void write(const void* data, std::size_t bytes) {
    const char* at = static_cast<const char*>(data);
    while (bytes > 0) {
      // Linux moves at most 2^31 - 4096 bytes a call.
      const ssize_t written = ::write(file_, at, std::min<std::size_t>(bytes, 1u << 30));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) refuse("space for " + std::to_string(bytes) + " more bytes");
      at += written;
      bytes -= std::size_t(written);
    }
  }

  /// Puts the file in its place. Throws, and leaves the old file there, when that fails.
  void commit() {
    if (::fsync(file_) != 0) refuse("a successful flush");
    const int closed = ::close(file_);
    file_ = -1;
    if (closed != 0) refuse("a successful close");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) refuse("a place for a file");
    committed_ = true;
    // The rename itself survives a power cut only when the folder is flushed; some file systems cannot do that.
    const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
    if (const int handle = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); handle >= 0) {
      ::fsync(handle);
      ::close(handle);
    }
  }

 private:
  [[noreturn]] void refuse(const std::string& expected) const {
    const std::string reason = std::generic_category().message(errno);
    throw Error("writing '" + path_.string() + "': expected " + expected + ", got: " + reason);
  }
  std::filesystem::path path_, temporary_;
  int file_ = -1;
  bool committed_ = false;
};
}  // namespace dpmp::inline DPMP_ABI

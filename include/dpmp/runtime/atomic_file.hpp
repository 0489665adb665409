// SPDX-License-Identifier: Apache-2.0
// A file that appears under its name complete or not at all: written next to its place, flushed to the disk, then renamed.
#pragma once
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
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
/// Who may read a file that is written. by_umask: whom the process's umask lets, as usual. owner_only: mode 0600, for keys.
enum class FileAccess : std::uint8_t { by_umask, owner_only };

/// Until commit() returns, whatever was there before stays untouched; without commit() nothing remains, except after a crash
/// a file `<name>.part-<process>-<number>`, which has the access of the file it was to become, and which goes when somebody
/// writes to `<name>` again: who writes such a file holds a lock on it (flock), so one that can be locked has no writer any
/// more. Where the file system has no such locks they stay. Access is limited from before
/// the first byte on, and never wider than that of a file that is replaced: its permission bits are a limit, those for its
/// group only where the new file is of the same group, else those for everybody.
class AtomicFile {
 public:
  /// Throws when no file can be made in the folder of `path`, when the file system cannot limit access as asked for, and
  /// when `path` is a folder, a device, a pipe, a socket or a symbolic link. Links are not followed, because in a folder
  /// that others may write to a link would choose which file is overwritten, and not replaced, because its owner would keep
  /// an old file elsewhere without noticing. Links among the folders of `path` are followed.
  explicit AtomicFile(std::filesystem::path path, FileAccess access = FileAccess::by_umask);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  /// Throws when the disk is full or fails.
  void write(const void* data, std::size_t bytes);
  /// Puts the file in its place. Throws, and leaves the old file there, when that fails.
  void commit();

 private:
  struct Replaced {
    mode_t permissions = 0777;  // of the file under the name; all where there is none
    gid_t group = 0;
  };
  Replaced replaced() const;
  void remove_abandoned() const;
  bool lock() const;
  void limit_access();
  void drop() noexcept;
  [[noreturn]] void refuse(const std::string& expected) const;

  std::filesystem::path path_, temporary_;
  FileAccess access_;
  int file_ = -1;
  bool committed_ = false;
};
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline AtomicFile::AtomicFile(std::filesystem::path path, FileAccess access)
    : path_(std::move(path)), access_(access) {
  remove_abandoned();
  const mode_t mode = (access == FileAccess::owner_only ? 0600 : 0666) & replaced().permissions;
  static std::atomic<unsigned> counter{0};
  // A process that crashed may have left a file of this name: in a container every run has the same process number.
  constexpr int names_tried = 10000;
  for (int left = names_tried; file_ < 0; --left) {
    temporary_ = path_;
    temporary_ += ".part-" + std::to_string(::getpid()) + "-" + std::to_string(counter.fetch_add(1));
    file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (file_ < 0 && (errno != EEXIST || left == 0)) refuse("a folder that can be written to");
    if (file_ >= 0 && left > 0 && !lock()) {  // somebody took it for an abandoned one
      ::close(file_);
      file_ = -1;
    }
  }
  try {
    limit_access();
  } catch (...) {
    drop();  // no destructor runs after a constructor that throws
    throw;
  }
}

DPMP_KEPT_BODY inline AtomicFile::~AtomicFile() { drop(); }

DPMP_KEPT_BODY inline void AtomicFile::drop() noexcept {
  if (!committed_) ::unlink(temporary_.c_str());  // while it is locked
  if (file_ >= 0) ::close(file_);
  file_ = -1;
}

DPMP_KEPT_BODY inline void AtomicFile::write(const void* data, std::size_t bytes) {
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

DPMP_KEPT_BODY inline void AtomicFile::commit() {
  limit_access();  // once more: the file that is replaced may have been locked up since
  if (::fsync(file_) != 0) refuse("a successful flush");
  const int locked = ::dup(file_);  // has the lock, too, which must outlive the name
  const int closed = ::close(file_);
  file_ = -1;
  const int renamed = closed == 0 ? ::rename(temporary_.c_str(), path_.c_str()) : 0, reason = errno;
  committed_ = closed == 0 && renamed == 0;
  if (locked >= 0) ::close(locked);
  errno = reason;
  if (closed != 0) refuse("a successful close");
  if (renamed != 0) refuse("a place for a file");
  // The rename itself survives a power cut only when the folder is flushed; some file systems cannot do that.
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  if (const int handle = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); handle >= 0) {
    ::fsync(handle);
    ::close(handle);
  }
}

/// Whether the new file is this writer's: locked, or on a file system without locks, and still there.
DPMP_KEPT_BODY inline bool AtomicFile::lock() const {
  struct stat ours {};
  if (::flock(file_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false;
  return ::fstat(file_, &ours) == 0 && ours.st_nlink > 0;
}

DPMP_KEPT_BODY inline void AtomicFile::remove_abandoned() const {
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  const std::string start = path_.filename().string() + ".part-";
  std::error_code error;
  for (auto at = std::filesystem::directory_iterator(folder, error); !error && at != std::filesystem::directory_iterator();
       at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (!name.starts_with(start)) continue;
    const std::size_t process = name.find_first_not_of("0123456789", start.size());  // where its number ends
    if (process == start.size() || process == std::string::npos || name[process] != '-' || process + 1 == name.size() ||
        name.find_first_not_of("0123456789", process + 1) != std::string::npos)
      continue;
    const int file = ::open(at->path().c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat there {};
    if (file < 0) continue;
    // Once more after it was locked: its writer may have given it its name since it was listed, or another one a new file.
    struct stat named {};
    if (::flock(file, LOCK_EX | LOCK_NB) == 0 && ::fstat(file, &there) == 0 && S_ISREG(there.st_mode) &&
        ::lstat(at->path().c_str(), &named) == 0 && named.st_ino == there.st_ino && named.st_dev == there.st_dev)
      ::unlink(at->path().c_str());
    ::close(file);
  }
}

DPMP_KEPT_BODY inline AtomicFile::Replaced AtomicFile::replaced() const {
  struct stat there {};
  if (::lstat(path_.c_str(), &there) != 0) return {};  // nothing there; or no folder, which opening the file finds out
  const char* what = S_ISDIR(there.st_mode)   ? "a folder"
                     : S_ISLNK(there.st_mode) ? "a symbolic link (give the file that it points to)"
                                              : "a device, a pipe or a socket";
  DPMP_CHECK(S_ISREG(there.st_mode), "writing '", path_.string(), "': expected a place for a file, got ", what);
  return {there.st_mode & 0777, there.st_gid};
}

DPMP_KEPT_BODY inline void AtomicFile::limit_access() {
  struct stat ours {};
  if (::fstat(file_, &ours) != 0) refuse("a file that can be looked at");
  const Replaced old = replaced();
  mode_t allowed = (access_ == FileAccess::owner_only ? 0600 : 0666) & old.permissions;
  if (old.permissions != 0777 && old.group != ours.st_gid) allowed &= 0707 | (old.permissions & 07) << 3;
  if ((ours.st_mode & 0777 & ~allowed) == 0) return;
  if (::fchmod(file_, ours.st_mode & allowed) != 0) refuse("a file system on which access to a file can be limited");
  if (::fstat(file_, &ours) != 0) refuse("a file that can be looked at");
  DPMP_CHECK((ours.st_mode & 0777 & ~allowed) == 0, "writing '", path_.string(),
             "': expected a file system that keeps the permissions of a file, got one that lets others read it");
}

DPMP_KEPT_BODY inline void AtomicFile::refuse(const std::string& expected) const {
  const std::string reason = std::generic_category().message(errno);
  throw Error("writing '" + path_.string() + "': expected " + expected + ", got: " + reason);
}
}  // namespace dpmp::inline DPMP_ABI
#endif

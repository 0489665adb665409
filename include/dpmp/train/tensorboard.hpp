// SPDX-License-Identifier: Apache-2.0
// The log of a run for TensorBoard: event files with a scalar for each number of a Progress. Source: TFRecord framing with
// masked checksums (tensorflow/core/lib/io/record_writer.h), event.proto and summary.proto of tensorboard/compat/proto, and
// the wire format of protocol buffers.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "dpmp/train/log.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// What of a history is left out unless asked for, as in a report (ReportOptions): how long private steps took, and numbers
/// about private records, whose names begin with unsafe_prefix.
struct TensorBoardOptions {
  bool times_of_private_steps = false, unsafe_debug = false;
};

/// An event file: for each Progress the numbers that are set, under their names in a log. Nothing else is told: the time of
/// an event is its step, in seconds. Numbers are rounded to FP32, epsilon and delta up, noise_multiplier down.
std::string tensorboard_events(std::span<const Progress> history, const TensorBoardOptions& options = {});

/// The same while a run goes on: a new file events.out.tfevents.NUMBER.dpmp in a folder, which `tensorboard --logdir`
/// shows and follows. Of steps that an earlier file of the folder has from the first step of this one on, this one's are
/// shown.
class TensorBoardLog {
 public:
  /// Makes the folder and the file. Throws where that fails.
  explicit TensorBoardLog(const std::filesystem::path& folder, const TensorBoardOptions& options = {});
  TensorBoardLog(const TensorBoardLog&) = delete;
  TensorBoardLog& operator=(const TensorBoardLog&) = delete;
  ~TensorBoardLog();
  const std::filesystem::path& path() const { return path_; }
  /// Appends the events of one line. Throws when the disk is full.
  void write(const Progress& progress);

 private:
  void append(const std::string& bytes);
  std::filesystem::path path_;
  TensorBoardOptions options_;
  int file_ = -1;
  bool started_ = false;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>

#include "dpmp/core/crc32.hpp"
#include "dpmp/core/error.hpp"
#include "dpmp/train/report.hpp"
#include "dpmp/train/unsafe_numbers.hpp"

namespace dpmp::inline DPMP_ABI::train {
namespace detail {
inline void add_little_endian(std::string& to, std::uint64_t x, int bytes) {
  for (int k = 0; k < bytes; ++k) to += char(x >> (8 * k) & 0xff);
}
// Fields of protocol buffers: the number of the field and how its value is written, then the value.
inline void add_varint(std::string& to, std::uint64_t x) {
  for (; x >= 0x80; x >>= 7) to += char(x | 0x80);
  to += char(x);
}
inline void add_text(std::string& to, unsigned field, std::string_view text) {
  add_varint(to, field << 3 | 2);
  add_varint(to, text.size());
  to += text;
}

/// Length, its checksum, the bytes, their checksum; a checksum is turned and shifted, so that it can be taken of bytes that
/// have checksums among them.
inline std::string framed_record(std::string_view bytes) {
  const auto masked = [](std::string_view text) {
    const std::uint32_t crc = crc32c(text.data(), text.size());
    return std::rotr(crc, 15) + 0xa282ead8u;
  };
  std::string record;
  add_little_endian(record, bytes.size(), 8);
  add_little_endian(record, masked(record), 4);
  record += bytes;
  add_little_endian(record, masked(bytes), 4);
  return record;
}
/// An Event: its time (1), its step (2) and what it is, a message or a text, in `field`. Zeros are left out, as
/// protobuf does.
inline std::string event_record(index_t step, unsigned field, std::string_view what) {
  std::string event;
  if (step > 0) {
    add_varint(event, 1u << 3 | 1);
    add_little_endian(event, std::bit_cast<std::uint64_t>(double(step)), 8);
    add_varint(event, 2u << 3 | 0);
    add_varint(event, std::uint64_t(step));
  }
  add_text(event, field, what);
  return framed_record(event);
}
inline std::string version_record() { return event_record(0, 3, "brain.Event:2"); }
/// A SessionLog whose status (1) is START (1): what an earlier file has from this step on does not count.
inline std::string start_record(index_t step) { return event_record(step, 7, "\x08\x01"); }

/// A Summary of Values, each a tag (1) and a float (2).
inline std::string summary_record(const Progress& p, const TensorBoardOptions& options) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const auto upward = [](double x) {
    const float nearest = float(x);
    return double(nearest) < x ? std::nextafter(nearest, infinity) : nearest;
  };
  std::string summary;
  const auto add = [&](std::string_view tag, float x) {
    std::string value;
    add_text(value, 1, tag);
    add_varint(value, 2u << 3 | 5);
    add_little_endian(value, std::bit_cast<std::uint32_t>(x), 4);
    add_text(summary, 1, value);
  };
  if (p.epsilon) add("epsilon", upward(*p.epsilon));
  if (p.delta) add("delta", upward(*p.delta));
  if (p.noise_multiplier) add("noise_multiplier", -upward(-*p.noise_multiplier));
  if (p.learning_rate) add("learning_rate", float(*p.learning_rate));
  if (p.held_out_loss) add("held_out_loss", float(*p.held_out_loss));
  for (const auto& [name, value] : p.more) {
    if (name.starts_with(unsafe_prefix) && !options.unsafe_debug) continue;
    if (name == records_per_second_name && p.epsilon && !options.times_of_private_steps) continue;
    add(name, float(value));
  }
  return summary.empty() ? "" : event_record(p.step, 5, summary);
}
}  // namespace detail

DPMP_KEPT_BODY inline std::string tensorboard_events(std::span<const Progress> history, const TensorBoardOptions& options) {
  std::string events = detail::version_record();
  for (const Progress& progress : history) events += detail::summary_record(progress, options);
  return events;
}

DPMP_KEPT_BODY inline TensorBoardLog::TensorBoardLog(const std::filesystem::path& folder, const TensorBoardOptions& options)
    : options_(options) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  // TensorBoard reads the files of a folder in the order of their names.
  for (int number = 0; file_ < 0; ++number) {
    const std::string digits = std::to_string(number);
    path_ = folder /
            ("events.out.tfevents." + std::string(10 - std::min<std::size_t>(10, digits.size()), '0') + digits + ".dpmp");
    file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    DPMP_CHECK(file_ >= 0 || errno == EEXIST, "expected a folder for TensorBoard's event files, got '", folder.string(),
               "': ", std::strerror(errno));
  }
  try {
    append(detail::version_record());
  } catch (...) {
    ::close(file_);
    throw;
  }
}

DPMP_KEPT_BODY inline TensorBoardLog::~TensorBoardLog() { ::close(file_); }

DPMP_KEPT_BODY inline void TensorBoardLog::append(const std::string& bytes) {
  struct stat before {};
  const bool known = ::fstat(file_, &before) == 0;
  ssize_t n = 0;
  do {
    n = ::write(file_, bytes.data(), bytes.size());
  } while (n < 0 && errno == EINTR);
  if (n == ssize_t(bytes.size())) return;
  const int why = n < 0 ? errno : ENOSPC;
  // A part of an event would end the file for its readers.
  const bool whole = n <= 0 || (known && ::ftruncate(file_, before.st_size) == 0);
  throw Error("expected room for an event in '" + path_.string() + "', got: " + std::strerror(why) +
              (whole ? "" : "; it ends with a part of one now"));
}

DPMP_KEPT_BODY inline void TensorBoardLog::write(const Progress& progress) {
  append((started_ ? "" : detail::start_record(progress.step)) + detail::summary_record(progress, options_));
  started_ = true;
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif

// SPDX-License-Identifier: Apache-2.0
// Runs a program as a user does, and keeps what it said.
#pragma once
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <vector>

#include "support/temporary_folder.hpp"

namespace test {
/// A program that was started; killed if it still runs when this goes out of scope.
class Process {
 public:
  /// Standard output and error go to files in `folder`.
  Process(const std::vector<std::string>& command, const std::filesystem::path& folder)
      : out_(folder / "stdout"), error_(folder / "stderr") {
    std::vector<char*> arguments;
    for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    const std::string out = out_.string(), error = error_.string();
    id_ = ::fork();
    if (id_ < 0) throw std::runtime_error("no process for " + command[0]);
    if (id_ == 0) {
      // Only calls that are safe between fork and exec.
      const int out_file = ::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666),
                error_file = ::open(error.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
      ::dup2(out_file, STDOUT_FILENO);
      ::dup2(error_file, STDERR_FILENO);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (id_ > 0) kill(), wait();
  }
  bool running() {
    if (id_ <= 0) return false;
    if (::waitpid(id_, &status_, WNOHANG) == 0) return true;
    id_ = 0;
    return false;
  }
  void kill() { ::kill(id_, SIGKILL); }
  /// The exit code; 128 + the signal where one ended it.
  int wait() {
    if (id_ > 0) ::waitpid(id_, &status_, 0);
    id_ = 0;
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }
  std::string out() const { return read_text(out_); }
  std::string error() const { return read_text(error_); }

 private:
  std::filesystem::path out_, error_;
  pid_t id_ = 0;
  int status_ = 0;
};
}  // namespace test

// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <csignal>
#include <vector>

#include "dpmp/runtime/atomic_file.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"

using dpmp::AtomicFile;

TEST_CASE("AtomicFile: nothing is to be seen before commit, everything after") {
  const test::TemporaryFolder folder;
  test::write_text(folder / "x", "old");
  {
    AtomicFile file(folder / "x");
    file.write("new ", 4);
    CHECK(test::read_text(folder / "x") == "old");
    file.write("text", 4);
    file.write(nullptr, 0);
    file.commit();
    CHECK(test::read_text(folder / "x") == "new text");
  }
  CHECK(test::read_text(folder / "x") == "new text");
  CHECK(folder.entries() == 1);
}

TEST_CASE("AtomicFile: without commit, and after an exception, the old file stays alone") {
  const test::TemporaryFolder folder;
  test::write_text(folder / "x", "old");
  {
    AtomicFile file(folder / "x");
    file.write("new", 3);
    CHECK(folder.entries() == 2);
  }
  CHECK(test::read_text(folder / "x") == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("AtomicFile: a folder that is missing, a file, or write-protected is refused; so is a folder as target") {
  const test::TemporaryFolder folder;
  test::write_text(folder / "file", "");
  CHECK(test::refuses([&] { AtomicFile(folder / "none/x"); },
                      "a folder that can be written to, got: No such file or directory"));
  CHECK(test::refuses([&] { AtomicFile(folder / "file/x"); }, "a folder that can be written to, got: Not a directory"));
  std::filesystem::create_directory(folder / "target");
  CHECK(test::refuses(
      [&] {
        AtomicFile file(folder / "target");
        file.commit();
      },
      "a place for a file"));
  CHECK(folder.entries() == 2);
  if (::geteuid() != 0) {  // root may write everywhere
    std::filesystem::permissions(folder / "target", std::filesystem::perms::owner_read);
    CHECK(test::refuses([&] { AtomicFile(folder / "target/x"); }, "Permission denied"));
    std::filesystem::permissions(folder / "target", std::filesystem::perms::owner_all);
  }
}

TEST_CASE("AtomicFile: a full disk is refused and leaves the old file") {
  const test::TemporaryFolder folder;
  test::write_text(folder / "x", "old");
  // A limit on the size of files stands for a full disk: the write stops half-way with an error.
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 1000;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::string text(4000, 't');
  const std::string said = test::error_of([&] {
    AtomicFile file(folder / "x");
    file.write(text.data(), text.size());
    file.commit();
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(said.find("space for 3000 more bytes") != std::string::npos);
  CHECK(test::read_text(folder / "x") == "old");
  CHECK(folder.entries() == 1);
}

namespace {
mode_t mode_of(const std::filesystem::path& file) {
  struct stat there {};
  REQUIRE(::lstat(file.c_str(), &there) == 0);
  return there.st_mode & 07777;
}
/// The only file of the folder whose name has ".part-" in it.
std::filesystem::path temporary_in(const std::filesystem::path& folder) {
  std::filesystem::path found;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename().string().find(".part-") != std::string::npos) found = entry.path();
  REQUIRE(!found.empty());
  return found;
}
struct Umask {
  explicit Umask(mode_t mask) : before(::umask(mask)) {}
  ~Umask() { ::umask(before); }
  mode_t before;
};
}  // namespace

TEST_CASE("AtomicFile: what is for its owner alone is 0600 from before the first byte, whatever the umask") {
  for (const mode_t mask : {0, 022, 077}) {
    CAPTURE(mask);
    const Umask here(mask);
    const test::TemporaryFolder folder;
    AtomicFile secret(folder / "x", dpmp::FileAccess::owner_only);
    CHECK(mode_of(temporary_in(folder.path())) == 0600);
    secret.write("key", 3);
    CHECK(mode_of(temporary_in(folder.path())) == 0600);
    secret.commit();
    CHECK(mode_of(folder / "x") == 0600);
    AtomicFile weights(folder / "y");
    weights.commit();
    CHECK(mode_of(folder / "y") == (0666 & ~mask));
  }
}

TEST_CASE("AtomicFile: the permissions of a replaced file are a limit, also when they change while writing") {
  const Umask here(022);
  const test::TemporaryFolder folder;
  struct Case {
    mode_t old;
    dpmp::FileAccess access;
    mode_t expected;
  };
  for (const Case& c : {Case{0600, dpmp::FileAccess::by_umask, 0600}, Case{0640, dpmp::FileAccess::by_umask, 0640},
                        Case{0666, dpmp::FileAccess::by_umask, 0644}, Case{0444, dpmp::FileAccess::by_umask, 0444},
                        Case{0777, dpmp::FileAccess::by_umask, 0644}, Case{04755, dpmp::FileAccess::by_umask, 0644},
                        Case{0644, dpmp::FileAccess::owner_only, 0600}, Case{0400, dpmp::FileAccess::owner_only, 0400}}) {
    CAPTURE(c.old);
    std::filesystem::remove(folder / "x");
    test::write_text(folder / "x", "old");
    REQUIRE(::chmod((folder / "x").c_str(), c.old) == 0);
    AtomicFile file(folder / "x", c.access);
    CHECK((mode_of(temporary_in(folder.path())) & ~c.expected) == 0);
    file.write("new", 3);
    file.commit();
    CHECK(mode_of(folder / "x") == c.expected);
  }
  std::filesystem::remove(folder / "x");
  test::write_text(folder / "x", "old");
  AtomicFile file(folder / "x");
  REQUIRE(::chmod((folder / "x").c_str(), 0600) == 0);
  file.commit();
  CHECK(mode_of(folder / "x") == 0600);
}

TEST_CASE("AtomicFile: a group that the new file does not have passes nothing on") {
  if (::geteuid() != 0) return;  // only root may give files to any group
  const Umask here(002);
  const test::TemporaryFolder folder;
  for (const mode_t old : {0660, 0664}) {
    test::write_text(folder / "x", "old");
    REQUIRE(::chown((folder / "x").c_str(), uid_t(-1), 12345) == 0);
    REQUIRE(::chmod((folder / "x").c_str(), old) == 0);
    AtomicFile file(folder / "x");
    file.commit();
    CHECK(mode_of(folder / "x") == (old == 0660 ? 0600 : 0644));
  }
}

TEST_CASE("AtomicFile: symbolic links, pipes and devices are refused and left alone, also when they come while writing") {
  const test::TemporaryFolder folder;
  test::write_text(folder / "target", "old");
  std::filesystem::create_symlink("target", folder / "link");
  std::filesystem::create_symlink("nowhere", folder / "dangling");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  for (const char* name : {"link", "dangling"})
    CHECK(test::refuses([&] { AtomicFile(folder / name); }, "expected a place for a file, got a symbolic link"));
  CHECK(test::refuses([&] { AtomicFile(folder / "pipe"); }, "got a device, a pipe or a socket"));
  CHECK(test::refuses([&] { AtomicFile("/dev/null"); }, "got a device, a pipe or a socket"));
  CHECK(folder.entries() == 4);
  {
    AtomicFile file(folder / "x");
    std::filesystem::create_symlink("target", folder / "x");
    CHECK(test::refuses([&] { file.commit(); }, "a symbolic link"));
  }
  CHECK(test::read_text(folder / "target") == "old");
  CHECK(folder.entries() == 5);
  // A link among the folders is where the user put it.
  std::filesystem::create_directory(folder / "real");
  std::filesystem::create_symlink("real", folder / "folder");
  AtomicFile file(folder / "folder/y");
  file.commit();
  CHECK(std::filesystem::is_regular_file(folder / "real/y"));
}

TEST_CASE("AtomicFile: a crash leaves the old file, and of the new one what only its owner can read") {
  const Umask here(0);
  const test::TemporaryFolder folder;
  test::write_text(folder / "x", "old");
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(folder / "x", dpmp::FileAccess::owner_only);
    file.write("half of a key", 13);
    ::_exit(0);  // no destructor runs
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(test::read_text(folder / "x") == "old");
  CHECK(folder.entries() == 2);
  CHECK(mode_of(temporary_in(folder.path())) == 0600);
}

TEST_CASE("AtomicFile: what writers with the same process number are at is no obstacle, and what they left goes") {
  const test::TemporaryFolder folder;
  // Numbers go up by one in this process: learn the next one, and take the 50 after it.
  std::string next;
  {
    AtomicFile file(folder / "x");
    next = temporary_in(folder.path()).string();
  }
  const std::size_t dash = next.rfind('-');
  const unsigned long number = std::stoul(next.substr(dash + 1));
  std::vector<int> writers;
  for (unsigned long k = 1; k <= 50; ++k) {
    const std::string name = next.substr(0, dash + 1) + std::to_string(number + k);
    test::write_text(name, "theirs");
    writers.push_back(::open(name.c_str(), O_RDONLY));
    REQUIRE(::flock(writers.back(), LOCK_EX | LOCK_NB) == 0);
  }
  const auto write = [&](const char* text) {
    AtomicFile file(folder / "x");
    file.write(text, 3);
    file.commit();
    CHECK(test::read_text(folder / "x") == text);
  };
  write("new");
  CHECK(folder.entries() == 51);
  for (unsigned long k = 1; k <= 50; ++k)
    CHECK(test::read_text(next.substr(0, dash + 1) + std::to_string(number + k)) == "theirs");
  for (const int writer : writers) ::close(writer);
  write("two");
  CHECK(folder.entries() == 1);
}

TEST_CASE("AtomicFile: only what an ended writer of the same file left is removed") {
  const test::TemporaryFolder folder;
  const auto crash = [&] {
    const pid_t child = ::fork();
    if (child == 0) {
      AtomicFile file(folder / "x");
      file.write("half", 4);
      ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
  };
  // Others' files, and what only looks like ours.
  for (const char* name : {"x.part-", "x.part-1-2.old", "x.part-a-1", "y.part-1-2", "xx.part-1-2", "x", "part-1-2"})
    test::write_text(folder / name, "other");
  std::filesystem::create_directory(folder / "x.part-7-7");
  std::filesystem::create_symlink("y.part-1-2", folder / "x.part-8-8");
  REQUIRE(::mkfifo((folder / "x.part-9-9").c_str(), 0600) == 0);
  const int others = folder.entries();
  AtomicFile at_work(folder / "x");
  at_work.write("mine", 4);
  for (int k = 0; k < 20; ++k) {
    crash();
    CHECK(folder.entries() <= others + 2);  // each takes away what the one before it left
  }
  {
    AtomicFile file(folder / "x");
    file.commit();
  }
  CHECK(folder.entries() == others + 1);
  at_work.commit();
  CHECK(folder.entries() == others);
  CHECK(test::read_text(folder / "x") == "mine");
}

// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <csignal>

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

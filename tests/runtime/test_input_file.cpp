// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <cstring>

#include "dpmp/runtime/input_file.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"

using dpmp::InputFile;

TEST_CASE("InputFile: reads where it is asked to, and says how much there was") {
  const test::TemporaryFolder folder;
  test::write_text(folder / "x", "0123456789");
  InputFile file(folder / "x");
  CHECK(file.size() == 10);
  char got[10] = {};
  CHECK(file.read(3, got, 4) == 4);
  CHECK(std::memcmp(got, "3456", 4) == 0);
  CHECK(file.read(0, got, 0) == 0);
  CHECK(file.read(8, got, 5) == 2);
  CHECK(file.read(20, got, 1) == 0);
  InputFile moved = std::move(file);
  CHECK(moved.read(0, got, 2) == 2);
  // Another file under the name is not this one; a shorter one is.
  test::write_text(folder / "y", "abc");
  std::filesystem::rename(folder / "y", folder / "x");
  CHECK(moved.read(9, got, 1) == 1);
  InputFile shrinks(folder / "x");
  std::filesystem::resize_file(folder / "x", 1);
  CHECK(shrinks.size() == 3);
  CHECK(shrinks.read(0, got, 3) == 1);
}

TEST_CASE("InputFile: what is missing, a folder, a pipe or a device is refused without waiting; a link is followed") {
  const test::TemporaryFolder folder;
  test::write_text(folder / "x", "x");
  std::filesystem::create_symlink("x", folder / "link");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  for (const auto& path : {folder / "none", folder.path(), folder / "pipe", std::filesystem::path("/dev/zero")})
    CHECK(test::refuses([&] { InputFile file(path); }, "expected a readable file"));
  CHECK(InputFile(folder / "link").size() == 1);
}

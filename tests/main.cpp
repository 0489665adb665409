// SPDX-License-Identifier: Apache-2.0
// The main of every test program: doctest's, with the seed printed first; and where the sources lie.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <cstdio>

#include "support/random.hpp"
#include "support/source_folder.hpp"

std::filesystem::path test::source_folder() { return DPMP_SOURCE_FOLDER; }

int main(int argc, char** argv) {
  std::printf("seed %llu (replay with DPMP_TEST_SEED)\n", static_cast<unsigned long long>(test::seed()));
  doctest::Context context(argc, argv);
  return context.run();
}

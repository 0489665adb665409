// SPDX-License-Identifier: Apache-2.0
// The folder of the repository, for tests that read its files.
#pragma once
#include <filesystem>

namespace test {
/// Known to main.cpp only, so that a compiler cache serves every other unit from any checkout.
std::filesystem::path source_folder();
}  // namespace test

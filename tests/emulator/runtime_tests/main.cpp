// SPDX-License-Identifier: Apache-2.0
// Tests of single parts of the runtime, linked with its object files: neither nvcc nor a device program is needed.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

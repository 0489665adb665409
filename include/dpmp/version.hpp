// SPDX-License-Identifier: Apache-2.0
// The only place the version number stands; CMake reads it from here.
#pragma once
#define DPMP_VERSION_MAJOR 0
#define DPMP_VERSION_MINOR 1
#define DPMP_VERSION_PATCH 0
#define DPMP_VERSION_STRING "0.1.0"

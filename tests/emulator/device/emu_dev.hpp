// SPDX-License-Identifier: Apache-2.0
// All that C++ generated from PTX needs. Each header models one group of instructions as the PTX ISA describes it.
// C++17, since the code of a kernel is compiled on first launch and should compile fast.
#pragma once
#include "approximate.hpp"
#include "atomics.hpp"
#include "bits.hpp"
#include "convert.hpp"
#include "emu_abi.h"
#include "floats.hpp"
#include "halves.hpp"
#include "integers.hpp"
#include "matrix_moves.hpp"
#include "memory.hpp"
#include "registers.hpp"
#include "rounding.hpp"
#include "warp.hpp"

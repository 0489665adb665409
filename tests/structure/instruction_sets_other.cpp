// SPDX-License-Identifier: Apache-2.0
// A unit for instruction_sets_main.cpp.
#include "dpmp/runtime/context.hpp"

double other_unit(int n);
double other_unit(int n) { return n == 0 ? double(sizeof(dpmp::Context)) : 1; }

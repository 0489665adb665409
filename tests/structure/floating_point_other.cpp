// SPDX-License-Identifier: Apache-2.0
// The unit, or the shared library, whose flags floating_point_is_probed.cmake changes.
#ifdef FLAGS_BY_PRAGMA
#pragma GCC optimize("fast-math")
#endif
#ifndef DPMP_IS_NOT_INCLUDED
#include "dpmp/runtime/floating_point.hpp"
#endif

int of_the_other_unit();
int of_the_other_unit() { return 0; }

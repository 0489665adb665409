// SPDX-License-Identifier: Apache-2.0
// Matrix products. Their definitions come along, so that nothing has to be linked; a program of many files compiles them
// once instead: define DPMP_GEMM_IN_OWN_UNIT for all of it, and have one file of
//   #define DPMP_GEMM_LINKAGE
//   #include <dpmp/gemm/host.hpp>
#pragma once
#include "dpmp/gemm/interface.hpp"

#ifndef DPMP_GEMM_IN_OWN_UNIT
#include "dpmp/gemm/host.hpp"
#endif

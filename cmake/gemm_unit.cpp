// SPDX-License-Identifier: Apache-2.0
// The matrix products of our own programs, compiled once for all of them (dpmp/gemm/gemm.hpp).
#define DPMP_GEMM_LINKAGE
#include <dpmp/gemm/host.hpp>

// SPDX-License-Identifier: Apache-2.0
// Matrix products. Their definitions come along, so that nothing has to be linked, except in programs that link
// dpmp::compiled, which has them.
#pragma once
#include "dpmp/gemm/interface.hpp"

#if DPMP_BODIES && !(defined(DPMP_COMPILED) && defined(__CUDACC__))
#include "dpmp/gemm/host.hpp"
#endif

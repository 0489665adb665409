// SPDX-License-Identifier: Apache-2.0
// The one function of the driver API that is modelled: programs get it from cudaGetDriverEntryPointByVersion.
#pragma once
#include <cuda.h>

namespace emu {

/// cuGraphKernelNodeGetParams of CUDA 12 and later: also for kernels that the runtime does not know.
CUresult kernel_node_by_driver(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS_v2* out);

}  // namespace emu

// SPDX-License-Identifier: Apache-2.0
#include "driver_entry.hpp"

#include "graph.hpp"

namespace emu {

CUresult kernel_node_by_driver(CUgraphNode handle, CUDA_KERNEL_NODE_PARAMS_v2* out) {
  if (!handle || !out) return CUDA_ERROR_INVALID_VALUE;
  const NodeFacts& facts = reinterpret_cast<const Node*>(handle)->facts;
  if (facts.type != cudaGraphNodeTypeKernel) return CUDA_ERROR_INVALID_VALUE;
  const cudaKernelNodeParams& k = facts.kernel;
  *out = CUDA_KERNEL_NODE_PARAMS_v2{};
  out->func = static_cast<CUfunction>(k.func);
  out->gridDimX = k.gridDim.x;
  out->gridDimY = k.gridDim.y;
  out->gridDimZ = k.gridDim.z;
  out->blockDimX = k.blockDim.x;
  out->blockDimY = k.blockDim.y;
  out->blockDimZ = k.blockDim.z;
  out->sharedMemBytes = k.sharedMemBytes;
  out->kernelParams = k.kernelParams;
  return CUDA_SUCCESS;
}

}  // namespace emu

// SPDX-License-Identifier: Apache-2.0
// A captured graph: what is to be done, what waits for what, and what the API tells about each node.
#pragma once
#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <vector>

namespace emu {

using Work = std::function<cudaError_t()>;

/// The answers to queries about a node. Of the three descriptions the one that its type names is filled in.
struct NodeFacts {
  cudaGraphNodeType type = cudaGraphNodeTypeHost;
  cudaKernelNodeParams kernel{};
  std::shared_ptr<std::vector<void*>> arguments = {};  // what kernel.kernelParams points to
  bool of_library = false;                             // the program did not register this kernel with the runtime
  cudaMemcpy3DParms copy{};
  cudaMemsetParams fill{};
};

struct Node {
  Work work;
  NodeFacts facts;
  std::vector<std::size_t> after;  // indices of the nodes that it waits for
};

/// Nodes in the order in which they were captured.
struct Graph {
  std::vector<Node> nodes;
};

}  // namespace emu

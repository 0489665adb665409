// SPDX-License-Identifier: Apache-2.0
// Graphs: what was captured, replayed in the order of capture. Nodes can be looked at; they cannot be edited.
#include <algorithm>
#include <cstring>

#include "api.hpp"
#include "count_table.hpp"
#include "driver_entry.hpp"

namespace emu {
namespace {

Graph& graph_of(void* handle) { return *static_cast<Graph*>(handle); }
const NodeFacts& facts_of(void* node) { return static_cast<Node*>(node)->facts; }
cudaGraphNode_t handle_of(Node& node) { return reinterpret_cast<cudaGraphNode_t>(&node); }

/// Answers a query for the parameters of a node of this type.
template <class Parameters>
cudaError_t tell(void* node, cudaGraphNodeType type, Parameters NodeFacts::*part, Parameters* out) {
  if (!node || !out || facts_of(node).type != type) return error(cudaErrorInvalidValue);
  *out = facts_of(node).*part;
  return cudaSuccess;
}

}  // namespace
}  // namespace emu

using emu::error;
using emu::Graph;
using emu::graph_of;

extern "C" {

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t g, unsigned long long) {
  if (!out || !g) return error(cudaErrorInvalidValue);
  *out = reinterpret_cast<cudaGraphExec_t>(new Graph(graph_of(g)));
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* out, cudaGraph_t g, unsigned long long flags) {
  return cudaGraphInstantiate(out, g, flags);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t handle) {
  if (!e) return error(cudaErrorInvalidValue);
  const emu::Stream* s = emu::stream_of(handle, "cudaGraphLaunch");
  if (!s) return cudaErrorInvalidResourceHandle;
  if (s->capture) return emu::mistake(cudaErrorNotSupported, "cudaGraphLaunch", "child graphs are not modelled");
  std::lock_guard<std::recursive_mutex> lock(emu::registry().mutex);
  const emu::GraphLaunch counted_as_graph;
  for (const emu::Node& node : graph_of(e).nodes) {
    if (cudaError_t code = emu::sticky_error()) return code;
    if (cudaError_t code = error(node.work())) return code;
  }
  return cudaSuccess;
}
/// The new graph replaces the old one. The runtime refuses changes of topology; here only their number is compared.
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t e, cudaGraph_t g, cudaGraphExecUpdateResultInfo* info) {
  if (!e || !g) return error(cudaErrorInvalidValue);
  const bool same = graph_of(e).nodes.size() == graph_of(g).nodes.size();
  if (info) {
    *info = cudaGraphExecUpdateResultInfo{};
    info->result = same ? cudaGraphExecUpdateSuccess : cudaGraphExecUpdateErrorTopologyChanged;
  }
  if (!same) return error(cudaErrorGraphExecUpdateFailure);
  graph_of(e) = graph_of(g);
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t* nodes, size_t* count) {
  if (!g || !count) return error(cudaErrorInvalidValue);
  std::vector<emu::Node>& all = graph_of(g).nodes;
  if (nodes) {
    for (std::size_t i = 0; i < std::min(*count, all.size()); i++) nodes[i] = emu::handle_of(all[i]);
  }
  *count = all.size();
  return cudaSuccess;
}
cudaError_t cudaGraphGetEdges(cudaGraph_t g, cudaGraphNode_t* from, cudaGraphNode_t* to, cudaGraphEdgeData* data,
                              size_t* count) {
  if (!g || !count || !from != !to) return error(cudaErrorInvalidValue);
  std::size_t found = 0;
  for (emu::Node& node : graph_of(g).nodes) {
    for (const std::size_t before : node.after) {
      if (from && found < *count) {
        from[found] = emu::handle_of(graph_of(g).nodes[before]);
        to[found] = emu::handle_of(node);
        if (data) data[found] = cudaGraphEdgeData{};
      }
      found++;
    }
  }
  *count = found;
  return cudaSuccess;
}
cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  if (!node || !type) return error(cudaErrorInvalidValue);
  *type = emu::facts_of(node).type;
  return cudaSuccess;
}
/// As on a GPU, kernels of a library are unknown to the runtime: the driver knows them.
cudaError_t cudaGraphKernelNodeGetParams(cudaGraphNode_t node, cudaKernelNodeParams* out) {
  if (node && emu::facts_of(node).of_library) return error(cudaErrorInvalidDeviceFunction);
  return emu::tell(node, cudaGraphNodeTypeKernel, &emu::NodeFacts::kernel, out);
}
cudaError_t cudaGraphMemcpyNodeGetParams(cudaGraphNode_t node, cudaMemcpy3DParms* out) {
  return emu::tell(node, cudaGraphNodeTypeMemcpy, &emu::NodeFacts::copy, out);
}
cudaError_t cudaGraphMemsetNodeGetParams(cudaGraphNode_t node, cudaMemsetParams* out) {
  return emu::tell(node, cudaGraphNodeTypeMemset, &emu::NodeFacts::fill, out);
}
/// The driver itself is not modelled, but for the one function that tells about kernels of libraries.
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** out, unsigned version, unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  if (!symbol || !out) return error(cudaErrorInvalidValue);
  if (std::strcmp(symbol, "cuGraphKernelNodeGetParams") != 0 || version < 12000) {
    return emu::mistake(cudaErrorNotSupported, "cudaGetDriverEntryPointByVersion",
                        std::string(symbol) + " is not modelled by the emulator");
  }
  *out = reinterpret_cast<void*>(&emu::kernel_node_by_driver);
  if (found) *found = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
  delete &graph_of(g);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) {
  delete &graph_of(e);
  return cudaSuccess;
}

}  // extern "C"

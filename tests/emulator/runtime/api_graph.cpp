// SPDX-License-Identifier: Apache-2.0
// Graphs: what was captured, replayed in the order of capture. Nodes cannot be edited.
#include <algorithm>

#include "api.hpp"
#include "count_table.hpp"

namespace emu {
namespace {

Graph& graph_of(void* handle) { return *static_cast<Graph*>(handle); }

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
  for (const emu::Work& work : graph_of(e).operations) {
    if (cudaError_t code = emu::sticky_error()) return code;
    if (cudaError_t code = error(work())) return code;
  }
  return cudaSuccess;
}
/// The new graph replaces the old one. The runtime refuses changes of topology; here only their number is compared.
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t e, cudaGraph_t g, cudaGraphExecUpdateResultInfo* info) {
  if (!e || !g) return error(cudaErrorInvalidValue);
  const bool same = graph_of(e).operations.size() == graph_of(g).operations.size();
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
  const std::size_t all = graph_of(g).operations.size();
  if (nodes) {
    for (std::size_t i = 0; i < std::min(*count, all); i++) {
      nodes[i] = reinterpret_cast<cudaGraphNode_t>(&graph_of(g).operations[i]);
    }
  }
  *count = all;
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

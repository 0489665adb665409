// SPDX-License-Identifier: Apache-2.0
// What some work asks of a GPU, in words: the nodes of its capture as a graph, in the order in which they run. Addresses and
// the values of arguments are left out, all else that a profiler or a clock could tell is in.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <map>
#include <string>
#include <vector>

#include "dpmp/runtime/cuda_graph.cuh"

namespace test {
using LaunchTrace = std::vector<std::string>;

namespace detail {
using dpmp::detail::check_cuda;
using dpmp::detail::concat;

inline cudaGraph_t graph_so_far(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  unsigned long long id = 0;
  cudaGraph_t graph = nullptr;
#if CUDART_VERSION >= 13000
  check_cuda(cudaStreamGetCaptureInfo(stream, &status, &id, &graph), "ask a capture for its graph");
#else
  check_cuda(cudaStreamGetCaptureInfo_v2(stream, &status, &id, &graph), "ask a capture for its graph");
#endif
  DPMP_CHECK(status == cudaStreamCaptureStatusActive, "expected a stream that captures, got status ", int(status));
  return graph;
}

inline cudaError_t edges_of(cudaGraph_t graph, cudaGraphNode_t* from, cudaGraphNode_t* to, std::size_t* count) {
#if CUDART_VERSION >= 13000
  return cudaGraphGetEdges(graph, from, to, nullptr, count);
#else
  return cudaGraphGetEdges(graph, from, to, count);
#endif
}

/// The nodes of a graph in which each waits for one other, as those of a single stream do.
inline std::vector<cudaGraphNode_t> chain_of(cudaGraph_t graph) {
  std::size_t nodes = 0, edges = 0;
  check_cuda(cudaGraphGetNodes(graph, nullptr, &nodes), "count nodes");
  check_cuda(edges_of(graph, nullptr, nullptr, &edges), "count edges");
  if (nodes == 0) return {};
  DPMP_CHECK(edges == nodes - 1, "expected a chain of ", nodes, " nodes, got ", edges, " edges");
  std::vector<cudaGraphNode_t> all(nodes), from(edges), to(edges);
  check_cuda(cudaGraphGetNodes(graph, all.data(), &nodes), "get nodes");
  check_cuda(edges_of(graph, from.data(), to.data(), &edges), "get edges");
  std::map<cudaGraphNode_t, cudaGraphNode_t> next, before;
  for (std::size_t k = 0; k < edges; ++k) {
    next[from[k]] = to[k];
    before[to[k]] = from[k];
  }
  std::vector<cudaGraphNode_t> chain;
  for (const cudaGraphNode_t node : all)
    if (!before.count(node)) chain.push_back(node);
  DPMP_CHECK(chain.size() == 1, "expected one node that waits for none, got ", chain.size());
  for (auto at = next.find(chain[0]); at != next.end(); at = next.find(at->second)) chain.push_back(at->second);
  DPMP_CHECK(chain.size() == nodes, "expected a chain of ", nodes, " nodes, got one of ", chain.size());
  return chain;
}

inline std::string words_of(const dim3& d) { return concat(d.x, ",", d.y, ",", d.z); }

/// Kernels of cuBLASLt are the driver's: the runtime says that it does not know their function.
inline std::string library_kernel(cudaGraphNode_t node) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check_cuda(cudaGetDriverEntryPointByVersion("cuGraphKernelNodeGetParams", &entry, 12000, cudaEnableDefault, &found),
             "look for cuGraphKernelNodeGetParams");
  DPMP_CHECK(found == cudaDriverEntryPointSuccess, "expected a driver with cuGraphKernelNodeGetParams, got ", int(found));
  CUDA_KERNEL_NODE_PARAMS_v2 k{};
  const auto get = reinterpret_cast<CUresult (*)(CUgraphNode, CUDA_KERNEL_NODE_PARAMS_v2*)>(entry);
  const CUresult result = get(node, &k);
  DPMP_CHECK(result == CUDA_SUCCESS, "expected a kernel that the driver knows, got CUresult ", int(result));
  return concat("library kernel ", static_cast<const void*>(k.func), " ", static_cast<const void*>(k.kern), " grid ",
                words_of({k.gridDimX, k.gridDimY, k.gridDimZ}), " block ", words_of({k.blockDimX, k.blockDimY, k.blockDimZ}),
                " shared ", k.sharedMemBytes);
}

inline std::string words_of(cudaGraphNode_t node) {
  cudaGraphNodeType type{};
  check_cuda(cudaGraphNodeGetType(node, &type), "ask a node for its type");
  if (type == cudaGraphNodeTypeKernel) {
    cudaKernelNodeParams k{};
    const cudaError_t code = cudaGraphKernelNodeGetParams(node, &k);
    if (code == cudaErrorInvalidDeviceFunction) {
      cudaGetLastError();  // not sticky
      return library_kernel(node);
    }
    check_cuda(code, "ask a node for its kernel");
    return concat("kernel ", static_cast<const void*>(k.func), " grid ", words_of(k.gridDim), " block ",
                  words_of(k.blockDim), " shared ", k.sharedMemBytes);
  }
  if (type == cudaGraphNodeTypeMemcpy) {
    cudaMemcpy3DParms c{};
    check_cuda(cudaGraphMemcpyNodeGetParams(node, &c), "ask a node for its copy");
    return concat("copy of kind ", int(c.kind), ": ", c.extent.width, " x ", c.extent.height, " x ", c.extent.depth,
                  " bytes, pitches ", c.srcPtr.pitch, " and ", c.dstPtr.pitch);
  }
  if (type == cudaGraphNodeTypeMemset) {
    cudaMemsetParams f{};
    check_cuda(cudaGraphMemsetNodeGetParams(node, &f), "ask a node for its fill");
    return concat("fill of ", f.width, " x ", f.height, " elements of ", f.elementSize, " bytes with ", f.value);
  }
  return concat("node of type ", int(type));
}
}  // namespace detail

/// What work() launches on the context's stream, without doing it: as for CudaGraph, it must have run once before.
template <class F>
LaunchTrace launch_trace(dpmp::Context& ctx, F&& work) {
  LaunchTrace trace;
  dpmp::CudaGraph::capture(ctx, [&] {
    work();
    const auto stream = static_cast<cudaStream_t>(ctx.backend().stream());
    for (const cudaGraphNode_t node : detail::chain_of(detail::graph_so_far(stream)))
      trace.push_back(detail::words_of(node));
  });
  return trace;
}

/// Where two traces part first; empty when they do not.
inline std::string first_difference(const LaunchTrace& a, const LaunchTrace& b) {
  for (std::size_t k = 0; k < std::max(a.size(), b.size()); ++k) {
    const std::string here = k < a.size() ? a[k] : "nothing", there = k < b.size() ? b[k] : "nothing";
    if (here != there) return dpmp::detail::concat("node ", k, ": ", here, " | ", there);
  }
  return "";
}
}  // namespace test

// SPDX-License-Identifier: Apache-2.0
// Work that is launched once by hand and from then on as a whole: a CUDA graph of what a context's stream was asked for.
#pragma once
#include <memory>
#include <utility>

#include "dpmp/runtime/context.hpp"
#include "dpmp/runtime/cuda_backend.cuh"

namespace dpmp::inline DPMP_ABI {
/// A recorded run of some work of one context. launch() repeats the very same kernels on the very same memory: to give it
/// other inputs, overwrite the tensors that it read (Tensor::copy_from_host) before the launch.
///
/// What is captured:
/// - must have run once before, with the same shapes: memory, algorithms and kernels' attributes are there then;
/// - copies nothing from or to the host and does not wait for the device. What the host decides, shapes, thresholds and
///   other numbers, is decided once, for all replays. Noise and dropout are refused: every replay would draw the same;
/// - may use tensors of the outside as long as these live. Memory that it takes meanwhile is the graph's until the graph is
///   gone, and tensors that it leaves behind hold the results of the last launch. It is launched while its context lives.
class CudaGraph {
 public:
  /// Runs f(), whose work is recorded and not done. What f throws ends the capture and comes out here.
  template <class F>
  static CudaGraph capture(Context& ctx, F&& f) {
    DPMP_CHECK(ctx.on_cuda(), "expected a context on a GPU to capture a graph of, got ", ctx.device());
    auto& backend = static_cast<detail::CudaBackend&>(ctx.backend());
    const detail::DeviceScope scope(ctx.device().index);
    CudaGraph graph(ctx);
    backend.begin_capture();
    try {
      std::forward<F>(f)();
    } catch (...) {
      backend.abandon_capture();
      throw;
    }
    const Recorded recorded(backend.end_capture());
    graph.blocks_->seal();
    cudaGraphExec_t executable = nullptr;
    detail::check_cuda(cudaGraphInstantiate(&executable, recorded.get(), 0), "instantiate a graph");
    graph.executable_.reset(executable);
    detail::check_cuda(cudaGraphGetNodes(recorded.get(), nullptr, &graph.nodes_), "count the nodes of a graph");
    return graph;
  }
  /// Asks for all of the work, after what the context was asked for before.
  void launch() {
    backend_->refuse_in_capture("the launch of another graph");
    const detail::DeviceScope scope(device_);
    detail::check_cuda(cudaGraphLaunch(executable_.get(), static_cast<cudaStream_t>(backend_->stream())), "launch a graph");
  }
  /// Kernels, copies and fills in it.
  std::size_t nodes() const { return nodes_; }

 private:
  struct Destroy {
    void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
    void operator()(cudaGraphExec_t executable) const { cudaGraphExecDestroy(executable); }
  };
  using Recorded = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, Destroy>;
  using Executable = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, Destroy>;

  explicit CudaGraph(Context& ctx)
      : backend_(&ctx.backend()), device_(ctx.device().index), blocks_(std::make_unique<ReservedBlocks>(ctx.arena())) {}

  Backend* backend_;
  int device_;
  std::unique_ptr<ReservedBlocks> blocks_;  // goes last: the graph works in them
  Executable executable_;
  std::size_t nodes_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI

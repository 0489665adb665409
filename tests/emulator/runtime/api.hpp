// SPDX-License-Identifier: Apache-2.0
// What the files of the runtime API share: error state, streams, and how work is submitted.
#pragma once
#include <cuda_runtime_api.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "graph.hpp"
#include "module.hpp"

namespace emu {

/// A capture under way; shared by the streams that joined it.
struct Capture {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  bool invalid = false;
};

struct Stream {
  std::shared_ptr<Capture> capture;
  std::vector<std::size_t> last;  // captured nodes that the next one waits for
  bool blocking = true;           // synchronises with the legacy default stream
  int device = 0;
};

struct Event {
  std::chrono::steady_clock::time_point time;
  bool recorded = false, timing = true;
  int device = 0;
  std::shared_ptr<Capture> capture;
  std::vector<std::size_t> last;  // as the stream's where it was recorded
};

/// Remembers the error for cudaGetLastError and returns it.
cudaError_t error(cudaError_t code);
/// The same with a report: the caller made a mistake that is better named than coded.
cudaError_t mistake(cudaError_t code, const char* api, const std::string& why);
/// Error that a device fault left behind: every later call returns it.
cudaError_t sticky_error();
void set_sticky_error(cudaError_t code);

/// Stream of a handle: the default stream for the special handles, null (and a report) for one that does not exist.
Stream* stream_of(cudaStream_t handle, const char* api);
/// A launch goes to a stream of the current device alone (the special handles mean one of it); an error and a report else.
cudaError_t refuse_other_device(cudaStream_t stream, const char* api);
/// Runs the work now, or adds it to the capture of the stream. Streams run in the order of submission.
cudaError_t submit(cudaStream_t stream, const char* api, Work work, NodeFacts facts = {});
/// Calls that must not happen while a stream captures: they invalidate the capture, as on a GPU.
cudaError_t refuse_during_capture(const char* api);
/// Tables at exit.
void report_at_exit();

}  // namespace emu

// SPDX-License-Identifier: Apache-2.0
// Streams, events and their captures. All work runs when it is submitted, in the order of submission: a legal order of
// every correct program, but one that hides missing dependences between streams.
#include <algorithm>
#include <set>

#include "api.hpp"
#include "device_model.hpp"
#include "text.hpp"

namespace emu {
namespace {

struct Handles {
  std::mutex mutex;
  std::set<Stream*> streams;
  std::set<Event*> events;
  std::vector<std::weak_ptr<Capture>> captures;
};
Handles& handles() {
  static auto* h = new Handles();
  return *h;
}

Stream default_stream;

/// 0, cudaStreamLegacy and cudaStreamPerThread.
bool is_special(cudaStream_t s) { return reinterpret_cast<std::uintptr_t>(s) < 16; }

Event* event_of(cudaEvent_t handle, const char* api) {
  auto* e = reinterpret_cast<Event*>(handle);
  std::lock_guard<std::mutex> lock(handles().mutex);
  if (handles().events.count(e)) return e;
  mistake(cudaErrorInvalidResourceHandle, api, "not a live event");
  return nullptr;
}

/// A capture under way for which the predicate holds, null when there is none.
std::shared_ptr<Capture> any_capture(bool (*wanted)(const Capture&)) {
  std::lock_guard<std::mutex> lock(handles().mutex);
  auto& list = handles().captures;
  list.erase(std::remove_if(list.begin(), list.end(), [](const auto& c) { return c.expired(); }), list.end());
  for (const auto& weak : list) {
    if (auto c = weak.lock(); c && wanted(*c)) return c;
  }
  return nullptr;
}

/// Work of the legacy default stream waits for all blocking streams: while one of them captures it cannot.
cudaError_t refuse_implicit(const char* api) {
  std::vector<std::shared_ptr<Capture>> captures;
  {
    std::lock_guard<std::mutex> lock(handles().mutex);
    for (Stream* s : handles().streams) {
      if (s->capture && s->blocking) captures.push_back(s->capture);
    }
  }
  if (captures.empty()) return cudaSuccess;
  for (const auto& c : captures) c->invalid = true;
  return mistake(cudaErrorStreamCaptureImplicit, api, "used the default stream while a blocking stream captures");
}

/// A wait for a stream or event whose work is only captured.
cudaError_t refuse_wait(const std::shared_ptr<Capture>& capture, const char* api) {
  if (!capture) return sticky_error();
  capture->invalid = true;
  return mistake(cudaErrorStreamCaptureUnsupported, api, "waited for work that is being captured");
}

cudaError_t new_stream(cudaStream_t* out, bool blocking) {
  if (!out) return error(cudaErrorInvalidValue);
  auto* s = new Stream();
  s->blocking = blocking;
  s->device = current_device();
  std::lock_guard<std::mutex> lock(handles().mutex);
  handles().streams.insert(s);
  *out = reinterpret_cast<cudaStream_t>(s);
  return cudaSuccess;
}

}  // namespace

Stream* stream_of(cudaStream_t handle, const char* api) {
  if (is_special(handle)) return &default_stream;
  auto* s = reinterpret_cast<Stream*>(handle);
  std::lock_guard<std::mutex> lock(handles().mutex);
  if (handles().streams.count(s)) return s;
  mistake(cudaErrorInvalidResourceHandle, api, "not a live stream");
  return nullptr;
}

cudaError_t refuse_other_device(cudaStream_t handle, const char* api) {
  const Stream* s = stream_of(handle, api);
  if (!s) return cudaErrorInvalidResourceHandle;
  if (is_special(handle) || s->device == current_device()) return cudaSuccess;
  return mistake(cudaErrorInvalidResourceHandle, api,
                 format("its stream is of device %d, the current device is %d", s->device, current_device()));
}

cudaError_t submit(cudaStream_t handle, const char* api, Work work, NodeFacts facts) {
  std::lock_guard<std::recursive_mutex> lock(registry().mutex);
  Stream* s = stream_of(handle, api);
  if (!s) return cudaErrorInvalidResourceHandle;
  if (s->capture) {
    std::vector<Node>& nodes = s->capture->graph->nodes;
    nodes.push_back({std::move(work), std::move(facts), std::move(s->last)});
    s->last = {nodes.size() - 1};
    return cudaSuccess;
  }
  if (is_special(handle)) {
    if (cudaError_t e = refuse_implicit(api)) return e;
  }
  if (cudaError_t e = sticky_error()) return e;
  return error(work());
}

cudaError_t refuse_during_capture(const char* api) {
  const auto c = any_capture([](const Capture& x) { return x.mode == cudaStreamCaptureModeGlobal; });
  if (!c) return cudaSuccess;
  c->invalid = true;
  return mistake(cudaErrorStreamCaptureUnsupported, api, "not permitted while a stream captures in global mode");
}

}  // namespace emu

using emu::error;
using emu::Event;
using emu::Stream;
using emu::stream_of;

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* s) { return emu::new_stream(s, true); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned flags) {
  return emu::new_stream(s, !(flags & cudaStreamNonBlocking));
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned flags, int) {
  return cudaStreamCreateWithFlags(s, flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  if (emu::is_special(handle)) return error(cudaErrorInvalidResourceHandle);
  Stream* s = stream_of(handle, "cudaStreamDestroy");
  if (!s) return cudaErrorInvalidResourceHandle;
  {
    std::lock_guard<std::mutex> lock(emu::handles().mutex);
    emu::handles().streams.erase(s);
  }
  delete s;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  Stream* s = stream_of(handle, "cudaStreamSynchronize");
  return s ? emu::refuse_wait(s->capture, "cudaStreamSynchronize") : cudaErrorInvalidResourceHandle;
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  Stream* s = stream_of(handle, "cudaStreamQuery");
  return s ? emu::refuse_wait(s->capture, "cudaStreamQuery") : cudaErrorInvalidResourceHandle;
}
cudaError_t cudaDeviceSynchronize(void) {
  const auto capture = emu::any_capture([](const emu::Capture&) { return true; });
  return emu::refuse_wait(capture, "cudaDeviceSynchronize");
}
cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
  Stream* s = stream_of(handle, "cudaStreamGetFlags");
  if (!s) return cudaErrorInvalidResourceHandle;
  *flags = s->blocking ? cudaStreamDefault : cudaStreamNonBlocking;
  return cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
  *priority = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamGetDevice(cudaStream_t handle, int* device) {
  Stream* s = stream_of(handle, "cudaStreamGetDevice");
  if (!s) return cudaErrorInvalidResourceHandle;
  *device = emu::is_special(handle) ? emu::current_device() : s->device;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = 0;
  return cudaSuccess;
}

/// A stream that waits for a captured event joins its capture.
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  Stream* s = stream_of(handle, "cudaStreamWaitEvent");
  Event* e = emu::event_of(event, "cudaStreamWaitEvent");
  if (!s || !e) return cudaErrorInvalidResourceHandle;
  if (!e->capture) return cudaSuccess;
  s->capture = e->capture;
  for (const std::size_t node : e->last) {
    if (std::find(s->last.begin(), s->last.end(), node) == s->last.end()) s->last.push_back(node);
  }
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void* data) {
  return emu::submit(s, "cudaLaunchHostFunc", [=] {
    f(data);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t f, void* data, unsigned) {
  return emu::submit(s, "cudaStreamAddCallback", [=] {
    f(s, cudaSuccess, data);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned flags) {
  if (!out) return error(cudaErrorInvalidValue);
  auto* e = new Event();
  e->timing = !(flags & cudaEventDisableTiming);
  e->device = emu::current_device();
  std::lock_guard<std::mutex> lock(emu::handles().mutex);
  emu::handles().events.insert(e);
  *out = reinterpret_cast<cudaEvent_t>(e);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  Event* e = emu::event_of(handle, "cudaEventDestroy");
  if (!e) return cudaErrorInvalidResourceHandle;
  {
    std::lock_guard<std::mutex> lock(emu::handles().mutex);
    emu::handles().events.erase(e);
  }
  delete e;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream) {
  Event* e = emu::event_of(handle, "cudaEventRecord");
  Stream* s = stream_of(stream, "cudaEventRecord");
  if (!e || !s) return error(cudaErrorInvalidResourceHandle);
  const int device = emu::is_special(stream) ? emu::current_device() : s->device;
  if (e->device != device) {
    return emu::mistake(cudaErrorInvalidResourceHandle, "cudaEventRecord",
                        emu::format("the event is of device %d, its stream of device %d", e->device, device));
  }
  e->capture = s->capture;
  e->last = s->last;
  if (e->capture) return cudaSuccess;
  e->time = std::chrono::steady_clock::now();
  e->recorded = true;
  return emu::sticky_error();
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned) { return cudaEventRecord(e, s); }
cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  Event* e = emu::event_of(handle, "cudaEventSynchronize");
  return e ? emu::refuse_wait(e->capture, "cudaEventSynchronize") : cudaErrorInvalidResourceHandle;
}
cudaError_t cudaEventQuery(cudaEvent_t handle) {
  Event* e = emu::event_of(handle, "cudaEventQuery");
  return e ? emu::refuse_wait(e->capture, "cudaEventQuery") : cudaErrorInvalidResourceHandle;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  Event *a = emu::event_of(begin, "cudaEventElapsedTime"), *b = emu::event_of(end, "cudaEventElapsedTime");
  if (!a || !b || !a->recorded || !b->recorded || !a->timing || !b->timing) return error(cudaErrorInvalidResourceHandle);
  *milliseconds = std::chrono::duration<float, std::milli>(b->time - a->time).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  if (emu::is_special(handle)) return error(cudaErrorStreamCaptureUnsupported);
  Stream* s = stream_of(handle, "cudaStreamBeginCapture");
  if (!s) return cudaErrorInvalidResourceHandle;
  if (s->capture) return error(cudaErrorIllegalState);
  s->capture = std::make_shared<emu::Capture>();
  s->capture->mode = mode;
  std::lock_guard<std::mutex> lock(emu::handles().mutex);
  emu::handles().captures.push_back(s->capture);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* out) {
  Stream* s = stream_of(handle, "cudaStreamEndCapture");
  if (!s) return cudaErrorInvalidResourceHandle;
  if (!s->capture) return error(cudaErrorIllegalState);
  const std::shared_ptr<emu::Capture> capture = s->capture;
  std::lock_guard<std::mutex> lock(emu::handles().mutex);
  for (Stream* x : emu::handles().streams) {
    if (x->capture != capture) continue;
    x->capture = nullptr;
    x->last.clear();
  }
  for (Event* e : emu::handles().events) {
    if (e->capture == capture) e->capture = nullptr;
  }
  *out = nullptr;
  if (capture->invalid) return error(cudaErrorStreamCaptureInvalidated);
  *out = reinterpret_cast<cudaGraph_t>(new emu::Graph(*capture->graph));
  return cudaSuccess;
}
/// The graph as it is so far: what is captured later is added to it.
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t* graph, const cudaGraphNode_t** after, const cudaGraphEdgeData** edges,
                                     size_t* count) {
  if (after || edges || count) {
    return emu::mistake(cudaErrorNotSupported, "cudaStreamGetCaptureInfo", "a capture's dependences are not modelled");
  }
  if (!status) return error(cudaErrorInvalidValue);
  if (cudaError_t e = cudaStreamIsCapturing(handle, status)) return e;
  if (*status != cudaStreamCaptureStatusActive) return cudaSuccess;
  emu::Graph* captured = stream_of(handle, "cudaStreamGetCaptureInfo")->capture->graph.get();
  if (id) *id = reinterpret_cast<std::uintptr_t>(captured);
  if (graph) *graph = reinterpret_cast<cudaGraph_t>(captured);
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  Stream* s = stream_of(handle, "cudaStreamIsCapturing");
  if (!s) return cudaErrorInvalidResourceHandle;
  *status = !s->capture           ? cudaStreamCaptureStatusNone
            : s->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                  : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

}  // extern "C"

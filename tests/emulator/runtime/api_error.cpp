// SPDX-License-Identifier: Apache-2.0
// Error state of the runtime, and the names and texts of its codes.
#include "api.hpp"
#include "text.hpp"

namespace emu {
namespace {

thread_local cudaError_t last = cudaSuccess;
cudaError_t sticky = cudaSuccess;

struct ErrorText {
  cudaError_t code;
  const char* name;
  const char* text;
};

#define EMU_ERROR(code, text) \
  { code, #code, text }
const ErrorText texts[] = {
    EMU_ERROR(cudaSuccess, "no error"),
    EMU_ERROR(cudaErrorInvalidValue, "invalid argument"),
    EMU_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    EMU_ERROR(cudaErrorInitializationError, "initialization error"),
    EMU_ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    EMU_ERROR(cudaErrorInvalidPitchValue, "invalid pitch argument"),
    EMU_ERROR(cudaErrorInvalidSymbol, "invalid device symbol"),
    EMU_ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    EMU_ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    EMU_ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    EMU_ERROR(cudaErrorInvalidDeviceFunction, "invalid device function"),
    EMU_ERROR(cudaErrorInvalidKernelImage, "device kernel image is invalid"),
    EMU_ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    EMU_ERROR(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    EMU_ERROR(cudaErrorNotReady, "device not ready"),
    EMU_ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    EMU_ERROR(cudaErrorAssert, "device-side assert triggered"),
    EMU_ERROR(cudaErrorMisalignedAddress, "misaligned address"),
    EMU_ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    EMU_ERROR(cudaErrorNotSupported, "operation not supported"),
    EMU_ERROR(cudaErrorPeerAccessUnsupported, "peer access is not supported between these two devices"),
    EMU_ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    EMU_ERROR(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    EMU_ERROR(cudaErrorStreamCaptureImplicit,
              "operation would make the legacy stream depend on a capturing blocking stream"),
    EMU_ERROR(cudaErrorUnknown, "unknown error"),
};
#undef EMU_ERROR

}  // namespace

cudaError_t error(cudaError_t code) {
  if (code != cudaSuccess) last = code;
  return code;
}

cudaError_t mistake(cudaError_t code, const char* api, const std::string& why) {
  say("EMU ERROR: %s: %s\n", api, why.c_str());
  return error(code);
}

cudaError_t sticky_error() { return error(sticky); }
void set_sticky_error(cudaError_t code) { error(sticky = code); }

}  // namespace emu

extern "C" {

cudaError_t cudaGetLastError(void) {
  const cudaError_t code = emu::last;
  emu::last = emu::sticky;  // a sticky error is never cleared
  return code;
}

cudaError_t cudaPeekAtLastError(void) { return emu::last; }

const char* cudaGetErrorString(cudaError_t code) {
  for (const emu::ErrorText& e : emu::texts) {
    if (e.code == code) return e.text;
  }
  return "unrecognized error code";
}

const char* cudaGetErrorName(cudaError_t code) {
  for (const emu::ErrorText& e : emu::texts) {
    if (e.code == code) return e.name;
  }
  return "unrecognized error code";
}

cudaError_t cudaDeviceReset(void) {
  emu::sticky = emu::last = cudaSuccess;
  return cudaSuccess;
}

/// Stubs of everything that is not modelled end here.
int emu_unmodelled_runtime(const char* api) {
  return emu::mistake(cudaErrorNotSupported, api, "this call is not modelled by the emulator");
}

}  // extern "C"

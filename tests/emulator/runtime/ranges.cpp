// SPDX-License-Identifier: Apache-2.0
#include "ranges.hpp"

#include <nvtx3/nvToolsExt.h>

#include <dlfcn.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "config.hpp"

namespace emu {
namespace {

struct Open {
  std::string path = "";                // of the innermost range
  std::vector<std::size_t> outer = {};  // lengths of path before each push
};
thread_local Open open;

struct Entered {
  std::mutex mutex;
  std::map<std::string, std::uint64_t> times;
};
Entered& entered() {
  static auto* e = new Entered();  // never destroyed: the table is written at exit
  return *e;
}

// NVTX names a push by a text or by attributes; domains are not told apart.
int push_text(const char* text) { return push_range(text ? text : "?"); }
int push_attributes(const nvtxEventAttributes_t* a) {
  return push_text(a && a->messageType == NVTX_MESSAGE_TYPE_ASCII ? a->message.ascii : nullptr);
}
int NVTX_API on_push(const char* text) { return push_text(text); }
int NVTX_API on_push_ex(const nvtxEventAttributes_t* a) { return push_attributes(a); }
int NVTX_API on_domain_push(nvtxDomainHandle_t, const nvtxEventAttributes_t* a) { return push_attributes(a); }
int NVTX_API on_pop() { return pop_range(); }
int NVTX_API on_domain_pop(nvtxDomainHandle_t) { return pop_range(); }

template <class F>
void set(NvtxFunctionTable table, unsigned size, unsigned index, F function) {
  if (index < size && table[index]) *table[index] = reinterpret_cast<NvtxFunctionPointer>(function);
}

bool attach(const NvtxExportTableCallbacks& callbacks) {
  NvtxFunctionTable table = nullptr;
  unsigned size = 0;
  if (!callbacks.GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &table, &size)) return false;
  set(table, size, NVTX_CBID_CORE_RangePushA, on_push);
  set(table, size, NVTX_CBID_CORE_RangePushEx, on_push_ex);
  set(table, size, NVTX_CBID_CORE_RangePop, on_pop);
  if (!callbacks.GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size)) return false;
  set(table, size, NVTX_CBID_CORE2_DomainRangePushEx, on_domain_push);
  set(table, size, NVTX_CBID_CORE2_DomainRangePop, on_domain_pop);
  return true;
}

/// Before main, so that it comes before the first use of NVTX. A tool that the user has named stays.
[[gnu::constructor]] void offer_to_nvtx() {
  Dl_info self;
  if (!config().count || !dladdr(reinterpret_cast<void*>(&offer_to_nvtx), &self)) return;
  setenv("NVTX_INJECTION64_PATH", self.dli_fname, 0);
}

}  // namespace

int push_range(const std::string& name) {
  open.outer.push_back(open.path.size());
  if (!open.path.empty()) open.path += "/";
  open.path += name;
  std::lock_guard<std::mutex> lock(entered().mutex);
  entered().times[open.path]++;
  return int(open.outer.size()) - 1;
}

int pop_range() {
  if (open.outer.empty()) return -1;
  open.path.resize(open.outer.back());
  open.outer.pop_back();
  return int(open.outer.size());
}

const std::string& current_range() { return open.path; }

std::uint64_t times_entered(const std::string& range) {
  std::lock_guard<std::mutex> lock(entered().mutex);
  const auto it = entered().times.find(range);
  return it == entered().times.end() ? 0 : it->second;
}

}  // namespace emu

extern "C" int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t export_table) {
  const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(export_table(NVTX_ETID_CALLBACKS));
  return callbacks && emu::attach(*callbacks) ? 1 : 0;
}

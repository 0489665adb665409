// SPDX-License-Identifier: Apache-2.0
// What a profiler is told of a training step. The test is the profiler: NVTX finds it in the program.
#include <doctest/doctest.h>

#include "cuda/device_gpt.hpp"
#include "dpmp/dpmp.cuh"

namespace {
using namespace dpmp;

/// Ranges of the library's domain in the order in which they were opened, "outer/inner".
struct Seen {
  std::string domain;
  std::vector<std::string> open, paths;
  void clear() { open.clear(), paths.clear(); }
  index_t count(std::string_view path) const { return std::count(paths.begin(), paths.end(), path); }
  std::vector<std::string> outermost() const {
    std::vector<std::string> names;
    for (const std::string& path : paths)
      if (path.find('/') == std::string::npos) names.push_back(path);
    return names;
  }
} seen;

nvtxDomainHandle_t NVTX_API on_create(const char* name) {
  seen.domain = name;
  return reinterpret_cast<nvtxDomainHandle_t>(&seen);
}
int NVTX_API on_push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* a) {
  if (domain != reinterpret_cast<nvtxDomainHandle_t>(&seen)) return -1;
  const std::string name = a->message.ascii;
  seen.open.push_back(seen.open.empty() ? name : seen.open.back() + '/' + name);
  seen.paths.push_back(seen.open.back());
  return int(seen.open.size()) - 1;
}
int NVTX_API on_pop(nvtxDomainHandle_t) {
  REQUIRE(!seen.open.empty());
  seen.open.pop_back();
  return int(seen.open.size());
}

int attach(NvtxGetExportTableFunc_t table_of) {
  const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(table_of(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned size = 0;
  if (!callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size)) return 0;
  *table[NVTX_CBID_CORE2_DomainCreateA] = reinterpret_cast<NvtxFunctionPointer>(on_create);
  *table[NVTX_CBID_CORE2_DomainRangePushEx] = reinterpret_cast<NvtxFunctionPointer>(on_push);
  *table[NVTX_CBID_CORE2_DomainRangePop] = reinterpret_cast<NvtxFunctionPointer>(on_pop);
  return 1;
}
/// Before the first range.
[[maybe_unused]] const bool attached = (InitializeInjectionNvtx2_fnptr = attach) != nullptr;
}  // namespace

TEST_CASE("a training step is shown in parts, each opened and closed") {
  Context ctx(Device::cuda(0), 1);
  test::DeviceGpt run(ctx, DType::bf16);
  const nn::Parameters& parameters = run.model.parameters();
  test::Rng rng(test::seed(), 1);
  const dp::StreamKeys keys = test::random_keys(rng);
  const std::vector<std::string> parts{"forward", "backward", "update"};
  train::TrainerOptions options{.physical_batch = run.records};

  train::Trainer plain(ctx, parameters, train::NoPrivacy{1}, keys, run.records, options);
  seen.clear();
  plain.step(run.losses());
  CHECK(seen.domain == "dpmp");
  CHECK(seen.open.empty());
  CHECK(seen.outermost() == parts);
  CHECK(seen.count("backward/layer_norm") == 3);
  CHECK(seen.count("backward/cross_entropy") == 1);
  CHECK(seen.count("backward/clipped sum") == 0);

  const index_t trained = index_t(parameters.all().size());
  for (const bool by_layer : {false, true}) {
    options.groups = by_layer ? per_sample::Groups::by_layer(parameters.all()) : per_sample::Groups::flat(parameters.all());
    dp::PlanOptions wanted{.delta = 1e-5, .sampling_rate = 1, .steps = 10, .dataset_size = run.records};
    if (by_layer) wanted.group_thresholds.assign(std::size_t(options.groups->count()), 0.1);
    train::Trainer secret(ctx, parameters, dp::Plan::with_noise_multiplier(wanted, 1), keys, run.records, options);
    seen.clear();
    secret.step(run.losses());
    CHECK(seen.open.empty());
    CHECK(seen.outermost() == parts);
    CHECK(seen.count("backward/layer_norm") == 3);
    // One where a parameter has its last site, and one for what a group kept as sites.
    CHECK(seen.count("backward/norm") == trained + options.groups->count());
    CHECK(seen.count("backward/clipped sum") == options.groups->count());
  }
}

TEST_CASE("a step that fails closes its ranges") {
  Context ctx(Device::cuda(0), 1);
  const test::DeviceGpt run(ctx, DType::f32);
  test::Rng rng(test::seed(), 2);
  train::Trainer plain(ctx, run.model.parameters(), train::NoPrivacy{1}, test::random_keys(rng), run.records);
  seen.clear();
  CHECK_THROWS_AS(plain.step([](const train::Batch&) -> Variable { throw Error("no losses"); }), Error);
  CHECK(seen.paths == std::vector<std::string>{"forward"});
  CHECK(seen.open.empty());
}

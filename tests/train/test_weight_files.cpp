// SPDX-License-Identifier: Apache-2.0
// Files of weights and checkpoints: who may read them, and what other files a model takes weights from.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include "dpmp/train/checkpoint.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using test::TinyTraining;

namespace {
mode_t mode_of(const std::filesystem::path& file) {
  struct stat there {};
  REQUIRE(::stat(file.c_str(), &there) == 0);
  return there.st_mode & 07777;
}
/// The model's weights as a file has them: converted by `to`, one value after the other.
template <class To, class F>
void write_weights(const std::filesystem::path& path, const TinyTraining& run, DType dtype, F&& to) {
  std::vector<std::vector<To>> values;
  std::vector<interop::TensorView> views;
  for (const Parameter* p : run.model.parameters().all()) {
    values.emplace_back();
    for (const double x : p->master().to_doubles()) values.back().push_back(to(x));
  }
  std::size_t k = 0;
  for (const Parameter* p : run.model.parameters().all())
    views.push_back({p->name(), dtype, p->master().shape(), values[k++].data()});
  interop::write_safetensors(path, views);
}
}  // namespace

TEST_CASE(
    "a checkpoint is 0600 whatever the umask, weights are as the umask says, or stricter where they replace such a file") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const test::TemporaryFolder folder;
  TinyTraining run(ctx, DType::f32);
  train::Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 5), test::random_keys(rng), run.records(),
                         {.physical_batch = 4, .optimiser = optim::Sgd{}});
  const mode_t before = ::umask(0);
  train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
  train::save_weights(folder / "w", run.model.parameters());
  CHECK(mode_of(folder / "c") == 0600);
  CHECK(mode_of(folder / "w") == 0666);
  ::chmod((folder / "c").c_str(), 0644);  // of an earlier version of the library
  ::chmod((folder / "w").c_str(), 0600);
  ::umask(022);
  train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
  train::save_weights(folder / "w", run.model.parameters());
  CHECK(mode_of(folder / "c") == 0600);
  CHECK(mode_of(folder / "w") == 0600);
  ::umask(before);
  train::load_checkpoint(folder / "c", run.model.parameters(), trainer);
}

TEST_CASE("a model takes weights of 16 and 64 bits, and leaves tensors alone that it does not ask for") {
  Context ctx(Device::cpu(), 1);
  const test::TemporaryFolder folder;
  const TinyTraining run(ctx, DType::f32);
  const auto loaded = [&](const char* file) {
    TinyTraining other(ctx, DType::f32);
    for (Parameter* p : other.model.parameters().all())
      for (index_t j = 0; j < p->numel(); ++j) p->master().data<float>()[j] = 77;
    train::load_weights(folder / file, other.model.parameters());
    return other.masters();
  };
  const std::vector<double> masters = run.masters();
  std::vector<double> brains, halves;
  for (const double x : masters) {
    brains.push_back(to_float(from_float<bf16>(float(x))));
    halves.push_back(to_float(from_float<f16>(float(x))));
  }
  write_weights<double>(folder / "f64", run, DType::f64, [](double x) { return x; });
  write_weights<bf16>(folder / "bf16", run, DType::bf16, [](double x) { return from_float<bf16>(float(x)); });
  write_weights<f16>(folder / "f16", run, DType::f16, [](double x) { return from_float<f16>(float(x)); });
  CHECK(loaded("f64") == masters);
  CHECK(loaded("bf16") == brains);
  CHECK(loaded("f16") == halves);

  // What published files have besides: positions in I64, a mask of booleans, and what this version does not know.
  train::save_weights(folder / "w", run.model.parameters());
  std::string bytes = test::read_text(folder / "w");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  std::string header = bytes.substr(8, length), data = bytes.substr(8 + length);
  header.resize(header.find_last_not_of(' '));  // without the last brace
  const auto at = [&](std::size_t k) { return std::to_string(data.size() + k); };
  header += R"(,"positions":{"dtype":"I64","shape":[1,2],"data_offsets":[)" + at(0) + "," + at(16) +
            R"(]},"mask":{"dtype":"BOOL","shape":[1,1,1,1,2,2],"data_offsets":[)" + at(16) + "," + at(20) +
            R"(]},"new":{"dtype":"X9","shape":[3],"data_offsets":[)" + at(20) + "," + at(21) + "]}}";
  data += std::string(21, '\1');
  length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  test::write_text(folder / "more", bytes.substr(0, 8) + header + data);
  CHECK(loaded("more") == masters);
}

TEST_CASE(
    "weights are loaded all or none: a file that becomes shorter after it was opened, a value that FP32 does not have") {
  Context ctx(Device::cpu(), 1);
  const test::TemporaryFolder folder;
  TinyTraining run(ctx, DType::bf16), other(ctx, DType::bf16);
  for (Parameter* p : other.model.parameters().all()) {
    for (index_t j = 0; j < p->numel(); ++j) p->master().data<float>()[j] += 1;
    p->refresh(ctx);
  }
  const std::vector<double> before = other.masters();
  // The first parameter in 64 bits: it then comes first in the file, too, and is whole where the file is cut after it.
  const std::span<Parameter* const> parameters = run.model.parameters().all();
  const std::vector<double> first = parameters[0]->master().to_doubles();
  std::vector<interop::TensorView> views{{parameters[0]->name(), DType::f64, parameters[0]->shape(), first.data()}};
  for (std::size_t k = 1; k < parameters.size(); ++k)
    views.push_back({parameters[k]->name(), DType::f32, parameters[k]->shape(), parameters[k]->master().raw()});
  interop::write_safetensors(folder / "w", views);
  const auto whole = std::filesystem::file_size(folder / "w");
  test::Rng rng;
  for (int k = 0; k < 5; ++k) {
    interop::write_safetensors(folder / "w", views);
    REQUIRE(interop::SafetensorsFile(folder / "w").entries()[0].name == parameters[0]->name());
    interop::SafetensorsFile file(folder / "w");
    std::filesystem::resize_file(folder / "w", k == 0 ? whole - 1 : std::uintmax_t(rng.integer(0, std::int64_t(whole) - 1)));
    CHECK(test::refuses([&] { train::detail::read_weights(file, other.model.parameters().all(), ctx); }, "got only"));
    CHECK(other.masters() == before);
  }
  write_weights<double>(folder / "w", run, DType::f64, [n = 0](double x) mutable { return ++n == 300 ? 1e39 : x; });
  CHECK(
      test::refuses([&] { train::load_weights(folder / "w", other.model.parameters()); }, "that f32 has, got another one"));
  CHECK(other.masters() == before);
}

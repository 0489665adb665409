// SPDX-License-Identifier: Apache-2.0
// DLPack: tensors that a producer made by hand are shared or copied, element by element as their strides say; every kind
// that cannot be is refused; and the deleter is called once in any case.
#include <doctest/doctest.h>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "dpmp/interop/convert.hpp"
#include "dpmp/interop/dlpack.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using interop::DlpackCopy;
using interop::DlpackOptions;
using interop::from_dlpack;
using interop::to_dlpack;
namespace dlpack = interop::dlpack;

namespace {
struct Kind {
  std::uint8_t code, bits;
  const char* stored;
};
const Kind kinds[] = {{2, 32, "F32"}, {2, 64, "F64"}, {4, 16, "BF16"}, {2, 16, "F16"}, {0, 32, "I32"}, {0, 64, "I64"},
                      {1, 8, "U8"},   {0, 8, "I8"},   {0, 16, "I16"},  {1, 16, "U16"}, {1, 32, "U32"}, {1, 64, "U64"}};

/// Memory of its own, and a structure for it that counts how often it is given back.
template <class Managed>
struct Producer {
  std::vector<char> memory = std::vector<char>(4096);
  std::vector<std::int64_t> shape, strides;
  Managed managed{};
  int released = 0;

  Producer(const Kind& kind, std::vector<std::int64_t> extents, std::vector<std::int64_t> steps = {})
      : shape(std::move(extents)), strides(std::move(steps)) {
    dlpack::DLTensor& t = managed.dl_tensor;
    t.data = aligned();
    t.device = {dlpack::cpu, 0};
    t.ndim = std::int32_t(shape.size());
    t.dtype = {kind.code, kind.bits, 1};
    t.shape = shape.data();
    t.strides = strides.empty() ? nullptr : strides.data();
    managed.manager_ctx = this;
    managed.deleter = [](Managed* self) { ++static_cast<Producer*>(self->manager_ctx)->released; };
    if constexpr (requires { managed.version; }) managed.version = {1, 0};
  }
  char* aligned() { return memory.data() + 64 - std::uintptr_t(memory.data()) % 64; }
};
using Plain = Producer<dlpack::DLManagedTensor>;
using Versioned = Producer<dlpack::DLManagedTensorVersioned>;
const Kind& f32 = kinds[0];

/// Small whole numbers, which every kind but the unsigned ones has, as stored elements.
void write_number(char* to, const Kind& kind, int value) {
  const auto put = [&](auto x) { std::memcpy(to, &x, sizeof x); };
  const std::string name = kind.stored;
  if (name == "F32") put(float(value));
  if (name == "F64") put(double(value));
  if (name == "BF16") put(from_float<bf16>(float(value)));
  if (name == "F16") put(from_float<f16>(float(value)));
  if (name == "I8" || name == "U8") put(std::int8_t(value));
  if (name == "I16" || name == "U16") put(std::int16_t(value));
  if (name == "I32" || name == "U32") put(std::int32_t(value));
  if (name == "I64" || name == "U64") put(std::int64_t(value));
}
}  // namespace

TEST_CASE_TEMPLATE("DLPack: memory is shared, with an offset or without, until the last tensor of it dies", Producer_, Plain,
                   Versioned) {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  for (int trial = 0; trial < 40; ++trial) {
    const Kind& kind = kinds[std::size_t(rng.integer(0, 4))];
    std::vector<std::int64_t> shape(std::size_t(rng.integer(0, 5))), strides;
    for (auto& extent : shape) extent = rng.integer(1, 3);
    if (rng.integer(0, 1)) {  // strides of axes of one element may be anything
      std::int64_t stride = 1;
      strides.resize(shape.size());
      for (std::size_t k = shape.size(); k-- > 0; stride *= shape[k])
        strides[k] = shape[k] == 1 ? rng.integer(-100, 100) : stride;
    }
    Producer_ p(kind, shape, strides);
    const std::size_t element = kind.bits / 8u, offset = element * std::size_t(rng.integer(0, 9));
    p.managed.dl_tensor.byte_offset = offset;
    std::int64_t numel = 1;
    for (const auto extent : shape) numel *= extent;
    std::vector<double> values;
    for (std::int64_t k = 0; k < numel; ++k) {
      values.push_back(double(rng.integer(-99, 99)));
      write_number(p.aligned() + offset + std::size_t(k) * element, kind, int(values.back()));
    }
    {
      Tensor kept;
      {
        const Tensor t = from_dlpack(ctx, &p.managed);
        CHECK(t.raw() == p.aligned() + offset);
        CHECK(t.dtype() == *interop::StoredType(kind.stored).native());
        CHECK(interop::StoredShape(t.shape()).extents() == std::vector<index_t>(shape.begin(), shape.end()));
        CHECK(t.to_doubles() == values);
        CHECK(t.clone(ctx).to_doubles() == values);
        kept = t.shape().rank() > 0 ? t.rows(t.shape()[0] - 1, t.shape()[0]) : t;
      }
      CHECK(p.released == 0);
      kept.set_zero();  // the producer sees it
      CHECK(p.aligned()[offset + std::size_t(numel) * element - 1] == 0);
    }
    CHECK(p.released == 1);
  }
}

TEST_CASE("DLPack: a shared tensor outlives the context's owner, and takes part in operations") {
  Plain p(f32, {2, 2});
  std::memcpy(p.aligned(), std::vector<float>{1, 2, 3, 4}.data(), 16);
  std::optional<Context> ctx;
  ctx.emplace(Device::cpu(), 1);
  Tensor shared = from_dlpack(*ctx, &p.managed);
  const Tensor copy = Tensor::zeros(*ctx, {2, 2}, DType::f32);
  shared.copy_from(copy.clone(*ctx));
  CHECK(shared.to_doubles() == std::vector<double>(4));
  ctx.reset();
  shared.copy_from(copy);
  CHECK(p.released == 0);
  shared = Tensor();
  CHECK(p.released == 1);
}

TEST_CASE("DLPack: elements with gaps, of other types, read-only or unaligned are copied where that is asked for") {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  for (int trial = 0; trial < 300; ++trial) {
    const Kind& kind = kinds[std::size_t(rng.integer(0, 11))];
    const std::size_t element = kind.bits / 8u;
    std::vector<std::int64_t> shape(std::size_t(rng.integer(1, 4))), strides;
    for (auto& extent : shape) extent = rng.integer(1, 3);
    for (std::size_t k = 0; k < shape.size(); ++k) strides.push_back(rng.integer(-12, 12));
    Versioned p(kind, shape, strides);
    // The first element in the middle of what strides may reach, and of any alignment.
    const std::int64_t first = 2048 + rng.integer(0, 7);
    p.managed.dl_tensor.byte_offset = std::uint64_t(first);
    p.managed.flags = rng.integer(0, 1) ? dlpack::read_only : 0;
    for (std::int64_t place = -100; place <= 100; ++place)
      write_number(p.aligned() + first + place * std::int64_t(element), kind, int(rng.integer(0, 100)));
    DlpackOptions options{.copy = rng.integer(0, 1) ? DlpackCopy::always : DlpackCopy::where_needed};
    const bool real = kind.code == 2 || kind.code == 4;
    DType expected = interop::StoredType(kind.stored).native().value_or(DType::i32);
    if (rng.integer(0, 1)) {
      expected = std::vector{DType::f32, DType::f64, DType::bf16, DType::f16,
                             DType::i32}[std::size_t(rng.integer(0, real ? 3 : 4))];
      options.dtype = expected;
    }
    std::vector<double> values;
    std::int64_t numel = 1;
    for (const auto extent : shape) numel *= extent;
    for (std::int64_t k = 0; k < numel; ++k) {
      std::int64_t rest = k, place = 0;
      for (std::size_t axis = shape.size(); axis-- > 0; rest /= shape[axis]) place += rest % shape[axis] * strides[axis];
      double value = 0;
      CHECK(interop::convert(interop::StoredType(kind.stored), p.aligned() + first + place * std::int64_t(element),
                             DType::f64, &value, 1) == 1);
      values.push_back(value);
    }
    {
      const Tensor t = from_dlpack(ctx, &p.managed, options);
      CHECK(t.dtype() == expected);
      CHECK(t.to_doubles() == values);
      const bool copied = t.raw() != p.aligned() + first;
      CHECK(p.released == (copied ? 1 : 0));
      CHECK((copied || options.copy != DlpackCopy::always));
    }
    CHECK(p.released == 1);
  }
}

TEST_CASE("DLPack: what cannot be shared is refused, and given back once") {
  Context ctx(Device::cpu(), 1);
  const auto check = [&](auto&& change, const std::string& part, Kind kind = f32, DlpackOptions options = {}) {
    Versioned p(kind, {2, 3}, {3, 1});
    change(p);
    CAPTURE(part);
    const std::string text = test::error_of([&] { from_dlpack(ctx, &p.managed, options); });
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
    CHECK(p.released == 1);
  };
  using P = Versioned&;
  const auto nothing = [](P) {};
  const DlpackOptions copying{.copy = DlpackCopy::where_needed};
  check([](P p) { p.managed.version.major = 2; }, "version 1, got version 2");
  check([](P p) { p.managed.flags = dlpack::read_only; }, "memory that is read-only");
  check([](P p) { p.strides = {1, 2}; }, "not row-major without gaps");
  check([](P p) { p.strides = {4, 1}; }, "not row-major without gaps");
  check([](P p) { p.managed.dl_tensor.byte_offset = 2; }, "not aligned to 4 bytes");
  check([](P p) { p.managed.dl_tensor.device = {dlpack::cuda, 1}; }, "on cpu, got one on device 1 of type 2");
  check([](P p) { p.managed.dl_tensor.device = {4, 0}; }, "type 4", f32, copying);
  check([](P p) { p.managed.dl_tensor.ndim = -1; }, "axes with their extents, got -1");
  check([](P p) { p.managed.dl_tensor.ndim = 6; }, "got 6");
  check([](P p) { p.managed.dl_tensor.shape = nullptr; }, "without extents");
  check([](P p) { p.shape[1] = -3; }, "extent >= 0");
  check([](P p) { p.shape = {std::int64_t(1) << 62, 4}; }, "2^63");
  check([](P p) { p.shape = {std::int64_t(1) << 61, 2}; }, "2^63");
  check([](P p) { p.managed.dl_tensor.data = nullptr; }, "a null pointer");
  check([](P p) { p.managed.dl_tensor.byte_offset = std::uint64_t(-4); }, "offset beyond");
  check([](P p) { p.strides[0] = std::numeric_limits<std::int64_t>::min(); }, "within 2^63 bytes", f32, copying);
  check([](P p) { p.managed.dl_tensor.dtype.lanes = 4; }, "in lanes");
  check(nothing, "elements of int64", {0, 64, ""});
  check(nothing, "elements of uint8", {1, 8, ""});
  check(nothing, "elements of bool8", {6, 8, ""});
  for (const Kind kind :
       {Kind{5, 64, ""}, Kind{3, 32, ""}, Kind{2, 8, ""}, Kind{4, 32, ""}, Kind{0, 4, ""}, Kind{12, 8, ""}})
    check(nothing, "of real numbers, integers or booleans", kind, copying);
  check(nothing, "elements of float32", f32, {.dtype = DType::f64});
  check(nothing, "can be read as i32, got one of float32", f32, {.copy = DlpackCopy::always, .dtype = DType::i32});
  check(
      [](P p) {
        write_number(p.aligned(), {0, 64, "I64"}, 5), p.aligned()[4] = 1;
      },
      "values that i32 has", {0, 64, ""}, copying);
  CHECK(test::refuses([&] { from_dlpack(ctx, static_cast<dlpack::DLManagedTensor*>(nullptr)); }, "a null pointer"));

  // No memory for what a tensor needs: the same.
  ctx.limit_memory(0);
  check(nothing, "bytes of memory", f32);
  check(nothing, "bytes of memory", f32, {.copy = DlpackCopy::always});
}

TEST_CASE("DLPack: a tensor without elements, and a producer without a deleter") {
  Context ctx(Device::cpu(), 1);
  Plain p(f32, {0, 3});
  p.managed.dl_tensor.data = nullptr;
  CHECK(from_dlpack(ctx, &p.managed).shape() == Shape{0, 3});
  CHECK(p.released == 1);
  Plain q(f32, {2});
  q.managed.deleter = nullptr;
  CHECK(from_dlpack(ctx, &q.managed).numel() == 2);
  Plain pinned(f32, {2});
  pinned.managed.dl_tensor.device = {dlpack::cuda_host, 0};
  CHECK(from_dlpack(ctx, &pinned.managed).raw() == pinned.aligned());
  CHECK(pinned.released == 1);
}

TEST_CASE("DLPack: what is handed out describes the tensor, keeps it alive and comes back as the same memory") {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i32}) {
    std::vector<double> values(12);
    for (double& x : values) x = double(rng.integer(-50, 50));
    Tensor t = Tensor::from(ctx, {4, 3, 1}, dtype, values);
    const index_t before = ctx.memory().live_bytes;
    dlpack::DLManagedTensorVersioned* const out = to_dlpack(ctx, t.rows(1, 4));
    const dlpack::DLTensor& d = out->dl_tensor;
    CHECK(out->version.major == 1);
    CHECK(out->flags == 0);
    CHECK(d.data == static_cast<char*>(t.raw()) + 3 * size_of(dtype));
    CHECK((d.byte_offset == 0 && d.device.device_type == dlpack::cpu && d.device.device_id == 0));
    CHECK(d.ndim == 3);
    CHECK(std::vector<std::int64_t>(d.shape, d.shape + 3) == std::vector<std::int64_t>{3, 3, 1});
    CHECK(std::vector<std::int64_t>(d.strides, d.strides + 3) == std::vector<std::int64_t>{3, 1, 1});
    const std::string name = interop::StoredType(dtype).name();
    for (const Kind& kind : kinds)
      if (name == kind.stored) CHECK((d.dtype.code == kind.code && d.dtype.bits == kind.bits && d.dtype.lanes == 1));
    t = Tensor();
    CHECK(ctx.memory().live_bytes == before);
    {
      const Tensor back = from_dlpack(ctx, out);
      CHECK(back.raw() == d.data);
      CHECK(back.to_doubles() == std::vector<double>(values.begin() + 3, values.end()));
      CHECK(ctx.memory().live_bytes > 0);
    }
    CHECK(ctx.memory().live_bytes == 0);
  }
  // The structure without a version, of a scalar, and given back by a consumer that took nothing.
  auto* const plain = to_dlpack<dlpack::DLManagedTensor>(ctx, Tensor::full(ctx, {}, DType::f32, 2));
  CHECK(plain->dl_tensor.ndim == 0);
  CHECK(*static_cast<float*>(plain->dl_tensor.data) == 2);
  plain->deleter(plain);
  CHECK(ctx.memory().live_bytes == 0);
  CHECK(test::refuses([&] { to_dlpack(ctx, Tensor()); }, "Tensor()"));
}

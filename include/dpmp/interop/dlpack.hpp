// SPDX-License-Identifier: Apache-2.0
// Tensors that other libraries of the same process share memory with: NumPy, PyTorch, JAX, CuPy and whatever else speaks
// DLPack. A structure says where the elements are and how they lie, and whoever gets it calls its deleter when done. Source:
// the C interface of DLPack 1.1, dmlc.github.io/dlpack/latest/c_api.html, and its protocol for Python beside it.
#pragma once
#include <cstdint>
#include <optional>
#include <utility>

#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// The structures of dlpack.h under their own names, for programs without that header. The functions below read and write
/// fields by name, so that those of any dlpack.h do as well.
namespace dlpack {
inline constexpr std::int32_t cpu = 1, cuda = 2, cuda_host = 3;  // DLDevice::device_type
inline constexpr std::uint8_t code_int = 0, code_uint = 1, code_float = 2, code_bfloat = 4, code_bool = 6;  // DLDataType
inline constexpr std::uint64_t read_only = 1, is_copied = 2;                                                // flags
struct DLDevice {
  std::int32_t device_type, device_id;
};
struct DLDataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: row-major without gaps
  std::uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};
struct DLPackVersion {
  std::uint32_t major, minor;
};
struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  std::uint64_t flags;
  DLTensor dl_tensor;
};
}  // namespace dlpack

/// Whether from_dlpack() may copy: never, where the memory cannot be shared, or always.
enum class DlpackCopy : std::uint8_t { never, where_needed, always };
struct DlpackOptions {
  DlpackCopy copy = DlpackCopy::never;
  /// Of the result; another one than the elements' own makes a copy (interop/convert.hpp). Not set: the elements' own, and
  /// i32 for integers and booleans that dpmp has no dtype for.
  std::optional<DType> dtype = std::nullopt;
};

namespace detail {
/// Calls the deleter once, when it dies.
class DlpackOwner {
 public:
  template <class Managed>
  explicit DlpackOwner(Managed* managed)
      : managed_(managed), release_([](void* p) {
          auto* const of_type = static_cast<Managed*>(p);
          if (of_type->deleter) of_type->deleter(of_type);
        }) {}
  DlpackOwner(DlpackOwner&& from) noexcept : managed_(std::exchange(from.managed_, nullptr)), release_(from.release_) {}
  DlpackOwner& operator=(DlpackOwner&&) = delete;
  ~DlpackOwner() {
    if (managed_) release_(managed_);
  }

 private:
  void* managed_;
  void (*release_)(void*);
};
/// The fields of a structure; the extents and strides are the producer's.
struct DlpackView {
  void* data;
  index_t device_type, device_id, axes, code, bits, lanes;
  const std::int64_t *shape, *strides;
  std::uint64_t byte_offset;
  bool read_only;
};
Tensor tensor_of_dlpack(Context& ctx, const DlpackView& view, DlpackOwner owner, const DlpackOptions& options);
void check_dlpack_version(index_t major);

/// What a structure that is handed out points to, until its deleter is called.
struct DlpackExport {
  DlpackExport(Context& ctx, const Tensor& tensor);
  Tensor tensor;
  std::int64_t shape[Shape::max_rank + 1] = {}, strides[Shape::max_rank + 1] = {};
  std::int32_t device_type;
  std::uint8_t code;
};
}  // namespace detail

/// The tensor that `managed` (a DLManagedTensor or DLManagedTensorVersioned) describes, which is taken over: its deleter is
/// called once, before this returns or throws where nothing is shared, else when the last tensor that shares the memory
/// dies. The elements are not copied; what is written to them is seen by both sides.
///
/// Shared are elements of f32, f64, f16, bf16 or i32, row-major without gaps, at most five axes, in memory of the context's
/// device, aligned to an element, on a GPU to 16 bytes. Strides with gaps, memory that is marked as read-only, other
/// alignments and integers and booleans of other types are copied where DlpackOptions::copy says so, and refused otherwise.
/// Copies of values that the dtype does not have are refused without saying which: they may be private. Memory that CUDA
/// pinned on the host counts as the CPU's. On a GPU the producer has made the elements ready on the context's stream, or has
/// waited for them; work of the context on them is waited for before the deleter is called.
template <class Managed>
Tensor from_dlpack(Context& ctx, Managed* managed, const DlpackOptions& options = {}) {
  DPMP_CHECK(managed, "expected a DLPack tensor, got a null pointer");
  detail::DlpackOwner owner(managed);
  bool read_only = false;
  if constexpr (requires { managed->flags; }) {
    detail::check_dlpack_version(index_t(managed->version.major));  // another one may have other fields
    read_only = (managed->flags & dlpack::read_only) != 0;
  }
  const auto& t = managed->dl_tensor;
  const detail::DlpackView view{t.data,
                                index_t(t.device.device_type),
                                index_t(t.device.device_id),
                                index_t(t.ndim),
                                index_t(t.dtype.code),
                                index_t(t.dtype.bits),
                                index_t(t.dtype.lanes),
                                t.shape,
                                t.strides,
                                t.byte_offset,
                                read_only};
  return detail::tensor_of_dlpack(ctx, view, std::move(owner), options);
}

/// A structure for other libraries, which shares the memory of `tensor` and keeps it alive until its deleter is called,
/// once, in any thread: by the library that takes it, or by whoever nobody takes it from. On a GPU the context's work is
/// waited for. Throws on an empty Tensor() and on one of another device than the context's.
template <class Managed = dlpack::DLManagedTensorVersioned>
Managed* to_dlpack(Context& ctx, const Tensor& tensor) {
  struct Whole : detail::DlpackExport {
    using detail::DlpackExport::DlpackExport;
    Managed managed{};
  };
  auto* const whole = new Whole(ctx, tensor);
  Managed& m = whole->managed;
  auto& t = m.dl_tensor;
  t.data = tensor.raw();
  t.device.device_type = static_cast<decltype(t.device.device_type)>(whole->device_type);
  t.device.device_id = std::int32_t(tensor.device().index);
  t.ndim = std::int32_t(tensor.shape().rank());
  t.dtype.code = whole->code;
  t.dtype.bits = std::uint8_t(8 * size_of(tensor.dtype()));
  t.dtype.lanes = 1;
  t.shape = whole->shape;
  t.strides = whole->strides;
  t.byte_offset = 0;
  if constexpr (requires { m.flags; }) {
    m.version.major = 1;
    m.version.minor = 0;
    m.flags = 0;
  }
  m.manager_ctx = whole;
  m.deleter = [](Managed* self) { delete static_cast<Whole*>(self->manager_ctx); };
  return &m;
}
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "dpmp/interop/convert.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
/// Memory of somebody else's as the only block of an arena of its own: that dies with the last buffer, and the owner with
/// it. Copies and the like are the work of the context's backend, whose arena `anchor` keeps alive.
class DlpackBackend final : public Backend {
 public:
  DlpackBackend(void* data, DlpackOwner owner, Context& ctx)
      : data_(data), anchor_(ctx.allocate(0)), inner_(ctx.backend()), owner_(std::move(owner)), on_cuda_(ctx.on_cuda()) {}
  ~DlpackBackend() override {
    if (!on_cuda_ || inner_.capturing()) return;
    try {
      inner_.synchronize();
    } catch (...) {  // the device is lost, and nothing runs on it
    }
  }
  void* acquire(index_t) override { return data_; }
  void release(void*, index_t) noexcept override {}
  void copy(void* to, const void* from, index_t bytes) override { inner_.copy(to, from, bytes); }
  void copy_rows(void* to, index_t to_stride, const void* from, index_t from_stride, index_t row_bytes,
                 index_t rows) override {
    inner_.copy_rows(to, to_stride, from, from_stride, row_bytes, rows);
  }
  void set_zero(void* data, index_t bytes) override { inner_.set_zero(data, bytes); }
  void fill(void* data, const void* element, index_t element_bytes, index_t count) override {
    inner_.fill(data, element, element_bytes, count);
  }
  int multiprocessors() const override { return inner_.multiprocessors(); }
  void* stream() const override { return inner_.stream(); }
  bool capturing() const override { return inner_.capturing(); }

 private:
  void read_host(void* to, const void* from, index_t bytes) override { inner_.copy_in(to, from, bytes); }
  void write_host(void* to, const void* from, index_t bytes) override { inner_.copy_out(to, from, bytes); }
  void wait() override { inner_.synchronize(); }
  void* data_;
  Buffer anchor_;
  Backend& inner_;
  DlpackOwner owner_;  // goes first
  bool on_cuda_;
};

inline std::string dlpack_type_name(const DlpackView& view) {
  const char* const kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  const bool known = view.code >= 0 && view.code < index_t(std::size(kinds));
  return dpmp::detail::concat(known ? kinds[view.code] : "code " + std::to_string(view.code) + " of ", view.bits,
                              view.lanes == 1 ? "" : " in lanes");
}
/// The elements' type by the name of stored_type.hpp; throws on another one.
inline StoredType stored_type(const DlpackView& view) {
  const char* const letter = view.code == dlpack::code_int     ? "I"
                             : view.code == dlpack::code_uint  ? "U"
                             : view.code == dlpack::code_float ? "F"
                                                               : "?";
  const StoredType type(view.code == dlpack::code_bfloat ? (view.bits == 16 ? "BF16" : "?")
                        : view.code == dlpack::code_bool ? (view.bits == 8 ? "BOOL" : "?")
                                                         : letter + std::to_string(view.bits));
  DPMP_CHECK(view.lanes == 1 && type.bits() && converts(type, DType::f64),
             "expected a DLPack tensor of real numbers, integers or booleans of 8 to 64 bits, got one of ",
             dlpack_type_name(view));
  return type;
}

/// The elements one after the other, row-major, in the host's memory.
inline std::vector<char> gathered(Context& ctx, const DlpackView& view, const Shape& shape, const char* first,
                                  const std::vector<index_t>& strides, index_t element) {
  // Where the elements lie, from the first: strides may be negative.
  index_t low = 0, high = element;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    index_t reach = 0;
    const bool fits = !__builtin_mul_overflow(shape[axis] - 1, strides[std::size_t(axis)], &reach) &&
                      !__builtin_mul_overflow(reach, element, &reach) &&
                      !__builtin_add_overflow(reach < 0 ? low : high, reach, reach < 0 ? &low : &high);
    DPMP_CHECK(fits, "expected DLPack strides within 2^63 bytes, got ", strides[std::size_t(axis)], " for an axis of ",
               shape[axis]);
  }
  std::vector<char> staged;
  if (view.device_type == dlpack::cuda) {
    index_t span = 0;
    DPMP_CHECK(!__builtin_sub_overflow(high, low, &span), "expected DLPack strides within 2^63 bytes, got more");
    staged.resize(std::size_t(span));
    ctx.backend().copy_out(staged.data(), first + low, span);
    first = staged.data() - low;
  }
  std::vector<char> packed(std::size_t(shape.numel() * element));
  std::vector<index_t> at(std::size_t(shape.rank()), 0);
  index_t from = 0;
  for (index_t to = 0; to < index_t(packed.size()); to += element) {
    std::memcpy(packed.data() + to, first + from * element, std::size_t(element));
    for (std::size_t axis = at.size(); axis-- > 0;) {  // the next index, the last axis fastest
      from += strides[axis];
      if (++at[axis] < shape[int(axis)]) break;
      from -= strides[axis] * std::exchange(at[axis], 0);
    }
  }
  return packed;
}

DPMP_KEPT_BODY inline void check_dlpack_version(index_t major) {
  DPMP_CHECK(major == 1, "expected a DLPack tensor of version 1, got version ", major);
}

DPMP_KEPT_BODY inline Tensor tensor_of_dlpack(Context& ctx, const DlpackView& view, DlpackOwner owner,
                                              const DlpackOptions& options) {
  const bool on_cpu = view.device_type == dlpack::cpu || view.device_type == dlpack::cuda_host;
  const Device device = on_cpu ? Device::cpu() : Device::cuda(int(view.device_id));
  DPMP_CHECK((on_cpu || view.device_type == dlpack::cuda) && device == ctx.device(), "expected a DLPack tensor on ",
             ctx.device(), ", got one on device ", view.device_id, " of type ", view.device_type,
             " (1: CPU, 2: CUDA, 3: pinned by CUDA)");
  const StoredType stored = stored_type(view);
  const DType dtype = options.dtype ? *options.dtype : stored.native().value_or(DType::i32);
  DPMP_CHECK(converts(stored, dtype), "expected a DLPack tensor that can be read as ", dtype, ", got one of ",
             dlpack_type_name(view));
  DPMP_CHECK(view.axes >= 0 && view.axes <= Shape::max_rank && (view.axes == 0 || view.shape),
             "expected a DLPack tensor of 0 to ", Shape::max_rank, " axes with their extents, got ", view.axes,
             view.shape ? "" : " without extents");
  Shape shape;
  for (index_t axis = 0; axis < view.axes; ++axis) shape.push_back(view.shape[axis]);
  const index_t element = *stored.bits() / 8;
  index_t bytes = 0;
  DPMP_CHECK(!__builtin_mul_overflow(shape.numel(), element, &bytes), "expected a DLPack tensor below 2^63 bytes, got ",
             shape);
  if (bytes == 0) return Tensor::empty(ctx, shape, dtype);  // it may have no address
  DPMP_CHECK(view.data && view.byte_offset < std::uint64_t(1) << 62, "expected a DLPack tensor with data, got ",
             view.data ? "an offset beyond 2^62 bytes" : "a null pointer");
  char* const first = static_cast<char*>(view.data) + view.byte_offset;

  std::vector<index_t> strides(std::size_t(shape.rank()));
  bool compact = true;
  for (int axis = shape.rank(); axis-- > 0;) {
    const index_t without_gaps = shape.numel(axis + 1, shape.rank());
    strides[std::size_t(axis)] = view.strides ? view.strides[axis] : without_gaps;
    compact = compact && (shape[axis] == 1 || strides[std::size_t(axis)] == without_gaps);
  }
  const index_t alignment = on_cpu ? element : 16;
  const bool aligned = reinterpret_cast<std::uintptr_t>(first) % std::uintptr_t(alignment) == 0;
  const bool same = stored == StoredType(dtype);
  if (options.copy != DlpackCopy::always && compact && aligned && same && !view.read_only) {
    std::unique_ptr<Arena, Arena::Release> arena(new Arena(std::make_unique<DlpackBackend>(first, std::move(owner), ctx)));
    return Tensor::on_buffer(arena->allocate(bytes), shape, dtype, device);
  }
  DPMP_CHECK(options.copy != DlpackCopy::never, "expected a DLPack tensor that can be shared as ", dtype, ", got ",
             !same      ? "elements of " + dlpack_type_name(view)
             : !compact ? std::string("strides that are not row-major without gaps")
             : !aligned ? dpmp::detail::concat("memory that is not aligned to ", alignment, " bytes")
                        : std::string("memory that is read-only"),
             ": DlpackOptions::copy = where_needed copies it");
  const std::vector<char> packed = gathered(ctx, view, shape, first, strides, element);
  std::vector<char> converted(std::size_t(shape.numel() * size_of(dtype)));
  DPMP_CHECK(convert(stored, packed.data(), dtype, converted.data(), shape.numel()) == shape.numel(),
             "expected a DLPack tensor of values that ", dtype, " has, got at least one other of ", dlpack_type_name(view));
  Tensor result = Tensor::empty(ctx, shape, dtype);
  result.copy_from_host(converted.data());
  return result;
}

DPMP_KEPT_BODY inline DlpackExport::DlpackExport(Context& ctx, const Tensor& shared)
    : tensor(shared),
      device_type(shared.device() == Device::cpu() ? dlpack::cpu : dlpack::cuda),
      code(shared.dtype() == DType::i32    ? dlpack::code_int
           : shared.dtype() == DType::bf16 ? dlpack::code_bfloat
                                           : dlpack::code_float) {
  DPMP_CHECK(shared.defined(), "expected a tensor to share by DLPack, got an empty Tensor()");
  check_device("a tensor to share by DLPack", shared, ctx);
  for (int axis = 0; axis < shared.shape().rank(); ++axis) {
    shape[axis] = shared.shape()[axis];
    strides[axis] = shared.shape().numel(axis + 1, shared.shape().rank());
  }
  if (ctx.on_cuda()) ctx.backend().synchronize();
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail
#endif

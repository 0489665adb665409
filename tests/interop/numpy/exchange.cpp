// SPDX-License-Identifier: Apache-2.0
// What check.py calls: tensors out of and into NumPy by DLPack, arrays by .npz files. See there.
#include <memory>
#include <string>
#include <vector>

#include "dpmp/interop/dlpack.hpp"
#include "dpmp/interop/npz_zlib.hpp"

using namespace dpmp;
namespace {
Context& context() {
  static Context ctx(Device::cpu(), 1);
  return ctx;
}
std::string& message() {
  static std::string text;
  return text;
}
}  // namespace

extern "C" {
/// A tensor of what a structure of NumPy's describes, or null; versioned: which structure it is.
Tensor* dpmp_take(void* managed, int versioned, int copy) {
  const interop::DlpackOptions options{.copy = interop::DlpackCopy(copy)};
  try {
    if (versioned)
      return new Tensor(
          interop::from_dlpack(context(), static_cast<interop::dlpack::DLManagedTensorVersioned*>(managed), options));
    return new Tensor(interop::from_dlpack(context(), static_cast<interop::dlpack::DLManagedTensor*>(managed), options));
  } catch (const Error& e) {
    message() = e.message();
    return nullptr;
  }
}
void* dpmp_give(Tensor* tensor, int versioned) {
  if (versioned) return interop::to_dlpack(context(), *tensor);
  return interop::to_dlpack<interop::dlpack::DLManagedTensor>(context(), *tensor);
}
void dpmp_forget(Tensor* tensor) { delete tensor; }
void* dpmp_address(Tensor* tensor) { return tensor->raw(); }
const char* dpmp_message() { return message().c_str(); }
long long dpmp_live_bytes() { return context().memory().live_bytes; }
/// Reads every array of one .npz file, as f64 where dpmp has no such dtype, and writes them to another; 0 where it throws.
int dpmp_copy_npz(const char* from, const char* to) {
  try {
    const interop::NpzFile file(from, interop::inflate_with_zlib);
    std::vector<std::vector<char>> data;
    std::vector<interop::TensorView> arrays;
    for (const std::string& name : file.names()) {
      const interop::NpzArray array = file.array(name);
      const DType dtype = array.header().dtype.native().value_or(DType::f64);
      data.push_back(array.read(dtype));
      arrays.push_back({name, dtype, Shape(array.shape()), nullptr});
    }
    for (std::size_t k = 0; k < data.size(); ++k) arrays[k].data = data[k].data();
    interop::write_npz(to, arrays);
  } catch (const Error& e) {
    message() = e.message();
    return 0;
  }
  return 1;
}
}

// SPDX-License-Identifier: Apache-2.0
// A reference to a callable: what takes one is compiled once, not for every lambda.
#pragma once
#include <memory>
#include <type_traits>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
template <class Signature>
class FunctionRef;
/// As C++26's std::function_ref: two pointers, and the callable has to outlive it.
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef> && std::is_invocable_r_v<R, F&, Args...>)
      FunctionRef(F&& f)  // implicit, as arguments are passed
      : target_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* target, Args... args) -> R { return (*static_cast<std::remove_reference_t<F>*>(target))(args...); }) {
  }
  R operator()(Args... args) const { return call_(target_, args...); }

 private:
  void* target_;
  R (*call_)(void*, Args...);
};
}  // namespace dpmp::inline DPMP_ABI

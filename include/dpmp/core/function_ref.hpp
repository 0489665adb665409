// SPDX-License-Identifier: Apache-2.0
// A reference to a callable: what takes one is compiled once, not for every lambda.
#pragma once
#include <type_traits>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
template <class Signature>
class FunctionRef;
/// As C++26's std::function_ref: two pointers, and the callable has to outlive it. Its constraint is an expression:
/// std::is_invocable_r would have a compiler instantiate some forty templates for every lambda.
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef> && requires(F & f, Args... args) { f(args...); })
      FunctionRef(F&& f)  // implicit, as arguments are passed
      : target_(const_cast<void*>(static_cast<const void*>(__builtin_addressof(f)))),
        call_(call<std::remove_reference_t<F>>) {}
  /// function(target, args ..), without a lambda that only passes them on.
  FunctionRef(void* target, R (*function)(void*, Args...)) : target_(target), call_(function) {}
  R operator()(Args... args) const { return call_(target_, args...); }

 private:
  template <class F>
  static R call(void* target, Args... args) {
    return (*static_cast<F*>(target))(args...);
  }

  void* target_;
  R (*call_)(void*, Args...);
};
}  // namespace dpmp::inline DPMP_ABI

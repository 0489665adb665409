// SPDX-License-Identifier: Apache-2.0
// Element types as run-time values, and the one switch from a value to a type.
#pragma once
#include <ostream>
#include <string>
#include <string_view>

#include "dpmp/core/error.hpp"
#include "dpmp/core/low_precision.hpp"

namespace dpmp::inline DPMP_ABI {
/// f32, bf16, f16: storage of activations and weights. i32: token ids. f64: references, master sums.
enum class DType : std::uint8_t { f32, bf16, f16, f64, i32 };

/// A type as a value, for generic lambdas:
///
///     dispatch_real(dtype, [&](auto tag) { using T = typename decltype(tag)::type; ... });
template <class T>
struct TypeTag {
  using type = T;
};

inline std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::f16: return "f16";
    case DType::f64: return "f64";
    case DType::i32: return "i32";
  }
  throw Error("expected a DType, got the value " + std::to_string(int(dtype)));
}
inline std::ostream& operator<<(std::ostream& out, DType dtype) { return out << name_of(dtype); }

/// Bytes of one element.
inline index_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16:
    case DType::f16: return 2;
    case DType::f64: return 8;
  }
  throw Error("expected a DType, got the value " + std::to_string(int(dtype)));
}

/// The dtype of that name; throws on an unknown one.
inline DType parse_dtype(std::string_view name) {
  for (DType d : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32})
    if (name == name_of(d)) return d;
  throw Error("expected a dtype name (f32, bf16, f16, f64, i32), got '" + std::string(name) + "'");
}

/// Largest relative error of one rounding to nearest in this dtype: 2^-(p), p = bits of the significand.
inline double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::f32: return 0x1p-24;
    case DType::bf16: return 0x1p-8;
    case DType::f16: return 0x1p-11;
    case DType::f64: return 0x1p-53;
    case DType::i32: break;
  }
  throw Error(detail::concat("expected a floating dtype, got ", dtype));
}

inline bool is_real(DType dtype) { return dtype != DType::i32; }

/// The dtype sums and statistics of `dtype` data are kept in: f64 for f64, else f32.
inline DType accumulate_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

template <class T>
inline constexpr DType dtype_of = std::is_same_v<T, float>    ? DType::f32
                                  : std::is_same_v<T, bf16>   ? DType::bf16
                                  : std::is_same_v<T, f16>    ? DType::f16
                                  : std::is_same_v<T, double> ? DType::f64
                                                              : DType::i32;

/// The dtypes that a model may have in this program: f64 only with DPMP_F64, f16 unless DPMP_F16=0 (core/config.hpp).
inline constexpr DType real_dtypes[] = {
    DType::f32,
    DType::bf16,
#if DPMP_F16
    DType::f16,
#endif
#if DPMP_F64
    DType::f64,
#endif
};

namespace detail {
[[noreturn]] inline void refuse_dtype(DType dtype) {
  if (dtype == DType::f64)
    throw Error(
        "expected f32, bf16 or f16, got f64: models in float64 need a program that defines DPMP_F64=1 in all its units, or "
        "that links dpmp::compiled");
  if (dtype == DType::f16) throw Error("expected f32 or bf16, got f16: this program is compiled with DPMP_F16=0");
  throw Error(concat("expected a floating dtype (f32, bf16, f16, f64), got ", name_of(dtype)));
}
}  // namespace detail

/// Calls f(TypeTag<T>{}) with the storage type of a real dtype, f64 included: for what the library itself keeps in double.
template <class F>
decltype(auto) dispatch_stored(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32: return f(TypeTag<float>{});
    case DType::bf16: return f(TypeTag<bf16>{});
#if DPMP_F16
    case DType::f16: return f(TypeTag<f16>{});
#endif
    case DType::f64: return f(TypeTag<double>{});
    default: break;
  }
  detail::refuse_dtype(dtype);
}
/// Calls f(TypeTag<R>{}) with the type that data of this real dtype is computed in: for what is the same for f32, bf16 and
/// f16.
template <class F>
decltype(auto) dispatch_computed([[maybe_unused]] DType dtype, F&& f) {
#if DPMP_F64
  if (dtype == DType::f64) return f(TypeTag<double>{});
#endif
  return f(TypeTag<float>{});
}
/// The same as dispatch_stored for a dtype that a model may have: throws on i32, and on f64 and f16 where no kernels for
/// them are compiled.
template <class F>
decltype(auto) dispatch_real(DType dtype, F&& f) {
#if DPMP_F64
  return dispatch_stored(dtype, static_cast<F&&>(f));
#else
  switch (dtype) {
    case DType::f32: return f(TypeTag<float>{});
    case DType::bf16: return f(TypeTag<bf16>{});
#if DPMP_F16
    case DType::f16: return f(TypeTag<f16>{});
#endif
    default: break;
  }
  detail::refuse_dtype(dtype);
#endif
}
}  // namespace dpmp::inline DPMP_ABI

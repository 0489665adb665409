// SPDX-License-Identifier: Apache-2.0
// Stands for another C library: functions whose last bits are others, by up to two units of the last place, here and there.
#include <dlfcn.h>

#include <cstdint>
#include <cstring>

namespace {
double elsewhere(double x, double argument) {
  std::uint64_t bits, hash;
  std::memcpy(&bits, &x, sizeof x);
  std::memcpy(&hash, &argument, sizeof argument);
  // Limits are exact in every library, and below the normal numbers two units are much.
  const std::uint64_t exponent = bits >> 52 & 0x7ff;
  const bool changes = exponent != 0 && exponent != 0x7ff && x != 1 && x != -1 && x != 2;
  hash = (hash ^ hash >> 31) * 0x9e3779b97f4a7c15u;
  if (changes) bits += (hash >> 60) % 5 - 2;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
using Function = double (*)(double);
Function next(const char* name) { return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name)); }
}  // namespace

extern "C" {
double log(double x) {
  static const Function real = next("log");
  return elsewhere(real(x), x);
}
double exp(double x) {
  static const Function real = next("exp");
  return elsewhere(real(x), x);
}
double log1p(double x) {
  static const Function real = next("log1p");
  return elsewhere(real(x), x);
}
double expm1(double x) {
  static const Function real = next("expm1");
  return elsewhere(real(x), x);
}
double lgamma(double x) {
  static const Function real = next("lgamma");
  return elsewhere(real(x), x);
}
double erf(double x) {
  static const Function real = next("erf");
  return elsewhere(real(x), x);
}
double erfc(double x) {
  static const Function real = next("erfc");
  return elsewhere(real(x), x);
}
double pow(double x, double y) {
  static const auto real = reinterpret_cast<double (*)(double, double)>(::dlsym(RTLD_NEXT, "pow"));
  return elsewhere(real(x, y), x + y);
}
}

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
  const bool finite = (bits >> 52 & 0x7ff) != 0x7ff && x != 0 && x != 1;
  hash = (hash ^ hash >> 31) * 0x9e3779b97f4a7c15u;
  if (finite) bits += (hash >> 60) % 5 - 2;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
double call(const char* name, double x) { return reinterpret_cast<double (*)(double)>(::dlsym(RTLD_NEXT, name))(x); }
}  // namespace

extern "C" {
double log(double x) { return elsewhere(call("log", x), x); }
double exp(double x) { return elsewhere(call("exp", x), x); }
double log1p(double x) { return elsewhere(call("log1p", x), x); }
double expm1(double x) { return elsewhere(call("expm1", x), x); }
double lgamma(double x) { return elsewhere(call("lgamma", x), x); }
double erf(double x) { return elsewhere(call("erf", x), x); }
double erfc(double x) { return elsewhere(call("erfc", x), x); }
double pow(double x, double y) {
  return elsewhere(reinterpret_cast<double (*)(double, double)>(::dlsym(RTLD_NEXT, "pow"))(x, y), x + y);
}
}

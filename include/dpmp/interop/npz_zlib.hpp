// SPDX-License-Identifier: Apache-2.0
// What numpy.savez_compressed compressed, by zlib: the only header that needs it (Debian and Ubuntu: zlib1g-dev). Link
// ZLIB::ZLIB.
#pragma once
#include <zlib.h>

#include <algorithm>
#include <limits>

#include "dpmp/interop/npz.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// An Inflate function: NpzFile file(path, interop::inflate_with_zlib).
inline bool inflate_with_zlib(const char* from, std::size_t bytes, char* to, std::size_t wanted) {
  z_stream stream{};
  constexpr int raw = -15;  // without the header of a zlib file
  if (::inflateInit2(&stream, raw) != Z_OK) return false;
  constexpr std::size_t most = std::numeric_limits<uInt>::max();
  unsigned char nowhere = 0;  // zlib wants an address where there is no byte, too
  stream.next_in = bytes ? reinterpret_cast<Bytef*>(const_cast<char*>(from)) : &nowhere;
  stream.next_out = wanted ? reinterpret_cast<Bytef*>(to) : &nowhere;
  int state = Z_OK;
  while (state == Z_OK) {
    const uInt in = uInt(std::min(bytes, most)), out = uInt(std::min(wanted, most));
    stream.avail_in = in;
    stream.avail_out = out;
    state = ::inflate(&stream, Z_NO_FLUSH);
    bytes -= in - stream.avail_in;
    wanted -= out - stream.avail_out;
    if (in == stream.avail_in && out == stream.avail_out) break;
  }
  ::inflateEnd(&stream);
  return state == Z_STREAM_END && bytes == 0 && wanted == 0;
}
}  // namespace dpmp::inline DPMP_ABI::interop

// SPDX-License-Identifier: Apache-2.0
// What dpmp makes of safetensors files, for tests/oracle/safetensors_cases.py: names of files come in, a line each; "accept"
// and the tensors, or "refuse" and the reason, go out.
#include <iostream>
#include <sstream>

#include "dpmp/interop/safetensors.hpp"

int main() {
  for (std::string path; std::getline(std::cin, path);) {
    try {
      std::ostringstream listing;
      const dpmp::interop::SafetensorsFile file(path);
      for (const auto& e : file.entries()) {
        for (const std::string& text : {e.name, e.dtype.name()}) {
          for (const char c : text) listing << "0123456789abcdef"[c >> 4 & 15] << "0123456789abcdef"[c & 15];
          listing << ':';
        }
        for (const dpmp::index_t extent : e.shape.extents()) listing << extent << ',';
        listing << ':' << e.begin << ':' << e.end << ';';
      }
      std::cout << "accept " << listing.str() << '\n';
    } catch (const dpmp::Error& e) {
      std::string reason = e.message();
      for (char& c : reason)
        if (c < ' ' || c > '~') c = '?';
      std::cout << "refuse " << reason << '\n';
    }
  }
}

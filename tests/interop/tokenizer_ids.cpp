// SPDX-License-Identifier: Apache-2.0
// For tests/interop/record_tokenizers.py: reads texts from one file and writes their ids, and the texts of those again, to
// another one. Both files are little-endian: a count, then for each text its length in bytes and its bytes; for each result
// the number of ids, the ids, and a text. All numbers have 32 bits.
//
//     tokenizer_ids IN OUT TOKENIZER.JSON | VOCAB.JSON MERGES.TXT | VOCAB.TXT
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "dpmp/core/error.hpp"
#include "dpmp/interop/tokenizer.hpp"

namespace {
using dpmp::interop::Tokenizer;

Tokenizer tokenizer_of(int argc, char** argv) {
  if (argc == 5) return Tokenizer::from_bpe_files(argv[3], argv[4]);
  const std::string path = argv[3];
  return path.ends_with(".json") ? Tokenizer::from_file(path) : Tokenizer::from_wordpiece_file(path);
}
void put(std::ofstream& out, const void* from, std::size_t bytes) {
  out.write(static_cast<const char*>(from), std::streamsize(bytes));
}
void put_number(std::ofstream& out, std::size_t number) {
  const auto value = std::uint32_t(number);
  put(out, &value, sizeof value);
}
}  // namespace

int main(int argc, char** argv) {
  if (argc < 4 || argc > 5) return std::fprintf(stderr, "expected IN OUT and one or two files of a tokenizer\n"), 2;
  try {
    const Tokenizer tokenizer = tokenizer_of(argc, argv);
    std::ostringstream content;
    content << std::ifstream(argv[1], std::ios::binary).rdbuf();
    const std::string texts = std::move(content).str();
    std::ofstream out(argv[2], std::ios::binary);
    std::size_t at = 0;
    const auto number = [&] {
      std::uint32_t value = 0;
      std::memcpy(&value, texts.data() + at, sizeof value);
      at += sizeof value;
      return std::size_t(value);
    };
    for (std::size_t left = number(); left > 0; --left) {
      const std::size_t length = number();
      const std::vector<int> ids = tokenizer.encode(std::string_view(texts).substr(at, length));
      at += length;
      const std::string again = tokenizer.decode(ids, true);
      put_number(out, ids.size());
      put(out, ids.data(), ids.size() * sizeof(int));
      put_number(out, again.size());
      put(out, again.data(), again.size());
    }
    return out.flush() ? 0 : 1;
  } catch (const dpmp::Error& e) {
    return std::fprintf(stderr, "%s\n", e.what()), 1;
  }
}

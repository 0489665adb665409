// SPDX-License-Identifier: Apache-2.0
// How fast texts become ids, on one thread: MB/s of a text file, a line a record, for each tokenizer. Every round has a new
// tokenizer, whose memory of words is empty, and encodes the text twice. Without a text one is made: 8 MB of lines of tokens
// of the tokenizer's own, drawn by Zipf's law. Arguments: a tokenizer.json or a vocab.txt for each tokenizer, then a text
// (whatever ends in neither).
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "dpmp/core/error.hpp"
#include "dpmp/interop/text_records.hpp"
#include "dpmp/interop/tokenizer.hpp"

namespace {
using namespace dpmp;
using interop::Tokenizer;

Tokenizer tokenizer_of(const std::string& path) {
  return path.ends_with(".json") ? Tokenizer::from_file(path) : Tokenizer::from_wordpiece_file(path);
}

std::vector<std::string> made_text(const Tokenizer& tokenizer) {
  std::mt19937_64 engine(1);
  std::uniform_real_distribution<double> uniform;
  std::vector<std::string> lines;
  const double count = tokenizer.vocabulary_size();
  for (std::size_t bytes = 0; bytes < 8'000'000; bytes += lines.back().size()) {
    std::vector<int> ids;
    for (int k = 0; k < 40; ++k) ids.push_back(int(std::pow(count, uniform(engine))) - 1);
    lines.push_back(tokenizer.decode(ids));
  }
  return lines;
}

void measure(const std::string& path, const std::vector<std::string>& given) {
  const std::vector<std::string> lines = given.empty() ? made_text(tokenizer_of(path)) : given;
  double bytes = 0, best[2] = {0, 0};
  for (const std::string& line : lines) bytes += double(line.size());
  std::size_t ids = 0;
  for (int round = 0; round < 5; ++round) {
    const Tokenizer tokenizer = tokenizer_of(path);
    for (double& speed : best) {
      const auto start = std::chrono::steady_clock::now();
      ids = 0;
      for (const std::string& line : lines) ids += tokenizer.encode(line).size();
      speed = std::max(speed, bytes / 1e6 / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  }
  std::printf("%s: %.1f MB, %zu lines, %zu ids; best of 5 rounds: %.1f MB/s, again %.1f MB/s\n", path.c_str(), bytes / 1e6,
              lines.size(), ids, best[0], best[1]);
  std::fflush(stdout);
}
}  // namespace

int main(int argc, char** argv) {
  try {
    std::vector<std::string> tokenizers, lines;
    for (int k = 1; k < argc; ++k) {
      const std::string path = argv[k];
      if (path.ends_with(".json") || path.ends_with("vocab.txt"))
        tokenizers.push_back(path);
      else
        lines = interop::read_text_records(path);
    }
    if (tokenizers.empty()) return std::fprintf(stderr, "expected a tokenizer.json or a vocab.txt\n"), 2;
    for (const std::string& path : tokenizers) measure(path, lines);
    return 0;
  } catch (const Error& e) {
    return std::fprintf(stderr, "%s\n", e.what()), 1;
  }
}

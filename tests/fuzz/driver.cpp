// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz target where there is no libFuzzer: on its seeds, then on random changes of them, a given number of times. An
// allocation that is out of proportion to its input ends the program.
//
//     fuzz_idx RUNS           DPMP_TEST_SEED=N repeats the inputs of a run
//     fuzz_idx FILE...        runs the target on files
//     fuzz_idx --seeds FOLDER writes the inputs to start from to files, for libFuzzer
//
// The input at hand is written to fuzz_input before the target sees it where DPMP_FUZZ_KEEP is set, so that it is there
// after a crash.
#include <algorithm>
#include <atomic>
#include <new>
#include <string_view>

#include "fuzz/fuzz.hpp"
#include "support/random.hpp"

namespace {
std::atomic<std::size_t> allocation_limit{std::size_t(-1)};

void* allocate(std::size_t bytes, std::size_t alignment) {
  if (bytes > allocation_limit.load(std::memory_order_relaxed)) {
    allocation_limit = std::size_t(-1);
    std::fprintf(stderr, "does not hold: an allocation in proportion to the input, got %zu bytes\n", bytes);
    std::abort();
  }
  void* memory = nullptr;
  if (alignment <= alignof(std::max_align_t))
    memory = std::malloc(bytes == 0 ? 1 : bytes);
  else if (::posix_memalign(&memory, alignment, bytes) != 0)
    memory = nullptr;
  if (!memory) throw std::bad_alloc();
  return memory;
}

void run(const std::string& input) {
  static const bool keep = std::getenv("DPMP_FUZZ_KEEP") != nullptr;
  if (keep) test::write_text("fuzz_input", input);
  allocation_limit = fuzz::most_bytes + fuzz::most_times_input * input.size();
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  allocation_limit = std::size_t(-1);
}

class Mutator {
 public:
  Mutator() : corpus_(fuzz::seeds()), words_(fuzz::words()) {}
  const std::vector<std::string>& corpus() const { return corpus_; }
  std::string next() {
    std::string input = corpus_[below(corpus_.size())];
    for (auto left = rng_.integer(1, 4); left > 0; --left) change(input);
    constexpr std::size_t longest = 1 << 16;
    if (input.size() > longest) input.resize(longest);
    return input;
  }
  /// Inputs that were accepted are changed further.
  void keep(const std::string& input) {
    constexpr std::size_t most = 4000;
    if (corpus_.size() < most)
      corpus_.push_back(input);
    else
      corpus_[below(most)] = input;
  }

 private:
  std::size_t below(std::size_t n) { return std::size_t(rng_.integer(0, std::int64_t(n) - 1)); }
  void change(std::string& text) {
    const std::size_t at = below(text.size() + 1), length = std::min(text.size() - at, below(9));
    switch (rng_.integer(0, 7)) {
      case 0:
        if (at < text.size()) text[at] = char(text[at] ^ 1 << below(8));
        break;
      case 1:
        if (at < text.size()) text[at] = char(rng_.bits());
        break;
      case 2: text.erase(at, length); break;
      case 3: text.insert(at, text.substr(at, length)); break;
      case 4: text.insert(at, words_[below(words_.size())]); break;
      case 5: text.replace(at, length, words_[below(words_.size())]); break;
      case 6: {
        const std::string& other = corpus_[below(corpus_.size())];
        text = text.substr(0, at) + other.substr(below(other.size() + 1));
        break;
      }
      default: {
        // One number for another of the same kind: sizes next to limits.
        static constexpr std::string_view numbers[] = {"0", "1", "2", "255", "65536", "4294967295", "9223372036854775807"};
        const std::size_t digit = text.find_first_of("0123456789", at);
        if (digit != std::string::npos) text.replace(digit, 1, numbers[below(std::size(numbers))]);
      }
    }
  }

  test::Rng rng_;
  std::vector<std::string> corpus_, words_;
};
}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new[](std::size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) { return allocate(bytes, std::size_t(alignment)); }
void* operator new[](std::size_t bytes, std::align_val_t alignment) { return allocate(bytes, std::size_t(alignment)); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

int main(int argc, char** argv) {
  char* end = nullptr;
  const std::uint64_t most = argc == 2 ? std::strtoull(argv[1], &end, 10) : 0;
  if (argc < 2) return std::fprintf(stderr, "expected RUNS or files\n"), 2;
  if (argc == 3 && std::string_view(argv[1]) == "--seeds") {
    int number = 0;
    for (const std::string& input : fuzz::seeds()) test::write_text(argv[2] + ("/" + std::to_string(number++)), input);
    return 0;
  }
  if (argc > 2 || *end != '\0') {
    for (int k = 1; k < argc; ++k) run(test::read_text(argv[k]));
    return 0;
  }
  std::printf("seed %llu (replay with DPMP_TEST_SEED)\n", static_cast<unsigned long long>(test::seed()));
  std::fflush(stdout);
  Mutator mutator;
  std::uint64_t runs = 0;
  for (const std::string& input : fuzz::seeds()) run(input), ++runs;
  for (; runs < most; ++runs) {
    const std::string input = mutator.next();
    const std::uint64_t before = fuzz::accepted;
    run(input);
    if (fuzz::accepted > before) mutator.keep(input);
  }
  std::printf("%llu inputs, %llu of them accepted\n", static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(fuzz::accepted));
  return fuzz::accepted > 0 ? 0 : 1;
}

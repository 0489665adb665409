// SPDX-License-Identifier: Apache-2.0
// What the host's products share: memory for the length of a product, and its split over threads.
#pragma once
#include <memory>

#include "dpmp/gemm/epilogue.hpp"
#include "dpmp/runtime/context.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// Memory for the length of one gemm: from the context, or, inside a team, where the order of requests would depend on
/// timing, from a buffer of the thread that only grows. One at a time inside a team.
class Scratch {
 public:
  Scratch(Context& ctx, index_t bytes) {
    if (bytes == 0) return;
    if (!ThreadTeam::inside()) {
      buffer_ = ctx.allocate(bytes);
      data_ = static_cast<char*>(buffer_.data());
      return;
    }
    struct Free {
      void operator()(void* p) const { ::operator delete(p, std::align_val_t(64)); }
    };
    static thread_local std::unique_ptr<void, Free> block;
    static thread_local index_t size = 0;
    if (size < bytes) {
      size = 0;
      block.reset(::operator new(std::size_t(bytes), std::align_val_t(64)));
      size = bytes;
    }
    data_ = static_cast<char*>(block.get());
  }
  char* data() const { return data_; }

 private:
  Buffer buffer_;
  char* data_ = nullptr;
};

inline index_t padded_bytes(index_t elements, index_t bytes_each) { return (elements * bytes_each + 63) / 64 * 64; }

/// The threads that one gemm uses: those of the context; the caller alone inside a team and for products too small for a
/// fork.
struct Workers {
  Context& context;
  int threads;

  Workers(Context& ctx, const GemmSpec& s)
      : context(ctx), threads(ThreadTeam::inside() || work(s) <= double(worth_a_fork::multiply_adds) ? 1 : ctx.threads()) {}

  /// Calls f(slot, begin, end) for contiguous chunks of [0, n), one a thread.
  void for_chunks(index_t n, FunctionRef<void(int, index_t, index_t)> f) const {
    if (threads == 1) return f(0, index_t(0), n);
    context.team().run([&](int t) {
      const index_t share = n / threads, extra = n % threads;
      const index_t begin = t * share + std::min<index_t>(t, extra), end = begin + share + (t < extra ? 1 : 0);
      if (begin < end) f(t, begin, end);
    });
  }

 private:
  /// Multiply-adds, an output counted as 16 of them; in double, so that nothing overflows.
  static double work(const GemmSpec& s) { return double(s.batch) * double(s.m) * double(s.n) * double(s.k + 16); }
};

/// spec.row_squares of an output that is finished.
template <class Out>
void square_all_rows(const Workers& workers, const GemmSpec& s) {
  workers.for_chunks(s.batch * s.m, [&](int, index_t begin, index_t end) {
    while (begin < end) {
      const index_t batch = begin / s.m, first = begin % s.m, count = std::min(end - begin, s.m - first);
      square_rows<Out>(s, batch, first, count);
      begin += count;
    }
  });
}
/// The same for whatever the output holds; nothing where no squares are asked for.
inline void square_all_rows(const Workers& workers, const GemmSpec& s) {
  if (!s.row_squares) return;
  dispatch_stored(s.out.dtype, [&](auto tag) { square_all_rows<typename decltype(tag)::type>(workers, s); });
}
}  // namespace dpmp::inline DPMP_ABI::detail

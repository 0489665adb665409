// SPDX-License-Identifier: Apache-2.0
// Keys leave no bytes where they were.
#include <doctest/doctest.h>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include "dpmp/core/secret_key.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
Key256 random_words() {
  test::Rng rng;
  Key256 key;
  for (auto& word : key.words) word = std::uint32_t(rng.integer(1, 0xffffffff));
  return key;
}
/// Memory in which an object is made and dropped, looked at byte by byte as the compiler cannot foresee.
template <class T>
struct Room {
  alignas(T) unsigned char bytes[sizeof(T)] = {};
  template <class... Arguments>
  T* make(Arguments&&... arguments) {
    return new (bytes) T(std::forward<Arguments>(arguments)...);
  }
  int non_zero_bytes() const {
    int n = 0;
    for (const volatile unsigned char& byte : bytes) n += byte != 0;
    return n;
  }
};
}  // namespace

TEST_CASE("SecretKey: dropped, copied, moved and assigned keys leave zeros, and carry the value") {
  const Key256 key = random_words();
  Room<SecretKey> room, other;
  SecretKey* a = room.make(key);
  CHECK(room.non_zero_bytes() > 8);
  SecretKey* b = other.make(*a);  // a copy
  CHECK(*a == key);
  CHECK(*b == key);
  b->~SecretKey();
  CHECK(other.non_zero_bytes() == 0);
  CHECK(*a == key);
  b = other.make(std::move(*a));
  CHECK(room.non_zero_bytes() == 0);
  CHECK(*b == key);
  *a = std::move(*b);
  CHECK(other.non_zero_bytes() == 0);
  CHECK(*a == key);
  SecretKey& same = *a;
  *a = std::move(same);
  CHECK(*a == key);
  *b = *a;
  CHECK(*a == *b);
  a->~SecretKey();
  b->~SecretKey();
  CHECK(room.non_zero_bytes() == 0);
  CHECK(other.non_zero_bytes() == 0);
}

TEST_CASE("SecretKey: an optional key that is taken leaves nothing in its place") {
  using Maybe = std::optional<SecretKey>;
  const Key256 key = random_words();
  Room<Maybe> room;
  Maybe* held = room.make(key);
  const SecretKey taken = *std::exchange(*held, std::nullopt);
  CHECK(taken == key);
  CHECK(room.non_zero_bytes() == 0);
  held->~Maybe();
}

TEST_CASE("wipe: bytes that nobody reads afterwards are zero all the same") {
  constexpr std::size_t count = 100;
  const std::unique_ptr<unsigned char[]> bytes(new unsigned char[count]);
  for (std::size_t k = 0; k < count; ++k) bytes[k] = static_cast<unsigned char>(k + 1);
  wipe(bytes.get() + 1, count - 2);
  CHECK(bytes[0] == 1);
  CHECK(bytes[count - 1] == count);
  for (std::size_t k = 1; k + 1 < count; ++k) CHECK(bytes[k] == 0);
}

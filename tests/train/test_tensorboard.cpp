// SPDX-License-Identifier: Apache-2.0
// Event files: the bytes that the package tensorboard 2.x writes for the same events, and a reader of its own for the rest.
#include <doctest/doctest.h>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dpmp/core/crc32.hpp"
#include "dpmp/train/tensorboard.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using train::Progress;
using train::TensorBoardLog;

namespace {
std::string hex_of(const std::string& bytes) {
  std::string hex;
  for (const unsigned char c : bytes) hex += "0123456789abcdef"[c >> 4], hex += "0123456789abcdef"[c & 15];
  return hex;
}
std::uint64_t number(const std::string& text, std::size_t at, int bytes) {
  std::uint64_t x = 0;
  for (int k = bytes; k-- > 0;) x = x << 8 | static_cast<unsigned char>(text.at(at + std::size_t(k)));
  return x;
}
/// The fields of a message: number -> what it holds, fixed numbers and varints as 8 bytes.
std::multimap<int, std::string> fields_of(const std::string& text) {
  std::multimap<int, std::string> fields;
  std::size_t at = 0;
  const auto varint = [&] {
    std::uint64_t x = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(text.at(at++));
      x |= std::uint64_t(byte & 127) << shift;
      if (byte < 128) return x;
    }
  };
  while (at < text.size()) {
    const std::uint64_t tag = varint();
    std::string value;
    if ((tag & 7) == 0) {
      const std::uint64_t x = varint();
      value.assign(reinterpret_cast<const char*>(&x), 8);
    } else {
      const std::size_t length = (tag & 7) == 1 ? 8 : (tag & 7) == 5 ? 4 : std::size_t(varint());
      REQUIRE(at + length <= text.size());
      value = text.substr(at, length);
      at += length;
    }
    fields.emplace(int(tag >> 3), value);
  }
  return fields;
}
struct Event {
  double time = 0;
  index_t step = 0;
  std::string version, session;
  std::map<std::string, float> values;
};
std::vector<Event> events_of(const std::string& bytes) {
  const auto masked = [](const std::string& text) {
    const std::uint32_t crc = crc32c(text.data(), text.size());
    return std::uint32_t((crc >> 15 | crc << 17) + 0xa282ead8u);
  };
  std::vector<Event> events;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t length = std::size_t(number(bytes, at, 8));
    CHECK(number(bytes, at + 8, 4) == masked(bytes.substr(at, 8)));
    const std::string record = bytes.substr(at + 12, length);
    REQUIRE(record.size() == length);
    CHECK(number(bytes, at + 12 + length, 4) == masked(record));
    at += 16 + length;
    Event event;
    for (const auto& [field, value] : fields_of(record)) {
      if (field == 1) event.time = std::bit_cast<double>(number(value, 0, 8));
      if (field == 2) event.step = index_t(number(value, 0, 8));
      if (field == 3) event.version = value;
      if (field == 7) event.session = value;
      if (field == 5)
        for (const auto& [unused, part] : fields_of(value)) {
          auto of_value = fields_of(part);
          CHECK(of_value.size() == 2);
          event.values[of_value.find(1)->second] =
              std::bit_cast<float>(std::uint32_t(number(of_value.find(2)->second, 0, 4)));
        }
    }
    events.push_back(event);
  }
  return events;
}
}  // namespace

TEST_CASE("tensorboard: the bytes of the package tensorboard for the same events") {
  const std::vector<Progress> history{{.step = 0, .epsilon = 0., .learning_rate = .25},
                                      {.step = 300,
                                       .epsilon = 1.5,
                                       .delta = 0x1p-17,
                                       .noise_multiplier = 1.25,
                                       .learning_rate = .5,
                                       .held_out_loss = 2.75,
                                       .more = {{"bits/byte", -3.}}}};
  CHECK(hex_of(train::tensorboard_events(history)) ==
        "0f000000000000006d532b091a0d627261696e2e4576656e743a32fc9851292800000000000000ff70164a2a260a0e0a07657073696c6f6e"
        "15000000000a140a0d6c6561726e696e675f72617465150000803efb283a788300000000000000b3b191e9090000000000c0724010ac022a"
        "750a0e0a07657073696c6f6e150000c03f0a0c0a0564656c746115000000370a170a106e6f6973655f6d756c7469706c696572150000a03f"
        "0a140a0d6c6561726e696e675f72617465150000003f0a140a0d68656c645f6f75745f6c6f737315000030400a100a09626974732f627974"
        "6515000040c0969ccfdb");
}

TEST_CASE("tensorboard: every number that is set, rounded to the safe side, and nothing that is not for others") {
  test::Rng rng;
  std::vector<Progress> history;
  for (index_t k = 0; k < 200; ++k) {
    Progress p{.step = k * k};
    const auto maybe = [&] {
      return rng.integer(0, 3) ? std::optional(std::ldexp(rng.normal(), int(rng.integer(-60, 60)))) : std::nullopt;
    };
    p.epsilon = maybe(), p.delta = maybe(), p.noise_multiplier = maybe(), p.learning_rate = maybe();
    p.held_out_loss = maybe();
    p.more = {{"a", rng.normal()}, {"unsafe_drawn", rng.normal()}, {"records_per_second", rng.normal()}};
    history.push_back(p);
  }
  for (const bool unsafe : {false, true})
    for (const bool times : {false, true}) {
      const auto events =
          events_of(train::tensorboard_events(history, {.times_of_private_steps = times, .unsafe_debug = unsafe}));
      REQUIRE(events.size() == 1 + history.size());
      CHECK(events[0].version == "brain.Event:2");
      for (std::size_t k = 0; k < history.size(); ++k) {
        const Progress& p = history[k];
        const Event& e = events[k + 1];
        CHECK(e.step == p.step);
        CHECK(e.time == double(p.step));
        std::size_t count = 0;
        const auto check = [&](const char* name, const std::optional<double>& x, int direction) {
          CHECK(e.values.contains(name) == x.has_value());
          if (!x || !e.values.contains(name)) return;
          ++count;
          const float y = e.values.at(name);
          if (direction == 0) CHECK(y == float(*x));
          if (direction > 0) CHECK((double(y) >= *x && (y == float(*x) || double(std::nextafter(y, -INFINITY)) < *x)));
          if (direction < 0) CHECK((double(y) <= *x && (y == float(*x) || double(std::nextafter(y, INFINITY)) > *x)));
        };
        check("epsilon", p.epsilon, 1);
        check("delta", p.delta, 1);
        check("noise_multiplier", p.noise_multiplier, -1);
        check("learning_rate", p.learning_rate, 0);
        check("held_out_loss", p.held_out_loss, 0);
        check("a", p.more[0].second, 0);
        check("unsafe_drawn", unsafe ? std::optional(p.more[1].second) : std::nullopt, 0);
        check("records_per_second", times || !p.epsilon ? std::optional(p.more[2].second) : std::nullopt, 0);
        CHECK(e.values.size() == count);
      }
    }
  const double special[] = {INFINITY, -INFINITY, double(NAN), 1e300, -1e300, 5e-324};
  for (const double x : special) {
    const Progress p{.step = 1, .epsilon = x, .held_out_loss = x};
    const auto values = events_of(train::tensorboard_events(std::span(&p, 1)))[1].values;
    CHECK((std::isnan(x) ? std::isnan(values.at("epsilon")) : double(values.at("epsilon")) >= x));
    CHECK((std::isnan(x) ? std::isnan(values.at("held_out_loss")) : values.at("held_out_loss") == float(x)));
  }
  CHECK(events_of(train::tensorboard_events({})).size() == 1);
  const Progress nothing{.step = 5};
  CHECK(events_of(train::tensorboard_events(std::span(&nothing, 1))).size() == 1);
}

TEST_CASE("tensorboard: a run that goes on has a file of its own, whose first step replaces what was there") {
  const test::TemporaryFolder folder;
  const std::filesystem::path runs = folder / "runs/a";
  std::filesystem::path first;
  {
    TensorBoardLog log(runs);
    first = log.path();
    CHECK(first.filename() == "events.out.tfevents.0000000000.dpmp");
    for (index_t step = 0; step < 10; ++step) {
      log.write({.step = step, .held_out_loss = double(step)});
      CHECK(events_of(test::read_text(first)).size() == std::size_t(step) + 3);  // whole events at any time
    }
  }
  TensorBoardLog again(runs);
  CHECK(again.path().filename() == "events.out.tfevents.0000000001.dpmp");
  CHECK(events_of(test::read_text(again.path())).size() == 1);
  again.write({.step = 7, .held_out_loss = 1.});
  again.write({.step = 8});
  const auto events = events_of(test::read_text(again.path()));
  REQUIRE(events.size() == 3);
  // As the package writes an event with session_log.status = START.
  CHECK((events[1].session == "\x08\x01" && events[1].step == 7));
  TensorBoardLog third(runs);
  third.write({.step = 300});
  CHECK(hex_of(test::read_text(third.path())).ends_with("100000000000000095fbfe18090000000000c0724010ac023a0208015d5aa3ef"));
  CHECK(events_of(test::read_text(first)).size() == 12);
  test::write_text(folder / "file", "");
  CHECK(test::refuses([&] { TensorBoardLog(folder / "file"); }, "expected a folder for TensorBoard's event files"));
}

// SPDX-License-Identifier: Apache-2.0
#include "count_table.hpp"

#include <cstdio>
#include <mutex>
#include <utility>
#include <vector>

#include "ranges.hpp"
#include "text.hpp"

namespace emu {
namespace {

using ull = unsigned long long;

const char* const kind_names[] = {"kernel", "product", "copy"};

struct Row {
  std::string range;
  WorkKind kind;
  std::string name;
  Stat stat;
};

struct Rows {
  std::mutex mutex;
  std::vector<Row> all;  // in the order of their first appearance
};
Rows& rows() {
  static auto* r = new Rows();  // never destroyed: written at exit
  return *r;
}

thread_local int graph_depth = 0;

/// Column and value. Texts are marked, for their quotes.
struct Cell {
  std::string column, value;
  bool text = false;
};

class Line {
 public:
  std::vector<Cell> cells;
  void add(const std::string& column, std::uint64_t value) { cells.push_back({column, std::to_string(value)}); }
  void add(const std::string& column, const std::string& value) { cells.push_back({column, value, true}); }
  void add(const std::string& column, const Traffic& t) {
    add(column + "_requests", t.requests);
    add(column + "_sectors", t.sectors);
    add(column + "_bytes", t.bytes);
    add(column + "_useful_bytes", t.useful);
    add(column + "_ideal_sectors", t.ideal);
  }
};

Line line_of(const Row& r) {
  const Stat& s = r.stat;
  Line l;
  l.add("range", r.range);
  l.add("entered", times_entered(r.range));
  l.add("kind", std::string(kind_names[int(r.kind)]));
  l.add("name", r.name);
  l.add("launches", s.launches);
  l.add("graph_launches", s.graph_launches);
  l.add("blocks", s.blocks);
  l.add("threads", s.threads);
  for (int i = 0; i < EC_N; i++) l.add(std::string("n_") + instruction_classes[i].name, s.instructions[i]);
  for (int i = 0; i < unit_count; i++) l.add(std::string("flops_") + unit_names[i], s.operations[i]);
  l.add("load", s.loads);
  l.add("store", s.stores);
  l.add("atomic", s.atomics);
  l.add("unique_read_bytes", s.unique_read);
  l.add("unique_written_bytes", s.unique_written);
  l.add("shared_requests", s.shared_requests);
  l.add("shared_wavefronts", s.wavefronts);
  l.add("bank_conflicts", s.conflicts());
  l.cells.push_back({"emulation_seconds", format("%.6f", s.seconds)});
  return l;
}

std::string quoted(const std::string& text, const char* before_quote) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || (c == '\\' && *before_quote == '\\')) out += before_quote;
    out += c;
  }
  return out + "\"";
}

/// 1234567 as "1.23M".
std::string short_number(double x) {
  const char* const units[] = {"", "k", "M", "G", "T", "P"};
  int u = 0;
  for (; x >= 1000 && u < 5; u++) x /= 1000;
  return u == 0 ? format("%.0f", x) : format(x < 10 ? "%.2f%s" : x < 100 ? "%.1f%s" : "%.0f%s", x, units[u]);
}
std::string short_number(std::uint64_t n) { return short_number(double(n)); }

std::string useful_part(const Traffic& t) {
  return t.sectors ? format("%.0f%%", 100. * double(t.useful) / (double(sector_bytes) * double(t.sectors))) : "-";
}

void say_row(const std::string& name, const Stat& s) {
  const std::uint64_t tensor =
      s.operations[tensor_f16] + s.operations[tensor_bf16] + s.operations[tensor_tf32] + s.operations[tensor_i8];
  const std::string cells[] = {short_number(s.launches),
                               short_number(s.blocks),
                               short_number(s.threads),
                               short_number(tensor),
                               short_number(s.operations[fp32] + s.operations[fp16]),
                               short_number(s.operations[fp64]),
                               short_number(s.operations[special]),
                               short_number(sector_bytes * s.loads.sectors),
                               useful_part(s.loads),
                               short_number(sector_bytes * s.stores.sectors),
                               useful_part(s.stores),
                               short_number(s.unique_read + s.unique_written),
                               short_number(s.instructions[EC_ATOM]),
                               short_number(s.shared_requests),
                               short_number(s.conflicts()),
                               short_number(s.instructions[EC_BAR])};
  std::string text = format("%-44.44s", name.c_str());
  for (const std::string& c : cells) text += format(" %8s", c.c_str());
  say("%s %8.2f\n", text.c_str(), s.seconds);
}

void say_range(const std::string& range, const std::vector<Row>& all) {
  const ull times = times_entered(range);
  if (!range.empty()) say("EMU COUNT range %s (entered %llu times)\n", range.c_str(), times);
  Stat total;
  int count = 0;
  const std::string nested = range + "/";
  for (const Row& r : all) {
    const bool inside = !range.empty() && r.range.rfind(nested, 0) == 0;
    if (r.range != range && !inside) continue;
    if (!inside) say_row(r.name, r.stat);
    total += r.stat;
    count++;
  }
  if (count > 1) say_row("(all, nested ranges too)", total);
}

}  // namespace

void count_work(WorkKind kind, const std::string& name, Stat s) {
  if (graph_depth) s.graph_launches = s.launches;
  const std::string& range = current_range();
  std::lock_guard<std::mutex> lock(rows().mutex);
  for (Row& r : rows().all) {
    if (r.kind != kind || r.name != name || r.range != range) continue;
    r.stat += s;
    return;
  }
  rows().all.push_back({range, kind, name, s});
}

GraphLaunch::GraphLaunch() { graph_depth++; }
GraphLaunch::~GraphLaunch() { graph_depth--; }

std::string count_csv() {
  std::lock_guard<std::mutex> lock(rows().mutex);
  std::string head, body;
  for (const Row& r : rows().all) {
    const Line l = line_of(r);
    std::string names, values;
    for (const Cell& c : l.cells) {
      names += (names.empty() ? "" : ",") + c.column;
      values += (values.empty() ? "" : ",") + (c.text ? quoted(c.value, "\"") : c.value);
    }
    head = names + "\n";
    body += values + "\n";
  }
  return head + body;
}

std::string count_json() {
  std::lock_guard<std::mutex> lock(rows().mutex);
  std::string out = "[";
  for (const Row& r : rows().all) {
    const Line l = line_of(r);
    out += out == "[" ? "\n  {" : ",\n  {";
    for (std::size_t i = 0; i < l.cells.size(); i++) {
      const Cell& c = l.cells[i];
      out += (i ? ", " : "") + quoted(c.column, "\\") + ": " + (c.text ? quoted(c.value, "\\") : c.value);
    }
    out += "}";
  }
  return out + "\n]\n";
}

void write_count_table() {
  const std::vector<Row> all = [] {
    std::lock_guard<std::mutex> lock(rows().mutex);
    return rows().all;
  }();
  if (all.empty()) return;
  const char* const columns[] = {"launches", "blocks",  "threads", "tensor",  "fp32",   "fp64",   "special",  "read B",
                                 "useful",   "write B", "useful",  "uniqueB", "atomic", "sh.req", "conflict", "barrier"};
  std::string head = format("%-44s", "EMU COUNT");
  for (const char* c : columns) head += format(" %8s", c);
  say("\nEMU COUNT: tensor, fp32, fp64, special: operations (a multiply-add is 2); read, write: bytes of the 32-byte "
      "sectors of "
      "warp requests, and the part that the lanes asked for; unique: each sector once per launch; atomic, barrier: threads\n"
      "%s  seconds\n",
      head.c_str());
  std::vector<std::string> seen;
  for (const Row& r : all) {
    bool known = false;
    for (const std::string& s : seen) known = known || s == r.range;
    if (known) continue;
    seen.push_back(r.range);
    say_range(r.range, all);
  }
  const std::string path = environment("EMU_COUNT_FILE");
  if (path.empty()) return;
  const bool json = path.size() > 5 && path.compare(path.size() - 5, 5, ".json") == 0;
  const std::string text = json ? count_json() : count_csv();
  std::FILE* out = std::fopen(path.c_str(), "w");
  if (!out || std::fwrite(text.data(), 1, text.size(), out) != text.size()) {
    say("EMU ERROR: cannot write EMU_COUNT_FILE=%s\n", path.c_str());
  }
  if (out) std::fclose(out);
}

}  // namespace emu

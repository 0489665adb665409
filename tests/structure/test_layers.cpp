// SPDX-License-Identifier: Apache-2.0
// The house rules that a compiler does not enforce: layer order, an include graph without cycles, who may include foreign
// headers, file length, licence line, plain ASCII.
#include <doctest/doctest.h>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "support/source_folder.hpp"

namespace fs = std::filesystem;

namespace {
const std::vector<std::string> layers = {"core",     "runtime", "kernels",    "tensor", "gemm",  "interop",
                                         "autograd", "nn",      "per_sample", "dp",     "optim", "train"};
constexpr std::size_t longest_file = 400;

/// The only headers that may include a foreign library, by the start of what they include; * is part of a file's name.
const std::vector<std::pair<std::regex, std::string>> foreign = {
    {std::regex("(unsupported/)?Eigen/.*"), "dpmp/gemm/host_eigen.hpp"},
    {std::regex("(oneapi/dnnl/)?dnnl.*"), "dpmp/gemm/host_onednn.hpp"},
    {std::regex("nlohmann/.*"), "dpmp/interop/*_json.hpp"},
    {std::regex("unicode/.*"), "dpmp/interop/tokenizer_icu.hpp"},
    {std::regex("png[.]h"), "dpmp/interop/png.hpp"},
    {std::regex("zlib[.]h"), "dpmp/interop/npz_zlib.hpp"},
    {std::regex("(cuda|cublas|nv|curand|cooperative_groups|mma|cub/|thrust/).*|.*\\.cuh"), "no .hpp"},
};

/// Path below include/ -> what it includes.
using Graph = std::map<std::string, std::vector<std::string>>;
using Violations = std::vector<std::string>;

std::vector<std::string> lines_of(const fs::path& file) {
  std::vector<std::string> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

/// "dpmp/core/shape.hpp" and "dpmp/core/x/y.hpp" -> "core"; "" for a file at the top.
std::string folder_of(const std::string& header) {
  const auto first = header.find('/'), second = header.find('/', first + 1);
  return second == std::string::npos ? "" : header.substr(first + 1, second - first - 1);
}
int rank_of(const std::string& layer) { return int(std::find(layers.begin(), layers.end(), layer) - layers.begin()); }

void check_text(const std::string& name, const fs::path& file, Violations& found) {
  const auto lines = lines_of(file);
  if (lines.empty() || lines[0] != "// SPDX-License-Identifier: Apache-2.0")
    found.push_back(name + ": no licence line first");
  if (lines.size() > longest_file)
    found.push_back(name + ": " + std::to_string(lines.size()) + " lines, expected at most " + std::to_string(longest_file));
  for (std::size_t k = 0; k < lines.size(); ++k)
    if (std::any_of(lines[k].begin(), lines[k].end(), [](char c) { return (c < ' ' && c != '\t') || c > '~'; }))
      found.push_back(name + ":" + std::to_string(k + 1) + ": not plain ASCII");
}

bool is_owner(const std::string& header, const std::string& owner) {
  const auto star = owner.find('*');
  if (star == std::string::npos) return header == owner;
  const std::string before = owner.substr(0, star), behind = owner.substr(star + 1);
  return header.starts_with(before) && header.ends_with(behind) && header.find('/', star) == std::string::npos;
}

void check_include(const std::string& from, const std::string& to, const Graph& graph, Violations& found) {
  auto refuse = [&](const std::string& why) { found.push_back(from + " includes " + to + ": " + why); };
  const bool cuda_umbrella = from == "dpmp/dpmp.cuh",
             umbrella = cuda_umbrella || from == "dpmp/dpmp.hpp" || from == "dpmp/cuda.cuh";
  if (!to.starts_with("dpmp/")) {
    for (const auto& [pattern, owner] : foreign)
      if (from.ends_with(".hpp") && !is_owner(from, owner) && std::regex_match(to, pattern))
        refuse("allowed in " + owner + " only");
    return;
  }
  if (!graph.contains(to)) return refuse("there is no such header");
  if (to == "dpmp/dpmp.cuh" || ((to == "dpmp/dpmp.hpp" || to == "dpmp/cuda.cuh") && !cuda_umbrella))
    return refuse("the umbrella is for users");
  if (to == "dpmp/version.hpp" || umbrella) return;
  if (from == "dpmp/version.hpp") return refuse("the version stands alone");
  const std::string above = folder_of(from), below = folder_of(to);
  if (above == "" || below == "") return refuse("a header is in the folder of its layer");
  if (rank_of(below) > rank_of(above)) refuse("a lower layer includes a higher one");
  if (above == "dp" && below != "dp" && below != "core" && below != "runtime")
    refuse("dp may include core, runtime and dp only");
}

void visit(const std::string& header, const Graph& graph, std::set<std::string>& done, std::vector<std::string>& path,
           Violations& found) {
  if (done.contains(header)) return;
  if (const auto at = std::find(path.begin(), path.end(), header); at != path.end()) {
    std::string cycle;
    for (auto it = at; it != path.end(); ++it) cycle += *it + " -> ";
    found.push_back("include cycle: " + cycle + header);
    return;
  }
  path.push_back(header);
  for (const auto& next : graph.at(header))
    if (graph.contains(next)) visit(next, graph, done, path, found);
  path.pop_back();
  done.insert(header);
}

/// Every breach of the rules for the headers below `include`.
Violations check_headers(const fs::path& include) {
  Violations found;
  Graph graph;
  const std::regex directive(R"rx(^\s*#\s*include\s*([<"])([^">]+)[">].*)rx");
  for (const auto& entry : fs::recursive_directory_iterator(include)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = fs::relative(entry.path(), include).generic_string();
    const std::string folder = folder_of(name);
    if (folder != "" && rank_of(folder) == int(layers.size())) found.push_back(name + ": not in a layer");
    if (!name.ends_with(".hpp") && !name.ends_with(".cuh")) found.push_back(name + ": expected a .hpp or .cuh file");
    check_text(name, entry.path(), found);
    auto& includes = graph[name];
    bool once = false;
    for (const auto& line : lines_of(entry.path())) {
      once = once || line == "#pragma once";
      std::smatch match;
      if (!std::regex_match(line, match, directive)) continue;
      includes.push_back(match[2]);
      if (match[1] == "\"" && !includes.back().starts_with("dpmp/"))
        found.push_back(name + " includes " + includes.back() + ": own headers are included as \"dpmp/...\"");
    }
    if (!once) found.push_back(name + ": no #pragma once");
  }
  std::set<std::string> done;
  std::vector<std::string> path;
  for (const auto& [header, includes] : graph) {
    for (const auto& to : includes) check_include(header, to, graph, found);
    visit(header, graph, done, path, found);
  }
  return found;
}

std::string joined(const Violations& found) {
  std::string text;
  for (const auto& line : found) text += "\n  " + line;
  return text;
}

/// A small tree that keeps every rule, to plant violations in.
class PlantedTree {
 public:
  PlantedTree() : root_(fs::temp_directory_path() / ("dpmp_layers_" + std::to_string(std::random_device{}()))) {
    add("dpmp/version.hpp", "");
    add("dpmp/core/a.hpp", "#include \"dpmp/version.hpp\"\n");
    add("dpmp/runtime/b.hpp", "#include <vector>\n#include \"dpmp/core/a.hpp\"\n");
    add("dpmp/gemm/host_eigen.hpp", "#include <Eigen/Core>\n#include \"dpmp/runtime/b.hpp\"\n");
    add("dpmp/dp/c.hpp", "#include \"dpmp/runtime/b.hpp\"\n");
    add("dpmp/runtime/launch.cuh", "#include <cuda_runtime.h>\n");
    add("dpmp/dpmp.hpp", "#include \"dpmp/dp/c.hpp\"\n#include \"dpmp/core/a.hpp\"\n");
    add("dpmp/dpmp.cuh", "#include \"dpmp/dpmp.hpp\"\n#include \"dpmp/runtime/launch.cuh\"\n");
  }
  ~PlantedTree() { fs::remove_all(root_); }
  void add(const std::string& name, const std::string& text) { write(name, licence + "#pragma once\n" + text); }
  void write(const std::string& name, const std::string& text) {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  Violations check() const { return check_headers(root_); }
  static inline const std::string licence = "// SPDX-License-Identifier: Apache-2.0\n";

 private:
  fs::path root_;
};
}  // namespace

TEST_CASE("headers keep the layer order, the include rules, the length limit, the licence line and ASCII") {
  const Violations found = check_headers(test::source_folder() / "include");
  CHECK_MESSAGE(found.empty(), joined(found));
}

namespace {
/// What a part of dpmp::compiled includes, as a preprocessor would that knows DPMP_BODIES alone: headers whose bodies it
/// has.
class CompiledPart {
 public:
  explicit CompiledPart(const fs::path& part) : part_(part) { read(part); }
  const std::set<std::string>& with_bodies() const { return with_bodies_; }

 private:
  void read(const fs::path& file) {
    static const std::regex include(R"rx(^\s*#\s*include\s*[<"](dpmp/[^">]+)[">].*)rx");
    static const std::regex choice(R"rx(^#define DPMP_BODIES ([01]).*)rx");
    const std::string skipped = "#if DPMP_BODIES";
    int depth = 0;  // of conditions below one that does not hold
    for (const auto& line : lines_of(file)) {
      std::smatch match;
      if (depth > 0) {
        depth += line.starts_with("#if") ? 1 : line.starts_with("#endif") ? -1 : 0;
      } else if (line == skipped && !bodies_) {
        depth = 1;
      } else if (file == part_ && std::regex_match(line, match, choice)) {
        bodies_ = match[1] == "1";
      } else if (std::regex_match(line, match, include) && seen_.insert(match[1]).second) {
        if (bodies_) with_bodies_.insert(match[1]);
        read(test::source_folder() / "include" / match[1].str());
      }
    }
  }
  fs::path part_;
  bool bodies_ = true;
  std::set<std::string> seen_, with_bodies_;
};
}  // namespace

TEST_CASE("dpmp::compiled has what stands below the interface of every header, once") {
  const fs::path include = test::source_folder() / "include";
  std::vector<CompiledPart> parts;
  for (const auto& entry : fs::directory_iterator(test::source_folder() / "cmake/compiled"))
    if (entry.path().extension() == ".cpp") parts.emplace_back(entry.path());
  CHECK(parts.size() >= 4);
  int checked = 0;
  for (const auto& entry : fs::recursive_directory_iterator(include)) {
    if (entry.path().extension() != ".hpp") continue;
    const auto lines = lines_of(entry.path());
    if (std::find(lines.begin(), lines.end(), "#if DPMP_BODIES") == lines.end()) continue;
    const std::string name = fs::relative(entry.path(), include).generic_string();
    CAPTURE(name);
    CHECK(std::count_if(parts.begin(), parts.end(), [&](const auto& p) { return p.with_bodies().contains(name); }) == 1);
    ++checked;
  }
  CHECK(checked > 50);
}

TEST_CASE("every source has the licence line, the length limit and ASCII") {
  Violations found;
  for (const char* folder : {"tests", "bench", "examples", "tools"})
    for (const auto& entry : fs::recursive_directory_iterator(test::source_folder() / folder)) {
      const std::string extension = entry.path().extension().string();
      if (extension == ".cpp" || extension == ".hpp" || extension == ".cu" || extension == ".cuh")
        check_text(entry.path().lexically_normal().generic_string(), entry.path(), found);
    }
  CHECK_MESSAGE(found.empty(), joined(found));
}

TEST_CASE("a planted violation is found, and nothing else") {
  CHECK(joined(PlantedTree().check()) == "");
  struct Plant {
    const char* header;
    std::string text;
    const char* expected;
  };
  const std::string head = PlantedTree::licence + "#pragma once\n";
  const std::vector<Plant> plants = {
      {"dpmp/core/x.hpp", head + "#include \"dpmp/runtime/b.hpp\"\n", "a lower layer includes a higher one"},
      {"dpmp/core/x.hpp", head + "#include \"dpmp/dpmp.hpp\"\n", "the umbrella is for users"},
      {"dpmp/runtime/x.cuh", head + "#include \"dpmp/dpmp.cuh\"\n", "the umbrella is for users"},
      {"dpmp/dp/x.hpp", head + "#include \"dpmp/gemm/host_eigen.hpp\"\n", "dp may include core, runtime and dp only"},
      {"dpmp/dp/x.hpp", head + "#include \"dpmp/dp/x.hpp\"\n", "include cycle: dpmp/dp/x.hpp -> dpmp/dp/x.hpp"},
      {"dpmp/core/x.hpp", head + "#include \"dpmp/core/missing.hpp\"\n", "there is no such header"},
      {"dpmp/core/x.hpp", head + "#include \"a.hpp\"\n", "own headers are included as"},
      {"dpmp/kernels/x.hpp", head + "#include <cuda_runtime.h>\n", "allowed in no .hpp only"},
      {"dpmp/kernels/x.hpp", head + "# include \"dpmp/runtime/launch.cuh\"\n", ""},
      {"dpmp/gemm/x.hpp", head + "#include <Eigen/Dense>\n", "allowed in dpmp/gemm/host_eigen.hpp only"},
      {"dpmp/gemm/x.hpp", head + "#include <oneapi/dnnl/dnnl.hpp>\n", "allowed in dpmp/gemm/host_onednn.hpp only"},
      {"dpmp/nn/x.hpp", head + "#include <nlohmann/json.hpp>\n", "allowed in dpmp/interop/*_json.hpp only"},
      {"dpmp/interop/x_json.hpp", head + "#include <nlohmann/json.hpp>\n", ""},
      {"dpmp/interop/x.hpp", head + "#include <unicode/uchar.h>\n", "allowed in dpmp/interop/tokenizer_icu.hpp only"},
      {"dpmp/interop/x.hpp", head + "#include <zlib.h>\n", "allowed in dpmp/interop/npz_zlib.hpp only"},
      {"dpmp/other/x.hpp", head, "not in a layer"},
      {"dpmp/core/x.txt", head, "expected a .hpp or .cuh file"},
      {"dpmp/core/x.hpp", "#pragma once\n", "no licence line first"},
      {"dpmp/core/x.hpp", PlantedTree::licence, "no #pragma once"},
      {"dpmp/core/x.hpp", head + std::string(longest_file - 1, '\n'), "401 lines"},
      {"dpmp/core/x.hpp", head + "// caf\xc3\xa9\n", ":3: not plain ASCII"},
  };
  for (const auto& plant : plants) {
    PlantedTree tree;
    tree.write(plant.header, plant.text);
    const Violations found = tree.check();
    CAPTURE(plant.text.substr(head.size() < plant.text.size() ? head.size() : 0, 60));
    CAPTURE(joined(found));
    if (std::string(plant.expected).empty()) {
      CHECK(found.empty());
    } else {
      REQUIRE(found.size() == 1);
      CHECK(found[0].find(plant.header) != std::string::npos);
      CHECK(found[0].find(plant.expected) != std::string::npos);
    }
  }
  PlantedTree ring;
  ring.add("dpmp/dp/x.hpp", "#include \"dpmp/dp/y.hpp\"\n");
  ring.add("dpmp/dp/y.hpp", "#include \"dpmp/dp/x.hpp\"\n");
  CHECK(joined(ring.check()) == "\n  include cycle: dpmp/dp/x.hpp -> dpmp/dp/y.hpp -> dpmp/dp/x.hpp");
}

// SPDX-License-Identifier: Apache-2.0
// dpmp-report: the curves of a run out of its log, also while it goes on.
//
//     dpmp-report LOG.jsonl > run.html        dpmp-report LOG.csv --tensorboard runs/first
#include <cstdio>
#include <string>
#include <string_view>

#include "dpmp/runtime/atomic_file.hpp"
#include "dpmp/train/log_report.hpp"
#include "dpmp/train/read_log.hpp"
#include "dpmp/train/tensorboard.hpp"

namespace {
constexpr const char* usage =
    "usage: dpmp-report LOG [-o FILE.html] [--title TEXT] [--tensorboard FOLDER]\n"
    "\n"
    "LOG is what dpmp::train::Log wrote, CSV or one JSON object a line; a last line that is cut\n"
    "off is left out, so that a log may be read while its run goes on.\n"
    "\n"
    "  -o FILE.html          write the page there, complete or not at all, not to standard output\n"
    "  --title TEXT          the heading of the page\n"
    "  --tensorboard FOLDER  write an event file for TensorBoard; a page only with -o\n";

struct Command {
  std::string log, page, title = "Training run", tensorboard;
  bool help = false;
};
/// Throws on what is no command line of this program.
Command parse(int argc, char** argv) {
  Command command;
  for (int k = 1; k < argc; ++k) {
    const std::string_view word = argv[k];
    std::string* const value = word == "-o"              ? &command.page
                               : word == "--title"       ? &command.title
                               : word == "--tensorboard" ? &command.tensorboard
                                                         : nullptr;
    if (word == "--help" || word == "-h") {
      command.help = true;
    } else if (value) {
      if (++k == argc) throw dpmp::Error("expected a value after " + std::string(word) + ", got none");
      *value = argv[k];
    } else {
      if (word.starts_with("-") || !command.log.empty())
        throw dpmp::Error("expected one log and options, got '" + std::string(word) + "'");
      command.log = word;
    }
  }
  if (command.log.empty() && !command.help) throw dpmp::Error("expected a log, got none");
  return command;
}

void write_whole(const std::filesystem::path& path, const std::string& text) {
  dpmp::AtomicFile file(path);
  file.write(text.data(), text.size());
  file.commit();
}

void run(const Command& command) {
  const std::vector<dpmp::train::Progress> history = dpmp::train::read_log(command.log);
  if (!command.tensorboard.empty()) {
    std::filesystem::create_directories(command.tensorboard);
    write_whole(std::filesystem::path(command.tensorboard) / "events.out.tfevents.log.dpmp",
                dpmp::train::tensorboard_events(history));
  }
  if (!command.tensorboard.empty() && command.page.empty()) return;
  const std::string page = dpmp::train::log_report_html(history, command.title);
  if (!command.page.empty()) return write_whole(command.page, page);
  if (std::fwrite(page.data(), 1, page.size(), stdout) != page.size() || std::fflush(stdout) != 0)
    throw dpmp::Error("expected room for the page on standard output, got none");
}
}  // namespace

int main(int argc, char** argv) {
  Command command;
  try {
    command = parse(argc, argv);
  } catch (const dpmp::Error& e) {
    std::fprintf(stderr, "dpmp-report: %s\n%s", e.message().c_str(), usage);
    return 2;
  }
  if (command.help) return std::fputs(usage, stdout) < 0;
  try {
    run(command);
  } catch (const dpmp::Error& e) {
    std::fprintf(stderr, "dpmp-report: %s\n", e.message().c_str());
    return 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "dpmp-report: %s\n", e.what());
    return 1;
  }
}

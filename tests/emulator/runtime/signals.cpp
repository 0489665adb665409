// SPDX-License-Identifier: Apache-2.0
#include "signals.hpp"

#include <unistd.h>
#include <csignal>
#include <cstdio>

#include "launch.hpp"
#include "memory.hpp"
#include "worker.hpp"

namespace emu {
namespace {

// Stack of its own: the fault may be an overflow of the stack in use.
alignas(16) char handler_stack[64 << 10];

void print(const char* text, int length) {
  const ssize_t written = write(2, text, std::size_t(length > 0 ? length : 0));
  (void)written;  // nothing is left to do when stderr is gone
}

void on_fault(int signal_number, siginfo_t* info, void*) {
  char text[400];
  const Worker* w = current_worker;
  if (w && w->running && w->current >= 0) {
    const EmuThread& t = w->threads[std::size_t(w->current)];
    print(text, std::snprintf(text, sizeof text,
                              "EMU FATAL: signal %d at %p inside kernel %s block (%u,%u,%u) thread (%u,%u,%u) (device "
                              "stack overflow or emulator bug)\n",
                              signal_number, info->si_addr, w->launch->shown, w->ctaid[0], w->ctaid[1], w->ctaid[2],
                              t.tid[0], t.tid[1], t.tid[2]));
  } else if (is_device_address(reinterpret_cast<std::uint64_t>(info->si_addr))) {
    print(text, std::snprintf(text, sizeof text, "EMU FATAL: host code dereferenced device pointer %p\n", info->si_addr));
  }
  std::signal(signal_number, SIG_DFL);
  std::raise(signal_number);
}

}  // namespace

void install_signal_handler() {
  struct sigaction present = {};
  sigaction(SIGSEGV, nullptr, &present);
  if (present.sa_handler != SIG_DFL) return;  // a debugger or sanitizer came first
  stack_t stack = {};
  stack.ss_sp = handler_stack;
  stack.ss_size = sizeof handler_stack;
  sigaltstack(&stack, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, nullptr);
}

}  // namespace emu

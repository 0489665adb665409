// SPDX-License-Identifier: Apache-2.0
#include "fiber.hpp"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

__asm__(R"(.text
.type emu_switch,@function
.hidden emu_switch
.globl emu_switch
emu_switch:
 pushq %rbp
 pushq %rbx
 pushq %r12
 pushq %r13
 pushq %r14
 pushq %r15
 movq %rsp,(%rdi)
 movq %rsi,%rsp
 popq %r15
 popq %r14
 popq %r13
 popq %r12
 popq %rbx
 popq %rbp
 popq %rcx
 jmp *%rcx
.size emu_switch,.-emu_switch
)");

namespace emu {

char* new_stack(std::size_t bytes) {
  constexpr std::size_t guard = 4096;
  void* memory = mmap(nullptr, bytes + guard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("EMU stack");
    std::abort();
  }
  mprotect(memory, guard, PROT_NONE);
  return static_cast<char*>(memory) + guard;
}

void* first_frame(char* stack, std::size_t bytes, void (*entry)()) {
  constexpr int saved_registers = 6;
  void** top = reinterpret_cast<void**>(stack + bytes - 64);
  *--top = nullptr;  // return address of `entry`, which never returns; keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < saved_registers; i++) *--top = nullptr;
  return top;
}

}  // namespace emu

// SPDX-License-Identifier: Apache-2.0
// Fibers: one machine stack per CUDA thread that has started and not ended, switched by hand.
#pragma once
#include <cstddef>

/// Saves the callee-saved registers and the stack pointer in *save, continues where `load` was saved (x86-64, System V).
extern "C" void emu_switch(void** save, void* load);

namespace emu {

inline constexpr std::size_t thread_stack = 64 << 10;
inline constexpr std::size_t loop_stack = 1 << 20;  // kernels without synchronisation run all threads on one stack

/// New stack with a guard page below it, so that an overflow faults.
char* new_stack(std::size_t bytes);
/// Stack pointer that makes emu_switch enter `entry` on a fresh stack. `entry` must not return.
void* first_frame(char* stack, std::size_t bytes, void (*entry)());

}  // namespace emu

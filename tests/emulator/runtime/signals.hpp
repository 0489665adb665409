// SPDX-License-Identifier: Apache-2.0
// A segmentation fault is explained (device pointer followed on the host, device stack overflow) before it kills.
#pragma once

namespace emu {
void install_signal_handler();
}

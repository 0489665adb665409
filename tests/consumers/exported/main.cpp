// SPDX-License-Identifier: Apache-2.0
#include <sizes.hpp>

int main() { return float_bytes({2, 3}) == 24 ? 0 : 1; }

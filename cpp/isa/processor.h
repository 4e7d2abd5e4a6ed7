// What the processor says of itself.
#pragma once

#include "detect.h"

#ifdef NUMATTN_X86
#include <cpuid.h>

namespace numattn {

// CPUID's answer: registers eax, ebx, ecx, edx.
struct CpuId {
  unsigned a = 0, b = 0, c = 0, d = 0;
  CpuId(unsigned leaf, unsigned subleaf) { __get_cpuid_count(leaf, subleaf, &a, &b, &c, &d); }
};

inline bool bit(unsigned value, int index) { return ((value >> index) & 1u) != 0; }

// XCR0: which register states the operating system saves.
inline std::uint64_t enabled_states() {
  unsigned low = 0;
  unsigned high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

constexpr std::uint64_t kYmmStates = 0x6;       // SSE and upper YMM halves
constexpr std::uint64_t kZmmStates = 0xE6;      // those, mask registers and ZMM
constexpr std::uint64_t kTileStates = 0x60000;  // tile configuration and tile data

}  // namespace numattn
#endif

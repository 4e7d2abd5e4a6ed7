// What the processor says of itself; of ARM's, what the operating system says of it.
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

#ifdef NUMATTN_ARM64
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace numattn {

#if defined(__linux__)
// The bits of Linux' list of features, here because older headers lack some.
inline bool has_neon() { return (getauxval(AT_HWCAP) & (1ul << 1)) != 0; }             // ASIMD
inline bool has_neon_bfloat16() { return (getauxval(AT_HWCAP2) & (1ul << 14)) != 0; }  // BF16
#elif defined(__APPLE__)
inline bool has_neon() { return true; }
inline bool has_neon_bfloat16() {
  int has = 0;
  std::size_t size = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, nullptr, 0) == 0 && has != 0;
}
#else
inline bool has_neon() { return true; }  // part of the architecture's baseline
inline bool has_neon_bfloat16() { return false; }
#endif

}  // namespace numattn
#endif

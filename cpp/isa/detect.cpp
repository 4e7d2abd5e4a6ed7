#include "detect.h"

#ifdef NUMATTN_X86
#include <cpuid.h>
#endif

namespace numattn {
namespace {

struct FeatureName {
  Feature feature;
  const char* name;
};

constexpr FeatureName kFeatureNames[] = {
    {kAvx2, "avx2"},
    {kFma, "fma"},
    {kF16c, "f16c"},
    {kAvx512, "avx512"},
    {kAvx512Bf16, "avx512bf16"},
    {kAvx512Fp16, "avx512fp16"},
    {kAmxBf16, "amxbf16"},
};

#ifdef NUMATTN_X86

// CPUID's answer: registers eax, ebx, ecx, edx.
struct CpuId {
  unsigned a = 0, b = 0, c = 0, d = 0;
  CpuId(unsigned leaf, unsigned subleaf) { __get_cpuid_count(leaf, subleaf, &a, &b, &c, &d); }
};

bool bit(unsigned value, int index) { return ((value >> index) & 1u) != 0; }

// XCR0: which register states the operating system saves.
std::uint64_t enabled_states() {
  unsigned low = 0;
  unsigned high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

constexpr std::uint64_t kYmmStates = 0x6;       // SSE and upper YMM halves
constexpr std::uint64_t kZmmStates = 0xE6;      // those, mask registers and ZMM
constexpr std::uint64_t kTileStates = 0x60000;  // tile configuration and tile data

#endif

}  // namespace

std::uint32_t detect_features() {
  std::uint32_t features = 0;
#ifdef NUMATTN_X86
  const CpuId basic(1, 0);
  const bool saves_states = bit(basic.c, 27);  // OSXSAVE: xgetbv may be executed
  if (!saves_states) return features;
  const std::uint64_t states = enabled_states();
  const CpuId extended(7, 0);
  if ((states & kYmmStates) == kYmmStates) {
    if (bit(extended.b, 5)) features |= kAvx2;
    if (bit(basic.c, 12)) features |= kFma;
    if (bit(basic.c, 29)) features |= kF16c;
  }
  if ((states & kZmmStates) == kZmmStates) {
    const bool foundation = bit(extended.b, 16) && bit(extended.b, 17);         // F, DQ
    const bool bytes_and_lengths = bit(extended.b, 30) && bit(extended.b, 31);  // BW, VL
    if (foundation && bytes_and_lengths) features |= kAvx512;
    if (bit(extended.d, 23)) features |= kAvx512Fp16;
    if (bit(CpuId(7, 1).a, 5)) features |= kAvx512Bf16;
  }
  if ((states & kTileStates) == kTileStates && bit(extended.d, 24) && bit(extended.d, 22)) {
    features |= kAmxBf16;
  }
#endif
  return features;
}

std::string feature_names(std::uint32_t features) {
  std::string names;
  for (const FeatureName& entry : kFeatureNames) {
    if ((features & entry.feature) == 0) continue;
    if (!names.empty()) names += ' ';
    names += entry.name;
  }
  return names;
}

}  // namespace numattn

#include "detect.h"

#include "processor.h"
#include "tiles.h"

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
    {kAvxVnni, "avxvnni"},
    {kAvx512, "avx512"},
    {kAvx512Vnni, "avx512vnni"},
    {kAvx512Bf16, "avx512bf16"},
    {kAvx512Fp16, "avx512fp16"},
    {kAmxBf16, "amxbf16"},
    {kNeon, "neon"},
    {kNeonBf16, "neonbf16"},
};

}  // namespace

std::uint32_t detect_features() {
  std::uint32_t features = 0;
#ifdef NUMATTN_X86
  const CpuId basic(1, 0);
  const bool saves_states = bit(basic.c, 27);  // OSXSAVE: xgetbv may be executed
  if (!saves_states) return features;
  const std::uint64_t states = enabled_states();
  const CpuId extended(7, 0);
  const CpuId more(7, 1);
  if ((states & kYmmStates) == kYmmStates) {
    if (bit(extended.b, 5)) features |= kAvx2;
    if (bit(basic.c, 12)) features |= kFma;
    if (bit(basic.c, 29)) features |= kF16c;
    if (bit(more.a, 4)) features |= kAvxVnni;
  }
  if ((states & kZmmStates) == kZmmStates) {
    const bool foundation = bit(extended.b, 16) && bit(extended.b, 17);         // F, DQ
    const bool bytes_and_lengths = bit(extended.b, 30) && bit(extended.b, 31);  // BW, VL
    if (foundation && bytes_and_lengths) features |= kAvx512;
    if (bit(extended.d, 23)) features |= kAvx512Fp16;
    if (bit(extended.c, 11)) features |= kAvx512Vnni;
    if (bit(more.a, 5)) features |= kAvx512Bf16;
  }
  if (tiles_usable()) features |= kAmxBf16;
#endif
#ifdef NUMATTN_ARM64
  if (has_neon()) features |= kNeon;
  if (has_neon_bfloat16()) features |= kNeonBf16;
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

// What the processor offers and the operating system has enabled.
#pragma once

#include <cstdint>
#include <string>

namespace numattn {

#if defined(__x86_64__) || defined(_M_X64)
#define NUMATTN_X86 1
#elif defined(__aarch64__)
#define NUMATTN_ARM64 1
#endif

enum Feature : std::uint32_t {
  kNothing = 0,
  kAvx2 = 1u << 0,
  kFma = 1u << 1,
  kF16c = 1u << 2,
  kAvxVnni = 1u << 3,
  kAvx512 = 1u << 4,  // F, BW, DQ and VL together
  kAvx512Vnni = 1u << 5,
  kAvx512Bf16 = 1u << 6,
  kAvx512Fp16 = 1u << 7,
  kAmxBf16 = 1u << 8,
  kNeon = 1u << 9,
  kNeonBf16 = 1u << 10,
};

std::uint32_t detect_features();

// The names of the features in a set, blank between them.
std::string feature_names(std::uint32_t features);

}  // namespace numattn

// The element types of the library: one list, from which everything that depends on a type is made.
//
// The scalar conversions are `static` on purpose: files compiled for different instruction sets
// include this header, and a shared inline function could be linked from the wrong one.
#pragma once

#include <cstdint>
#include <cstring>

// X(enumerator, name, bytes)
#define NUMATTN_DTYPES(X)     \
  X(kFloat32, "float32", 4)   \
  X(kFloat16, "float16", 2)   \
  X(kBFloat16, "bfloat16", 2) \
  X(kBool, "bool", 1)         \
  X(kInt8, "int8", 1)

namespace numattn {

#define NUMATTN_ENUMERATOR(enumerator, name, bytes) enumerator,
enum class DType : std::uint8_t { NUMATTN_DTYPES(NUMATTN_ENUMERATOR) };
#undef NUMATTN_ENUMERATOR

static inline const char* dtype_name(DType dtype) {
#define NUMATTN_NAME(enumerator, name, bytes) name,
  constexpr const char* kNames[] = {NUMATTN_DTYPES(NUMATTN_NAME)};
#undef NUMATTN_NAME
  return kNames[static_cast<int>(dtype)];
}

static inline std::int64_t dtype_size(DType dtype) {
#define NUMATTN_BYTES(enumerator, name, bytes) bytes,
  constexpr std::int64_t kBytes[] = {NUMATTN_DTYPES(NUMATTN_BYTES)};
#undef NUMATTN_BYTES
  return kBytes[static_cast<int>(dtype)];
}

static inline float float_from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

static inline std::uint32_t bits_from_float(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float float_from_bfloat16(std::uint16_t bits) {
  return float_from_bits(static_cast<std::uint32_t>(bits) << 16);
}

// Round to nearest, ties to even; a NaN stays a (quiet) NaN.
static inline std::uint16_t bfloat16_from_float(float value) {
  const std::uint32_t bits = bits_from_float(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
    return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  }
  return static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

static inline float float_from_float16(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1Fu;
  const std::uint32_t fraction = bits & 0x3FFu;
  if (exponent == 0x1Fu) return float_from_bits(sign | 0x7F800000u | (fraction << 13));
  if (exponent == 0) {  // subnormal: fraction · 2^-24, exact in float32
    const float magnitude = static_cast<float>(fraction) * float_from_bits(0x33800000u);
    return float_from_bits(sign | bits_from_float(magnitude));
  }
  return float_from_bits(sign | ((exponent + 112u) << 23) | (fraction << 13));
}

// Round to nearest, ties to even; overflow to infinity, subnormals kept, NaN stays NaN.
static inline std::uint16_t float16_from_float(float value) {
  const std::uint32_t bits = bits_from_float(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<std::uint16_t>(sign | 0x7E00u);
  if (magnitude >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7C00u);  // >= 65536
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 1/2 rounds to a multiple of 2^-24
    const float shifted = float_from_bits(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (bits_from_float(shifted) - 0x3F000000u));
  }
  const std::uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace numattn

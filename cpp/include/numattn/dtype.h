// The element types of the library: one list, from which everything that depends on a type is made.
//
// The scalar conversions are `static` on purpose: files compiled for different instruction sets
// include this header, and a shared inline function could be linked from the wrong one.
#pragma once

#include <cstdint>
#include <cstring>

#include "numattn/strict_floats.h"

namespace numattn {

// Elements of arrays, told apart by type, so that a kernel can be compiled for each; float32 is
// float.
struct Float16 {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};
struct Bool {
  std::uint8_t bits;
};
struct Int8 {
  std::int8_t number;
};

// What elements of a type are.
enum class Role : std::uint8_t {
  kNumber,  // of queries, keys, values and results
  kScaled,  // of keys and values alone, to be multiplied by the scale of their token and head
  kFlag,    // of masks
};

// X(enumerator, name, element, role)
#define NUMATTN_DTYPES(X)                     \
  X(kFloat32, "float32", float, kNumber)      \
  X(kFloat16, "float16", Float16, kNumber)    \
  X(kBFloat16, "bfloat16", BFloat16, kNumber) \
  X(kBool, "bool", Bool, kFlag)               \
  X(kInt8, "int8", Int8, kScaled)

#define NUMATTN_ENUMERATOR(enumerator, name, element, role) enumerator,
enum class DType : std::uint8_t { NUMATTN_DTYPES(NUMATTN_ENUMERATOR) };
#undef NUMATTN_ENUMERATOR

#define NUMATTN_ONE(enumerator, name, element, role) +1
constexpr int kDTypeCount = 0 NUMATTN_DTYPES(NUMATTN_ONE);
#undef NUMATTN_ONE

static inline const char* dtype_name(DType dtype) {
#define NUMATTN_NAME(enumerator, name, element, role) name,
  constexpr const char* kNames[] = {NUMATTN_DTYPES(NUMATTN_NAME)};
#undef NUMATTN_NAME
  return kNames[static_cast<int>(dtype)];
}

static inline std::int64_t dtype_size(DType dtype) {
#define NUMATTN_BYTES(enumerator, name, element, role) sizeof(element),
  constexpr std::int64_t kBytes[] = {NUMATTN_DTYPES(NUMATTN_BYTES)};
#undef NUMATTN_BYTES
  return kBytes[static_cast<int>(dtype)];
}

static constexpr Role dtype_role(DType dtype) {
#define NUMATTN_ROLE(enumerator, name, element, role) Role::role,
  constexpr Role kRoles[] = {NUMATTN_DTYPES(NUMATTN_ROLE)};
#undef NUMATTN_ROLE
  return kRoles[static_cast<int>(dtype)];
}

// The type that an element is of: element_dtype(Float16{}).
#define NUMATTN_DTYPE(enumerator, name, element, role) \
  static constexpr DType element_dtype(element) { return DType::enumerator; }
NUMATTN_DTYPES(NUMATTN_DTYPE)
#undef NUMATTN_DTYPE

// call(element) with an element of the dtype, for a call that takes each.
template <class Call>
static inline auto with_element(DType dtype, const Call& call) {
  switch (dtype) {
#define NUMATTN_CASE(enumerator, name, element, role) \
  case DType::enumerator: return call(element{});
    NUMATTN_DTYPES(NUMATTN_CASE)
#undef NUMATTN_CASE
  }
  __builtin_unreachable();
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

static inline float to_float(float element) { return element; }
static inline float to_float(Float16 element) { return float_from_float16(element.bits); }
static inline float to_float(BFloat16 element) { return float_from_bfloat16(element.bits); }
static inline float to_float(Bool element) { return element.bits != 0 ? 1.0f : 0.0f; }
static inline float to_float(Int8 element) { return static_cast<float>(element.number); }

}  // namespace numattn

// Bytes over AVX-VNNI: 32 of them, multiplied four to a lane of 32 bits.
#pragma once

#include "avx2.h"

namespace numattn {
namespace {

struct Bytes {
  __m256i lanes;
};

inline Bytes load_bytes(const std::int8_t* from) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))};
}
// p[0] … p[3], over and over.
inline Bytes repeat_four(const std::uint8_t* from) {
  std::int32_t four;
  __builtin_memcpy(&four, from, sizeof four);
  return {_mm256_set1_epi32(four)};
}
// Lane i: sum + the products of bytes 4i … 4i + 3, modulo 2^32; a's without sign, b's signed.
inline Ints dot(Ints sum, Bytes a, Bytes b) {
  return {_mm256_dpbusd_avx_epi32(sum.lanes, a.lanes, b.lanes)};
}
// Lane i: sums[i] + factor · column_sums[i], rounded to nearest even.
inline Vec sum_to_float(const std::int32_t* sums, std::int32_t factor,
                        const std::int32_t* column_sums) {
  const auto load = [](const std::int32_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  };
  const __m256i more = _mm256_mullo_epi32(_mm256_set1_epi32(factor), load(column_sums));
  return {_mm256_cvtepi32_ps(_mm256_add_epi32(load(sums), more))};
}

}  // namespace
}  // namespace numattn

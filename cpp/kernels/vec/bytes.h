// Bytes over AVX512-VNNI: 64 of them, multiplied four to a lane of 32 bits.
#pragma once

#include "avx512.h"

namespace numattn {
namespace {

struct Bytes {
  __m512i lanes;
};

inline Bytes load_bytes(const std::int8_t* from) { return {_mm512_loadu_si512(from)}; }
// p[0] … p[3], over and over.
inline Bytes repeat_four(const std::uint8_t* from) {
  std::int32_t four;
  __builtin_memcpy(&four, from, sizeof four);
  return {_mm512_set1_epi32(four)};
}
// Lane i: sum + the products of bytes 4i … 4i + 3, modulo 2^32; a's without sign, b's signed.
inline Ints dot(Ints sum, Bytes a, Bytes b) {
  return {_mm512_dpbusd_epi32(sum.lanes, a.lanes, b.lanes)};
}
// Lane i: sums[i] + factor · column_sums[i], rounded to nearest even.
inline Vec sum_to_float(const std::int32_t* sums, std::int32_t factor,
                        const std::int32_t* column_sums) {
  const __m512i more =
      _mm512_mullo_epi32(_mm512_set1_epi32(factor), _mm512_loadu_si512(column_sums));
  return {_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_loadu_si512(sums), more))};
}

}  // namespace
}  // namespace numattn

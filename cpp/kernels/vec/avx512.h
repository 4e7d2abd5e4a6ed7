// Vec over AVX-512 (F, BW, DQ, VL): 16 float32 lanes. Operations as defined in vec/scalar.h.
#pragma once

// GCC 11 and 12 warn of their own _mm512_undefined_*() wherever an intrinsic is inlined (GCC bug
// 105593).
#ifndef __clang__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#ifndef __clang__
#pragma GCC diagnostic pop
#endif

#include <cstdint>

namespace numattn {
namespace {

struct Mask {
  __mmask16 bits;
};

struct Vec {
  static constexpr int kWidth = 16;
  __m512 lanes;
};

inline __mmask16 first_lanes(int count) { return static_cast<__mmask16>((1u << count) - 1u); }

inline Vec zero() { return {_mm512_setzero_ps()}; }
inline Vec broadcast(float value) { return {_mm512_set1_ps(value)}; }
inline Vec load(const float* from) { return {_mm512_loadu_ps(from)}; }
inline void store(float* to, Vec a) { _mm512_storeu_ps(to, a.lanes); }
inline Vec load_partial(const float* from, int count) {
  return {_mm512_maskz_loadu_ps(first_lanes(count), from)};
}
inline void store_partial(float* to, Vec a, int count) {
  _mm512_mask_storeu_ps(to, first_lanes(count), a.lanes);
}

inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.lanes, b.lanes)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.lanes, b.lanes)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.lanes, b.lanes)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.lanes, b.lanes)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.lanes, b.lanes, c.lanes)}; }
inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.lanes, b.lanes)}; }
inline Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.lanes, b.lanes)}; }
inline Vec abs(Vec a) { return {_mm512_abs_ps(a.lanes)}; }
inline Vec round(Vec a) {
  return {_mm512_roundscale_ps(a.lanes, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// vreduceps rounds down and subtracts in one step, and gives 0 for −inf.
inline Vec fraction(Vec a) {
  return {_mm512_reduce_ps(a.lanes, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
}
inline Vec scale_by_floor(Vec a, Vec x) { return {_mm512_scalef_ps(a.lanes, x.lanes)}; }

inline Mask less(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.lanes, b.lanes, _CMP_LT_OQ)}; }
inline Mask less_equal(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.lanes, b.lanes, _CMP_LE_OQ)}; }
inline Mask equal(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.lanes, b.lanes, _CMP_EQ_OQ)}; }
inline Mask operator&(Mask a, Mask b) { return {static_cast<__mmask16>(a.bits & b.bits)}; }
inline bool any(Mask a) { return a.bits != 0; }
inline Vec select(Mask mask, Vec a, Vec b) {
  return {_mm512_mask_blend_ps(mask.bits, b.lanes, a.lanes)};
}

inline float reduce_add(Vec a) { return _mm512_reduce_add_ps(a.lanes); }
inline float reduce_max(Vec a) { return _mm512_reduce_max_ps(a.lanes); }

inline Vec load_float16(const std::uint16_t* from) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}
inline void store_float16(std::uint16_t* to, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtps_ph(a.lanes, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline Vec load_bfloat16(const std::uint16_t* from) {
  const __m512i wide =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
inline void store_bfloat16(std::uint16_t* to, Vec a) {
  const __m512i bits = _mm512_castps_si512(a.lanes);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.lanes, a.lanes, _CMP_UNORD_Q);
  const __m512i kept = _mm512_mask_blend_epi32(nan, rounded, quiet);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16)));
}
struct Halves {
  Vec even, odd;
};
inline Halves load_halves(const std::uint16_t* from) {
  const __m512i pairs = _mm512_loadu_si512(from);
  const __m512i high = _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u)));
  return {{_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16))}, {_mm512_castsi512_ps(high)}};
}
inline std::uint16_t nonzero_bits(const std::uint8_t* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return static_cast<std::uint16_t>(_mm_test_epi8_mask(bytes, bytes));
}
inline Mask mask_from_bits(std::uint16_t bits) { return {static_cast<__mmask16>(bits)}; }
// Each column in turn is shifted to the sign bits, which one instruction collects.
inline void transpose_bits(std::uint16_t (&rows)[16]) {
  const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows));
#pragma GCC unroll 16
  for (int j = 0; j < 16; ++j) {
    rows[j] = static_cast<std::uint16_t>(_mm256_movepi16_mask(_mm256_slli_epi16(all, 15 - j)));
  }
}
inline Vec load_bool(const std::uint8_t* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return {_mm512_maskz_mov_ps(_mm_test_epi8_mask(bytes, bytes), _mm512_set1_ps(1.0f))};
}

// rows[i][j] ↔ rows[j][i]: first pairs, then quadruples inside 128-bit quarters, then the quarters.
inline void transpose(Vec (&rows)[16]) {
  __m512 pairs[16];
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i].lanes, rows[i + 1].lanes);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i].lanes, rows[i + 1].lanes);
  }
  __m512 quads[16];
  for (int i = 0; i < 16; i += 4) {
    quads[i] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0xEE);
    quads[i + 2] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    const __m512 even_low = _mm512_shuffle_f32x4(quads[i], quads[i + 4], 0x88);
    const __m512 odd_low = _mm512_shuffle_f32x4(quads[i], quads[i + 4], 0xDD);
    const __m512 even_high = _mm512_shuffle_f32x4(quads[i + 8], quads[i + 12], 0x88);
    const __m512 odd_high = _mm512_shuffle_f32x4(quads[i + 8], quads[i + 12], 0xDD);
    rows[i] = {_mm512_shuffle_f32x4(even_low, even_high, 0x88)};
    rows[i + 4] = {_mm512_shuffle_f32x4(odd_low, odd_high, 0x88)};
    rows[i + 8] = {_mm512_shuffle_f32x4(even_low, even_high, 0xDD)};
    rows[i + 12] = {_mm512_shuffle_f32x4(odd_low, odd_high, 0xDD)};
  }
}

}  // namespace
}  // namespace numattn

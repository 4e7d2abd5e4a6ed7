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

#include "numattn/dtype.h"

namespace numattn {
namespace {

struct Mask {
  __mmask16 bits;
};

struct Vec {
  static constexpr int kWidth = 16;
  // The register tile of tile.h, and keys per tile (table.h).
  static constexpr int kTileRows = 8;
  static constexpr int kTileVectors = 3;
  static constexpr int kKeyBlock = 192;
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
inline Vec negated_fma(Vec a, Vec b, Vec c) {
  return {_mm512_fnmadd_ps(a.lanes, b.lanes, c.lanes)};
}
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

inline Vec swap_pairs(Vec a) { return {_mm512_permute_ps(a.lanes, 0xB1)}; }

inline float reduce_add(Vec a) { return _mm512_reduce_add_ps(a.lanes); }
inline float reduce_max(Vec a) { return _mm512_reduce_max_ps(a.lanes); }

// Halves, quarters, pairs and single lanes of all eight are added side by side.
inline void reduce_add(const Vec (&a)[8], float* sums) {
  __m512 halves[4];
  for (int i = 0; i < 4; ++i) {
    const __m512 one = a[2 * i].lanes;
    const __m512 other = a[2 * i + 1].lanes;
    halves[i] = _mm512_add_ps(_mm512_shuffle_f32x4(one, other, 0x44),
                              _mm512_shuffle_f32x4(one, other, 0xEE));
  }
  __m512 quarters[2];
  for (int i = 0; i < 2; ++i) {
    quarters[i] = _mm512_add_ps(_mm512_shuffle_f32x4(halves[2 * i], halves[2 * i + 1], 0x88),
                                _mm512_shuffle_f32x4(halves[2 * i], halves[2 * i + 1], 0xDD));
  }
  const __m512 pairs = _mm512_add_ps(_mm512_shuffle_ps(quarters[0], quarters[1], 0x88),
                                     _mm512_shuffle_ps(quarters[0], quarters[1], 0xDD));
  const __m512 lanes = _mm512_add_ps(pairs, _mm512_permute_ps(pairs, 0xB1));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm256_storeu_ps(sums, _mm512_castps512_ps256(_mm512_permutexvar_ps(order, lanes)));
}

inline Vec load(const Float16* from) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}
inline void store(Float16* to, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtps_ph(a.lanes, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline Vec load(const BFloat16* from) {
  const __m512i wide =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
inline void store(BFloat16* to, Vec a) {
  const __m512i bits = _mm512_castps_si512(a.lanes);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.lanes, a.lanes, _CMP_UNORD_Q);
  const __m512i kept = _mm512_mask_blend_epi32(nan, rounded, quiet);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16)));
}
// The permutation looks at the lowest four bits of a lane alone: one instruction for two, and on
// other ports than a conversion, which the upper four bits have.
inline Vec load_low_nibbles(const std::uint8_t* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const __m512 numbers = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return {_mm512_permutexvar_ps(_mm512_cvtepu8_epi32(bytes), numbers)};
}
inline Vec load_high_nibbles(const std::uint8_t* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return {_mm512_cvtepi32_ps(_mm512_srli_epi32(_mm512_cvtepu8_epi32(bytes), 4))};
}
inline Vec load(const Int8* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
}
inline Vec even_half(const std::uint16_t* from) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(from), 16))};
}
inline Vec odd_half(const std::uint16_t* from) {
  const __m512i high_half = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(from), high_half))};
}
inline void add_product(Vec& sum, Vec a, Vec b) { sum = fma(a, b, sum); }
inline Mask mask_from_bits(std::uint16_t bits) { return {static_cast<__mmask16>(bits)}; }
inline std::uint64_t nonzero_bits(const std::uint8_t* from, int count) {
  const __mmask64 present = count == 64 ? ~0ull : (1ull << count) - 1;
  const __m512i bytes = _mm512_maskz_loadu_epi8(present, from);
  return _mm512_test_epi8_mask(bytes, bytes);
}
// Byte g of each row holds bits 8g to 8g + 7. The sixteen rows' bytes g come together in a quarter
// of a register; four copies of it, shifted by as many places, bring four columns at a time to the
// sign bits, which one instruction collects.
inline void transpose_bits(const std::uint64_t (&rows)[16], std::uint16_t* columns) {
  // Quarter q of half h: bytes of rows 8h + 2q and 8h + 2q + 1, paired byte by byte; then the words
  // of one byte of all rows, from both halves.
  const __m512i pair =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
  const __m512i low = _mm512_shuffle_epi8(_mm512_loadu_si512(rows), pair);
  const __m512i high = _mm512_shuffle_epi8(_mm512_loadu_si512(rows + 8), pair);
  alignas(64) static constexpr std::uint16_t kFirstFour[32] = {
      0, 8,  16, 24, 32, 40, 48, 56, 1, 9,  17, 25, 33, 41, 49, 57,
      2, 10, 18, 26, 34, 42, 50, 58, 3, 11, 19, 27, 35, 43, 51, 59};
  const __m512i first = _mm512_load_si512(kFirstFour);
  const __m512i last = _mm512_add_epi16(first, _mm512_set1_epi16(4));
  const __m512i bytes[2] = {_mm512_permutex2var_epi16(low, first, high),
                            _mm512_permutex2var_epi16(low, last, high)};
  const __m512i to_top = _mm512_inserti64x4(
      _mm512_castsi256_si512(_mm256_setr_m128i(_mm_set1_epi16(7), _mm_set1_epi16(6))),
      _mm256_setr_m128i(_mm_set1_epi16(5), _mm_set1_epi16(4)), 1);
  const auto collect = [&](__m512i copies, int column) {
    const std::uint64_t low_four = _mm512_movepi8_mask(_mm512_sllv_epi16(copies, to_top));
    const std::uint64_t high_four = _mm512_movepi8_mask(
        _mm512_sllv_epi16(copies, _mm512_sub_epi16(to_top, _mm512_set1_epi16(4))));
    __builtin_memcpy(columns + column, &low_four, 8);
    __builtin_memcpy(columns + column + 4, &high_four, 8);
  };
  for (int half = 0; half < 2; ++half) {
    collect(_mm512_shuffle_i32x4(bytes[half], bytes[half], 0x00), half * 32);
    collect(_mm512_shuffle_i32x4(bytes[half], bytes[half], 0x55), half * 32 + 8);
    collect(_mm512_shuffle_i32x4(bytes[half], bytes[half], 0xAA), half * 32 + 16);
    collect(_mm512_shuffle_i32x4(bytes[half], bytes[half], 0xFF), half * 32 + 24);
  }
}
inline Vec load(const Bool* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return {_mm512_maskz_mov_ps(_mm_test_epi8_mask(bytes, bytes), _mm512_set1_ps(1.0f))};
}

struct Ints {
  __m512i lanes;
};
struct Shorts {
  __m512i lanes;
};

inline void store_rounded(std::int16_t* to, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(a.lanes)));
}
inline Shorts widen(const std::int8_t* from) {
  return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}
inline Shorts repeat_four(const std::int16_t* from) {
  std::int64_t four;
  __builtin_memcpy(&four, from, sizeof four);
  return {_mm512_set1_epi64(four)};
}
inline Ints no_sums() { return {_mm512_setzero_si512()}; }
// The kernels of avx512vnni have one instruction for it.
inline Ints dot(Ints sum, Shorts a, Shorts b) {
#ifdef __AVX512VNNI__
  return {_mm512_dpwssd_epi32(sum.lanes, a.lanes, b.lanes)};
#else
  return {_mm512_add_epi32(sum.lanes, _mm512_madd_epi16(a.lanes, b.lanes))};
#endif
}
inline void store(std::int32_t* to, Ints a) { _mm512_storeu_si512(to, a.lanes); }

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

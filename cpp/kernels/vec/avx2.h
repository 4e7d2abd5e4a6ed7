// Vec over AVX2 with FMA and F16C: 8 float32 lanes. Operations as defined in vec/scalar.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "numattn/dtype.h"

namespace numattn {
namespace {

struct Mask {
  __m256 lanes;
};

struct Vec {
  static constexpr int kWidth = 8;
  // The register tile of tile.h, and keys per tile (table.h).
  static constexpr int kTileRows = 6;
  static constexpr int kTileVectors = 2;
  static constexpr int kKeyBlock = 96;
  __m256 lanes;
};

inline __m256i first_lanes(int count) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), index);
}

inline Vec zero() { return {_mm256_setzero_ps()}; }
inline Vec broadcast(float value) { return {_mm256_set1_ps(value)}; }
inline Vec load(const float* from) { return {_mm256_loadu_ps(from)}; }
inline void store(float* to, Vec a) { _mm256_storeu_ps(to, a.lanes); }
inline Vec load_partial(const float* from, int count) {
  return {_mm256_maskload_ps(from, first_lanes(count))};
}
inline void store_partial(float* to, Vec a, int count) {
  _mm256_maskstore_ps(to, first_lanes(count), a.lanes);
}

inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.lanes, b.lanes)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.lanes, b.lanes)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.lanes, b.lanes)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.lanes, b.lanes)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.lanes, b.lanes, c.lanes)}; }
inline Vec negated_fma(Vec a, Vec b, Vec c) {
  return {_mm256_fnmadd_ps(a.lanes, b.lanes, c.lanes)};
}
inline Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.lanes, b.lanes)}; }
inline Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.lanes, b.lanes)}; }
inline Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.lanes)}; }
inline Vec round(Vec a) {
  return {_mm256_round_ps(a.lanes, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// 2^x rounds to zero below 2^-150; the limit keeps −inf − floor(−inf) from making a NaN. It is so
// low that for −inf both halves of the power below are zeros themselves: a product that becomes
// zero by underflow holds up the processor, and hidden keys are full of them. Zen 4, 12 heads of
// 2048 × 64 with a dense mask: with −160 74, so 84 GFLOP/s.
inline Vec limited_power(Vec x) { return max({_mm256_set1_ps(-254.0f)}, x); }
inline Vec fraction(Vec x) {
  const Vec power = limited_power(x);
  return power - Vec{_mm256_floor_ps(power.lanes)};
}
// In two halves, so that a result below 2^-126 is a subnormal and not zero.
inline Vec scale_by_floor(Vec a, Vec x) {
  const __m256i whole = _mm256_cvtps_epi32(_mm256_floor_ps(limited_power(x).lanes));
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i rest = _mm256_sub_epi32(whole, half);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return {_mm256_mul_ps(_mm256_mul_ps(a.lanes, first), second)};
}

inline Mask less(Vec a, Vec b) { return {_mm256_cmp_ps(a.lanes, b.lanes, _CMP_LT_OQ)}; }
inline Mask less_equal(Vec a, Vec b) { return {_mm256_cmp_ps(a.lanes, b.lanes, _CMP_LE_OQ)}; }
inline Mask equal(Vec a, Vec b) { return {_mm256_cmp_ps(a.lanes, b.lanes, _CMP_EQ_OQ)}; }
inline Mask operator&(Mask a, Mask b) { return {_mm256_and_ps(a.lanes, b.lanes)}; }
inline bool any(Mask a) { return _mm256_movemask_ps(a.lanes) != 0; }
inline Vec select(Mask mask, Vec a, Vec b) {
  return {_mm256_blendv_ps(b.lanes, a.lanes, mask.lanes)};
}

inline Vec swap_pairs(Vec a) { return {_mm256_permute_ps(a.lanes, 0xB1)}; }

inline float reduce_add(Vec a) {
  const __m128 fours =
      _mm_add_ps(_mm256_castps256_ps128(a.lanes), _mm256_extractf128_ps(a.lanes, 1));
  const __m128 twos = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
  return _mm_cvtss_f32(_mm_add_ss(twos, _mm_movehdup_ps(twos)));
}
inline float reduce_max(Vec a) {
  const __m128 fours =
      _mm_max_ps(_mm256_castps256_ps128(a.lanes), _mm256_extractf128_ps(a.lanes, 1));
  const __m128 twos = _mm_max_ps(fours, _mm_movehl_ps(fours, fours));
  return _mm_cvtss_f32(_mm_max_ss(twos, _mm_movehdup_ps(twos)));
}

inline void reduce_add(const Vec (&a)[8], float* sums) {
  __m256 fours[2];
  for (int i = 0; i < 2; ++i) {
    fours[i] = _mm256_hadd_ps(_mm256_hadd_ps(a[4 * i].lanes, a[4 * i + 1].lanes),
                              _mm256_hadd_ps(a[4 * i + 2].lanes, a[4 * i + 3].lanes));
  }
  const __m256 low = _mm256_permute2f128_ps(fours[0], fours[1], 0x20);
  const __m256 high = _mm256_permute2f128_ps(fours[0], fours[1], 0x31);
  _mm256_storeu_ps(sums, _mm256_add_ps(low, high));
}

inline Vec load(const Float16* from) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))};
}
inline void store(Float16* to, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm256_cvtps_ph(a.lanes, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline Vec load(const BFloat16* from) {
  const __m256i wide =
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
}
inline void store(BFloat16* to, Vec a) {
  const __m256i bits = _mm256_castps_si256(a.lanes);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.lanes, a.lanes, _CMP_UNORD_Q));
  const __m256i kept = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(kept, kept), 0x88);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
}
inline Vec load_low_nibbles(const std::uint8_t* from) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  const __m256i lanes = _mm256_cvtepu8_epi32(bytes);
  return {_mm256_cvtepi32_ps(_mm256_and_si256(lanes, _mm256_set1_epi32(15)))};
}
inline Vec load_high_nibbles(const std::uint8_t* from) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return {_mm256_cvtepi32_ps(_mm256_srli_epi32(_mm256_cvtepu8_epi32(bytes), 4))};
}
inline Vec load(const Int8* from) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))};
}
// By instructions chosen here, for the sake of loops with sixteen registers (PairPanelOperands of
// float_panels.h): the compiler would load a pair once for both halves, or keep the mask in a
// register, or a product in another one than its sum's, and then one of twelve sums goes through
// memory at every step: bfloat16 weights ran at 65 instead of 87 GFLOP/s on Zen 3.
inline Vec even_half(const std::uint16_t* from) {
  const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16))};
}
inline Vec odd_half(const std::uint16_t* from) {
  constexpr std::uint32_t kHigh = 0xFFFF0000u;
  alignas(32) static constexpr std::uint32_t kMask[8] = {kHigh, kHigh, kHigh, kHigh,
                                                         kHigh, kHigh, kHigh, kHigh};
  Vec odd;
  __asm__("vmovups %1, %0\n\tvandps %2, %0, %0"
          : "=&x"(odd.lanes)
          : "m"(*reinterpret_cast<const __m256i_u*>(from)),
            "m"(*reinterpret_cast<const __m256i*>(kMask)));
  return odd;
}
inline void add_product(Vec& sum, Vec a, Vec b) {
  __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum.lanes) : "x"(a.lanes), "x"(b.lanes));
}
inline Mask mask_from_bits(std::uint16_t bits) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i chosen = _mm256_and_si256(_mm256_set1_epi32(bits), lane);
  return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(chosen, lane))};
}
inline std::uint64_t nonzero_bits(const std::uint8_t* from, int count) {
  std::uint8_t bytes[64] = {};
  if (count < 64) {
    __builtin_memcpy(bytes, from, static_cast<std::size_t>(count));
    from = bytes;
  }
  const auto half = [from](int first) {
    const __m256i read = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + first));
    const __m256i zeros = _mm256_cmpeq_epi8(read, _mm256_setzero_si256());
    return static_cast<std::uint64_t>(~static_cast<unsigned>(_mm256_movemask_epi8(zeros)));
  };
  return half(0) | half(32) << 32;
}
// The eight rows' bytes g, which hold bits 8g to 8g + 7, come together in half a register; each
// column in turn is then shifted to the sign bits.
inline void transpose_bits(const std::uint64_t (&rows)[8], std::uint16_t* columns) {
  __m128i twos[4];
  for (int i = 0; i < 4; ++i) {
    twos[i] =
        _mm_unpacklo_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(rows + 2 * i)),
                          _mm_loadl_epi64(reinterpret_cast<const __m128i*>(rows + 2 * i + 1)));
  }
  const __m128i fours[4] = {
      _mm_unpacklo_epi16(twos[0], twos[1]), _mm_unpacklo_epi16(twos[2], twos[3]),
      _mm_unpackhi_epi16(twos[0], twos[1]), _mm_unpackhi_epi16(twos[2], twos[3])};
  for (int i = 0; i < 4; ++i) {
    const __m128i low = fours[i / 2 * 2];
    const __m128i high = fours[i / 2 * 2 + 1];
    const __m128i bytes =
        i % 2 == 0 ? _mm_unpacklo_epi32(low, high) : _mm_unpackhi_epi32(low, high);
    for (int j = 0; j < 8; ++j) {
      const __m128i shifted = _mm_sll_epi16(bytes, _mm_cvtsi32_si128(7 - j));
      const int bits = _mm_movemask_epi8(shifted);
      columns[16 * i + j] = static_cast<std::uint16_t>(bits & 0xFF);
      columns[16 * i + 8 + j] = static_cast<std::uint16_t>(bits >> 8);
    }
  }
}
inline Vec load(const Bool* from) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  const __m256i zeros = _mm256_cmpeq_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_setzero_si256());
  return {_mm256_andnot_ps(_mm256_castsi256_ps(zeros), _mm256_set1_ps(1.0f))};
}

struct Ints {
  __m256i lanes;
};
struct Shorts {
  __m256i lanes;
};

inline void store_rounded(std::int16_t* to, Vec a) {
  const __m256i whole = _mm256_cvtps_epi32(a.lanes);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(whole, whole), 0x88);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
}
inline Shorts widen(const std::int8_t* from) {
  return {_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))};
}
inline Shorts repeat_four(const std::int16_t* from) {
  std::int64_t four;
  __builtin_memcpy(&four, from, sizeof four);
  return {_mm256_set1_epi64x(four)};
}
inline Ints no_sums() { return {_mm256_setzero_si256()}; }
// The kernels of avxvnni have one instruction for it.
inline Ints dot(Ints sum, Shorts a, Shorts b) {
#ifdef __AVXVNNI__
  return {_mm256_dpwssd_avx_epi32(sum.lanes, a.lanes, b.lanes)};
#else
  return {_mm256_add_epi32(sum.lanes, _mm256_madd_epi16(a.lanes, b.lanes))};
#endif
}
inline void store(std::int32_t* to, Ints a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), a.lanes);
}

// rows[i][j] ↔ rows[j][i]: first pairs, then quadruples inside 128-bit halves, then the halves.
inline void transpose(Vec (&rows)[8]) {
  __m256 pairs[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(rows[i].lanes, rows[i + 1].lanes);
    pairs[i + 1] = _mm256_unpackhi_ps(rows[i].lanes, rows[i + 1].lanes);
  }
  __m256 quads[8];
  for (int i = 0; i < 8; i += 4) {
    quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xEE);
    quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    rows[i] = {_mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20)};
    rows[i + 4] = {_mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31)};
  }
}

}  // namespace
}  // namespace numattn

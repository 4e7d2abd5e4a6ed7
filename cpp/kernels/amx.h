// The only tile instructions of the library, one function each.
//
// The AMX unit has eight tile registers of 16 rows × 64 bytes per thread. As bfloat16 a row is 32
// elements, or 16 pairs; as float32 it is 16. The one operation on them is, for 0 <= m, n < 16,
//
//   C[m][n] += Σ_p A[m][2p] · B[p][2n]  +  Σ_p A[m][2p+1] · B[p][2n+1],   0 <= p < 16
//
// that is C += a · b for a = A and b[k][n] = B[k / 2][2n + k % 2], 0 <= k < 32: a row of B holds,
// for every column, two neighbours in depth.
//
// The even and the odd products are summed apart, each in order of p by fused multiply-adds from
// zero, then added to each other and last to C, all in float32 rounded to nearest even. Subnormal
// operands count as zero and subnormal results become zero. The rounding mode and the exception
// flags of the thread are neither read nor changed.
//
// The same on 8-bit integers, four to the place of a float32: C += a · b for a = A and
// b[k][n] = B[k / 4][4n + k % 4], 0 <= k < 64, all signed; sums of 32 bits, modulo 2^32.
//
// Inline assembly, not the compilers' intrinsics: in g++ 12 those do not tell which memory they
// touch, and stores before them get deleted. The assemblers take these mnemonics without a flag.
//
// A thread calls configure_tiles() before and release_tiles() after its tile code; both clear the
// tiles. The process must have asked the system for the right to use them.
#pragma once

#include <cstdint>

namespace numattn {
namespace {

constexpr int kAmxTiles = 8;
constexpr int kAmxRows = 16;
constexpr int kAmxRowBytes = 64;
constexpr int kAmxRowFloats = kAmxRowBytes / 4;
constexpr int kAmxRowPairs = kAmxRowBytes / 4;  // a pair of bfloat16 takes the place of a float32
constexpr int kAmxDepth = 2 * kAmxRowPairs;
constexpr std::int64_t kTileBytes = kAmxRows * kAmxRowBytes;
constexpr int kAmxBytes = 4 * kAmxRowPairs;  // of depth, 8-bit integers

// The operand of ldtilecfg, laid out by the processor's manual.
struct TileConfig {
  std::uint8_t palette = 1;  // 1: eight tiles of at most 16 rows × 64 bytes
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};  // of tile t; those past the last tile stay zero
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64, "the size ldtilecfg reads");

constexpr TileConfig full_tiles() {
  TileConfig config;
  for (int tile = 0; tile < kAmxTiles; ++tile) {
    config.row_bytes[tile] = kAmxRowBytes;
    config.rows[tile] = kAmxRows;
  }
  return config;
}

// Sets the shapes of this thread's tiles and all their bytes to zero.
inline void load_tile_config(const TileConfig& config) {
  __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
}

inline void configure_tiles() {
  static constexpr TileConfig kFullTiles = full_tiles();
  load_tile_config(kFullTiles);
}

// Back to the state of a thread without tiles, which is cheaper to switch from.
inline void release_tiles() { __asm__ volatile("tilerelease" : : : "memory"); }

template <int Tile>
inline void tile_zero() {
  static_assert(0 <= Tile && Tile < kAmxTiles, "no such tile");
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(Tile));
}

// Row r of the tile = the 64 bytes at from + r · stride_bytes.
template <int Tile>
inline void tile_load(const void* from, std::int64_t stride_bytes) {
  static_assert(0 <= Tile && Tile < kAmxTiles, "no such tile");
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                   :
                   : "r"(from), "r"(stride_bytes), "i"(Tile)
                   : "memory");
}

// The same rows, for what is used once and should not push other data out of the first cache level.
template <int Tile>
inline void tile_load_streamed(const void* from, std::int64_t stride_bytes) {
  static_assert(0 <= Tile && Tile < kAmxTiles, "no such tile");
  __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm%c2"
                   :
                   : "r"(from), "r"(stride_bytes), "i"(Tile)
                   : "memory");
}

// The 64 bytes at to + r · stride_bytes = row r of the tile.
template <int Tile>
inline void tile_store(void* to, std::int64_t stride_bytes) {
  static_assert(0 <= Tile && Tile < kAmxTiles, "no such tile");
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                   :
                   : "r"(to), "r"(stride_bytes), "i"(Tile)
                   : "memory");
}

template <int C, int A, int B>
constexpr void check_product() {
  static_assert(0 <= C && C < kAmxTiles && 0 <= A && A < kAmxTiles && 0 <= B && B < kAmxTiles,
                "no such tile");
  static_assert(C != A && A != B && B != C, "the processor refuses one tile in two roles");
}

// C += A · B as above.
template <int C, int A, int B>
inline void tile_dot_bf16() {
  check_product<C, A, B>();
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}
// The same of bytes, four to a word: signed ones, or A's without sign.
template <int C, int A, int B>
inline void tile_dot_int8() {
  check_product<C, A, B>();
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}
template <int C, int A, int B>
inline void tile_dot_uint8() {
  check_product<C, A, B>();
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

}  // namespace
}  // namespace numattn

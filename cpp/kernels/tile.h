// The one multiply of the library: a register tile of sums over a common depth.
//
//   sum[m][n] = Σ_k a[m · a_row + k · a_column] · b[k · b_row + n],   0 <= m < rows, n over vectors
//
// Each sum is one chain of fused multiply-adds in order of k, whatever the tile's height: a row's
// result does not depend on the rows beside it.
//
// Scores take keys for a and transposed queries for b; outputs take transposed values for a and
// weights for b; projections take x for a and a packed panel for b.
#pragma once

#include <cstdint>

namespace numattn {
namespace {

// Tile shape: rows · vectors accumulators, `vectors` registers of b and one of a fit the file.
// 32 registers: 8 × 3; 16 registers: 6 × 2.
#ifdef __AVX512F__
constexpr int kTileRows = 8;
constexpr int kTileVectors = 3;
#else
constexpr int kTileRows = 6;
constexpr int kTileVectors = 2;
#endif
constexpr int kLaneGroup = kTileVectors * Vec::kWidth;

struct TileOperands {
  std::int64_t depth;
  const float* a;
  std::int64_t a_row;
  std::int64_t a_column;
  const float* b;
  std::int64_t b_row;
};

// finish(m, v, sums) takes the vector v of row m. The last vector of b holds `last_lanes` elements.
template <int Rows, int Vectors, bool Partial, class Finish>
__attribute__((always_inline)) inline void multiply_tile(const TileOperands& in, int last_lanes,
                                                         const Finish& finish) {
  Vec sums[Rows][Vectors];
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) sums[m][v] = zero();
  }
  const float* a = in.a;
  const float* b = in.b;
  for (std::int64_t k = 0; k < in.depth; ++k) {
    Vec right[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      right[v] = Partial && v == Vectors - 1 ? load_partial(b + v * Vec::kWidth, last_lanes)
                                             : load(b + v * Vec::kWidth);
    }
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
      const Vec left = broadcast(a[m * in.a_row]);
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) sums[m][v] = fma(left, right[v], sums[m][v]);
    }
    a += in.a_column;
    b += in.b_row;
  }
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) finish(m, v, sums[m][v]);
  }
}

// The tile of `rows` <= 8 rows, as one of the compiled heights.
template <int Vectors, bool Partial = false, class Finish>
inline void multiply_rows(int rows, const TileOperands& in, const Finish& finish,
                          int last_lanes = Vec::kWidth) {
  switch (rows) {
    case 1: multiply_tile<1, Vectors, Partial>(in, last_lanes, finish); break;
    case 2: multiply_tile<2, Vectors, Partial>(in, last_lanes, finish); break;
    case 3: multiply_tile<3, Vectors, Partial>(in, last_lanes, finish); break;
    case 4: multiply_tile<4, Vectors, Partial>(in, last_lanes, finish); break;
    case 5: multiply_tile<5, Vectors, Partial>(in, last_lanes, finish); break;
    case 6: multiply_tile<6, Vectors, Partial>(in, last_lanes, finish); break;
    case 7: multiply_tile<7, Vectors, Partial>(in, last_lanes, finish); break;
    default: multiply_tile<8, Vectors, Partial>(in, last_lanes, finish); break;
  }
}

}  // namespace
}  // namespace numattn

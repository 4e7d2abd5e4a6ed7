// The register tile of float32: sums over a common depth. Decoding has its own (decode_tile.h),
// pairs of bfloat16 have theirs (pair_tile.h, amx_tile.h).
//
//   sum[m][n] = Σ_k a[m · a_row + k · a_column] · b[k · b_row + n],   0 <= m < rows, n over vectors
//
// Each sum is one chain of fused multiply-adds in order of k, whatever the tile's height: a row's
// result does not depend on the rows beside it.
//
// Scores take keys for a and transposed queries for b; outputs take transposed values for a and
// weights for b; projections take x for a and a packed panel for b.
#pragma once

#include <type_traits>

#include "rows_ahead.h"
#include "tokens.h"

namespace numattn {
namespace {

// Tile shape: rows · vectors accumulators, `vectors` registers of b and one of a fit the file.
// 32 registers: 8 × 3; 16 registers: 6 × 2.
constexpr int kTileRows = Vec::kTileRows;
constexpr int kTileVectors = Vec::kTileVectors;
constexpr int kLaneGroup = kTileVectors * Vec::kWidth;

// Operands of a tile: `depth`, a, and load_b<Vectors>(k, step, right), which loads step k + step of
// b, 0 <= step < kSteps.
struct TileOperands {
  static constexpr int kSteps = 1;
  std::int64_t depth;
  const float* a;
  std::int64_t a_row;
  std::int64_t a_column;
  const float* b;
  std::int64_t b_row;

  template <int Vectors>
  __attribute__((always_inline)) inline void load_b(std::int64_t k, int,
                                                    Vec (&right)[Vectors]) const {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) right[v] = load(b + k * b_row + v * Vec::kWidth);
  }
};

// finish(m, v, sums) takes the vector v of row m.
template <int Rows, int Vectors, class Operands, class Fetch, class Finish, class RowsAheadOf>
__attribute__((always_inline)) inline void multiply_tile(const Operands& in, Fetch ahead,
                                                         const Finish& finish,
                                                         RowsAheadOf& rows_ahead) {
  constexpr int kPieces = kDepthPieces<Rows, RowsAheadOf>;
  if (kPieces == 1) rows_ahead.fetch_rows(Rows);
  Vec sums[Rows][Vectors];
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) sums[m][v] = zero();
  }
  const float* a = in.a;
  const auto add_step = [&](std::int64_t k, int step) __attribute__((always_inline)) {
    Vec right[Vectors];
    in.template load_b<Vectors>(k, step, right);
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
      const Vec left = broadcast(a[m * in.a_row]);
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) add_product(sums[m][v], left, right[v]);
    }
    a += in.a_column;
  };
  constexpr int kSteps = Operands::kSteps;
  std::int64_t k = 0;
  std::int64_t end = in.depth;
  for (int done = 1; done <= kPieces; ++done) {
    if constexpr (kPieces > 1) {
      rows_ahead.template fetch_line<Rows>();
      end = done < kPieces ? in.depth / (kPieces * kSteps) * kSteps * done : in.depth;
    }
    for (; k + kSteps <= end; k += kSteps) {
#pragma GCC unroll 2
      for (int step = 0; step < kSteps; ++step) add_step(k, step);
      ahead.fetch(k);
    }
  }
  if (kSteps > 1 && k < in.depth) add_step(k, 0);
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) finish(m, v, sums[m][v]);
  }
}

// A number known to the compiler: call(Count<n>{}) for the n that `count`, of 1 to `Most` <= 8,
// turns out to be.
template <int N>
struct Count {
  static constexpr int value = N;
};

template <int Most, class Call>
inline void with_count(int count, const Call& call) {
  if constexpr (Most == 1) {
    call(Count<1>{});
  } else if (count < Most) {
    with_count<Most - 1>(count, call);
  } else {
    call(Count<Most>{});
  }
}

// call(row, Count<height>{}) for rows in tiles of few compiled heights: Most, then 4, 2 and 1.
template <int Most, class Call>
inline void each_height(int rows, const Call& call) {
  for (int row = 0; row < rows;) {
    const int left = rows - row;
    if (left >= Most) {
      call(row, Count<Most>{});
      row += Most;
    } else if (left >= 4) {
      call(row, Count<4>{});
      row += 4;
    } else if (left >= 2) {
      call(row, Count<2>{});
      row += 2;
    } else {
      call(row, Count<1>{});
      ++row;
    }
  }
}

// The tile of `rows` <= Most rows, as one of the compiled heights.
template <int Vectors, int Most = kTileRows, class Operands, class Fetch = NothingAhead,
          class Finish, class RowsAheadOf>
inline void multiply_rows(int rows, const Operands& in, const Finish& finish, Fetch ahead,
                          RowsAheadOf& rows_ahead) {
  with_count<Most>(rows, [&](auto height) {
    multiply_tile<decltype(height)::value, Vectors>(in, ahead, finish, rows_ahead);
  });
}
template <int Vectors, int Most = kTileRows, class Operands, class Fetch = NothingAhead,
          class Finish>
inline void multiply_rows(int rows, const Operands& in, const Finish& finish, Fetch ahead = {}) {
  NoRowsAhead none;
  multiply_rows<Vectors, Most>(rows, in, finish, ahead, none);
}

}  // namespace
}  // namespace numattn

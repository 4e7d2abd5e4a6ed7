// Products of many rows with one set of columns, a register tile of rows at a time.
#pragma once

#include "tile.h"

namespace numattn {
namespace {

// to[j][n] = Σ_d row[j][d] · column[d][n], n over so many vectors. While rows multiply, the next
// ones are fetched, and `value_dim` elements of the values of these: they are read soon. Not kept:
// row by row between the steps of a tile, whose depth is short. Zen 4, 8 × 12 heads of 128 × 64: 74
// and 69 GFLOP/s.
struct RowProducts {
  FloatRows row;
  std::int64_t row_count;
  std::int64_t depth;
  const float* column;
  std::int64_t column_stride;
  float* to;
  std::int64_t to_stride;
  bool fetch_ahead;
  FloatRows value;
  std::int64_t value_dim;
};

// Not inlined: its compiled heights are the largest part of a kernel.
template <int Vectors>
__attribute__((noinline)) void multiply_each(const RowProducts& in) {
  for (std::int64_t j = 0; j < in.row_count; j += kTileRows) {
    const int rows = in.row_count - j < kTileRows ? static_cast<int>(in.row_count - j) : kTileRows;
    for (int i = 0; in.fetch_ahead && i < rows; ++i) {
      fetch_bytes(in.row.data + (j + kTileRows + i) * in.row.stride, in.depth * 4);
      fetch_bytes(in.value.data + (j + i) * in.value.stride, in.value_dim * 4);
    }
    float* to = in.to + j * in.to_stride;
    const std::int64_t stride = in.to_stride;
    const auto finish = [to, stride](int m, int v, Vec sum) {
      store(to + m * stride + v * Vec::kWidth, sum);
    };
    multiply_rows<Vectors>(rows,
                           TileOperands{in.depth, in.row.data + j * in.row.stride, in.row.stride, 1,
                                        in.column, in.column_stride},
                           finish);
  }
}

// The same for a number of vectors that is known at run time.
inline void multiply_each(int vectors, const RowProducts& in) {
  with_count<kTileVectors>(vectors, [&](auto count) { multiply_each<decltype(count)::value>(in); });
}

}  // namespace
}  // namespace numattn

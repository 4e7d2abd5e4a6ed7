// Panels of 8-bit integers, multiplied by rows of x as 16-bit integers: the sums of integer_rows.h,
// wherever the processor has no better instruction for them. Rows of 8 bits are widened.
#pragma once

#include "integer_rows.h"

namespace numattn {
namespace {

// Rows of x as integers.
struct ShortRows {
  const std::int16_t* data;
  std::int64_t stride;
};

// A vector of sums holds kWidth / 2 columns, two neighbouring sums for each.
constexpr int kSumVectors = 2 * kPanelColumns / Vec::kWidth;
constexpr int kSumRegisters = sizeof(Ints) / sizeof(Vec);
// The tile of tile.h has 12 sums in 16 registers, 24 in 32.
constexpr bool kManyRegisters = Vec::kTileRows * Vec::kTileVectors > 12;
// Rows of a tile at most: 32 registers hold four rows' sums of all columns.
constexpr int kInt8Rows = kManyRegisters ? 4 : 6;

// Vectors side by side in a tile of so many rows: an even share of the panel, whose sums leave
// registers for the lesser of one step's operands, for one of the other, and for a product.
// Measured on Zen 3, many rows: 4 × 3, whose operands do not fit beside the sums, 95 GFLOP/s, 6 × 2
// from 127 to 135.
constexpr int vectors_beside(int rows) {
  int vectors = kSumVectors;
  const auto registers = [&] {
    return rows * vectors * kSumRegisters + (rows < vectors ? rows : vectors) + 2;
  };
  while (registers() > (kManyRegisters ? 32 : 16) || kSumVectors % vectors != 0) --vectors;
  return vectors;
}

// Both sums of every column of some rows as one, in float32, beside the slices before or not.
inline void join_sums(const std::int32_t* pairs, int rows, bool adds, float* sums) {
  for (int i = 0; i < rows * kPanelColumns; ++i) {
    const float sum = static_cast<float>(pairs[2 * i] + pairs[2 * i + 1]);
    sums[i] = adds ? sums[i] + sum : sum;
  }
}

// Four steps of the depth: the lesser operand is held in registers, the other passes by.
template <int Rows, int Vectors>
__attribute__((always_inline)) inline void add_products(Ints (&sum)[Rows][Vectors],
                                                        const std::int16_t* x, std::int64_t stride,
                                                        const std::int8_t* weights) {
  if constexpr (Rows < Vectors) {
    Shorts left[Rows];
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) left[m] = repeat_four(x + m * stride);
#pragma GCC unroll 12
    for (int v = 0; v < Vectors; ++v) {
      const Shorts right = widen(weights + v * 2 * Vec::kWidth);
#pragma GCC unroll 8
      for (int m = 0; m < Rows; ++m) sum[m][v] = dot(sum[m][v], left[m], right);
    }
  } else {
    Shorts right[Vectors];
#pragma GCC unroll 12
    for (int v = 0; v < Vectors; ++v) right[v] = widen(weights + v * 2 * Vec::kWidth);
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
      const Shorts left = repeat_four(x + m * stride);
#pragma GCC unroll 12
      for (int v = 0; v < Vectors; ++v) sum[m][v] = dot(sum[m][v], left, right[v]);
    }
  }
}

// pairs[m][column] = the column's two sums over the slice.
template <int Rows>
__attribute__((noinline)) inline void multiply_int8_tile(ShortRows x, Int8Slice slice,
                                                         RowsAhead& results, std::int32_t* pairs) {
  constexpr int kVectors = vectors_beside(Rows);
  constexpr int kAheadBytes = kQuadBytes * kVectors / kSumVectors;  // of a pass, for each quad
  constexpr int kAheadLines = (kAheadBytes + kLineBytes - 1) / kLineBytes;
  constexpr int kPieces = Rows == kInt8Rows ? Rows * RowsAhead::kMostLines : 1;
  if (kPieces == 1) results.fetch_rows(Rows);
  for (int first = 0; first < kSumVectors; first += kVectors) {
    Ints sum[Rows][kVectors];
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 12
      for (int v = 0; v < kVectors; ++v) sum[m][v] = no_sums();
    }
    const std::int8_t* weights = slice.weights + first * 2 * Vec::kWidth;
    const std::int16_t* left = x.data;
    std::int64_t quad = 0;
    for (int done = 1; done <= kPieces; ++done) {
      const std::int64_t end = done < kPieces ? slice.quads / kPieces * done : slice.quads;
      if (kPieces > 1 && first == 0) results.fetch_line<Rows>();
      for (; quad < end; ++quad) {
        add_products(sum, left, x.stride, weights);
        if (slice.ahead != nullptr) {
          if constexpr (kVectors == kSumVectors) {
            fetch_lines<kQuadBytes / kLineBytes, kIntoFirstLevel>(weights + kSoon);
          } else {
            fetch_lines<kAheadLines>(slice.ahead);
            slice.ahead += kAheadBytes;
          }
        }
        weights += kQuadBytes;
        left += 4;
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 12
      for (int v = 0; v < kVectors; ++v) {
        store(pairs + (m * kSumVectors + first + v) * Vec::kWidth, sum[m][v]);
      }
    }
  }
}

class Int8Panels : public IntegerRows {
 public:
  Int8Panels(Areas& areas, const GemmOperands& operands, std::int64_t rows,
             bool fetches_weights = kFetchesWeights)
      : IntegerRows(areas, operands, rows, fetches_weights),
        integers_(areas.take<std::int16_t>(rows * stride_)) {}

  void begin(const GemmBlock& block) {
    for (int row = 0; row < block.row_count; ++row) {
      quantize(block, row, integers_ + row * stride_);
    }
  }

  void multiply(int row, int rows, const char* panel, RowsAhead& results, float* sums) const {
    RowsAhead none;
    for (std::int64_t k = 0; k < depth_; k += slice_) {
      multiply_slice({integers_ + row * stride_ + k, stride_}, rows, slice(panel, k, rows),
                     is_last(k) ? results : none, sums);
    }
    scale(row, rows, panel, sums);
  }

 protected:
  std::int16_t* integers_;

 private:
  // The first tile of rows asks for the slice that follows in memory.
  static void multiply_slice(ShortRows x, int rows, Int8Slice slice, RowsAhead& results,
                             float* sums) {
    alignas(64) std::int32_t pairs[kInt8Rows * 2 * kPanelColumns];
    while (rows > 0) {
      const int height = rows >= kInt8Rows ? kInt8Rows : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
      switch (height) {
        case 1: multiply_int8_tile<1>(x, slice, results, pairs); break;
        case 2: multiply_int8_tile<2>(x, slice, results, pairs); break;
        case 4: multiply_int8_tile<4>(x, slice, results, pairs); break;
        default: multiply_int8_tile<kInt8Rows>(x, slice, results, pairs);
      }
      join_sums(pairs, height, slice.adds, sums);
      slice.ahead = nullptr;
      x.data += height * x.stride;
      sums += height * kPanelColumns;
      rows -= height;
    }
  }
};

}  // namespace
}  // namespace numattn

// Panels of 8-bit integers, multiplied by rows of x as 16-bit integers (integers.h), exactly:
//
//   y[m][n] = (Σ_s (Σ_k x[m][k] · w[n][k]) · scale_x[m] · scale_w[n]) · (power_x[m] · power_w[n])
//
// with k over slice s of the depth, whose sums are integers of 32 bits, and s in order in float32.
// Integers have no order of summation and the rest has this one, so a row's result has the same
// bits at every instruction set and beside any other rows.
#pragma once

#include "gemm.h"
#include "panel.h"

namespace numattn {
namespace {

// What a sum of 32 bits holds: 512 · 32639 · 127 < 2^31.
constexpr std::int64_t kInt8Slice = 512;

// Rows of x as integers.
struct IntegerRows {
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

// One slice of a panel as a tile's rows take it.
struct Int8Slice {
  const std::int8_t* weights;
  std::int64_t quads;
  bool adds;          // to the sums of the slices before
  const char* ahead;  // the next slice, if this one's passes are to ask for it; or null
};

// A single pass over a slice reads it in order, which the processor foresees by itself, on Zen 3
// not far enough. One row of 2048 → 2048 from memory: 18.4 GB/s there with the next slice fetched
// as below, 19.3 with nothing, 21.5 so, 19.8 twice as far ahead. On Zen 4 (AVX-512) 26 GB/s so and
// 38 with nothing, from the third level 62 and 75: with AVX-512 only the kernels of processors with
// AMX fetch for few rows, whose float32 rows gain by it (float_panels.h). For more all do
// (fetch.h): 8 rows of 2048 → 2048 on Zen 4 141 and 152 GFLOP/s.
constexpr std::int64_t kSoon = 1152;
constexpr bool kFetchesWeights = Vec::kWidth < 16;

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
__attribute__((noinline)) inline void multiply_int8_tile(IntegerRows x, Int8Slice slice,
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

class Int8Panels {
 protected:
  // Between rows of integers, so that those of a power of two do not all meet in a few sets of the
  // first-level cache: a line of 64 bytes, also where they are bytes.
  static constexpr std::int64_t kApart = 64;

 public:
  static bool copies(const GemmOperands&) { return true; }

  Int8Panels(Areas& areas, const GemmOperands& operands, std::int64_t rows,
             bool fetches_weights = kFetchesWeights)
      : fetches_weights_(fetches_weights),
        depth_(operands.depth),
        padded_(padded_int8_depth(operands.depth)),
        stride_(padded_ + kApart),
        floats_(areas.take(reads_in_place(operands.x) ? 0 : padded_floats(operands.depth))),
        integers_(areas.take<std::int16_t>(rows * stride_)),
        scale_(areas.take(rows)),
        power_(areas.take(rows)) {}

  void begin(const GemmBlock& block) {
    for (int row = 0; row < block.row_count; ++row) {
      quantize(block, row, integers_ + row * stride_);
    }
  }

  void multiply(int row, int rows, const char* panel, RowsAhead& results, float* sums) const {
    RowsAhead none;
    for (std::int64_t k = 0; k < depth_; k += kInt8Slice) {
      const std::int64_t depth = padded_ - k < kInt8Slice ? padded_ - k : kInt8Slice;
      const char* weights = panel + k * kPanelColumns;
      multiply_slice(
          {integers_ + row * stride_ + k, stride_}, rows,
          {reinterpret_cast<const std::int8_t*>(weights), depth / 4, k > 0,
           fetches_weights_ || rows >= kLeastRowsToFetch ? weights + depth * kPanelColumns
                                                         : nullptr},
          k + depth < depth_ ? none : results, sums);
    }
    scale(row, rows, panel, sums);
  }

 protected:
  void quantize(const GemmBlock& block, int row, std::int16_t* integers) {
    const FloatRows numbers = float_rows(block.x, row, 1, depth_, floats_);
    const Quantum quantum = quantize_row(numbers.data, depth_, integers);
    scale_[row] = quantum.scale;
    power_[row] = quantum.power;
  }

  // From sums of integers to numbers.
  void scale(int row, int rows, const char* panel, float* sums) const {
    const float* scales = reinterpret_cast<const float*>(panel + int8_scales(depth_));
    for (int m = 0; m < rows; ++m) {
      const Vec row_scale = broadcast(scale_[row + m]);
      const Vec row_power = broadcast(power_[row + m]);
      for (int column = 0; column < kPanelColumns; column += Vec::kWidth) {
        float* at = sums + m * kPanelColumns + column;
        const Vec power = row_power * load(scales + kPanelColumns + column);
        store(at, load(at) * row_scale * load(scales + column) * power);
      }
    }
  }

  bool fetches_weights_;
  std::int64_t depth_;
  std::int64_t padded_;  // the depth in whole steps
  std::int64_t stride_;
  float* floats_;
  std::int16_t* integers_;
  float* scale_;
  float* power_;

 private:
  // The first tile of rows asks for the slice that follows in memory.
  static void multiply_slice(IntegerRows x, int rows, Int8Slice slice, RowsAhead& results,
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

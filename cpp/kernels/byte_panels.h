// Panels of 8-bit integers, multiplied by rows of x as 8-bit integers, where an instruction does
// so: the sums of integer_rows.h. It multiplies bytes without sign by signed ones, so that an
// integer of x enters as the byte x + zero, and
//
//   Σ_k x[k] · w[k] = Σ_k (x[k] + zero) · w[k] − zero · Σ_k w[k]
//
// whose last sum stands behind the panel. A slice is as good as always the whole depth: a tile of
// rows reads 8 bytes of weights a cycle, which the second cache level gives. Its sums are stored
// once.
#pragma once

#include "integer_rows.h"

namespace numattn {
namespace {

constexpr int kByteVectors = kPanelColumns / Vec::kWidth;  // of a row's sums

// Rows of a tile at most: 32 registers hold their sums beside a step's weights.
constexpr int kByteRows = 8;

// Rows of x as bytes.
struct ByteRows {
  const std::uint8_t* data;
  std::int64_t stride;
};

// Four steps of the depth.
template <int Rows>
__attribute__((always_inline)) inline void add_byte_products(Ints (&sum)[Rows][kByteVectors],
                                                             const std::uint8_t* x,
                                                             std::int64_t stride,
                                                             const std::int8_t* weights) {
  Bytes right[kByteVectors];
#pragma GCC unroll 3
  for (int v = 0; v < kByteVectors; ++v) right[v] = load_bytes(weights + v * 4 * Vec::kWidth);
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
    const Bytes left = repeat_four(x + m * stride);
#pragma GCC unroll 3
    for (int v = 0; v < kByteVectors; ++v) sum[m][v] = dot(sum[m][v], left, right[v]);
  }
}

// sums[m][column] over one slice. Not kept: making floats of them here, for which GCC 12 holds
// every sum in two registers, as integers of 64 bits and of 32.
template <int Rows>
__attribute__((noinline)) inline void multiply_byte_tile(ByteRows x, Int8Slice slice,
                                                         RowsAhead& results, std::int32_t* sums) {
  constexpr int kPieces = Rows == kByteRows ? Rows * RowsAhead::kMostLines : 1;
  if (kPieces == 1) results.fetch_rows(Rows);
  Ints sum[Rows][kByteVectors];
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 3
    for (int v = 0; v < kByteVectors; ++v) sum[m][v] = no_sums();
  }
  const std::int8_t* weights = slice.weights;
  const std::uint8_t* left = x.data;
  std::int64_t quad = 0;
  for (int done = 1; done <= kPieces; ++done) {
    const std::int64_t end = done < kPieces ? slice.quads / kPieces * done : slice.quads;
    if (kPieces > 1) results.fetch_line<Rows>();
    for (; quad < end; ++quad) {
      add_byte_products(sum, left, x.stride, weights);
      if (slice.ahead != nullptr) {
        fetch_lines<kQuadBytes / kLineBytes, kIntoFirstLevel>(weights + kSoon);
      }
      weights += kQuadBytes;
      left += 4;
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 3
    for (int v = 0; v < kByteVectors; ++v) {
      store(sums + m * kPanelColumns + v * Vec::kWidth, sum[m][v]);
    }
  }
}

// What stands behind a panel, from one of its columns on.
struct ByteColumns {
  const float* scale;
  const float* power;
  const std::int32_t* sum;

  ByteColumns() = default;
  ByteColumns(const char* panel, std::int64_t depth, std::int64_t column = 0)
      : scale(reinterpret_cast<const float*>(panel + int8_scales(depth)) + column),
        power(scale + kPanelColumns),
        sum(reinterpret_cast<const std::int32_t*>(panel + int8_sums(depth)) + column) {}

  // A vector of sums, in the roundings of IntegerRows::scale().
  Vec scaled(Vec sums, Vec row_scale, Vec row_power, int column) const {
    return sums * row_scale * load(scale + column) * (row_power * load(power + column));
  }
};

// Rows of x that become bytes.
class RowsOfBytes : public IntegerRows {
 protected:
  RowsOfBytes(Areas& areas, const GemmOperands& operands, std::int64_t rows, bool fetches_weights)
      : IntegerRows(areas, operands, rows, fetches_weights),
        low_(areas.take<std::int32_t>(rows)),
        row_(areas.take<std::int16_t>(padded_)) {}

  // A row's bytes, each kInt8DepthStep of them `step` behind the ones before.
  void quantize_bytes(const GemmBlock& block, int row, std::uint8_t* bytes, std::int64_t step) {
    const int low = quantize(block, row, row_);
    for (std::int64_t k = 0; k < padded_; k += kInt8DepthStep) {
      for (std::int64_t i = 0; i < kInt8DepthStep; ++i) {
        bytes[i] = static_cast<std::uint8_t>(row_[k + i] - low);
      }
      bytes += step;
    }
    low_[row] = low;
  }

  std::int32_t* low_;  // of each row −zero

 private:
  std::int16_t* row_;
};

class BytePanels : public RowsOfBytes {
 public:
  BytePanels(Areas& areas, const GemmOperands& operands, std::int64_t rows,
             bool fetches_weights = kFetchesWeights)
      : RowsOfBytes(areas, operands, rows, fetches_weights),
        bytes_(areas.take<std::uint8_t>(rows * stride_)) {}

  void begin(const GemmBlock& block) {
    for (int row = 0; row < block.row_count; ++row) {
      quantize_bytes(block, row, bytes_ + row * stride_, kInt8DepthStep);
    }
  }

  void multiply(int row, int rows, const char* panel, RowsAhead& results, float* sums) const {
    for (std::int64_t k = 0; k < depth_; k += slice_) {
      multiply_slice(row, rows, panel, k, results, sums);
    }
  }

 private:
  // The numbers of some rows of what their bytes sum up to over the slice from step k on, beside
  // the slices before.
  void finish(const std::int32_t* whole, int row, int rows, std::int64_t k, const char* panel,
              float* sums) const {
    const ByteColumns columns(panel, depth_);
    const std::int32_t* weights = columns.sum + k / slice_ * kPanelColumns;
    for (int m = row; m < row + rows; ++m) {
      const Vec row_scale = broadcast(scale_[m]);
      const Vec row_power = broadcast(power_[m]);
      for (int column = 0; column < kPanelColumns; column += Vec::kWidth) {
        Vec sum = sum_to_float(whole + column, low_[m], weights + column);
        if (k > 0) sum = load(sums + column) + sum;
        if (is_last(k)) sum = columns.scaled(sum, row_scale, row_power, column);
        store(sums + column, sum);
      }
      whole += kPanelColumns;
      sums += kPanelColumns;
    }
  }

  // The first tile of rows asks for the slice that follows in memory.
  void multiply_slice(int row, int rows, const char* panel, std::int64_t k, RowsAhead& results,
                      float* sums) const {
    alignas(64) std::int32_t whole[kByteRows * kPanelColumns];
    Int8Slice weights = slice(panel, k, rows);
    RowsAhead none;
    RowsAhead& ahead = is_last(k) ? results : none;
    ByteRows x{bytes_ + row * stride_ + k, stride_};
    while (rows > 0) {
      const int height = rows >= kByteRows ? kByteRows : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
      switch (height) {
        case 1: multiply_byte_tile<1>(x, weights, ahead, whole); break;
        case 2: multiply_byte_tile<2>(x, weights, ahead, whole); break;
        case 4: multiply_byte_tile<4>(x, weights, ahead, whole); break;
        default: multiply_byte_tile<kByteRows>(x, weights, ahead, whole);
      }
      finish(whole, row, height, k, panel, sums);
      weights.ahead = nullptr;
      x.data += height * x.stride;
      sums += height * kPanelColumns;
      row += height;
      rows -= height;
    }
  }

  std::uint8_t* bytes_;
};

}  // namespace
}  // namespace numattn

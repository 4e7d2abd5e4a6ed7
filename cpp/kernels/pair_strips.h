// Strips of x as bfloat16, which the tile unit multiplies (amx_panels.h).
#pragma once

#include "amx_panels.h"

namespace numattn {
namespace {

// Rows of x that may be multiplied where they lie: a tile's row that crosses a cache line would be
// read twice (1,245 instead of 1,546 GFLOP/s).
inline bool reads_strips_in_place(const Matrix& x, std::int64_t depth) {
  const auto address = reinterpret_cast<std::uintptr_t>(x.data);
  return x.dtype == DType::kBFloat16 && x.column_stride == 2 && depth % kAmxDepth == 0 &&
         (address | static_cast<std::uintptr_t>(x.row_stride)) % kLineBytes == 0;
}

// 32 elements as the unit takes them, rounded to bfloat16; those from `count` on are 0.
__attribute__((noinline)) void copy_any_pairs(const Matrix& x, const char* from, int count,
                                              std::uint16_t* to) {
  const int rest = count - Vec::kWidth;
  const auto read = [&](int first, int elements) {
    return read_elements(from + first * x.column_stride, x.dtype, x.column_stride, elements);
  };
  store_pairs(to, round_in_order(read(0, rest < 0 ? count : Vec::kWidth),
                                 rest <= 0 ? zero() : read(Vec::kWidth, rest)));
}

inline void copy_pairs(const Matrix& x, const char* from, int count, std::uint16_t* to) {
  if (count < kAmxDepth || x.column_stride != dtype_size(x.dtype)) {
    return copy_any_pairs(x, from, count, to);
  }
  if (x.dtype == DType::kBFloat16) {
    store_pairs(to, load_pairs(reinterpret_cast<const std::uint16_t*>(from)));
  } else if (x.dtype == DType::kFloat32) {
    const float* floats = reinterpret_cast<const float*>(from);
    store_pairs(to, round_in_order(load(floats), load(floats + Vec::kWidth)));
  } else {
    copy_any_pairs(x, from, count, to);
  }
}

// A strip of up to 32 rows as tiles, copy[k / 32][row][k % 32]: zero beyond the depth, and beyond
// the rows up to the next whole tile.
inline void copy_pair_strip(const Matrix& x, int rows, std::int64_t depth, std::uint16_t* copy) {
  constexpr std::int64_t kStep = kStripRows * kAmxDepth;
  for (int row = 0; row < rows || row % kAmxRows != 0; ++row) {
    const char* from = x.data + row * x.row_stride;
    std::uint16_t* to = copy + row * kAmxDepth;
    for (std::int64_t k = 0; k < depth; k += kAmxDepth) {
      const std::int64_t left = row < rows ? depth - k : 0;
      if (left > 0) {
        copy_pairs(x, from, left < kAmxDepth ? static_cast<int>(left) : kAmxDepth, to);
      } else {
        store_pairs(to, no_pairs());
      }
      from += kAmxDepth * x.column_stride;
      to += kStep;
    }
  }
}

class PairStrips {
 public:
  static constexpr int kTileDepth = kAmxDepth;
  using Finished = FinishedSums;
  template <class Rows>
  using Finish = Rows;

  static bool reads_in_place(const Matrix& x, std::int64_t depth) {
    return reads_strips_in_place(x, depth);
  }

  PairStrips(Areas&, const GemmOperands&, std::int64_t) {}

  void copy(const GemmBlock& block, std::int64_t first, int rows, char* to) const {
    Matrix x = block.x;
    x.data += first * x.row_stride;
    copy_pair_strip(x, rows, block.depth, reinterpret_cast<std::uint16_t*>(to));
  }

  template <int C, int A, int B>
  static void dot() {
    tile_dot_bf16<C, A, B>();
  }

  FinishedSums finished(const GemmBlock& block, float* sums, std::int64_t row, int rows,
                        std::int64_t column) const {
    return finished_sums(block, sums, kPieceColumns, row, rows, column);
  }
};

}  // namespace
}  // namespace numattn

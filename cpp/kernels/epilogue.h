// What becomes of sums where bfloat16 results are rounded by the unit (vec/bfloat16.h), piece by
// piece and row by row, as the kernels that finish them among products need.
#pragma once

#include "gemm.h"

namespace numattn {
namespace {

// Results are finished in pieces of two vectors, which are a cache line of bfloat16.
constexpr int kPieceColumns = 2 * Vec::kWidth;

// Sums that are complete, and where they go.
struct FinishedSums {
  const float* sums;        // null: none
  std::int64_t sum_stride;  // floats from row to row
  int rows;
  int columns;        // up to kPieceColumns
  const float* bias;  // null without
  Companion factor;   // from the first sum on, as residual and output
  Companion residual;
  char* output;
};

// The piece of a block's results whose first feature is `column`.
inline FinishedSums finished_sums(const GemmBlock& block, const float* sums,
                                  std::int64_t sum_stride, std::int64_t row, int rows,
                                  std::int64_t column) {
  const std::int64_t left = block.column_count - column;
  FinishedSums finished{
      sums,    sum_stride, rows, left < kPieceColumns ? static_cast<int>(left) : kPieceColumns,
      nullptr, {},         {},   nullptr};
  if (block.bias != nullptr) finished.bias = block.bias + column;
  finished.factor = block.factor.from(row, column);
  finished.residual = block.residual.from(row, column);
  finished.output =
      block.output + row * block.output_row_stride + column * dtype_size(block.output_dtype);
  return finished;
}

// What is added where there is no bias: −0 changes no number, +0 would change −0.
inline Vec no_bias() { return broadcast(-0.0f); }

inline void store_both(float* to, Vec first, Vec second) {
  store(to, first);
  store(to + Vec::kWidth, second);
}
inline void store_both(BFloat16* to, Vec first, Vec second) {
  store_pairs(reinterpret_cast<std::uint16_t*>(to), round_in_order(first, second));
}

// Rows of whole pieces of one kind of result, one after the other; their sums follow one another
// and their factor and residual lie side by side.
template <Activation kActivation, class Element>
class WholeRows {
 public:
  explicit WholeRows(const FinishedSums& finished)
      : bias_{finished.bias != nullptr ? load(finished.bias) : no_bias(),
              finished.bias != nullptr ? load(finished.bias + Vec::kWidth) : no_bias()},
        sums_(finished.sums),
        factor_(finished.factor.data),
        residual_(finished.residual.data),
        output_(finished.output) {}

  __attribute__((always_inline)) void next_row(const GemmBlock& block, const FinishedSums&) {
    using Results =
        std::conditional_t<std::is_same_v<Element, BFloat16>, BFloat16Results, Float32Results>;
    Vec first = activated<kActivation, Results>(load(sums_) + bias_[0]);
    Vec second = activated<kActivation, Results>(load(sums_ + Vec::kWidth) + bias_[1]);
    if (factor_ != nullptr) {
      const auto* factor = reinterpret_cast<const Element*>(factor_);
      first = first * load(factor);
      second = second * load(factor + Vec::kWidth);
      factor_ += block.factor.row_stride;
    }
    if (residual_ != nullptr) {
      const auto* residual = reinterpret_cast<const Element*>(residual_);
      first = first + load(residual);
      second = second + load(residual + Vec::kWidth);
      residual_ += block.residual.row_stride;
    }
    store_both(reinterpret_cast<Element*>(output_), first, second);
    sums_ += kPieceColumns;
    output_ += block.output_row_stride;
  }

 private:
  Vec bias_[2];
  const float* sums_;
  const char* factor_;
  const char* residual_;
  char* output_;
};

// Rows of any other kind; the same bits.
class AnyRows {
 public:
  explicit AnyRows(const FinishedSums&) {}

  void next_row(const GemmBlock& block, const FinishedSums& finished) {
    finish(block, finished, row_++);
  }

 private:
  __attribute__((noinline)) static void finish(const GemmBlock& block, const FinishedSums& sums,
                                               int row) {
    Vec value[2] = {zero(), zero()};
    for (int v = 0; v < 2; ++v) {
      const int first = v * Vec::kWidth;
      if (first >= sums.columns) break;
      const float* bias = sums.bias == nullptr ? nullptr : sums.bias + first;
      value[v] = finished(block, load(sums.sums + row * sums.sum_stride + first), bias,
                          sums.factor.at(row, first), sums.residual.at(row, first),
                          lanes_left(first, sums.columns));
    }
    write(block.output_dtype, value, sums.columns, sums.output + row * block.output_row_stride);
  }

  static void write(DType dtype, const Vec (&value)[2], int columns, char* output) {
    if (dtype == DType::kBFloat16) {
      store_pairs(reinterpret_cast<std::uint16_t*>(output), round_in_order(value[0], value[1]),
                  columns);
      return;
    }
    for (int first = 0; first < columns; first += Vec::kWidth) {
      write_elements(output + first * dtype_size(dtype), dtype, value[first / Vec::kWidth],
                     lanes_left(first, columns));
    }
  }

  int row_ = 0;
};

inline bool is_whole(const GemmBlock& block, const FinishedSums& finished) {
  const auto is_dense = [&](const Companion& companion) {
    return companion.data == nullptr || companion.column_stride == dtype_size(block.output_dtype);
  };
  return finished.columns == kPieceColumns && is_dense(block.factor) && is_dense(block.residual);
}

}  // namespace
}  // namespace numattn

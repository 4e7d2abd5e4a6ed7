// From the sums of a panel to results: bias, activation, factor, residual.
#pragma once

#include "activation.h"
#include "matrix.h"
#include "rows_ahead.h"

namespace numattn {
namespace {

// What becomes of up to kWidth sums side by side; bias, factor and residual, of the first one, null
// without.
inline Vec finished(const GemmBlock& block, Vec sum, const float* bias, const char* factor,
                    const char* residual, int lanes) {
  if (bias != nullptr) sum = sum + load_partial(bias, lanes);
  Vec value = activated(sum, block.activation, block.output_dtype);
  const auto read = [&](const char* from, const Companion& companion) {
    return read_elements(from, block.output_dtype, companion.column_stride, lanes);
  };
  if (factor != nullptr) value = value * read(factor, block.factor);
  return residual == nullptr ? value : value + read(residual, block.residual);
}

// Rows of a whole panel, of one kind of results: float32 or bfloat16, factor and residual of which
// lie side by side. Measured on Zen 4, 2048 × 384 → 1536, where any kind of results was told apart
// at every vector: 12 cycles each, 4 to 6 % of all.
template <Activation kActivation, class Element>
__attribute__((noinline)) inline void write_whole(const GemmBlock& block, int first, int row_count,
                                                  std::int64_t column, const float* sums) {
  using Results =
      std::conditional_t<std::is_same_v<Element, BFloat16>, BFloat16Results, Float32Results>;
  // −0 changes no sum.
  float no_bias[kPanelColumns];
  for (float& zero : no_bias) zero = -0.0f;
  const float* bias = block.bias == nullptr ? no_bias : block.bias + column;
  for (int i = 0; i < row_count; ++i) {
    const std::int64_t row = first + i;
    auto* output =
        reinterpret_cast<Element*>(block.output + row * block.output_row_stride) + column;
    const auto* factor = reinterpret_cast<const Element*>(block.factor.at(row, column));
    const auto* residual = reinterpret_cast<const Element*>(block.residual.at(row, column));
#pragma GCC unroll 3
    for (int n = 0; n < kPanelColumns; n += Vec::kWidth) {
      const Vec sum = load(sums + i * kPanelColumns + n);
      Vec value = activated<kActivation, Results>(sum + load(bias + n));
      if (factor != nullptr) value = value * load(factor + n);
      if (residual != nullptr) value = value + load(residual + n);
      store(output + n, value);
    }
  }
}

// Whether that is for a block's results.
inline bool writes_whole(const GemmBlock& block) {
  const auto is_dense = [&](const Companion& companion) {
    return companion.data == nullptr || companion.column_stride == dtype_size(block.output_dtype);
  };
  return (block.output_dtype == DType::kFloat32 || block.output_dtype == DType::kBFloat16) &&
         is_dense(block.factor) && is_dense(block.residual);
}

// Results of any other kind; the same bits. Not inlined, like write_panel(): a copy of it for every
// kind of panel would be a fifth of all their code.
__attribute__((noinline)) inline void write_any(const GemmBlock& block, int first, int row_count,
                                                std::int64_t column, std::int64_t count,
                                                const float* sums) {
  const std::int64_t item = dtype_size(block.output_dtype);
  for (int i = 0; i < row_count; ++i) {
    const std::int64_t row = first + i;
    char* output = block.output + row * block.output_row_stride + column * item;
    for (std::int64_t n = 0; n < count; n += Vec::kWidth) {
      const int lanes = lanes_left(n, count);
      const float* bias = block.bias == nullptr ? nullptr : block.bias + column + n;
      const Vec value =
          finished(block, load(sums + i * kPanelColumns + n), bias,
                   block.factor.at(row, column + n), block.residual.at(row, column + n), lanes);
      write_elements(output + n * item, block.output_dtype, value, lanes);
    }
  }
}

// The epilogue of one panel: rows [first, first + row_count), columns [column, column + count).
__attribute__((noinline)) inline void write_panel(const GemmBlock& block, int first, int row_count,
                                                  std::int64_t column, std::int64_t count,
                                                  const float* sums) {
  if (count < kPanelColumns || !writes_whole(block)) {
    return write_any(block, first, row_count, column, count, sums);
  }
  with_activation(block.activation, [&](auto activation) {
    constexpr Activation kActivation = decltype(activation)::value;
    if (block.output_dtype == DType::kBFloat16) {
      write_whole<kActivation, BFloat16>(block, first, row_count, column, sums);
    } else {
      write_whole<kActivation, float>(block, first, row_count, column, sums);
    }
  });
}

// What write_panel() will write and read of successive rows.
inline RowsAhead rows_of_results(const GemmBlock& block, std::int64_t row, std::int64_t column,
                                 std::int64_t count) {
  const std::int64_t item = dtype_size(block.output_dtype);
  RowsAhead rows(count * item);
  rows.add(block.output + row * block.output_row_stride + column * item, block.output_row_stride);
  const auto add = [&](const Companion& companion) {
    if (companion.data == nullptr || companion.data == block.output) return;
    rows.add(companion.at(row, column), companion.row_stride);
  };
  add(block.factor);
  add(block.residual);
  return rows;
}

}  // namespace
}  // namespace numattn

// Rotary position embedding of a block of heads and positions.
//
// For 0 <= r < pairs and (a, b) = (r, r + pairs), or (2r, 2r + 1) where interleaved:
//
//   out[a] = x[a] · cos[r] − x[b] · sin[r]
//   out[b] = x[b] · cos[r] + x[a] · sin[r]
//
// Interleaved, with c and s holding each number of cos and sin twice, the sines of even places
// negated, this is out[i] = x[i] · c[i] + x[i ^ 1] · s[i]: the same products and sums.
//
// Each vector is read before its place is written, so out may be x.
#pragma once

#include "matrix.h"

namespace numattn {
namespace {

// The tables' rows for the positions of a block, as contiguous floats.
struct TableRows {
  const float* data;
  std::int64_t stride;
  const std::int64_t* rows;  // null: the row's own number

  const float* at(std::int64_t row) const {
    return data + (rows == nullptr ? row : rows[row]) * stride;
  }
};

// Each of `count` numbers twice, at even places multiplied by `even_sign`. The numbers may stand at
// the start of `twice`, so the last come first.
inline void double_numbers(const float* numbers, std::int64_t count, float even_sign,
                           float* twice) {
  for (std::int64_t i = count - 1; i >= 0; --i) {
    const float number = numbers[i];
    twice[2 * i + 1] = number;
    twice[2 * i] = even_sign * number;
  }
}

// Copies, where they are needed, go to `area` floats into the workspace.
inline TableRows table_rows(const RopeBlock& block, const Matrix& table, float even_sign,
                            std::int64_t area) {
  if (!block.interleaved && reads_in_place(table)) {
    return {reinterpret_cast<const float*>(table.data), table.row_stride / 4, block.table_rows};
  }
  const std::int64_t stride = rope_table_stride(block);
  float* copy = block.workspace + area;
  for (std::int64_t row = 0; row < block.row_count; ++row) {
    const std::int64_t from = block.table_rows == nullptr ? row : block.table_rows[row];
    float* to = copy + row * stride;
    const FloatRows numbers = float_rows(table, from, 1, block.pairs, to);
    if (block.interleaved) double_numbers(numbers.data, block.pairs, even_sign, to);
  }
  return {copy, stride, nullptr};
}

inline void turn_halves(const float* x, const float* cos, const float* sin, std::int64_t pairs,
                        float* output) {
  for (std::int64_t i = 0; i < pairs; i += Vec::kWidth) {
    const int count = lanes_left(i, pairs);
    const Vec first = load_lanes(x + i, count);
    const Vec second = load_lanes(x + pairs + i, count);
    const Vec c = load_lanes(cos + i, count);
    const Vec s = load_lanes(sin + i, count);
    store_lanes(output + i, fma(first, c, zero() - second * s), count);
    store_lanes(output + pairs + i, fma(second, c, first * s), count);
  }
}

inline void turn_neighbours(const float* x, const float* cos, const float* sin, std::int64_t pairs,
                            float* output) {
  for (std::int64_t i = 0; i < 2 * pairs; i += Vec::kWidth) {
    const int count = lanes_left(i, 2 * pairs);
    const Vec both = load_lanes(x + i, count);
    const Vec c = load_lanes(cos + i, count);
    const Vec s = load_lanes(sin + i, count);
    store_lanes(output + i, fma(both, c, swap_pairs(both) * s), count);
  }
}

// The elements that are not turned, bit by bit.
inline void copy_rest(const RopeBlock& block, const char* x, char* output) {
  const std::int64_t item = dtype_size(block.x.dtype);
  const std::int64_t turned = 2 * block.pairs;
  const char* from = x + turned * block.x.column_stride;
  char* to = output + turned * item;
  if (from == to) return;  // in place
  if (block.x.column_stride == item) {
    __builtin_memcpy(to, from, static_cast<std::size_t>((block.width - turned) * item));
    return;
  }
  for (std::int64_t i = turned; i < block.width; ++i, from += block.x.column_stride, to += item) {
    __builtin_memcpy(to, from, static_cast<std::size_t>(item));
  }
}

// `copy` is room for the elements that turn, as floats.
inline void turn_row(const RopeBlock& block, const Matrix& x, const float* cos, const float* sin,
                     float* copy, char* output) {
  const std::int64_t turning = 2 * block.pairs;
  const float* from = float_rows(x, 0, 1, turning, copy).data;
  const bool direct = x.dtype == DType::kFloat32;
  float* to = direct ? reinterpret_cast<float*>(output) : copy;
  if (block.interleaved) {
    turn_neighbours(from, cos, sin, block.pairs, to);
  } else {
    turn_halves(from, cos, sin, block.pairs, to);
  }
  for (std::int64_t i = 0; i < turning && !direct; i += Vec::kWidth) {
    const int count = lanes_left(i, turning);
    write_elements(output + i * dtype_size(x.dtype), x.dtype, load_lanes(copy + i, count), count);
  }
  if (turning < block.width) copy_rest(block, x.data, output);
}

inline void rope(const RopeBlock& block) {
  const std::int64_t table_area = block.row_count * rope_table_stride(block);
  const TableRows cos = table_rows(block, block.cos, 1.0f, 0);
  const TableRows sin = table_rows(block, block.sin, -1.0f, table_area);
  float* copy = block.workspace + 2 * table_area;
  const std::int64_t inside = block.heads_inside ? block.head_count : block.row_count;
  const std::int64_t outside = block.heads_inside ? block.row_count : block.head_count;
  for (std::int64_t i = 0; i < outside; ++i) {
    for (std::int64_t j = 0; j < inside; ++j) {
      const std::int64_t head = block.heads_inside ? j : i;
      const std::int64_t row = block.heads_inside ? i : j;
      Matrix x = block.x;
      x.data += head * block.x_head_stride + row * block.x.row_stride;
      turn_row(block, x, cos.at(row), sin.at(row), copy,
               block.output + head * block.output_head_stride + row * block.output_row_stride);
    }
  }
}

}  // namespace
}  // namespace numattn

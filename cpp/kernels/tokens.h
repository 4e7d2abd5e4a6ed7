// Rows of tokens where they lie: side by side, or page by page.
#pragma once

#include "matrix.h"

namespace numattn {
namespace {

// What an element behind the others counts, of a wide channel.
constexpr float kWideUnit = 256.0f;

inline const char* token_row(const TokenRows& tokens, std::int64_t token) {
  const Matrix& matrix = tokens.matrix;
  if (tokens.pages == nullptr) return matrix.data + token * matrix.row_stride;
  const std::int64_t page = tokens.pages[token / tokens.page_rows];
  return matrix.data + page * tokens.page_stride + token % tokens.page_rows * matrix.row_stride;
}

inline float token_scale(const TokenRows& tokens, std::int64_t token) {
  std::int64_t at = token * tokens.scale_row_stride;
  if (tokens.pages != nullptr) {
    at = tokens.pages[token / tokens.page_rows] * tokens.scale_page_stride +
         token % tokens.page_rows * tokens.scale_row_stride;
  }
  return read_element(tokens.scales + at, DType::kFloat32);
}

// Rows of a tile, each of which may lie anywhere; of a head, `offset` bytes into them.
template <class Element>
struct ListedRows {
  const char* const* rows;
  std::int64_t offset;

  const Element* operator[](std::int64_t row) const {
    return reinterpret_cast<const Element*>(rows[row] + offset);
  }
  ListedRows from(std::int64_t row) const { return {rows + row, offset}; }
};

// Calls visit(j, count, page, row) for the tile's stretches of tokens that lie evenly: tokens j to
// j + count − 1 of the tile stand in rows from `row` on of that page; without pages, of page 0. One
// division a tile: with one a page, short tiles in the cache took 6 % longer.
template <class Visit>
inline void each_stretch(const TokenRows& tokens, KeyRange tile, const Visit& visit) {
  if (tokens.pages == nullptr) {
    visit(0, tile.count(), 0, tile.begin);
    return;
  }
  const std::int64_t* page = tokens.pages + tile.begin / tokens.page_rows;
  std::int64_t row = tile.begin % tokens.page_rows;
  for (std::int64_t j = 0; j < tile.count(); ++page) {
    const std::int64_t room = tokens.page_rows - row;
    const std::int64_t count = room < tile.count() - j ? room : tile.count() - j;
    visit(j, count, *page, row);
    j += count;
    row = 0;
  }
}

// rows[j] = the row of token tile.begin + j
inline void list_rows(const TokenRows& tokens, KeyRange tile, const char** rows) {
  const std::int64_t stride = tokens.matrix.row_stride;
  each_stretch(tokens, tile,
               [&](std::int64_t j, std::int64_t count, std::int64_t page, std::int64_t row) {
                 const char* from = tokens.matrix.data + page * tokens.page_stride + row * stride;
                 for (std::int64_t i = 0; i < count; ++i) rows[j + i] = from + i * stride;
               });
}

// scales[j] = the scale of token tile.begin + j
inline void list_scales(const TokenRows& tokens, KeyRange tile, float* scales) {
  const std::int64_t stride = tokens.scale_row_stride;
  each_stretch(tokens, tile,
               [&](std::int64_t j, std::int64_t count, std::int64_t page, std::int64_t row) {
                 const char* from = tokens.scales + page * tokens.scale_page_stride + row * stride;
                 for (std::int64_t i = 0; i < count; ++i) {
                   scales[j + i] = read_element(from + i * stride, DType::kFloat32);
                 }
               });
}

// Whether tokens lie as rows of contiguous, aligned elements of that type.
template <class Element>
inline bool lies_in_rows(const TokenRows& tokens) {
  constexpr std::int64_t kSize = sizeof(Element);
  return lies_in_rows<Element>(tokens.matrix) && tokens.page_stride % kSize == 0;
}

// Makes numbers of the integers copied to a row from one of `width` and what wide channels hold
// beyond that. Not inlined: the code would stand there once for each element type.
__attribute__((noinline)) void scale_row(const TokenRows& tokens, std::int64_t token,
                                         std::int64_t width, float* row) {
  const std::int64_t stride = tokens.matrix.column_stride;
  const char* beyond = token_row(tokens, token) + width * stride;
  for (std::int64_t first = 0; first < tokens.wide_count; first += Vec::kWidth) {
    const int count = lanes_left(first, tokens.wide_count);
    float high[Vec::kWidth];
    store(high, read_elements(beyond + first * stride, tokens.matrix.dtype, stride, count));
    for (int i = 0; i < count; ++i) {
      const std::int64_t channel = tokens.wide_channels[first + i];
      if (channel >= 0) row[channel] += kWideUnit * high[i];
    }
  }
  const Vec scale = broadcast(token_scale(tokens, token));
  for (std::int64_t d = 0; d < width; d += Vec::kWidth) store(row + d, load(row + d) * scale);
}

// Tokens of the tile as numbers: where they lie, or copied to `copy` (count × padded width floats).
inline FloatRows float_rows(const TokenRows& tokens, KeyRange tile, std::int64_t width,
                            float* copy) {
  const Matrix& matrix = tokens.matrix;
  if (reads_in_place(tokens)) {
    const char* from = matrix.data + tile.begin * matrix.row_stride;
    return {reinterpret_cast<const float*>(from), matrix.row_stride / 4};
  }
  const std::int64_t stride = padded_floats(width);
  with_reader(matrix.dtype, matrix.column_stride, [&](const auto& read) {
    for (std::int64_t j = 0; j < tile.count(); ++j) {
      const std::int64_t token = tile.begin + j;
      float* row = copy + j * stride;
      copy_row(token_row(tokens, token), matrix.column_stride, width, read, row);
      if (tokens.scales != nullptr) scale_row(tokens, token, width, row);
    }
  });
  return {copy, stride};
}

// Whether the rows of both begin with the same numbers, those in the same places: values may be the
// first channels of keys (multi-head latent attention).
__attribute__((noinline)) inline bool begin_alike(const TokenRows& a, const TokenRows& b) {
  return a.matrix.data == b.matrix.data && a.matrix.dtype == b.matrix.dtype &&
         a.matrix.row_stride == b.matrix.row_stride &&
         a.matrix.column_stride == b.matrix.column_stride && a.page_stride == b.page_stride &&
         a.scales == b.scales && a.scale_row_stride == b.scale_row_stride &&
         a.scale_page_stride == b.scale_page_stride && a.wide_count == 0 && b.wide_count == 0;
}

// Such a copy as tokens 0, 1, … of a matrix.
inline TokenRows copied(const TokenRows& tokens, KeyRange tile, std::int64_t width, float* copy) {
  const FloatRows rows = float_rows(tokens, tile, width, copy);
  TokenRows result{};
  result.matrix = {reinterpret_cast<const char*>(rows.data), DType::kFloat32, rows.stride * 4, 4};
  return result;
}

// Tokens of elements of 16 bits, copied as they are.
inline TokenRows gathered(const TokenRows& tokens, KeyRange tile, std::int64_t width, float* copy) {
  constexpr std::int64_t kSize = 2;
  const std::int64_t stride = padded_floats(width) * kSize;
  char* to = reinterpret_cast<char*>(copy);
  for (std::int64_t j = 0; j < tile.count(); ++j) {
    const char* from = token_row(tokens, tile.begin + j);
    for (std::int64_t d = 0; d < width; ++d) {
      __builtin_memcpy(to + j * stride + d * kSize, from + d * tokens.matrix.column_stride, kSize);
    }
  }
  TokenRows result{};
  result.matrix = {to, tokens.matrix.dtype, stride, kSize};
  return result;
}

}  // namespace
}  // namespace numattn

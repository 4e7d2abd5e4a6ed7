// The register tile of integers: the sums of some rows of x by one slice of a panel.
//
// How integers are multiplied is a class of this form (int8_panels.h, byte_panels.h):
//
//   struct Products {
//     using Element             // of x
//     kVectors                  // of a row's sums, of all columns
//     kRows                     // of a tile at most
//     static vectors_beside(rows)   // vectors side by side in a tile of so many rows
//     static left(x)            // four steps of a row, for any column
//     static right(weights)     // and of as many columns as a vector of sums has
//   };                          // dot(sums, left, right) adds their products
#pragma once

#include "integer_rows.h"

namespace numattn {
namespace {

// The tile of tile.h has 12 sums in 16 registers, 24 in 32.
constexpr bool kManyRegisters = Vec::kTileRows * Vec::kTileVectors > 12;

// Rows of x as integers.
template <class Element>
struct IntegerOperand {
  const Element* data;
  std::int64_t stride;
};

// How many vectors of sums a row has in registers, an even share of `all`, each of them `registers`
// large: so many that there is room for the lesser of one step's operands and for `others`.
constexpr int vectors_in_registers(int rows, int all, int registers, int others) {
  int vectors = all;
  const auto taken = [&] {
    return rows * vectors * registers + (rows < vectors ? rows : vectors) + others;
  };
  while (taken() > (kManyRegisters ? 32 : 16) || all % vectors != 0) --vectors;
  return vectors;
}

// Four steps of the depth: the lesser operand is held in registers, the other passes by.
template <class Products, int Rows, int Vectors>
__attribute__((always_inline)) inline void add_products(Ints (&sum)[Rows][Vectors],
                                                        const typename Products::Element* x,
                                                        std::int64_t stride,
                                                        const std::int8_t* weights) {
  constexpr std::int64_t kBytes = kQuadBytes / Products::kVectors;
  if constexpr (Rows < Vectors) {
    decltype(Products::left(x)) left[Rows];
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) left[m] = Products::left(x + m * stride);
#pragma GCC unroll 12
    for (int v = 0; v < Vectors; ++v) {
      const auto right = Products::right(weights + v * kBytes);
#pragma GCC unroll 8
      for (int m = 0; m < Rows; ++m) sum[m][v] = dot(sum[m][v], left[m], right);
    }
  } else {
    decltype(Products::right(weights)) right[Vectors];
#pragma GCC unroll 12
    for (int v = 0; v < Vectors; ++v) right[v] = Products::right(weights + v * kBytes);
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
      const auto left = Products::left(x + m * stride);
#pragma GCC unroll 12
      for (int v = 0; v < Vectors; ++v) sum[m][v] = dot(sum[m][v], left, right[v]);
    }
  }
}

// sums[m] = the vectors of row m's sums over the slice. Not kept: making floats of them here, for
// which GCC 12 holds every sum in two registers, as integers of 64 bits and of 32.
template <class Products, int Rows>
__attribute__((noinline)) inline void multiply_integer_tile(
    IntegerOperand<typename Products::Element> x, Int8Slice slice, RowsAhead& results,
    std::int32_t* sums) {
  constexpr int kAll = Products::kVectors;
  constexpr int kVectors = Products::vectors_beside(Rows);
  constexpr int kAheadBytes = kQuadBytes * kVectors / kAll;  // of a pass, for each quad
  constexpr int kAheadLines = (kAheadBytes + kLineBytes - 1) / kLineBytes;
  constexpr int kPieces = Rows == Products::kRows ? Rows * RowsAhead::kMostLines : 1;
  if (kPieces == 1) results.fetch_rows(Rows);
  for (int first = 0; first < kAll; first += kVectors) {
    Ints sum[Rows][kVectors];
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 12
      for (int v = 0; v < kVectors; ++v) sum[m][v] = no_sums();
    }
    const std::int8_t* weights = slice.weights + first * (kQuadBytes / kAll);
    const auto* left = x.data;
    std::int64_t quad = 0;
    for (int done = 1; done <= kPieces; ++done) {
      const std::int64_t end = done < kPieces ? slice.quads / kPieces * done : slice.quads;
      if (kPieces > 1 && first == 0) results.fetch_line<Rows>();
      for (; quad < end; ++quad) {
        add_products<Products>(sum, left, x.stride, weights);
        if (slice.ahead != nullptr) {
          if constexpr (kVectors == kAll) {
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
        store(sums + (m * kAll + first + v) * Vec::kWidth, sum[m][v]);
      }
    }
  }
}

// The tiles of `rows` rows, one after the other; take(row, height, sums) has the sums of `height`
// rows from `row` on. The first tile asks for the slice that follows in memory.
template <class Products, class Take>
inline void multiply_integer_slice(IntegerOperand<typename Products::Element> x, int rows,
                                   Int8Slice slice, RowsAhead& results, const Take& take) {
  alignas(64) std::int32_t sums[Products::kRows * Products::kVectors * Vec::kWidth];
  each_height<Products::kRows>(rows, [&](int row, auto height) {
    constexpr int kHeight = decltype(height)::value;
    multiply_integer_tile<Products, kHeight>({x.data + row * x.stride, x.stride}, slice, results,
                                             sums);
    slice.ahead = nullptr;
    take(row, kHeight, sums);
  });
}

}  // namespace
}  // namespace numattn

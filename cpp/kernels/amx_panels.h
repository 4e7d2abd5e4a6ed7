// Panels multiplied in the tile unit, strip by strip of rows: of bfloat16 (pair_strips.h) or of
// 8-bit integers (byte_strips.h).
//
//   for each block of columns               its weights stay in the second cache level
//     for each strip of 32 rows of x        stays in the first
//       for each pair of column tiles       weights stream past, by loads that spare the first
//       level
//         all of the depth in 2 × 2 tiles; meanwhile the rows of the block before are finished
//
// A column tile is 16 columns of a panel: column tile j lies in panel j / 3, a row every 192 bytes.
// Two neighbours, of one panel or of two, make a block of 32 columns. Its sums leave the tiles
// once, for one of two areas of 4 KiB in turn, where the next block's steps find them: between
// products there is time for some 16 vector operations each, and where they stand apart, next to
// none is used. Each sum is one chain over the depth, whatever stands beside it.
//
// Measured on Granite Rapids by a prototype (GFLOP/s of one core, 2048 × 384 → 1536 with GELU):
// epilogues between blocks 963, among products 1,133; rows inside columns 1,309, outside 1,550;
// weights that spare the first level 1,960 (without GELU). Not kept there: fetching x into the
// first level (990 against 1,268), stores that pass the caches (1,480 against 1,550), x copied to
// tiles where it could be read in place.
//
// What strips are is a class of this form:
//
//   struct Strips {
//     kTileDepth                            // steps of the depth in a row of a tile
//     static reads_in_place(x, depth)       // whether tiles may be read where x lies
//     Strips(areas, operands, rows)         // its areas of the workspace
//     copy(block, first, rows, to)          // rows of x as tiles, to[step][32 rows][64 bytes]
//     dot<C, A, B>()                        // the product of two tiles
//     finished(block, sums, row, rows, column)  // where sums of a piece go: a Finished
//     Finish<Rows>                          // Rows of epilogue.h, or what makes floats of sums
//     first
//   };
#pragma once

#include "amx_tile.h"
#include "areas.h"
#include "epilogue.h"
#include "gemm.h"

namespace numattn {
namespace {

constexpr int kStripRows = kGemmStripRows;
constexpr std::int64_t kColumnTiles = kPanelColumns / kAmxRowFloats;  // of a panel
constexpr std::int64_t kPanelRowBytes = kPanelColumns * 4;            // of pairs, or of quads
static_assert(kStripRows == 2 * kAmxRows && kPieceColumns == 2 * kAmxRowFloats, "2 × 2 tiles");

// Rows 0 to 15 of a strip at data, 16 to 31 `tile` bytes behind.
struct Strip {
  const char* data;
  std::int64_t row;   // bytes from row to row
  std::int64_t tile;  // from the first 16 rows to the others
  std::int64_t step;  // from one step of the depth to the next
  int rows;
};

inline Strip copied_strip(const char* copy, int rows) {
  return {copy, kAmxRowBytes, kTileBytes, 2 * kTileBytes, rows};
}

// Lines that will be read soon, fetched into the second level a few at a step.
class SoonRead {
 public:
  SoonRead() = default;
  SoonRead(const char* rows, std::int64_t row_stride, std::int64_t row_count,
           std::int64_t row_bytes, std::int64_t steps)
      : row_(rows),
        row_stride_(row_stride),
        rows_left_(row_count),
        lines_((row_bytes + kLineBytes - 1) / kLineBytes),
        at_a_step_((row_count * lines_ + steps - 1) / steps) {}

  void fetch_some() {
    for (std::int64_t i = 0; i < at_a_step_ && rows_left_ > 0; ++i) {
      __builtin_prefetch(row_ + line_ * kLineBytes, 0, kIntoSecondLevel);
      if (++line_ < lines_) continue;
      line_ = 0;
      row_ += row_stride_;
      --rows_left_;
    }
  }

 private:
  const char* row_ = nullptr;
  std::int64_t row_stride_ = 0;
  std::int64_t rows_left_ = 0;
  std::int64_t lines_ = 0;
  std::int64_t at_a_step_ = 0;
  std::int64_t line_ = 0;
};

struct TileBlock {
  Strip x;
  const char* weight[2];  // a column tile each
  std::int64_t steps;     // of the depth
  float* sums;            // [32][32]
};

// Tiles 0 to 3 are the sums, 4 and 5 rows of x, 6 and 7 columns of the weight.
template <class Strips, int Rows, int Columns>
__attribute__((always_inline)) inline void multiply_step(const TileBlock& in, const char* x,
                                                         std::int64_t weight) {
  tile_load<kFirstA>(x, in.x.row);
  if constexpr (Rows == 2) tile_load<kFirstA + 1>(x + in.x.tile, in.x.row);
  tile_load_streamed<kFirstB>(in.weight[0] + weight, kPanelRowBytes);
  if constexpr (Columns == 2) {
    tile_load_streamed<kFirstB + 1>(in.weight[1] + weight, kPanelRowBytes);
  }
  Strips::template dot<0, kFirstA, kFirstB>();
  if constexpr (Columns == 2) Strips::template dot<1, kFirstA, kFirstB + 1>();
  if constexpr (Rows == 2) Strips::template dot<2, kFirstA + 1, kFirstB>();
  if constexpr (Rows == 2 && Columns == 2) Strips::template dot<3, kFirstA + 1, kFirstB + 1>();
}

template <int Rows, int Columns>
inline void store_sums(float* sums) {
  constexpr std::int64_t kStride = kPieceColumns * 4;
  tile_store<0>(sums, kStride);
  if constexpr (Columns == 2) tile_store<1>(sums + kAmxRowFloats, kStride);
  float* lower = sums + kAmxRows * kPieceColumns;
  if constexpr (Rows == 2) tile_store<2>(lower, kStride);
  if constexpr (Rows == 2 && Columns == 2) tile_store<3>(lower + kAmxRowFloats, kStride);
}

// One block, and the rows of the one before: so many a step that the last step finishes the last.
//
// The arguments stay in memory, where a step's tile instructions leave them in the first level:
// copied to locals they are more than the general registers, and the compiler moved them through
// vector registers, which the epilogue needs.
template <class Strips, int Rows, int Columns, class FinishRows>
__attribute__((noinline)) void multiply_tile_block(const GemmBlock& block, const TileBlock& in,
                                                   const typename Strips::Finished& before,
                                                   SoonRead& soon) {
  tile_zero<0>();
  if constexpr (Columns == 2) tile_zero<1>();
  if constexpr (Rows == 2) tile_zero<2>();
  if constexpr (Rows == 2 && Columns == 2) tile_zero<3>();
  typename Strips::template Finish<FinishRows> finish(before);
  const char* x = in.x.data;
  std::int64_t due = 0;  // rows · steps
  for (std::int64_t k = 0; k < in.steps; ++k) {
    multiply_step<Strips, Rows, Columns>(in, x, k * kAmxRowPairs * kPanelRowBytes);
    x += in.x.step;
    soon.fetch_some();
    for (due += before.rows; due >= in.steps; due -= in.steps) finish.next_row(block, before);
  }
  store_sums<Rows, Columns>(in.sums);
}

template <class Strips>
using TileBlockKernel = void (*)(const GemmBlock&, const TileBlock&,
                                 const typename Strips::Finished&, SoonRead&);

// Of whole blocks, whose predecessor was whole too; [rows − 1][columns − 1] of the others.
template <class Strips>
struct TileBlockKernels {
  TileBlockKernel<Strips> whole;
  TileBlockKernel<Strips> any[2][2];
};

template <class Strips>
inline TileBlockKernels<Strips> tile_block_kernels(Activation activation, DType output) {
  TileBlockKernels<Strips> kernels{
      nullptr,
      {{multiply_tile_block<Strips, 1, 1, AnyRows>, multiply_tile_block<Strips, 1, 2, AnyRows>},
       {multiply_tile_block<Strips, 2, 1, AnyRows>, multiply_tile_block<Strips, 2, 2, AnyRows>}}};
  kernels.whole = kernels.any[1][1];
  with_activation(activation, [&](auto constant) {
    constexpr Activation kActivation = decltype(constant)::value;
    if (output == DType::kBFloat16) {
      kernels.whole = multiply_tile_block<Strips, 2, 2, WholeRows<kActivation, BFloat16>>;
    } else if (output == DType::kFloat32) {
      kernels.whole = multiply_tile_block<Strips, 2, 2, WholeRows<kActivation, float>>;
    }
  });
  return kernels;
}

// What a work item's blocks need of memory.
template <class Strips>
struct StripWorkspace {
  float* sums[2];
  std::int64_t steps;        // of the depth
  std::int64_t strip_bytes;  // of a copy
  char* copies;              // of x: all of the item's, or one at a time
  Strips strips;

  StripWorkspace(Areas& areas, const GemmOperands& operands, std::int64_t rows)
      : sums{areas.take(kStripRows * kPieceColumns), areas.take(kStripRows * kPieceColumns)},
        steps((operands.depth + Strips::kTileDepth - 1) / Strips::kTileDepth),
        strip_bytes(steps * 2 * kTileBytes),
        copies(areas.take<char>(
            strip_bytes * (copies_at_once(operands) ? (rows + kStripRows - 1) / kStripRows : 1))),
        strips(areas, operands, rows) {}

  // Where several blocks of columns pass over them.
  static bool copies_at_once(const GemmOperands& operands) {
    return !Strips::reads_in_place(operands.x, operands.depth) &&
           operands.columns >
               strip_panels(operands.format, operands.depth, operands.columns) * kPanelColumns;
  }
};

template <class Strips>
class StripGemm {
 public:
  StripGemm(const GemmBlock& block, StripWorkspace<Strips> work)
      : block_(block),
        work_(work),
        kernels_(tile_block_kernels<Strips>(block.activation, block.output_dtype)),
        strips_((block.row_count + kStripRows - 1) / kStripRows),
        in_place_(Strips::reads_in_place(block.x, block.depth)),
        at_once_(work.copies_at_once(
            {block.x, block.row_count, block.depth, block.format, block.column_count})) {}

  void run() {
    for (int s = 0; at_once_ && s < strips_; ++s) copy(s);
    const std::int64_t columns =
        strip_panels(block_.format, block_.depth, block_.column_count) * kPanelColumns;
    for (std::int64_t first = 0; first < block_.column_count; first += columns) {
      const std::int64_t end =
          first + columns < block_.column_count ? first + columns : block_.column_count;
      for (int s = 0; s < strips_; ++s) multiply_strip(s, first, end);
    }
    finish_last();
  }

 private:
  int rows_of(int strip) const {
    const int left = block_.row_count - strip * kStripRows;
    return left < kStripRows ? left : kStripRows;
  }
  char* strip_copy(int strip) const {
    return work_.copies + (at_once_ ? strip * work_.strip_bytes : 0);
  }
  const char* rows_from(int strip) const {
    return block_.x.data + strip * kStripRows * block_.x.row_stride;
  }
  void copy(int strip) {
    work_.strips.copy(block_, strip * kStripRows, rows_of(strip), strip_copy(strip));
  }

  // Copied at once, or now; the last one, too, where it ends before its tiles do.
  Strip strip_of(int strip) {
    const int rows = rows_of(strip);
    if (in_place_ && rows % kAmxRows == 0) {
      const std::int64_t stride = block_.x.row_stride;
      return {rows_from(strip), stride, kAmxRows * stride, kAmxRowBytes, rows};
    }
    if (!at_once_) copy(strip);
    return copied_strip(strip_copy(strip), rows);
  }

  // What the strip after this one will be read from, during so many steps.
  SoonRead soon_after(int strip, std::int64_t steps) const {
    if (strips_ == 1) return {};
    const int next = strip + 1 < strips_ ? strip + 1 : 0;
    if (at_once_) return {strip_copy(next), work_.strip_bytes, 1, work_.strip_bytes, steps};
    const std::int64_t item = dtype_size(block_.x.dtype);
    if (block_.x.column_stride != item) return {};
    return {rows_from(next), block_.x.row_stride, rows_of(next), block_.depth * item, steps};
  }

  const char* column_tile(std::int64_t tile) const {
    return block_.panels + tile / kColumnTiles * panel_bytes(block_.format, block_.depth) +
           tile % kColumnTiles * kAmxRowBytes;
  }

  void multiply_strip(int strip, std::int64_t first, std::int64_t end) {
    const Strip x = strip_of(strip);
    const std::int64_t pairs = (end - first + kPieceColumns - 1) / kPieceColumns;
    SoonRead soon = soon_after(strip, pairs * work_.steps);
    for (std::int64_t column = first; column < end; column += kPieceColumns) {
      const std::int64_t tile = column / kAmxRowFloats;
      const bool two_columns = end - column > kAmxRowFloats;
      const bool two_rows = x.rows > kAmxRows;
      turn_ ^= 1;
      float* sums = work_.sums[turn_];
      const TileBlock in{x, {column_tile(tile), column_tile(tile + 1)}, work_.steps, sums};
      const bool whole = two_rows && two_columns && is_whole(block_, before_);
      (whole ? kernels_.whole : kernels_.any[two_rows][two_columns])(block_, in, before_, soon);
      before_ = work_.strips.finished(block_, sums, strip * kStripRows, x.rows, column);
    }
  }

  void finish_last() const {
    typename Strips::template Finish<AnyRows> finish(before_);
    for (int row = 0; row < before_.rows; ++row) finish.next_row(block_, before_);
  }

  const GemmBlock& block_;
  StripWorkspace<Strips> work_;
  const TileBlockKernels<Strips> kernels_;
  const int strips_;
  const bool in_place_;
  const bool at_once_;
  int turn_ = 0;
  typename Strips::Finished before_{};
  const PairUnit unit_;
};

}  // namespace
}  // namespace numattn

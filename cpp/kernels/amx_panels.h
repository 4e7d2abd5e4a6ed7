// Panels of bfloat16 multiplied in the tile unit.
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
#pragma once

#include "amx_tile.h"
#include "areas.h"
#include "epilogue.h"
#include "gemm.h"

namespace numattn {
namespace {

constexpr int kStripRows = kGemmStripRows;
constexpr std::int64_t kTileBytes = kAmxRows * kAmxRowBytes;
constexpr std::int64_t kColumnTiles = kPanelColumns / kAmxRowFloats;  // of a panel
constexpr std::int64_t kPanelRowBytes = kPanelColumns * 4;            // of pairs
static_assert(kStripRows == 2 * kAmxRows && kPieceColumns == 2 * kAmxRowFloats, "2 × 2 tiles");

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
  store_rounded(to, read(0, rest < 0 ? count : Vec::kWidth),
                rest <= 0 ? zero() : read(Vec::kWidth, rest));
}

inline void copy_pairs(const Matrix& x, const char* from, int count, std::uint16_t* to) {
  if (count < kAmxDepth || x.column_stride != dtype_size(x.dtype)) {
    return copy_any_pairs(x, from, count, to);
  }
  if (x.dtype == DType::kBFloat16) {
    store_pairs(to, load_pairs(reinterpret_cast<const std::uint16_t*>(from)));
  } else if (x.dtype == DType::kFloat32) {
    const float* floats = reinterpret_cast<const float*>(from);
    store_rounded(to, load(floats), load(floats + Vec::kWidth));
  } else {
    copy_any_pairs(x, from, count, to);
  }
}

// A strip of up to 32 rows as tiles, copy[k / 32][row][k % 32]: zero beyond the depth, and beyond
// the rows up to the next whole tile.
inline void copy_strip(const Matrix& x, int rows, std::int64_t depth, std::uint16_t* copy) {
  constexpr std::int64_t kStep = kStripRows * kAmxDepth;
  for (int row = 0; row < rows || row % kAmxRows != 0; ++row) {
    const char* from = x.data + row * x.row_stride;
    std::uint16_t* to = copy + row * kAmxDepth;
    for (std::int64_t k = 0; k < depth; k += kAmxDepth) {
      const std::int64_t left = row < rows ? depth - k : 0;
      if (left > 0) {
        copy_pairs(x, from, left < kAmxDepth ? static_cast<int>(left) : kAmxDepth, to);
      } else {
        store_rounded(to, zero(), zero());
      }
      from += kAmxDepth * x.column_stride;
      to += kStep;
    }
  }
}

// Rows 0 to 15 of a strip at data, 16 to 31 `tile` bytes behind.
struct Strip {
  const char* data;
  std::int64_t row;   // bytes from row to row
  std::int64_t tile;  // from the first 16 rows to the others
  std::int64_t step;  // from one step of the depth to the next
  int rows;
};

inline Strip copied_strip(const std::uint16_t* copy, int rows) {
  return {reinterpret_cast<const char*>(copy), kAmxRowBytes, kTileBytes, 2 * kTileBytes, rows};
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
template <int Rows, int Columns>
__attribute__((always_inline)) inline void multiply_step(const TileBlock& in, const char* x,
                                                         std::int64_t weight) {
  tile_load<kFirstA>(x, in.x.row);
  if constexpr (Rows == 2) tile_load<kFirstA + 1>(x + in.x.tile, in.x.row);
  tile_load_streamed<kFirstB>(in.weight[0] + weight, kPanelRowBytes);
  if constexpr (Columns == 2) {
    tile_load_streamed<kFirstB + 1>(in.weight[1] + weight, kPanelRowBytes);
  }
  tile_dot_bf16<0, kFirstA, kFirstB>();
  if constexpr (Columns == 2) tile_dot_bf16<1, kFirstA, kFirstB + 1>();
  if constexpr (Rows == 2) tile_dot_bf16<2, kFirstA + 1, kFirstB>();
  if constexpr (Rows == 2 && Columns == 2) tile_dot_bf16<3, kFirstA + 1, kFirstB + 1>();
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
template <int Rows, int Columns, class Finish>
__attribute__((noinline)) void multiply_tile_block(const GemmBlock& block, const TileBlock& in,
                                                   const FinishedSums& before, SoonRead& soon) {
  tile_zero<0>();
  if constexpr (Columns == 2) tile_zero<1>();
  if constexpr (Rows == 2) tile_zero<2>();
  if constexpr (Rows == 2 && Columns == 2) tile_zero<3>();
  Finish finish(before);
  const char* x = in.x.data;
  std::int64_t due = 0;  // rows · steps
  for (std::int64_t k = 0; k < in.steps; ++k) {
    multiply_step<Rows, Columns>(in, x, k * kAmxRowPairs * kPanelRowBytes);
    x += in.x.step;
    soon.fetch_some();
    for (due += before.rows; due >= in.steps; due -= in.steps) finish.next_row(block, before);
  }
  store_sums<Rows, Columns>(in.sums);
}

using TileBlockKernel = void (*)(const GemmBlock&, const TileBlock&, const FinishedSums&,
                                 SoonRead&);

// Of whole blocks, whose predecessor was whole too; [rows − 1][columns − 1] of the others.
struct TileBlockKernels {
  TileBlockKernel whole;
  TileBlockKernel any[2][2];
};

inline TileBlockKernels tile_block_kernels(Activation activation, DType output) {
  TileBlockKernels kernels{
      nullptr,
      {{multiply_tile_block<1, 1, AnyRows>, multiply_tile_block<1, 2, AnyRows>},
       {multiply_tile_block<2, 1, AnyRows>, multiply_tile_block<2, 2, AnyRows>}}};
  kernels.whole = kernels.any[1][1];
  with_activation(activation, [&](auto constant) {
    constexpr Activation kActivation = decltype(constant)::value;
    if (output == DType::kBFloat16) {
      kernels.whole = multiply_tile_block<2, 2, WholeRows<kActivation, BFloat16>>;
    } else if (output == DType::kFloat32) {
      kernels.whole = multiply_tile_block<2, 2, WholeRows<kActivation, float>>;
    }
  });
  return kernels;
}

// What a work item's blocks need of memory.
struct StripWorkspace {
  float* sums[2];
  std::uint16_t* strips;  // of x, copied: all of the item's, or one at a time
  std::int64_t strip_elements;

  StripWorkspace(Areas& areas, const GemmOperands& operands, std::int64_t rows)
      : sums{areas.take(kStripRows * kPieceColumns), areas.take(kStripRows * kPieceColumns)},
        strip_elements(kStripRows * padded_panel_depth(operands.depth)) {
    strips = areas.take<std::uint16_t>(
        strip_elements * (copies_at_once(operands) ? (rows + kStripRows - 1) / kStripRows : 1));
  }

  // Where several blocks of columns pass over them.
  static bool copies_at_once(const GemmOperands& operands) {
    return !reads_strips_in_place(operands.x, operands.depth) &&
           operands.columns > strip_panels(operands.depth, operands.columns) * kPanelColumns;
  }
};

class StripGemm {
 public:
  StripGemm(const GemmBlock& block, const StripWorkspace& work)
      : block_(block),
        operands_{block.x, block.row_count, block.depth, block.format, block.column_count},
        work_(work),
        kernels_(tile_block_kernels(block.activation, block.output_dtype)),
        steps_(padded_panel_depth(block.depth) / kAmxDepth),
        strips_((block.row_count + kStripRows - 1) / kStripRows),
        in_place_(reads_strips_in_place(block.x, block.depth)),
        at_once_(StripWorkspace::copies_at_once(operands_)) {}

  void run() {
    for (int s = 0; at_once_ && s < strips_; ++s) copy(s, strip_copy(s));
    const std::int64_t columns = strip_panels(block_.depth, block_.column_count) * kPanelColumns;
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
  std::uint16_t* strip_copy(int strip) const {
    return work_.strips + (at_once_ ? strip * work_.strip_elements : 0);
  }
  const char* rows_from(int strip) const {
    return block_.x.data + strip * kStripRows * block_.x.row_stride;
  }
  void copy(int strip, std::uint16_t* to) const {
    Matrix x = block_.x;
    x.data = rows_from(strip);
    copy_strip(x, rows_of(strip), block_.depth, to);
  }

  // Copied at once, or now; the last one, too, where it ends before its tiles do.
  Strip strip_of(int strip) const {
    const int rows = rows_of(strip);
    std::uint16_t* to = strip_copy(strip);
    if (in_place_ && rows % kAmxRows == 0) {
      const std::int64_t stride = block_.x.row_stride;
      return {rows_from(strip), stride, kAmxRows * stride, kAmxRowBytes, rows};
    }
    if (!at_once_) copy(strip, to);
    return copied_strip(to, rows);
  }

  // What the strip after this one will be read from, during so many steps.
  SoonRead soon_after(int strip, std::int64_t steps) const {
    if (strips_ == 1) return {};
    const int next = strip + 1 < strips_ ? strip + 1 : 0;
    if (at_once_) {
      const std::int64_t bytes = work_.strip_elements * 2;
      return {reinterpret_cast<const char*>(strip_copy(next)), bytes, 1, bytes, steps};
    }
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
    SoonRead soon = soon_after(strip, pairs * steps_);
    for (std::int64_t column = first; column < end; column += kPieceColumns) {
      const std::int64_t tile = column / kAmxRowFloats;
      const bool two_columns = end - column > kAmxRowFloats;
      const bool two_rows = x.rows > kAmxRows;
      turn_ ^= 1;
      float* sums = work_.sums[turn_];
      const TileBlock in{x, {column_tile(tile), column_tile(tile + 1)}, steps_, sums};
      const bool whole = two_rows && two_columns && is_whole(block_, before_);
      (whole ? kernels_.whole : kernels_.any[two_rows][two_columns])(block_, in, before_, soon);
      before_ = finished_sums(block_, sums, kPieceColumns, strip * kStripRows, x.rows, column);
    }
  }

  void finish_last() const {
    AnyRows finish(before_);
    for (int row = 0; row < before_.rows; ++row) finish.next_row(block_, before_);
  }

  const GemmBlock& block_;
  const GemmOperands operands_;
  const StripWorkspace& work_;
  const TileBlockKernels kernels_;
  const std::int64_t steps_;
  const int strips_;
  const bool in_place_;
  const bool at_once_;
  int turn_ = 0;
  FinishedSums before_{};
  const PairUnit unit_;
};

}  // namespace
}  // namespace numattn

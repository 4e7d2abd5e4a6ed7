// The stage of the pipeline that attends in the tile unit: products of tiles and, between them, the
// softmax of another tile's scores.
//
//   body    32 query rows × 64 keys: what a stage makes scores of, or weights
//   unit    successive bodies of the same rows, whose weights meet the values in one product, so
//           that the sums of the output cross memory once for all of them
//
// While the unit multiplies, one vector instruction of floating point a cycle goes on, and a row of
// 64 scores takes some 40 instructions, a product 16 cycles. The processor reorders some 500
// instructions: neither waits for the other only if they alternate in the code. So after each
// product stand one load of a tile, some rows of the softmax and, one product late, at most one
// store of sums. What is multiplied is a list of steps, and rows are dealt out evenly over it.
//
// Keys lie in lanes. A row of weights is then an operand as it is written, and what belongs to a
// row is one number. Weights are written in pairs of keys (p, 16 + p): of two vectors of scores, by
// one shuffle. Values are packed likewise.
//
// Not kept: every product a step of its own in unrolled code, a function for each width of head
// and each share of the values, as the prototype had it; and code for 1, 2, 3, 4 and 8 rows to a
// step, which took 50 KiB more. A list costs some dozen scalar instructions per 200 of vectors, and
// knows no widths.
#pragma once

#include "amx_tile.h"

namespace numattn {
namespace {

constexpr int kBodyRows = 2 * kAmxRows;
constexpr int kBodyKeys = 64;
constexpr int kTileFloats = kAmxRows * kAmxRowFloats;
constexpr int kTileElements = 2 * kTileFloats;

// What the sums of a square are before its first product.
enum class SumsBegin { kZero, kStored, kRunning };

// Sums of 32 rows × 32 columns: two by two tiles, over `steps` times 32 of the depth. Distances are
// in bytes. Rows of tiles of b lie side by side.
struct SquareProduct {
  const char* a;
  std::int64_t a_row;
  std::int64_t a_below;  // to the lower 16 rows
  std::int64_t a_step;
  const char* b;
  std::int64_t b_right;  // to the right 16 columns
  std::int64_t b_step;
  char* sums;
  std::int64_t sums_row;
  std::int64_t sums_below;
  std::int64_t sums_right;
  std::int64_t steps;
  SumsBegin begin;
  bool store;  // else the next square goes on with these sums
};

// Four products of tiles: one step of a square.
struct SquareStep {
  const SquareProduct* product;
  const char* a;
  const char* b;
  std::uint8_t rows[4];  // of the softmax that are done behind each product
  bool first;            // of its square
  bool last;
};

// What a stage multiplies: scores of a body, and some columns of a unit's values.
class SquareList {
 public:
  static constexpr int kMostSquares = 32;
  static constexpr int kMostSteps = 192;

  // Lists steps of the square from `from` on, as far as there is room; returns where it ends.
  std::int64_t add(const SquareProduct& product, std::int64_t from) {
    if (squares_ == kMostSquares) return from;
    SquareProduct& square = products_[squares_++] = product;
    for (; from < square.steps && count_ < kMostSteps; ++from) {
      steps_[count_++] = {
          &square,   square.a + from * square.a_step, square.b + from * square.b_step, {},
          from == 0, from + 1 == square.steps};
    }
    return from;
  }
  void clear() { squares_ = count_ = 0; }

  const SquareStep* begin() const { return steps_; }
  const SquareStep* end() const { return steps_ + count_; }

  // Deals kBodyRows rows out evenly over the products; returns how many are left for behind the
  // last: all, or none.
  int deal_rows() {
    if (count_ == 0) return kBodyRows;
    int owed = 0;
    for (int i = 0; i < count_; ++i) {
      for (std::uint8_t& rows : steps_[i].rows) {
        rows = 0;
        for (owed += kBodyRows; owed >= 4 * count_; owed -= 4 * count_) ++rows;
      }
    }
    return 0;
  }

 private:
  SquareProduct products_[kMostSquares];
  SquareStep steps_[kMostSteps];
  int squares_ = 0;
  int count_ = 0;
};

template <int Tile>
NUMATTN_INLINE inline char* sums_of(const SquareProduct& product) {
  return product.sums + (Tile / 2) * product.sums_below + (Tile % 2) * product.sums_right;
}

template <int Tile>
NUMATTN_INLINE inline void begin_sums(const SquareProduct& product) {
  if (product.begin == SumsBegin::kZero) {
    tile_zero<Tile>();
  } else if (product.begin == SumsBegin::kStored) {
    tile_load<Tile>(sums_of<Tile>(product), product.sums_row);
  }
}

template <int Tile>
NUMATTN_INLINE inline void store_sums(const SquareProduct& product) {
  if (product.store) tile_store<Tile>(sums_of<Tile>(product), product.sums_row);
}

template <class Rows>
NUMATTN_INLINE inline void do_rows(int count, Rows& rows) {
  if constexpr (Rows::kAny) {
    for (; count > 0; --count) rows.next();
  }
}

// A step and its rows. Operands are loaded one or two products ahead, sums stored one product late.
template <class Rows>
NUMATTN_INLINE inline void do_step(const SquareStep* step, const SquareStep* end,
                                   const SquareProduct* unstored, Rows& rows) {
  const SquareProduct& product = *step->product;
  const SquareStep* next = step + 1;
  tile_dot_bf16<0, 4, 6>();
  tile_load_streamed<7>(step->b + product.b_right, kAmxRowBytes);
  do_rows(step->rows[0], rows);
  if (unstored != nullptr) store_sums<3>(*unstored);
  if (step->first) begin_sums<1>(product);

  tile_dot_bf16<1, 4, 7>();
  tile_load<5>(step->a + product.a_below, product.a_row);
  do_rows(step->rows[1], rows);
  if (step->last) store_sums<0>(product);
  if (step->first) begin_sums<2>(product);

  tile_dot_bf16<2, 5, 6>();
  if (next != end) tile_load<4>(next->a, next->product->a_row);
  do_rows(step->rows[2], rows);
  if (step->last) store_sums<1>(product);
  if (step->first) begin_sums<3>(product);

  tile_dot_bf16<3, 5, 7>();
  if (next != end) tile_load_streamed<6>(next->b, kAmxRowBytes);
  do_rows(step->rows[3], rows);
  if (step->last) store_sums<2>(product);
  if (next != end && next->first) begin_sums<0>(*next->product);
}

// Multiplies the list, in order, while kBodyRows rows are done; returns what they return in the
// end.
template <class Rows>
__attribute__((noinline)) bool do_stage(SquareList& list, const typename Rows::Operands& operands) {
  Rows rows(operands);
  const int left = Rows::kAny ? list.deal_rows() : 0;
  const SquareStep* const end = list.end();
  const SquareProduct* unstored = nullptr;
  if (list.begin() != end) {
    const SquareStep& first = *list.begin();
    tile_load<4>(first.a, first.product->a_row);
    tile_load_streamed<6>(first.b, kAmxRowBytes);
    if (first.first) begin_sums<0>(*first.product);
  }
  for (const SquareStep* step = list.begin(); step != end; ++step) {
    do_step(step, end, unstored, rows);
    unstored = step->last ? step->product : nullptr;
  }
  if (unstored != nullptr) store_sums<3>(*unstored);
  do_rows(left, rows);
  list.clear();
  return rows.result();
}

struct NoRows {
  struct Operands {};
  static constexpr bool kAny = false;

  explicit NoRows(const Operands&) {}
  bool result() const { return false; }
};

// Lists the square; where the list is full, what is in it is multiplied first.
inline void list_square(const SquareProduct& product, SquareList& list) {
  for (std::int64_t from = list.add(product, 0); from < product.steps;
       from = list.add(product, from)) {
    do_stage<NoRows>(list, {});
  }
}

}  // namespace
}  // namespace numattn

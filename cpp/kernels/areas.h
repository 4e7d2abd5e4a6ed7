// A kernel's memory, laid out by the constructors of what lies in it.
#pragma once

#include "kernels.h"

namespace numattn {
namespace {

// Gives out areas of whole cache lines, one after the other; without memory it only counts them, so
// that a layout and its size are one piece of code.
class Areas {
 public:
  explicit Areas(float* memory) : memory_(memory) {}

  template <class Element = float>
  Element* take(std::int64_t count) {
    const std::int64_t start = floats_;
    constexpr std::int64_t kSize = sizeof(Element);
    floats_ += padded_floats((count * kSize + 3) / 4);
    return memory_ == nullptr ? nullptr : reinterpret_cast<Element*>(memory_ + start);
  }
  std::int64_t floats() const { return floats_; }

 private:
  float* memory_;
  std::int64_t floats_ = 0;
};

// The floats that a layout takes.
template <class Layout>
inline std::int64_t floats_of(const TileFacts& facts, const WorkspaceNeeds& needs) {
  Areas areas(nullptr);
  const Layout layout(areas, facts, needs);
  return areas.floats();
}

// Bits of a dense mask: tile[v · mask_stride + key] holds the lanes of vector v, 1 where the row
// may attend the key.
using MaskBits = std::uint16_t;
constexpr int kMaskKeys = 64;  // keys whose bits are gathered at a time: a cache line of each row

// Rows of a lane group's output: whole tiles of every kernel.
inline std::int64_t output_rows(std::int64_t value_dim) { return padded_floats(value_dim); }

// Sums over the keys of chunks before (fold.h), each of them `x` + `x_rest`; laid out as the
// state's.
struct Total {
  float* output = nullptr;
  float* output_rest = nullptr;
  float* peak = nullptr;
  float* sum = nullptr;
  float* sum_rest = nullptr;
  std::int64_t* chunk = nullptr;  // of the keys in the state; negative: none yet

  Total() = default;
  Total(Areas& areas, const WorkspaceNeeds& needs) {
    if (!needs.folds) return;
    output = areas.take(needs.row_capacity * output_rows(needs.value_dim));
    output_rest = areas.take(needs.row_capacity * output_rows(needs.value_dim));
    peak = areas.take(needs.row_capacity);
    sum = areas.take(needs.row_capacity);
    sum_rest = areas.take(needs.row_capacity);
    chunk = areas.take<std::int64_t>(1);
  }
};

// What every kernel keeps of a block.
struct Workspace {
  float* query;   // as the kernel multiplies it
  float* output;  // with `peak` and `sum` the state of each row
  float* peak;
  float* sum;
  float* score;  // of one lane group and one tile
  MaskBits* mask;
  std::int64_t mask_stride;  // keys from the bits of one vector to those of the next
  float* bias;
  Total total;

  Workspace() = default;
  Workspace(Areas& areas, const TileFacts& facts, const WorkspaceNeeds& needs,
            std::int64_t query_floats)
      : query(areas.take(needs.row_capacity * query_floats)),
        output(areas.take(needs.row_capacity * output_rows(needs.value_dim))),
        peak(areas.take(needs.row_capacity)),
        sum(areas.take(needs.row_capacity)),
        score(areas.take(tile_scores(facts))),
        mask(nullptr),
        mask_stride((facts.key_block + kMaskKeys - 1) / kMaskKeys * kMaskKeys),
        bias(nullptr),
        total(areas, needs) {
    if (needs.tile.mask) {
      mask = areas.take<MaskBits>(facts.lane_group / facts.vector_width * mask_stride);
    }
    if (needs.tile.bias) bias = areas.take(tile_scores(facts));
  }

  static std::int64_t tile_scores(const TileFacts& facts) {
    return static_cast<std::int64_t>(facts.lane_group) * facts.key_block;
  }
};

// Terms by distance (relative.h).
struct RelativeWorkspace {
  float* position_query = nullptr;   // [head_dim][lane] of each lane group
  std::int64_t* slot_row = nullptr;  // [slot]
  std::int32_t* slot_of = nullptr;   // [t]
  float* slot = nullptr;             // numbers by slot: [slot][lane], or [key][slot] of a few keys
  float* table = nullptr;            // rows of a table copied, or transposed as [d][slot_columns]
  std::int64_t slot_columns = 0;     // a vector may begin at any distance
  float* shear = nullptr;            // vectors under way from rows to diagonals, or back

  RelativeWorkspace() = default;
  RelativeWorkspace(Areas& areas, const TileFacts& facts, const WorkspaceNeeds& needs) {
    if (!needs.tile.relative) return;
    // Between the rows of a lane group and the keys of a tile, whole vectors of rows.
    const std::int64_t distances = facts.lane_group + facts.key_block;
    const std::int64_t head_dim = padded_floats(needs.head_dim);
    const std::int64_t value_dim = padded_floats(needs.value_dim);
    slot_columns = padded_floats(distances + facts.vector_width);
    position_query = areas.take(head_dim * needs.row_capacity);
    slot_row = areas.take<std::int64_t>(distances);
    slot_of = areas.take<std::int32_t>(distances);
    slot = areas.take(distances * facts.lane_group);
    table = areas.take(slot_columns * (head_dim > value_dim ? head_dim : value_dim));
    shear = areas.take((facts.key_block + 2 * facts.vector_width) * facts.vector_width);
  }
};

// Of the kernels whose products are of float32.
struct FloatWorkspace : Workspace {
  float* key;  // a tile copied, where it cannot be read in place
  float* value;
  RelativeWorkspace relative;

  FloatWorkspace() = default;
  FloatWorkspace(Areas& areas, const TileFacts& facts, const WorkspaceNeeds& needs)
      : Workspace(areas, facts, needs, padded_floats(needs.head_dim + needs.tile.wide_channels)),
        key(areas.take(needs.tile.key_copy ? padded_floats(needs.head_dim) * facts.key_block : 0)),
        value(areas.take(needs.tile.value_copy ? padded_floats(needs.value_dim) * facts.key_block
                                               : 0)),
        relative(areas, facts, needs) {}
};

}  // namespace
}  // namespace numattn

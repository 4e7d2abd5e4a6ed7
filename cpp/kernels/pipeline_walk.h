// The bodies that the rows of an item see, one query block after the other. Keys and values are
// packed when the first rows meet them, and used by all rows of the item.
#pragma once

#include "pipeline_areas.h"
#include "pipeline_results.h"

namespace numattn {
namespace {

// 32 rows and 64 keys on their way.
struct Body {
  std::int64_t block;  // of rows
  RowsState* state;
  std::int64_t key;              // the first
  const std::uint64_t* visible;  // null: every row sees all keys
  bool opens;                    // the first of its rows in this visit
};

template <int Parts>
class BodyWalk {
 public:
  BodyWalk(const AttendBlock& block, const PipelineWorkspace<Parts>& work, float factor,
           const SubnormalsAsZero& mode)
      : block_(block),
        work_(work),
        factor_(factor),
        mode_(mode),
        whole_(block.begin && block.end),
        first_key_(block.keys.begin / kBodyKeys * kBodyKeys),
        key_width_(depth_steps(block.head_dim) * kDepthTile),
        value_width_(depth_steps(block.value_dim) * kDepthTile) {
    for (int i = 0; i < block.row_count; ++i) {
      span_ = span_.hull(block.rows[i].span);
      head_ = head_.hull(block.rows[i].head);
    }
    const std::int64_t bodies = body_of(block.keys.end + kBodyKeys - 1);
    for (std::int64_t i = 0; i < bodies; ++i) work.packed[i] = kNotYet;
    const std::int64_t states = block.begin && !whole_ ? block_count() : 0;
    for (std::int64_t i = 0; i < states; ++i) begin_state(i, i);
  }

  // The next body that any row sees, its keys and values packed, its queries not.
  bool next(Body& body) {
    for (; block_at_ < block_count(); ++block_at_, entered_ = false) {
      if (!entered_) enter();
      for (;; key_at_ += kBodyKeys) {
        key_at_ = group_.next(key_at_);
        if (key_at_ >= group_.span.end) break;
        key_at_ = key_at_ / kBodyKeys * kBodyKeys;
        std::uint64_t* visible = work_.visible[turn_];
        const Excluded excluded = look(key_at_, visible);
        if (excluded == Excluded::kAll) continue;
        if (excluded == Excluded::kSome) turn_ ^= 1;
        pack(key_at_);
        const bool opens = state_ == nullptr;
        if (opens) {
          state_ = whole_ ? begin_state(block_at_, opened_++ % work_.state_count)
                          : work_.states + block_at_;
        }
        body = {block_at_, state_, key_at_, excluded == Excluded::kSome ? visible : nullptr, opens};
        key_at_ += kBodyKeys;
        return true;
      }
      if (state_ == nullptr && block_.end) finish_unvisited();
    }
    return false;
  }

  const QueryRow* rows_of(std::int64_t block) const { return block_.rows + block * kBodyRows; }
  int row_count(std::int64_t block) const {
    const std::int64_t left = block_.row_count - block * kBodyRows;
    return left < kBodyRows ? static_cast<int>(left) : kBodyRows;
  }
  // Packed keys and values from a body's first on.
  std::uint16_t* keys_from(std::int64_t key) const {
    return work_.key + body_of(key) * kBodyKeys * key_width_;
  }
  std::uint16_t* values_from(std::int64_t key) const {
    return work_.value + body_of(key) * kBodyKeys * value_width_;
  }
  // Whether there are values in the body that are not in the tiles.
  bool is_special(const Body& body) const { return work_.packed[body_of(body.key)] == kSpecial; }

  // The tokens of 64 that may be read: bit i of key + i.
  std::uint64_t present(std::int64_t key) const {
    return (span_.bits_from(key) | head_.bits_from(key)) & block_.keys.bits_from(key);
  }

  // The output so far, to be added up apart.
  void set_output_apart(RowsState& state) const {
    mode_.lifted([&] { state.set_output_apart(value_width_); });
  }
  // All rows of the block have seen what they see; `state` holds it.
  void finish(std::int64_t block, RowsState& state) const {
    mode_.lifted([&] {
      finish_rows(block_, state, value_width_, factor_, exactness<Parts>(block_), block * kBodyRows,
                  row_count(block));
    });
  }

 private:
  enum Packed : std::uint8_t { kNotYet, kOrdinary, kSpecial };

  std::int64_t block_count() const { return (block_.row_count + kBodyRows - 1) / kBodyRows; }
  std::int64_t body_of(std::int64_t key) const { return (key - first_key_) / kBodyKeys; }

  RowsState* begin_state(std::int64_t block, std::int64_t at) const {
    RowsState* state = work_.states + at;
    const std::int64_t output = at * kBodyRows * value_width_;
    state->begin(row_count(block), value_width_, work_.sums + at * kStateSums,
                 work_.output + output, work_.apart + 2 * output);
    return state;
  }

  void enter() {
    entered_ = true;
    group_ = LaneGroup(rows_of(block_at_), row_count(block_at_), nullptr);
    group_.span = group_.span.both(block_.keys);
    if (group_.span.empty()) group_.span = {0, 0};
    key_at_ = group_.span.begin;
    state_ = nullptr;
  }

  // A word for each row with the keys that it sees.
  Excluded look(std::int64_t key, std::uint64_t* visible) const {
    const KeyRange body{key, key + kBodyKeys};
    const bool masked = group_.rows[0].mask != nullptr;
    const ListedBlock* first = group_.first_block(key);
    if (!masked && block_.keys.holds(body) && group_.surely_all_see(body, first)) {
      return Excluded::kNone;
    }
    std::uint64_t any = 0;
    std::uint64_t all = ~std::uint64_t{0};
    const std::uint64_t visited = block_.keys.bits_from(key);
    group_.each_row(key, first, [&](int r, const ListedBlock* block) {
      const QueryRow& row = group_.rows[r];
      std::uint64_t bits = row.seen_bits(key, block) & visited;
      if (masked && bits != 0) {
        const int begin = __builtin_ctzll(bits);
        const int count = kBodyKeys - __builtin_clzll(bits) - begin;
        bits &= mask_row(row.mask, key + begin, block_.rules.mask_key_stride, count) << begin;
      }
      visible[r] = bits;
      any |= bits;
      all &= bits;
    });
    for (int r = group_.row_count; r < kBodyRows; ++r) visible[r] = 0;
    return any == 0 ? Excluded::kAll : ~all == 0 ? Excluded::kNone : Excluded::kSome;
  }

  void pack(std::int64_t key) const {
    const std::int64_t body = body_of(key);
    if (work_.packed[body] != kNotYet) return;
    mode_.lifted([&] {
      const bool ordinary =
          pack_tokens<Parts>(block_, key, present(key), work_.strip, work_.key_part, keys_from(key),
                             work_.value_part, values_from(key));
      work_.packed[body] = ordinary ? kOrdinary : kSpecial;
    });
  }

  // Rows that see nothing in the last visit: of several, their state is there.
  void finish_unvisited() const {
    finish(block_at_,
           whole_ ? *begin_state(block_at_, opened_ % work_.state_count) : work_.states[block_at_]);
  }

  const AttendBlock& block_;
  const PipelineWorkspace<Parts>& work_;
  const float factor_;
  const SubnormalsAsZero& mode_;
  const bool whole_;     // all keys in this visit
  KeyRange span_{0, 0};  // the hull of all rows' spans, and of their heads
  KeyRange head_{0, 0};
  const std::int64_t first_key_;
  const std::int64_t key_width_;  // of packed tokens
  const std::int64_t value_width_;

  std::int64_t block_at_ = 0;  // of the next body
  std::int64_t key_at_ = 0;
  bool entered_ = false;
  LaneGroup group_{};
  RowsState* state_ = nullptr;
  std::int64_t opened_ = 0;  // blocks of rows
  int turn_ = 0;
};

}  // namespace
}  // namespace numattn

// Attention in the tile unit as a pipeline: bodies of all query blocks of an item one after the
// other, and at any time three of them under way: the scores of the next, the softmax of this one,
// the values of the unit before.
//
// Keys and values are packed when the first rows meet them and used by all the rows of the item. A
// visit is so many keys that what is packed of them stays in the second-level cache; between two
// visits each block of 32 rows keeps its state. The pipeline is empty at the end of a visit.
//
// Every sum of the output is a chain over steps of 32 keys from key 0 on: where units end, which
// bodies are skipped as hidden from all rows, and which rows stand beside one changes no bit.
#pragma once

#include "pipeline_pack.h"
#include "pipeline_results.h"

namespace numattn {
namespace {

// Bodies of a unit: the wider values are, the more.
inline int unit_bodies(std::int64_t value_dim) {
  const std::int64_t steps = depth_steps(value_dim);
  return steps < kMostUnitBodies ? static_cast<int>(steps) : kMostUnitBodies;
}

// States of blocks that see all their keys in one visit take turns: of the one in the softmax, the
// one whose values wait, and the one that begins.
constexpr std::int64_t kStatesInTurn = 3;

template <int Parts>
struct PipelineWorkspace {
  std::int64_t state_count;
  RowsState* states;
  float* sums;
  float* output;
  float* scores[2];
  std::uint16_t* weights[2];
  std::uint16_t* query;
  std::uint64_t* visible[2];
  std::uint16_t* strip;
  std::int64_t key_part;  // elements of packed keys in one part
  std::int64_t value_part;
  std::uint8_t* packed;  // of each body: what is known of its keys
  std::uint16_t* key;
  std::uint16_t* value;

  PipelineWorkspace(Areas& areas, const TileFacts&, const WorkspaceNeeds& needs) {
    const std::int64_t blocks = (needs.row_capacity + kBodyRows - 1) / kBodyRows;
    const std::int64_t key_width = depth_steps(needs.head_dim) * kDepthTile;
    const std::int64_t value_width = depth_steps(needs.value_dim) * kDepthTile;
    const std::int64_t bodies = (needs.visit_keys + kBodyKeys - 1) / kBodyKeys;
    state_count = needs.one_visit && kStatesInTurn < blocks ? kStatesInTurn : blocks;
    states = areas.take<RowsState>(state_count);
    sums = areas.take(state_count * 2 * kSumFloats);
    output = areas.take(state_count * kBodyRows * value_width);
    for (float*& area : scores) area = areas.take(kBodyRows * kBodyKeys);
    for (std::uint16_t*& area : weights) area = areas.take<std::uint16_t>(Parts * kUnitWeights);
    query = areas.take<std::uint16_t>(Parts * kBodyRows * key_width);
    for (std::uint64_t*& area : visible) area = areas.take<std::uint64_t>(kBodyRows);
    const std::int64_t wide = needs.head_dim < needs.value_dim ? needs.value_dim : needs.head_dim;
    strip = areas.take<std::uint16_t>(TokenStrip<Parts>::elements(wide));
    key_part = bodies * kBodyKeys * key_width;
    value_part = bodies * kBodyKeys * value_width;
    packed = areas.take<std::uint8_t>(bodies);
    key = areas.take<std::uint16_t>(Parts * key_part);
    value = areas.take<std::uint16_t>(Parts * value_part);
  }
};

// 32 rows and 64 keys on their way.
struct Body {
  std::int64_t block;  // of rows
  RowsState* state;
  std::int64_t key;              // the first
  const std::uint64_t* visible;  // null: every row sees all keys
  bool opens;                    // the first of its rows in this visit
};

// The bodies of a unit, and how far its values are.
struct Unit {
  std::int64_t block = 0;
  RowsState* state = nullptr;
  std::int64_t key = 0;
  int begin = 0;  // bodies whose values have been added already
  int end = 0;
  std::uint16_t* weights = nullptr;
  SumsBegin sums = SumsBegin::kStored;
  std::int64_t column = 0;  // the next 32 columns to be added
  bool waits = false;
  bool last = false;  // of its rows in this visit

  std::int64_t key_of(int body) const { return key + body * kBodyKeys; }
};

template <int Parts>
class Pipeline {
 public:
  explicit Pipeline(const AttendBlock& block)
      : block_(block),
        areas_(block.workspace),
        whole_(block.begin && block.end),
        work_(areas_, TileFacts{}, needs_of(block)),
        first_key_(block.keys.begin / kBodyKeys * kBodyKeys),
        unit_bodies_(unit_bodies(block.value_dim)),
        key_steps_(depth_steps(block.head_dim)),
        columns_(depth_steps(block.value_dim)),
        transforms_(Transforms::any(block.rules, block.rows[0])),
        query_factor_(Parts == 1 ? ScoreFactor(block.rules).of_queries
                                 : block.rules.scale * kLog2E),
        raw_factor_(Parts == 1 ? ScoreFactor(block.rules).of_scores : 1.0f),
        factor_(transforms_ ? 1.0f : raw_factor_),
        precise_(Parts == 2 || block.partial != nullptr || block.rows[0].lse != nullptr) {}

  void run() {
    if (block_.begin && !whole_) begin_all();
    for (std::int64_t i = 0; i < body_of(block_.keys.end + kBodyKeys - 1); ++i) work_.packed[i] = 0;
    Body now{};
    Body ahead{};
    bool more = next(ahead);
    if (more) score_first(ahead);
    while (more) {
      now = ahead;
      more = next(ahead);
      step(now, more ? &ahead : nullptr);
    }
    finish_values();
  }

 private:
  // --- What is visited ------------------------------------------------------------------------

  static WorkspaceNeeds needs_of(const AttendBlock& block) {
    WorkspaceNeeds needs = workspace_needs(block, block.row_count, block.value_dim);
    const std::int64_t first = block.keys.begin / kBodyKeys * kBodyKeys;
    needs.visit_keys = block.keys.end - first;
    needs.one_visit = block.begin && block.end;
    return needs;
  }

  std::int64_t block_count() const { return (block_.row_count + kBodyRows - 1) / kBodyRows; }
  const QueryRow* rows_of(std::int64_t block) const { return block_.rows + block * kBodyRows; }
  int row_count(std::int64_t block) const {
    const std::int64_t left = block_.row_count - block * kBodyRows;
    return left < kBodyRows ? static_cast<int>(left) : kBodyRows;
  }
  std::int64_t body_of(std::int64_t key) const { return (key - first_key_) / kBodyKeys; }

  RowsState* begin_state(std::int64_t block, std::int64_t at) {
    RowsState* state = work_.states + at;
    state->begin(row_count(block), work_.sums + at * 2 * kSumFloats,
                 work_.output + at * kBodyRows * columns_ * kDepthTile);
    return state;
  }
  void begin_all() {
    for (std::int64_t block = 0; block < block_count(); ++block) begin_state(block, block);
  }

  // The next body that any row sees, its keys and values packed, its queries not.
  bool next(Body& body) {
    for (; block_at_ < block_count(); ++block_at_, entered_ = false) {
      if (!entered_) enter();
      for (; key_at_ < group_.span.end; key_at_ += kBodyKeys) {
        std::uint64_t* visible = work_.visible[turn_];
        const Excluded excluded = look(group_, key_at_, visible);
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

  void enter() {
    entered_ = true;
    group_ = LaneGroup(rows_of(block_at_), row_count(block_at_), nullptr);
    group_.span = group_.span.both(block_.keys);
    if (group_.span.empty()) group_.span = {0, 0};
    key_at_ = group_.span.begin / kBodyKeys * kBodyKeys;
    state_ = nullptr;
  }

  // A word for each row with the keys that it sees.
  Excluded look(const LaneGroup& group, std::int64_t key, std::uint64_t* visible) const {
    const KeyRange body{key, key + kBodyKeys};
    const bool masked = group.rows[0].mask != nullptr;
    if (!masked && group.shared.both(block_.keys).holds(body)) return Excluded::kNone;
    std::uint64_t any = 0;
    std::uint64_t all = ~std::uint64_t{0};
    for (int r = 0; r < group.row_count; ++r) {
      const KeyRange seen = group.rows[r].span.both(block_.keys).both(body).from(key);
      std::uint64_t bits = 0;
      if (!seen.empty()) {
        const int count = static_cast<int>(seen.count());
        bits = masked ? mask_row(group.rows[r].mask, key + seen.begin, block_.rules.mask_key_stride,
                                 count)
                      : ~std::uint64_t{0} >> (kBodyKeys - count);
        bits <<= seen.begin;
      }
      visible[r] = bits;
      any |= bits;
      all &= bits;
    }
    for (int r = group.row_count; r < kBodyRows; ++r) visible[r] = 0;
    return any == 0 ? Excluded::kAll : ~all == 0 ? Excluded::kNone : Excluded::kSome;
  }

  enum Packed : std::uint8_t { kNotYet, kOrdinary, kSpecial };

  void pack(std::int64_t key) {
    const std::int64_t body = body_of(key);
    if (work_.packed[body] != kNotYet) return;
    mode_.lifted([&] {
      const bool ordinary = pack_tokens<Parts>(
          block_, key, block_.keys, work_.strip, work_.key_part, key_tiles(key), work_.value_part,
          work_.value + body * kBodyKeys * columns_ * kDepthTile);
      work_.packed[body] = ordinary ? kOrdinary : kSpecial;
    });
  }
  std::uint16_t* key_tiles(std::int64_t key) const {
    return work_.key + body_of(key) * kBodyKeys * key_steps_ * kDepthTile;
  }

  // --- The stages -----------------------------------------------------------------------------

  void pack_queries_of(const Body& body) {
    pack_query_tiles<Parts>(block_, rows_of(body.block), row_count(body.block),
                            broadcast(query_factor_), work_.query);
  }

  void score_first(const Body& body) {
    pack_queries_of(body);
    list_scores(body);
    do_stage<NoRows>(list_, {});
  }

  void step(const Body& now, const Body* ahead) {
    if (ahead != nullptr && ahead->opens) pack_queries_of(*ahead);
    if (unit_.begin == unit_.end) open_unit(now);
    BodyRows rows = rows_of_body(now);
    prepare(now, rows);
    const bool closes = ahead == nullptr || ahead->block != now.block ||
                        ahead->key != now.key + kBodyKeys ||
                        ahead->key / kBodyKeys % unit_bodies_ == 0;
    side_ ^= 1;
    if (ahead != nullptr) list_scores(*ahead);
    list_values(closes);
    const bool reached = soften(rows);
    now.state->side ^= 1;
    if (waiting_.waits && waiting_.column == columns_) end_values(waiting_);
    if (reached) redo(now, rows);
    ++unit_.end;
    if (closes) close_unit(ahead == nullptr || ahead->block != now.block);
  }

  // All scores of a body.
  void list_scores(const Body& body) {
    const std::int64_t query_part = 2 * key_steps_ * kTileBytes;
    const char* query = reinterpret_cast<const char*>(work_.query);
    const char* key = reinterpret_cast<const char*>(key_tiles(body.key));
    for (int right = 0; right < kBodyKeys / kBodyRows; ++right) {
      for (int term = 0; term < kTerms<Parts>; ++term) {
        SquareProduct product{};
        product.a = query + (term == 2 ? query_part : 0);
        product.a_row = kAmxRowBytes;
        product.a_below = key_steps_ * kTileBytes;
        product.a_step = kTileBytes;
        product.b =
            key + (term == 1 ? work_.key_part * 2 : 0) + 2 * right * key_steps_ * kTileBytes;
        product.b_right = key_steps_ * kTileBytes;
        product.b_step = kTileBytes;
        product.sums = reinterpret_cast<char*>(work_.scores[side_] + right * kBodyRows);
        product.sums_row = kBodyKeys * 4;
        product.sums_below = kAmxRows * kBodyKeys * 4;
        product.sums_right = kAmxRowBytes;
        product.steps = key_steps_;
        product.begin = term == 0 ? SumsBegin::kZero : SumsBegin::kRunning;
        product.store = term + 1 == kTerms<Parts>;
        list_square(product, list_);
      }
    }
  }

  BodyRows rows_of_body(const Body& body) const {
    RowsState& state = *body.state;
    return {work_.scores[side_],
            unit_.weights + unit_.end * kBodyKeys,
            body.visible,
            state.minus_shift,
            state.sums[state.side],
            state.sums[state.side ^ 1],
            factor_};
  }

  // What scores go through before they are weighed: steps that want them in base 2, and shifts.
  void prepare(const Body& now, const BodyRows& rows) {
    if (transforms_) transform(now, rows);
    if (now.state->far != 0) follow_far_rows(now, rows);
    if (now.state->unset != 0) set_first_shifts(*now.state, rows, factor_);
  }

  __attribute__((noinline)) void transform(const Body& now, const BodyRows& rows) const {
    const std::int64_t end = now.key + kBodyKeys;
    const KeyRange keys{now.key, end < block_.keys.end ? end : block_.keys.end};
    const QueryRow* row = rows_of(now.block);
    for (int r = 0; r < row_count(now.block); ++r) {
      for (int j = 0; j < kBodyKeys && raw_factor_ != 1.0f; j += Vec::kWidth) {
        store(rows.row(r) + j, load(rows.row(r) + j) * broadcast(raw_factor_));
      }
      Transforms::apply(block_.rules, KeyLanes(row[r], block_.rules, keys), rows.row(r));
    }
  }

  // Rows whose shift is far do not lag.
  __attribute__((noinline)) void follow_far_rows(const Body& now, const BodyRows& rows) {
    RowsState& state = *now.state;
    for (int r = 0; r < kBodyRows; ++r) {
      if (!state.is_far(r)) continue;
      const float largest = largest_of_row(rows, r);
      if (largest > state.base[r]) {
        add_all_before(now);
        move_shift(state, r, largest, factor_, state.sums[state.side] + r * Vec::kWidth,
                   columns_ * kDepthTile);
      }
      if (state.is_far(r)) subtract_base(state, rows, r);
    }
  }

  // Whether a weight reached 2.
  bool soften(const BodyRows& rows) {
    return rows.visible == nullptr ? soften_rows<false>(rows) : soften_rows<true>(rows);
  }
  template <bool Masked>
  bool soften_rows(const BodyRows& rows) {
    if constexpr (Parts == 1) {
      if (!precise_) return do_stage<SoftRows<1, 3, Masked>>(list_, rows);
    }
    return do_stage<SoftRows<Parts, 5, Masked>>(list_, rows);
  }

  // Some weight reached 2: rows with such get a new shift and their weights anew.
  __attribute__((noinline)) void redo(const Body& now, const BodyRows& rows) {
    RowsState& state = *now.state;
    BodyRows again = rows;
    std::uint64_t all[kBodyRows];
    for (std::uint64_t& bits : all) bits = ~std::uint64_t{0};
    if (again.visible == nullptr) again.visible = all;
    SoftRows<Parts, 5, true> precise(again);
    SoftRows<Parts, Parts == 1 ? 3 : 5, true> usual(again);
    for (int r = 0; r < kBodyRows; ++r) {
      if (state.is_far(r) || !reaches_two(rows, r)) continue;
      const float largest = largest_of_row(rows, r);
      if (!(near_shift(largest, factor_) < state.minus_shift[r])) continue;
      add_all_before(now);
      move_shift(state, r, largest, factor_, state.sums[state.side ^ 1] + r * Vec::kWidth,
                 columns_ * kDepthTile);
      if (state.is_far(r)) subtract_base(state, rows, r);
      precise_ ? precise(r) : usual(r);
    }
  }

  // --- Units and their values -----------------------------------------------------------------

  void open_unit(const Body& now) {
    unit_ = {};
    unit_.block = now.block;
    unit_.state = now.state;
    unit_.key = now.key;
    unit_.weights = work_.weights[weights_turn_];
    weights_turn_ ^= 1;
  }

  void close_unit(bool last) {
    unit_.last = last;
    if (has_special(unit_)) {
      add_apart(unit_, unit_.end);
      end_values(unit_);
    } else {
      begin_values(unit_);
      waiting_ = unit_;
    }
    unit_ = {};
  }

  void begin_values(Unit& unit) {
    unit.waits = true;
    unit.column = 0;
    unit.sums = unit.state->started ? SumsBegin::kStored : SumsBegin::kZero;
    unit.state->started = true;
  }
  void end_values(Unit& unit) {
    unit.waits = false;
    if (!unit.last || !block_.end) return;
    mode_.lifted([&] {
      finish_rows(block_, *unit.state, columns_ * kDepthTile, factor_, unit.block * kBodyRows,
                  row_count(unit.block));
    });
  }

  // 32 columns of a unit's values.
  void list_columns(const Unit& unit) {
    const char* weights = reinterpret_cast<const char*>(unit.weights + unit.begin * kBodyKeys);
    const std::int64_t first = body_of(unit.key_of(unit.begin)) * kBodyKeys * columns_ * kDepthTile;
    const char* value =
        reinterpret_cast<const char*>(work_.value + first + unit.column * 2 * kTileElements);
    for (int term = 0; term < kTerms<Parts>; ++term) {
      SquareProduct product{};
      product.a = weights + (term == 2 ? kUnitWeights * 2 : 0);
      product.a_row = kWeightsRow * 2;
      product.a_below = kAmxRows * product.a_row;
      product.a_step = kAmxRowBytes;
      product.b = value + (term == 1 ? work_.value_part * 2 : 0);
      product.b_right = kTileBytes;
      product.b_step = 2 * columns_ * kTileBytes;
      product.sums = reinterpret_cast<char*>(unit.state->output + unit.column * 2 * kTileFloats);
      product.sums_row = kAmxRowBytes;
      product.sums_below = 2 * columns_ * kTileBytes;
      product.sums_right = kTileBytes;
      product.steps = (unit.end - unit.begin) * kBodyKeys / kDepthTile;
      product.begin = term == 0 ? unit.sums : SumsBegin::kRunning;
      product.store = term + 1 == kTerms<Parts>;
      list_square(product, list_);
    }
  }

  // This body's share of the values that wait: all that is left where its unit closes.
  void list_values(bool closes) {
    if (!waiting_.waits) return;
    const std::int64_t left = columns_ - waiting_.column;
    const std::int64_t bodies = unit_bodies_ - unit_.end;
    std::int64_t share = closes || bodies <= 1 ? left : (left + bodies - 1) / bodies;
    for (; share > 0; --share, ++waiting_.column) list_columns(waiting_);
  }
  void add_columns(Unit& unit) {
    for (; unit.column < columns_; ++unit.column) list_columns(unit);
    do_stage<NoRows>(list_, {});
  }
  void finish_values() {
    if (!waiting_.waits) return;
    add_columns(waiting_);
    end_values(waiting_);
  }

  // All values of bodies before this one, so that a row's output can be scaled.
  void add_all_before(const Body&) {
    finish_values();
    if (unit_.begin < unit_.end) add_apart(unit_, unit_.end);
  }

  // The values of a unit's bodies up to `end`; one body after the other if any of them are special.
  void add_apart(Unit& unit, int end) {
    const bool special = has_special(unit);
    const int all = unit.end;
    while (unit.begin < end) {
      unit.end = special ? unit.begin + 1 : end;
      begin_values(unit);
      add_columns(unit);
      unit.waits = false;
      for (; unit.begin < unit.end; ++unit.begin) {
        if (is_special(unit, unit.begin)) add_special_values(unit);
      }
    }
    unit.end = all;
  }

  bool is_special(const Unit& unit, int body) const {
    return work_.packed[body_of(unit.key_of(body))] == kSpecial;
  }
  bool has_special(const Unit& unit) const {
    for (int body = unit.begin; body < unit.end; ++body) {
      if (is_special(unit, body)) return true;
    }
    return false;
  }

  // output += weight · value for the values of body `unit.begin` that are not in the tiles, where a
  // row sees them: nothing that a row does not see changes a bit of its output.
  __attribute__((noinline)) void add_special_values(const Unit& unit) const {
    const LaneGroup group(rows_of(unit.block), row_count(unit.block), nullptr);
    const std::int64_t first = unit.key_of(unit.begin);
    std::uint64_t visible[kBodyRows];
    if (look(group, first, visible) == Excluded::kNone) {
      for (std::uint64_t& bits : visible) bits = ~std::uint64_t{0};
    }
    mode_.lifted([&] {
      for (int j = 0; j < kBodyKeys; ++j) {
        if (first + j < block_.keys.begin || first + j >= block_.keys.end) continue;
        for (std::int64_t d = 0; d < block_.value_dim; ++d) {
          const Matrix& matrix = block_.value.matrix;
          const float element = read_element(
              token_row(block_.value, first + j) + d * matrix.column_stride, matrix.dtype);
          if (is_ordinary(element)) continue;
          for (int r = 0; r < group.row_count; ++r) {
            if ((visible[r] >> j & 1u) == 0) continue;
            float* at = unit.state->output + r / kAmxRows * columns_ * 2 * kTileFloats +
                        d / kAmxRowFloats * kTileFloats + r % kAmxRows * kAmxRowFloats +
                        d % kAmxRowFloats;
            *at = __builtin_fmaf(element, weight_of(unit, r, j), *at);
          }
        }
      }
    });
  }
  float weight_of(const Unit& unit, int r, int j) const {
    const std::int64_t at = r * kWeightsRow + unit.begin * kBodyKeys + j / kDepthTile * kDepthTile +
                            j % kAmxRows * 2 + j % kDepthTile / kAmxRows;
    float weight = float_from_bfloat16(unit.weights[at]);
    if (Parts == 2) weight += float_from_bfloat16(unit.weights[at + kUnitWeights]);
    return weight;
  }

  // Rows that no visit has brought here: of several, their state is there.
  void finish_unvisited() {
    const RowsState* state =
        whole_ ? begin_state(block_at_, opened_ % work_.state_count) : work_.states + block_at_;
    mode_.lifted([&] {
      finish_rows(block_, *state, columns_ * kDepthTile, factor_, block_at_ * kBodyRows,
                  row_count(block_at_));
    });
  }

  const AttendBlock& block_;
  Areas areas_;
  const bool whole_;  // all keys in this visit
  PipelineWorkspace<Parts> work_;
  const std::int64_t first_key_;
  const int unit_bodies_;
  const std::int64_t key_steps_;
  const std::int64_t columns_;  // of values, times 32
  const bool transforms_;
  const float query_factor_;
  const float raw_factor_;  // what scores are multiplied by, and
  const float factor_;      // how much of that waits until the exponent
  const bool precise_;      // the sums of weights are results
  const PairUnit tiles_;
  const SubnormalsAsZero mode_;

  std::int64_t block_at_ = 0;  // of the next body
  std::int64_t key_at_ = 0;
  bool entered_ = false;
  LaneGroup group_{};
  RowsState* state_ = nullptr;
  std::int64_t opened_ = 0;
  int turn_ = 0;

  SquareList list_;  // of the next stage
  int side_ = 0;     // of scores
  int weights_turn_ = 0;
  Unit unit_{};
  Unit waiting_{};
};

}  // namespace
}  // namespace numattn

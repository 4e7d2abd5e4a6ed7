// Attention in the tile unit as a pipeline: bodies of all query blocks of an item one after the
// other, and at any time three of them under way: the scores of the next, the softmax of this one,
// the values of the unit before.
//
// A visit is so many keys that what is packed of them stays in the second-level cache; between two
// visits each block of 32 rows keeps its state. The pipeline is empty at the end of a visit.
//
// Every sum of the output is a chain over steps of 32 keys from the first of a chunk on, and chunks
// are added up in two floats: where units end, which bodies are skipped as hidden from all rows,
// and which rows stand beside one changes no bit.
#pragma once

#include "pipeline_special.h"

namespace numattn {
namespace {

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
  bool enters = false;  // a chunk, the one before it being in the output still
  bool last = false;    // of its rows in this visit

  std::int64_t key_of(int body) const { return key + body * kBodyKeys; }
};

template <int Parts>
class Pipeline {
 public:
  explicit Pipeline(const AttendBlock& block)
      : block_(block),
        areas_(block.workspace),
        work_(areas_, TileFacts{}, block.needs),
        unit_bodies_(unit_bodies(block.value_dim)),
        key_steps_(depth_steps(block.head_dim)),
        columns_(depth_steps(block.value_dim)),
        transforms_(Transforms::any(block.rules, block.rows[0])),
        query_factor_(Parts == 1 ? ScoreFactor(block.rules).of_queries
                                 : block.rules.scale * kLog2E),
        raw_factor_(Parts == 1 ? ScoreFactor(block.rules).of_scores : 1.0f),
        factor_(transforms_ ? 1.0f : raw_factor_),
        exactness_(exactness<Parts>(block)),
        walk_(block, work_, factor_, mode_) {}

  void run() {
    Body now{};
    Body ahead{};
    bool more = walk_.next(ahead);
    if (more) score_first(ahead);
    while (more) {
      now = ahead;
      more = walk_.next(ahead);
      step(now, more ? &ahead : nullptr);
    }
    finish_values();
  }

 private:
  // --- The stages -----------------------------------------------------------------------------

  void pack_queries_of(const Body& body) {
    pack_query_tiles<Parts>(block_, walk_.rows_of(body.block), walk_.row_count(body.block),
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
                        ahead->key / kBodyKeys % unit_bodies_ == 0 || ahead->key % kChunkKeys == 0;
    side_ ^= 1;
    if (ahead != nullptr) list_scores(*ahead);
    list_values(closes);
    const bool reached = soften(rows);
    now.state->side ^= 1;
    if (waiting_.waits && waiting_.column == columns_) end_values(waiting_);
    if (reached) redo(now, rows);
    if (walk_.is_special(now)) {
      // What is added up apart has one order, whether rows were redone or not.
      if (unit_.enters) finish_values();
      enter_chunk(unit_);
      mode_.lifted([&] {
        add_special_values<Parts>(block_, now, rows, walk_.row_count(now.block),
                                  walk_.present(now.key), columns_ * kDepthTile);
      });
    }
    ++unit_.end;
    if (closes) close_unit(ahead == nullptr || ahead->block != now.block);
  }

  // All scores of a body.
  void list_scores(const Body& body) {
    const std::int64_t query_part = 2 * key_steps_ * kTileBytes;
    const char* query = reinterpret_cast<const char*>(work_.query);
    const char* key = reinterpret_cast<const char*>(walk_.keys_from(body.key));
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
    // A score is subnormal in parts of a huge softcap.
    if (transforms_) mode_.lifted([&] { transform(now, rows); });
    if (now.state->far != 0) follow_far_rows(now, rows);
    if (now.state->unset != 0) set_first_shifts(*now.state, rows, factor_);
  }

  __attribute__((noinline)) void transform(const Body& now, const BodyRows& rows) const {
    const std::int64_t end = now.key + kBodyKeys;
    const KeyRange keys{now.key, end < block_.keys.end ? end : block_.keys.end};
    const QueryRow* row = walk_.rows_of(now.block);
    for (int r = 0; r < walk_.row_count(now.block); ++r) {
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
        add_all_before();
        move(state, r, largest, state.sums[state.side]);
      }
      if (state.is_far(r)) subtract_base(state, rows, r);
    }
  }

  // What is not in tiles may be subnormal.
  void move(RowsState& state, int r, float largest, float* sums) const {
    mode_.lifted([&] {
      move_shift(state, r, largest, factor_, sums + r * Vec::kWidth, columns_ * kDepthTile);
    });
  }

  // Whether a weight reached 2.
  bool soften(const BodyRows& rows) {
    return rows.visible == nullptr ? soften_rows<false>(rows) : soften_rows<true>(rows);
  }
  template <bool Masked>
  bool soften_rows(const BodyRows& rows) {
    return with_exactness([&](auto weights) {
      return do_stage<SoftRows<Parts, decltype(weights)::value, Masked>>(list_, rows);
    });
  }
  void weigh_row(const BodyRows& body, int r) const {
    with_exactness([&](auto weights) {
      SoftRows<Parts, decltype(weights)::value, true> rows(body);
      rows.skip(r);
      rows.next();
      return true;
    });
  }
  // call(a type that knows it).
  template <class Call>
  bool with_exactness(const Call& call) const {
    if constexpr (Parts == 1) {
      if (exactness_ == Exactness::kCoarse) return call(Is<Exactness::kCoarse>());
      if (exactness_ == Exactness::kCoarseWithFineSums) {
        return call(Is<Exactness::kCoarseWithFineSums>());
      }
    }
    return call(Is<Exactness::kFine>());
  }
  template <Exactness Value>
  using Is = std::integral_constant<Exactness, Value>;

  // Some weight reached 2: rows with such get a new shift and their weights anew.
  __attribute__((noinline)) void redo(const Body& now, const BodyRows& rows) {
    RowsState& state = *now.state;
    BodyRows again = rows;
    std::uint64_t all[kBodyRows];
    for (std::uint64_t& bits : all) bits = ~std::uint64_t{0};
    if (again.visible == nullptr) again.visible = all;
    for (int r = 0; r < kBodyRows; ++r) {
      if (state.is_far(r) || !reaches_two(rows, r)) continue;
      const float largest = largest_of_row(rows, r);
      if (!(near_shift(largest, factor_) < state.minus_shift[r])) continue;
      add_all_before();
      move(state, r, largest, state.sums[state.side ^ 1]);
      if (state.is_far(r)) subtract_base(state, rows, r);
      weigh_row(again, r);
    }
  }

  // The sums of a chunk of keys join what is apart before a key of the next is summed, so that no
  // chain of roundings grows with their number. Chunks begin at multiples, and a row that sees
  // nothing of one does not notice it. In one part, weights are rounded to 8 bits of 24.
  static constexpr std::int64_t kChunkKeys = Parts == 1 ? 8192 : 1024;

  // --- Units and their values -----------------------------------------------------------------

  void open_unit(const Body& now) {
    unit_ = {};
    unit_.block = now.block;
    unit_.state = now.state;
    unit_.key = now.key;
    unit_.weights = work_.weights[weights_turn_];
    weights_turn_ ^= 1;
    const std::int64_t chunk = now.key / kChunkKeys;
    unit_.enters = now.state->chunk >= 0 && now.state->chunk != chunk;
    now.state->chunk = chunk;
    if (unit_.enters) now.state->set_sums_apart(columns_ * kDepthTile);
  }

  void close_unit(bool last) {
    unit_.last = last;
    begin_values(unit_);
    waiting_ = unit_;
    unit_ = {};
  }

  // All values before the unit's have been added.
  void enter_chunk(Unit& unit) {
    if (unit.enters) walk_.set_output_apart(*unit.state);
    unit.enters = false;
  }
  void begin_values(Unit& unit) {
    enter_chunk(unit);
    unit.waits = true;
    unit.column = 0;
    unit.sums = unit.state->started ? SumsBegin::kStored : SumsBegin::kZero;
    unit.state->started = true;
  }
  void end_values(Unit& unit) {
    unit.waits = false;
    if (unit.last && block_.end) walk_.finish(unit.block, *unit.state);
  }

  // 32 columns of a unit's values. In two parts each body's terms come one after the other, so that
  // the order of sums does not depend on where units end.
  void list_columns(const Unit& unit) {
    constexpr bool kApart = Parts > 1;
    const int bodies = kApart ? 1 : unit.end - unit.begin;
    for (int body = unit.begin; body < unit.end; body += bodies) {
      for (int term = 0; term < kTerms<Parts>; ++term) {
        const std::uint16_t* weights =
            unit.weights + body * kBodyKeys + (term == 2 ? kUnitWeights : 0);
        const std::uint16_t* value = walk_.values_from(unit.key_of(body)) +
                                     unit.column * 2 * kTileElements +
                                     (term == 1 ? work_.value_part : 0);
        SquareProduct product{};
        product.a = reinterpret_cast<const char*>(weights);
        product.a_row = kWeightsRow * 2;
        product.a_below = kAmxRows * product.a_row;
        product.a_step = kAmxRowBytes;
        product.b = reinterpret_cast<const char*>(value);
        product.b_right = kTileBytes;
        product.b_step = 2 * columns_ * kTileBytes;
        product.sums = reinterpret_cast<char*>(unit.state->output + unit.column * 2 * kTileFloats);
        product.sums_row = kAmxRowBytes;
        product.sums_below = 2 * columns_ * kTileBytes;
        product.sums_right = kTileBytes;
        product.steps = bodies * kBodyKeys / kDepthTile;
        const bool first = body == unit.begin && term == 0;
        product.begin = first ? unit.sums : SumsBegin::kRunning;
        product.store = body + bodies == unit.end && term + 1 == kTerms<Parts>;
        list_square(product, list_);
      }
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
  void add_all_before() {
    finish_values();
    if (unit_.begin == unit_.end) return;
    begin_values(unit_);
    add_columns(unit_);
    unit_.waits = false;
    unit_.begin = unit_.end;
  }

  const AttendBlock& block_;
  Areas areas_;
  PipelineWorkspace<Parts> work_;
  const int unit_bodies_;
  const std::int64_t key_steps_;
  const std::int64_t columns_;  // of values, times 32
  const bool transforms_;
  const float query_factor_;
  const float raw_factor_;  // what scores are multiplied by, and
  const float factor_;      // how much of that waits until the exponent
  const Exactness exactness_;
  const PairUnit tiles_;
  const SubnormalsAsZero mode_;

  BodyWalk<Parts> walk_;
  SquareList list_;  // of the next stage
  int side_ = 0;     // of scores
  int weights_turn_ = 0;
  Unit unit_{};
  Unit waiting_{};
};

}  // namespace
}  // namespace numattn

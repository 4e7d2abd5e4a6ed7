// What a raw base-2 score goes through on its way to a logit, for rows in lanes and for keys in
// lanes:
//
//   logit = log2 e · (softcap(s) + bias + alibi),   s = scale · q·k
//
// What hides a key (spans, masks) is not among these steps: that commutes, and each kernel does it
// where it costs least.
//
// A step is a template over the rows whose scores it changes, LaneRows or KeyLanes:
//
//   applies(rules, row)   whether a block whose rows are like this one has it
//   Step(rules, rows)     its operand
//   of(at, score)         the formula
#pragma once

#include "dense_tile.h"

namespace numattn {
namespace {

// One query row, keys in lanes: scores[key].
struct KeyLanes {
  const QueryRow& row;
  const ScoreRules& rules;
  KeyRange keys;
  float ramp[Vec::kWidth];

  KeyLanes(const QueryRow& of, const ScoreRules& by, KeyRange tile)
      : row(of), rules(by), keys(tile), ramp{} {
    for (int i = 0; i < Vec::kWidth; ++i) ramp[i] = static_cast<float>(i);
  }

  // A number that belongs to a row.
  using Numbers = float;
  template <class Of>
  Numbers of_rows(const Of& of) const {
    return of(row);
  }

  // Where a vector of scores stands.
  struct Place {
    const KeyLanes& in;
    std::int64_t j;

    Vec number(Numbers of_row) const { return broadcast(of_row); }
    Vec key() const { return load(in.ramp) + broadcast(static_cast<float>(j)); }  // in the tile
    Vec bias() const {
      const char* from = in.row.bias + (in.keys.begin + j) * in.rules.bias_key_stride;
      return bias_in_base2(read_elements(from, in.rules.bias_dtype, in.rules.bias_key_stride,
                                         lanes_left(j, in.keys.count())));
    }
  };
  template <class Change>
  void change(float* scores, const Change& change) const {
    for (std::int64_t j = 0; j < keys.count(); j += Vec::kWidth) {
      store(scores + j, change(Place{*this, j}, load(scores + j)));
    }
  }
  const QueryRow& first() const { return row; }
};

// The rows of a lane group: scores[key][lane].
struct LaneRows {
  const LaneGroup& group;
  KeyRange keys;
  const float* bias_tile;

  struct Numbers {
    float lane[kLaneGroup];
  };
  template <class Of>
  Numbers of_rows(const Of& of) const {
    Numbers numbers{};
    for (int i = 0; i < group.row_count; ++i) numbers.lane[i] = of(group.rows[i]);
    return numbers;
  }

  struct Place {
    const LaneRows& in;
    std::int64_t j;
    int v;

    Vec number(const Numbers& of_rows) const { return load(of_rows.lane + v * Vec::kWidth); }
    Vec key() const { return broadcast(static_cast<float>(j)); }
    Vec bias() const {
      return in.group.shared_bias ? broadcast(in.bias_tile[j])
                                  : load(in.bias_tile + j * kLaneGroup + v * Vec::kWidth);
    }
  };
  template <class Change>
  void change(float* scores, const Change& change) const {
    change_scores(group, keys.count(), scores, [&](std::int64_t j, int v, Vec score) {
      return change(Place{*this, j, v}, score);
    });
  }
  const QueryRow& first() const { return group.rows[0]; }
};

// c · tanh(s / c)
template <class Rows>
struct Softcap {
  Vec cap;

  static bool applies(const ScoreRules& rules, const QueryRow&) { return rules.softcap > 0.0f; }
  Softcap(const ScoreRules& rules, const Rows&) : cap(broadcast(rules.softcap * kLog2E)) {}
  Vec of(const typename Rows::Place&, Vec score) const { return cap * tanh(score / cap); }
};

// s + bias; an excluded key stays excluded whatever its score, a NaN included.
template <class Rows>
struct Bias {
  static bool applies(const ScoreRules&, const QueryRow& row) { return row.bias != nullptr; }
  Bias(const ScoreRules&, const Rows&) {}
  Vec of(const typename Rows::Place& at, Vec score) const {
    const Vec bias = at.bias();
    const Vec excluded = broadcast(-kInfinity);
    return select(equal(bias, excluded), excluded, score + bias);
  }
};

// s − slope · |position − key|, the position in double until it is relative to the tile, since it
// may lie at the ends of 64 bits.
template <class Rows>
struct Alibi {
  typename Rows::Numbers slope;
  typename Rows::Numbers position;

  static bool applies(const ScoreRules& rules, const QueryRow&) { return rules.alibi; }
  Alibi(const ScoreRules&, const Rows& rows)
      : slope(rows.of_rows([](const QueryRow& row) { return row.alibi_slope * -kLog2E; })),
        position(rows.of_rows([&rows](const QueryRow& row) {
          return static_cast<float>(static_cast<double>(row.position) -
                                    static_cast<double>(rows.keys.begin));
        })) {}
  Vec of(const typename Rows::Place& at, Vec score) const {
    return fma(at.number(slope), abs(at.number(position) - at.key()), score);
  }
};

// Not inlined, like other steps that are long and run once for a tile.
template <class Step, class Rows>
__attribute__((noinline)) void take_step(const ScoreRules& rules, const Rows& rows, float* scores) {
  const Step step(rules, rows);
  rows.change(scores,
              [&](const typename Rows::Place& at, Vec score) { return step.of(at, score); });
}

template <template <class> class... Steps>
struct StepList {
  // Whether blocks with rows like this one have any step.
  static bool any(const ScoreRules& rules, const QueryRow& row) {
    return (Steps<LaneRows>::applies(rules, row) || ...);
  }
  // One pass over the tile's scores for each step that applies, in order.
  template <class Rows>
  static void apply(const ScoreRules& rules, const Rows& rows, float* scores) {
    ((Steps<Rows>::applies(rules, rows.first()) ? take_step<Steps<Rows>>(rules, rows, scores)
                                                : void()),
     ...);
  }
};

// The order of the steps, and the only place that says it.
using Transforms = StepList<Softcap, Bias, Alibi>;

}  // namespace
}  // namespace numattn

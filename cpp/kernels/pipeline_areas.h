// A thread's memory of the pipeline.
#pragma once

#include "pipeline_pack.h"
#include "pipeline_rows.h"

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
  float* apart;  // of outputs, in two floats
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
    sums = areas.take(state_count * kStateSums);
    output = areas.take(state_count * kBodyRows * value_width);
    apart = areas.take(state_count * 2 * kBodyRows * value_width);
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

}  // namespace
}  // namespace numattn

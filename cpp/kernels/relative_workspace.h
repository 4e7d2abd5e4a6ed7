// Areas of a workspace for terms by distance: what relative.h lays there.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace numattn {
namespace {

struct RelativeWorkspace {
  float* position_query;   // [head_dim][lane] of each lane group
  std::int64_t* slot_row;  // [slot]
  std::int32_t* slot_of;   // [t]
  float* slot;             // numbers by slot: [slot][lane], or [key][slot] of a few keys
  float* table;            // rows of a table copied, or transposed as [d][slot_columns]
  std::int64_t slot_columns;
  float* shear;  // vectors under way from rows to diagonals, or back
};

inline RelativeWorkspace relative_workspace(const AttendWorkspace& at, const TileFacts& facts,
                                            float* base) {
  return {base + at.position_query,
          reinterpret_cast<std::int64_t*>(base + at.slot_row),
          reinterpret_cast<std::int32_t*>(base + at.slot_of),
          base + at.slot,
          base + at.table,
          slot_columns(facts),
          base + at.shear};
}

}  // namespace
}  // namespace numattn

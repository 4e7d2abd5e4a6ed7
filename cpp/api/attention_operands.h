// What kernels are told of a checked problem: its plan, tokens, rules and rows.
#pragma once

#include <cstdint>

#include "attention_plan.h"
#include "kernels.h"
#include "spans.h"

#include "numattn/attention.h"

namespace numattn {

AttentionShape shape_of(const AttentionProblem& problem);
TileNeeds needs_of(const AttentionProblem& problem);
AttentionPlan plan_of(const Kernels& kernels, const AttentionProblem& problem);

TokenRows keys_of(const AttentionParams& params, std::int64_t batch, std::int64_t kv_head);
TokenRows values_of(const AttentionParams& params, std::int64_t batch, std::int64_t kv_head);
ScoreRules rules_of(const AttentionProblem& problem);

// Makes the rows of one query block: row r of a key head is position r / group of its query head
// r % group, so that a block's rows are neighbours in position and their spans overlap. Here and
// below a key head is one of row_heads().
class RowMaker {
 public:
  RowMaker(const AttentionProblem& problem, const IntArray* picked)
      : problem_(problem), picked_(picked) {}

  // Calls visit(index, head, query) for rows [first, last) of a key head.
  template <class Visit>
  void each(std::int64_t kv_head, std::int64_t first, std::int64_t last, const Visit& visit) const {
    const std::int64_t group = problem_.query_heads / problem_.row_heads();
    std::int64_t in_group = first % group;
    std::int64_t row = first / group;
    for (std::int64_t index = first; index < last; ++index) {
      visit(index, kv_head * group + in_group, picked_ == nullptr ? row : picked_->data[row]);
      if (++in_group == group) {
        in_group = 0;
        ++row;
      }
    }
  }

  QueryRow make(std::int64_t batch, std::int64_t head, std::int64_t query) const;

 private:
  std::int64_t offset(std::int64_t batch) const;

  const AttentionProblem& problem_;
  const IntArray* picked_;
};

}  // namespace numattn

// What kernels are told of a checked problem: its plan, tokens, rules and rows.
#pragma once

#include <cstdint>

#include "attention_plan.h"
#include "kernels.h"
#include "spans.h"

#include "numattn/attention.h"

namespace numattn {

AttentionShape shape_of(const AttentionProblem& problem);
PlanNeeds needs_of(const AttentionProblem& problem);
AttentionPlan plan_of(const Kernels& kernels, const AttentionProblem& problem);

// The problem's keys or values of one batch entry and key head.
TokenRows rows_of(const StoredTokens& tokens, const AttentionProblem& problem, std::int64_t batch,
                  std::int64_t kv_head);
ScoreRules rules_of(const Score& score);

// Makes the rows of one query block: row r of a row head (one of the problem's row_heads()) is
// position r / group of its query head r % group, so that a block's rows are neighbours in position
// and their spans overlap.
class RowMaker {
 public:
  RowMaker(const AttentionProblem& problem, const IntArray* picked)
      : problem_(problem), picked_(picked) {}

  // Calls visit(index, query head, query) for rows [first, last) of a row head.
  template <class Visit>
  void each(std::int64_t row_head, std::int64_t first, std::int64_t last,
            const Visit& visit) const {
    const std::int64_t group = problem_.query_heads / problem_.row_heads();
    std::int64_t in_group = first % group;
    std::int64_t row = first / group;
    for (std::int64_t index = first; index < last; ++index) {
      visit(index, row_head * group + in_group, picked_ == nullptr ? row : picked_->data[row]);
      if (++in_group == group) {
        in_group = 0;
        ++row;
      }
    }
  }

  // Where the row is to be: a copy would cost as much as the row.
  void make(std::int64_t batch, std::int64_t head, std::int64_t query, QueryRow& row) const;

 private:
  const AttentionProblem& problem_;
  const IntArray* picked_;
};

}  // namespace numattn

// The parts of a checked call: problems of their own, and where their results go.
#pragma once

#include "numattn/attention.h"

namespace numattn {

// Where a call's results go.
struct Results {
  View output;  // canonical order
  float* lse;   // null when not wanted; contiguous (batch, head, query)
};

struct AttentionPart {
  AttentionProblem problem;
  View output;  // canonical order
  float* lse;   // element (batch, head, query) lies at
                // lse + batch · lse_batch_stride + head · lse_head_stride + query
  std::int64_t lse_batch_stride, lse_head_stride;
};

AttentionProblem problem_of(const AttentionCall& call, std::int64_t part);
AttentionPart part_of(const AttentionCall& call, const Results& results, std::int64_t part);

}  // namespace numattn

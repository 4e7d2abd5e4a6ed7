// One work item of an attention call: a query block of one or several key heads, over one split of
// their keys.
#pragma once

#include <cstdint>

#include "attention_operands.h"
#include "parallel.h"
#include "parts.h"

namespace numattn {

// What a thread keeps for one head of its work item.
struct HeadMemory {
  AttendBlock* block;
  PartialState* partial;
  QueryRow* rows;
  float* workspace;
};

// What the work items of one part share. All parts of a call share its threads and their memory.
struct Run {
  const AttentionPart part;
  const AttentionProblem& problem;
  const Kernels& kernels;
  RowMaker rows;
  AttentionPlan plan{};
  char* memory = nullptr;  // the threads' blocks, `thread_bytes` apart
  std::int64_t thread_bytes = 0;
  float* partials = nullptr;

  Run(const AttentionCall& call, const Results& results, std::int64_t of, const Kernels& with,
      const IntArray* picked)
      : part(part_of(call, results, of)),
        problem(part.problem),
        kernels(with),
        rows(problem, picked) {}
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // Of one of the heads of the thread's item: the block, where its partial results go, its rows,
  // and its workspace.
  HeadMemory head_memory(int thread, std::int64_t turn) const {
    char* from = memory + thread * thread_bytes + turn * plan.head_bytes();
    char* rows = from + sizeof(AttendBlock) + sizeof(PartialState);
    return {reinterpret_cast<AttendBlock*>(from),
            reinterpret_cast<PartialState*>(from + sizeof(AttendBlock)),
            reinterpret_cast<QueryRow*>(rows),
            reinterpret_cast<float*>(from + plan.head_bytes() - plan.workspace_floats * 4)};
  }
};

// The listed blocks that item `index` sees, where there is a mask of them: what its time follows.
std::int64_t listed_blocks(const Run& run, std::int64_t index);

// Computes item `index` of the run.
void attend_item(const Run& run, std::int64_t index, Worker& worker);

// Combines the splits of row `index`, of all rows of all heads.
void combine_row(const Run& run, std::int64_t index, Worker& worker);

// Item `index` of exact weights: `row_count` rows of each query head are wanted.
void weigh_item(const Run& run, std::int64_t index, std::int64_t row_count, float* weights,
                Worker& worker);

}  // namespace numattn

// Puts into a table the kernels that keep the tile unit busy.
#pragma once

#include "pipeline_attend.h"

namespace numattn {
namespace {

// Query rows of an item where there are items enough for all threads are more (attention_plan.cpp):
// packing 64 keys and their values takes about as long as what 32 rows do with them.
constexpr int kPipelineRows = 256;

template <int Parts>
constexpr TileFacts kPipelineFacts{kBodyRows,     kBodyKeys,   kPipelineRows,
                                   kPipelineRows, Vec::kWidth, 2 * Parts};

template <int Parts>
constexpr AttendKernel pipeline_kernel(const char* name) {
  return {name, kPipelineFacts<Parts>, floats_of<PipelineWorkspace<Parts>>,
          [](const AttendBlock& block) { Pipeline<Parts>(block).run(); }};
}

constexpr Kernels with_pipeline(Kernels kernels) {
  kernels.attend_bfloat16 = pipeline_kernel<1>("attend_bfloat16");
  kernels.attend_high = pipeline_kernel<2>("attend_high");
  kernels.splits_for_high = true;
  return kernels;
}

}  // namespace
}  // namespace numattn

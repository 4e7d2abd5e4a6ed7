// Runs normalisations, some rows at a time.
#include "numattn/norm.h"

#include <algorithm>

#include "check.h"
#include "norm_plan.h"
#include "numattn/threads.h"
#include "parallel.h"
#include "scratch.h"
#include "select.h"

namespace numattn {

bool run_norm(const NormParams& params, Interrupt interrupt) {
  check_norm(params);
  const View& x = params.x;
  const std::int64_t rows = x.shape[0];
  const std::int64_t width = x.shape[1];
  if (rows == 0) return true;
  const NormPlan plan = plan_norm(rows, width);
  const int threads = threads_for(plan.worthwhile_threads, params.num_threads);
  const std::int64_t padded = padded_floats(width);
  const Scratch scratch(threads * padded * 4);
  const Kernels& kernels = current_kernels();
  const auto normalise = params.kind == Norm::kRms ? kernels.rms_norm : kernels.layer_norm;
  const auto item = [&](std::int64_t index, Worker& worker) {
    const std::int64_t row = index * plan.rows_per_item;
    NormRows block{};
    block.x = {static_cast<const char*>(x.data) + row * x.strides[0], x.dtype, x.strides[0],
               x.strides[1]};
    block.row_count = std::min(plan.rows_per_item, rows - row);
    block.width = width;
    block.weight = static_cast<const float*>(params.weight.data);
    block.bias = params.bias ? static_cast<const float*>(params.bias->data) : nullptr;
    block.epsilon = static_cast<float>(params.epsilon);
    block.output_dtype = params.output.dtype;
    block.output_row_stride = params.output.strides[0];
    block.output = static_cast<char*>(params.output.data) + row * block.output_row_stride;
    block.workspace = reinterpret_cast<float*>(scratch.data()) + padded * worker.index();
    normalise(block);
  };
  return parallel_for(plan.items, threads, interrupt, item) == Outcome::kFinished;
}

}  // namespace numattn

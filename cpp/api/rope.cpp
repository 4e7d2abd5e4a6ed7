// Runs rotary embeddings, block by block of heads and positions.
#include "numattn/rope.h"

#include <algorithm>
#include <cstdlib>

#include "check.h"
#include "layout.h"
#include "numattn/threads.h"
#include "parallel.h"
#include "rope_plan.h"
#include "scratch.h"
#include "select.h"

namespace numattn {
namespace {

RopeShape shape_of(const View& x) {
  return {x.shape[0], x.shape[1], x.shape[2], x.shape[3],
          std::abs(x.strides[1]) < std::abs(x.strides[2])};
}

// The rows of a table that belong to a batch entry.
Matrix table_of(const View& view, std::int64_t batch) {
  const bool batched = view.rank == 3;
  const char* data = static_cast<const char*>(view.data);
  return {data + (batched ? batch * view.strides[0] : 0), view.dtype, view.strides[batched ? 1 : 0],
          view.strides[batched ? 2 : 1]};
}

RopeBlock block_of(const RopeParams& params, const View& x, const View& output,
                   const RopePlan& plan, std::int64_t index) {
  const auto [batch, head, position] = plan.place_of(index);
  const std::int64_t indices[] = {batch, head, position};
  const auto first = [&indices](const View& view) {
    char* data = static_cast<char*>(view.data);
    for (std::size_t axis = 0; axis < 3; ++axis) data += indices[axis] * view.strides[axis];
    return data;
  };
  RopeBlock block{};
  block.x = {first(x), x.dtype, x.strides[2], x.strides[3]};
  block.x_head_stride = x.strides[1];
  block.output = first(output);
  block.output_head_stride = output.strides[1];
  block.output_row_stride = output.strides[2];
  block.head_count = std::min(plan.heads, x.shape[1] - head);
  block.row_count = std::min(plan.positions, x.shape[2] - position);
  block.heads_inside = shape_of(x).heads_inside;
  block.width = x.shape[3];
  block.pairs = params.cos.shape[static_cast<std::size_t>(params.cos.rank - 1)];
  block.interleaved = params.interleaved;
  block.cos = table_of(params.cos, batch);
  block.sin = table_of(params.sin, batch);
  if (params.positions) {
    const bool batched = params.positions->rank == 2;
    block.table_rows = params.positions->data + (batched ? batch * x.shape[2] : 0) + position;
  } else {
    block.cos.data += position * block.cos.row_stride;
    block.sin.data += position * block.sin.row_stride;
  }
  return block;
}

}  // namespace

bool run_rope(const RopeParams& params, Interrupt interrupt) {
  check_rope(params);
  const View x = in_bhsd(params.x, params.layout);
  const View output = in_bhsd(params.output, params.layout);
  if (x.shape[0] == 0 || x.shape[1] == 0 || x.shape[2] == 0) return true;
  const RopePlan plan = plan_rope(shape_of(x));
  const int threads = threads_for(plan.worthwhile_threads, params.num_threads);
  const std::int64_t workspace = rope_workspace(block_of(params, x, output, plan, 0));
  const Scratch scratch(threads * workspace * 4);
  const Kernels& kernels = current_kernels();
  const auto item = [&](std::int64_t index, Worker& worker) {
    RopeBlock block = block_of(params, x, output, plan, index);
    block.workspace = reinterpret_cast<float*>(scratch.data()) + worker.index() * workspace;
    kernels.rope(block);
  };
  return parallel_for(plan.items, threads, interrupt, item) == Outcome::kFinished;
}

}  // namespace numattn

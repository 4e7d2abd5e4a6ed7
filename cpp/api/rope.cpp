// Cuts a rotary embedding into blocks of heads and positions, and runs them.
#include "numattn/rope.h"

#include <algorithm>
#include <cstdlib>

#include "check.h"
#include "layout.h"
#include "numattn/threads.h"
#include "parallel.h"
#include "scratch.h"
#include "select.h"

namespace numattn {
namespace {

// Elements of a work item: some ten microseconds from memory.
constexpr std::int64_t kItemElements = 16384;

// Successive elements of a head in a work item, where heads lie apart: from stretch to stretch the
// processor's fetching ahead starts anew. Zen 4, 32 heads of 128, 2048 positions, stretches of 512,
// 1024, 4096, 16384 elements: 6.4, 5.4, 4.1, 3.7 ms; heads side by side 2.2 ms.
constexpr std::int64_t kStretch = 4096;

// Elements that keep a thread busy for about as long as waking it takes.
constexpr std::int64_t kThreadElements = 65536;

constexpr std::int64_t kMostThreads = 1024;

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Items per batch entry. An item takes all heads, so that they share its rows of the tables, and
// some positions.
struct Cut {
  bool heads_inside;              // the heads of a position lie nearer to one another than its rows
  std::int64_t heads, positions;  // of an item, at most
  std::int64_t head_blocks, position_blocks;

  std::int64_t items() const { return head_blocks * position_blocks; }
};

Cut cut(const View& x) {
  const auto block = [](std::int64_t length, std::int64_t elements) {
    return std::clamp<std::int64_t>(kItemElements / elements, 1, length);
  };
  const std::int64_t width = x.shape[3];
  Cut cut{};
  cut.heads_inside = std::abs(x.strides[1]) < std::abs(x.strides[2]);
  cut.heads = block(x.shape[1], width);
  cut.positions = block(x.shape[2], width * cut.heads);
  if (!cut.heads_inside) {
    cut.positions = std::max(cut.positions, std::min(x.shape[2], kStretch / width));
  }
  cut.head_blocks = ceil_divide(x.shape[1], cut.heads);
  cut.position_blocks = ceil_divide(x.shape[2], cut.positions);
  return cut;
}

// The rows of a table that belong to a batch entry.
Matrix table_of(const View& view, std::int64_t batch) {
  const bool batched = view.rank == 3;
  const char* data = static_cast<const char*>(view.data);
  return {data + (batched ? batch * view.strides[0] : 0), view.dtype, view.strides[batched ? 1 : 0],
          view.strides[batched ? 2 : 1]};
}

RopeBlock block_of(const RopeParams& params, const View& x, const View& output, const Cut& cut,
                   std::int64_t index) {
  const std::int64_t batch = index / cut.items();
  const std::int64_t head = index % cut.head_blocks * cut.heads;
  const std::int64_t position = index / cut.head_blocks % cut.position_blocks * cut.positions;
  const auto first = [&](const View& view) {
    return static_cast<char*>(view.data) + batch * view.strides[0] + head * view.strides[1] +
           position * view.strides[2];
  };
  RopeBlock block{};
  block.x = {first(x), x.dtype, x.strides[2], x.strides[3]};
  block.x_head_stride = x.strides[1];
  block.output = first(output);
  block.output_head_stride = output.strides[1];
  block.output_row_stride = output.strides[2];
  block.head_count = std::min(cut.heads, x.shape[1] - head);
  block.row_count = std::min(cut.positions, x.shape[2] - position);
  block.heads_inside = cut.heads_inside;
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
  const Cut shape = cut(x);
  const std::int64_t items = x.shape[0] * shape.items();
  const std::int64_t elements = x.shape[0] * x.shape[1] * x.shape[2] * x.shape[3];
  const std::int64_t useful = std::min({elements / kThreadElements + 1, items, kMostThreads});
  const int threads = threads_for(static_cast<int>(useful), params.num_threads);
  const std::int64_t workspace = rope_workspace(block_of(params, x, output, shape, 0));
  const Scratch scratch(threads * workspace * 4);
  const Kernels& kernels = current_kernels();
  const auto item = [&](std::int64_t index, Worker& worker) {
    RopeBlock block = block_of(params, x, output, shape, index);
    block.workspace = reinterpret_cast<float*>(scratch.data()) + worker.index() * workspace;
    kernels.rope(block);
  };
  return parallel_for(items, threads, interrupt, item) == Outcome::kFinished;
}

}  // namespace numattn

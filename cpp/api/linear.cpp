// Packs projection weights and runs projections.
#include "numattn/linear.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "check.h"
#include "check_linear_state.h"
#include "divide_up.h"
#include "gemm_plan.h"
#include "names.h"
#include "numattn/threads.h"
#include "parallel.h"
#include "scratch.h"
#include "select.h"
#include "weight_memory.h"

namespace numattn {
namespace {

Matrix matrix_of(const View& view) {
  return {static_cast<const char*>(view.data), view.dtype, view.strides[0], view.strides[1]};
}

Matrix from_row(Matrix matrix, std::int64_t row) {
  matrix.data += row * matrix.row_stride;
  return matrix;
}

struct PlannedGemm {
  GemmPlan plan;
  int threads;
};

// `products` of the same rows and as many features each.
PlannedGemm plan_of(const GemmKernel& kernel, const GemmOperands& operands, int products,
                    std::int64_t item_size, int num_threads) {
  const auto& [x, rows, depth, format, features] = operands;
  const bool copies = kernel.copies(operands);
  const int threads =
      threads_for(gemm_threads(rows, products * features, depth, format), num_threads);
  GemmPlan plan = kernel.in_strips(operands)
                      ? plan_strips(rows, features, depth, format, copies, threads)
                      : plan_gemm(rows, features, depth, copies, threads);
  if (products > 1) plan = with_factor_tiles(plan, rows, item_size);
  return {plan, static_cast<int>(std::min<std::int64_t>(threads, plan.items))};
}

PanelFormat format_of(Storage storage, bool splits) {
  switch (storage) {
    case Storage::kBFloat16: return PanelFormat::kBFloat16;
    case Storage::kInt8: return PanelFormat::kInt8;
    case Storage::kW8A8: return PanelFormat::kW8A8;
    default: return splits ? PanelFormat::kSplit : PanelFormat::kFloat32;
  }
}

Companion companion_of(const std::optional<View>& view) {
  if (!view) return {};
  return {static_cast<const char*>(view->data), view->strides[0], view->strides[1]};
}

}  // namespace

struct PackedLinear::Memory {
  PanelFormat format;
  std::int64_t bytes_per_panel;
  WeightMemory panels;
  Scratch bias;
  bool has_bias;

  // Memory for a weight whose size has been checked.
  Memory(PanelFormat of, std::int64_t out_features, std::int64_t in_features,
         const std::optional<View>& given_bias)
      : format(of),
        bytes_per_panel(panel_bytes(of, in_features)),
        panels(panel_count(out_features) * bytes_per_panel),
        bias(given_bias ? out_features * 4 : 0),
        has_bias(given_bias.has_value()) {
    if (has_bias) {
      std::memcpy(bias.data(), given_bias->data, static_cast<std::size_t>(out_features) * 4);
    }
  }

  char* panel(std::int64_t index) const { return panels.data() + index * bytes_per_panel; }
  float* bias_of(std::int64_t panel) const {
    return reinterpret_cast<float*>(bias.data()) + panel * kPanelColumns;
  }
};

PackedLinear::PackedLinear(const View& weight, const std::optional<View>& bias, Storage storage,
                           Precision precision) {
  check_linear_weight(weight, bias);
  const Kernels& kernels = current_kernels();
  const bool splits = precision == Precision::kHigh && kernels.splits_for_high;
  const PanelFormat format = format_of(storage, splits);
  out_features_ = weight.shape[0];
  in_features_ = weight.shape[1];
  const std::int64_t panels = panel_count(out_features_);
  checked_product(checked_product(panels * kPanelColumns, in_features_, "weight"), 4, "weight");
  const auto made = std::make_shared<const Memory>(format, out_features_, in_features_, bias);
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    kernels.pack_weight(
        {matrix_of(weight), out_features_, in_features_, panel, format, made->panel(panel)});
  }
  memory_ = made;
}

PackedLinear::PackedLinear(const LinearState& state)
    : in_features_(state.in_features), out_features_(state.out_features) {
  const PanelFormat format = check_linear_state(state);
  const auto made = std::make_shared<const Memory>(format, out_features_, in_features_, state.bias);
  std::memcpy(made->panels.data(), state.panels.data,
              static_cast<std::size_t>(panel_count(out_features_) * made->bytes_per_panel));
  memory_ = made;
}

PackedLinear PackedLinear::part(std::int64_t begin, std::int64_t end) const {
  check_linear_part(*this, begin, end);
  PackedLinear part(*this);
  const std::int64_t skipped = begin / kPanelColumns;
  part.first_panel_ += skipped;
  part.out_features_ = end - skipped * kPanelColumns;
  return part;
}

LinearState PackedLinear::state() const {
  LinearState state;
  state.version = kLinearStateVersion;
  state.format = panel_format_name(memory_->format);
  state.out_features = out_features_;
  state.in_features = in_features_;
  const std::int64_t bytes = memory_->bytes_per_panel;
  View& panels = state.panels;
  panels.data = memory_->panel(first_panel_);
  panels.dtype = panel_dtype(memory_->format);
  panels.rank = 2;
  panels.shape = {panel_count(out_features_), bytes / panels.item_size(), 0, 0};
  panels.strides = {bytes, panels.item_size(), 0, 0};
  if (memory_->has_bias) {
    View& bias = state.bias.emplace();
    bias.data = memory_->bias_of(first_panel_);
    bias.rank = 1;
    bias.shape[0] = out_features_;
    bias.strides[0] = bias.item_size();
  }
  return state;
}

bool PackedLinear::stores_float32() const {
  return memory_->format == PanelFormat::kFloat32 || memory_->format == PanelFormat::kSplit;
}

// One call: items of rows by panels, each of them a product, or two of which the first one's
// results are the second one's factor.
class PackedLinear::Run {
 public:
  Run(const PackedLinear& layer, const Call& call)
      : layer_(layer),
        call_(call),
        kernel_(current_kernels().gemm),
        x_(matrix_of(call.x)),
        rows_(call.x.shape[0]),
        item_size_(call.output.item_size()),
        activation_(parse_activation(call.activation)),
        factor_(companion_of(call.factor)),
        residual_(companion_of(call.residual)),
        planned_(plan_of(kernel_, operands_of(layer, layer.out_features_),
                         call.factor_layer == nullptr ? 1 : 2, item_size_, call.num_threads)),
        columns_(planned_.plan.panels_per_item * kPanelColumns),
        workspace_(workspace_of(layer)) {
    if (const PackedLinear* other = call.factor_layer) {
      workspace_ = std::max(workspace_, workspace_of(*other));
      tile_ = padded_floats(divide_up(block_rows() * columns_ * item_size_, 4));
    }
  }

  bool finish(Interrupt interrupt) {
    const std::int64_t floats = workspace_ + tile_;
    const Scratch scratch(planned_.threads * floats * 4);
    auto* const memory = reinterpret_cast<float*>(scratch.data());
    const auto item = [&](std::int64_t index, Worker& worker) {
      multiply(index, memory + worker.index() * floats);
    };
    return parallel_for(planned_.plan.items, planned_.threads, interrupt, item) ==
           Outcome::kFinished;
  }

 private:
  GemmOperands operands_of(const PackedLinear& layer, std::int64_t columns) const {
    return {x_, rows_, layer.in_features_, layer.memory_->format, columns};
  }
  std::int64_t block_rows() const { return std::min(rows_, planned_.plan.block_rows); }
  std::int64_t workspace_of(const PackedLinear& layer) const {
    return padded_floats(kernel_.workspace(operands_of(layer, columns_), block_rows()));
  }

  // The product of a block of x's rows by some of a layer's panels, whose results go nowhere yet.
  GemmBlock product(const PackedLinear& layer, std::int64_t row, std::int64_t panel,
                    float* workspace) const {
    GemmBlock block{};
    block.x = from_row(x_, row);
    block.row_count = static_cast<int>(std::min(block_rows(), rows_ - row));
    block.depth = layer.in_features_;
    block.format = layer.memory_->format;
    block.panels = layer.memory_->panel(layer.first_panel_ + panel);
    block.column_count = std::min(columns_, layer.out_features_ - panel * kPanelColumns);
    if (layer.memory_->has_bias) block.bias = layer.memory_->bias_of(layer.first_panel_ + panel);
    block.output_dtype = call_.output.dtype;
    block.workspace = workspace;
    return block;
  }

  void multiply(std::int64_t index, float* workspace) const {
    // Successive items share their rows, which then wait in the cache.
    const GemmPlan& plan = planned_.plan;
    const std::int64_t row = index / plan.panel_groups * plan.block_rows;
    const std::int64_t panel = index % plan.panel_groups * plan.panels_per_item;
    const std::int64_t column = panel * kPanelColumns;
    Companion factor = factor_.from(row, column);
    if (const PackedLinear* other = call_.factor_layer) {
      GemmBlock block = product(*other, row, panel, workspace);
      block.output = reinterpret_cast<char*>(workspace + workspace_);
      block.output_row_stride = columns_ * item_size_;
      kernel_.multiply(block);
      factor = {block.output, block.output_row_stride, item_size_};
    }
    GemmBlock block = product(layer_, row, panel, workspace);
    block.activation = activation_;
    block.factor = factor;
    block.residual = residual_.from(row, column);
    block.output_row_stride = call_.output.strides[0];
    block.output =
        static_cast<char*>(call_.output.data) + row * block.output_row_stride + column * item_size_;
    kernel_.multiply(block);
  }

  const PackedLinear& layer_;
  const Call& call_;
  const GemmKernel& kernel_;
  const Matrix x_;
  const std::int64_t rows_;
  const std::int64_t item_size_;
  const Activation activation_;
  const Companion factor_;
  const Companion residual_;
  const PlannedGemm planned_;
  const std::int64_t columns_;  // of an item
  std::int64_t workspace_;      // floats of a worker
  std::int64_t tile_ = 0;       // and those behind them that keep an item's factor
};

bool PackedLinear::run(const Call& call, Interrupt interrupt) const {
  check_linear_call(*this, call);
  if (call.x.shape[0] == 0) return true;
  return Run(*this, call).finish(interrupt);
}

}  // namespace numattn

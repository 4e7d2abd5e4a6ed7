// Packs projection weights and runs projections.
#include "numattn/linear.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "check.h"
#include "check_linear_state.h"
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

PlannedGemm plan_of(const GemmKernel& kernel, const GemmOperands& operands, int num_threads) {
  const auto& [x, rows, depth, format, features] = operands;
  const bool copies = kernel.copies(operands);
  const int threads = threads_for(gemm_threads(rows, features, depth, format), num_threads);
  const GemmPlan plan = kernel.in_strips(operands)
                            ? plan_strips(rows, features, depth, copies, threads)
                            : plan_gemm(rows, features, depth, copies, threads);
  return {plan, static_cast<int>(std::min<std::int64_t>(threads, plan.items))};
}

Companion companion_of(const std::optional<View>& view) {
  if (!view) return {};
  return {static_cast<const char*>(view->data), view->strides[0], view->strides[1]};
}

}  // namespace

struct PackedLinear::Storage {
  PanelFormat format;
  std::int64_t bytes_per_panel;
  WeightMemory panels;
  Scratch bias;
  bool has_bias;

  // Memory for a weight whose size has been checked.
  Storage(PanelFormat of, std::int64_t out_features, std::int64_t in_features,
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

PackedLinear::PackedLinear(const View& weight, const std::optional<View>& bias, DType storage,
                           Precision precision) {
  check_linear_weight(weight, bias);
  const Kernels& kernels = current_kernels();
  const bool splits = precision == Precision::kHigh && kernels.splits_for_high;
  const PanelFormat format = storage == DType::kBFloat16 ? PanelFormat::kBFloat16
                             : storage == DType::kInt8   ? PanelFormat::kInt8
                             : splits                    ? PanelFormat::kSplit
                                                         : PanelFormat::kFloat32;
  out_features_ = weight.shape[0];
  in_features_ = weight.shape[1];
  const std::int64_t panels = panel_count(out_features_);
  checked_product(checked_product(panels * kPanelColumns, in_features_, "weight"), 4, "weight");
  const auto made = std::make_shared<const Storage>(format, out_features_, in_features_, bias);
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    kernels.pack_weight(
        {matrix_of(weight), out_features_, in_features_, panel, format, made->panel(panel)});
  }
  storage_ = made;
}

PackedLinear::PackedLinear(const LinearState& state)
    : in_features_(state.in_features), out_features_(state.out_features) {
  const PanelFormat format = check_linear_state(state);
  const auto made =
      std::make_shared<const Storage>(format, out_features_, in_features_, state.bias);
  std::memcpy(made->panels.data(), state.panels.data,
              static_cast<std::size_t>(panel_count(out_features_) * made->bytes_per_panel));
  storage_ = made;
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
  state.format = panel_format_name(storage_->format);
  state.out_features = out_features_;
  state.in_features = in_features_;
  const std::int64_t bytes = storage_->bytes_per_panel;
  View& panels = state.panels;
  panels.data = storage_->panel(first_panel_);
  panels.dtype = panel_dtype(storage_->format);
  panels.rank = 2;
  panels.shape = {panel_count(out_features_), bytes / panels.item_size(), 0, 0};
  panels.strides = {bytes, panels.item_size(), 0, 0};
  if (storage_->has_bias) {
    View& bias = state.bias.emplace();
    bias.data = storage_->bias_of(first_panel_);
    bias.rank = 1;
    bias.shape[0] = out_features_;
    bias.strides[0] = bias.item_size();
  }
  return state;
}

bool PackedLinear::stores_float32() const {
  return storage_->format == PanelFormat::kFloat32 || storage_->format == PanelFormat::kSplit;
}

bool PackedLinear::run(const Call& call, Interrupt interrupt) const {
  check_linear_call(*this, call);
  const Activation activation = parse_activation(call.activation);
  const Matrix x = matrix_of(call.x);
  const Companion factor = companion_of(call.factor);
  const Companion residual = companion_of(call.residual);
  const std::int64_t rows = call.x.shape[0];
  if (rows == 0) return true;
  const Kernels& kernels = current_kernels();
  GemmOperands operands{x, rows, in_features_, storage_->format, out_features_};
  const PlannedGemm planned = plan_of(kernels.gemm, operands, call.num_threads);
  const GemmPlan& plan = planned.plan;
  const int threads = planned.threads;
  operands.columns = plan.panels_per_item * kPanelColumns;
  const std::int64_t workspace =
      padded_floats(kernels.gemm.workspace(operands, std::min(rows, plan.block_rows)));
  const Scratch scratch(threads * workspace * 4);
  const std::int64_t item_size = call.output.item_size();
  const auto item = [&](std::int64_t index, Worker& worker) {
    // Successive items share their rows, which then wait in the cache.
    const std::int64_t row = index / plan.panel_groups * plan.block_rows;
    const std::int64_t panel = index % plan.panel_groups * plan.panels_per_item;
    const std::int64_t column = panel * kPanelColumns;
    GemmBlock block{};
    block.x = from_row(x, row);
    block.row_count = static_cast<int>(std::min(plan.block_rows, rows - row));
    block.depth = in_features_;
    block.format = storage_->format;
    block.panels = storage_->panel(first_panel_ + panel);
    block.column_count = std::min(plan.panels_per_item * kPanelColumns, out_features_ - column);
    if (storage_->has_bias) block.bias = storage_->bias_of(first_panel_ + panel);
    block.activation = activation;
    block.factor = factor.from(row, column);
    block.residual = residual.from(row, column);
    block.output_dtype = call.output.dtype;
    block.output_row_stride = call.output.strides[0];
    block.output =
        static_cast<char*>(call.output.data) + row * block.output_row_stride + column * item_size;
    block.workspace = reinterpret_cast<float*>(scratch.data()) + worker.index() * workspace;
    kernels.gemm.multiply(block);
  };
  return parallel_for(plan.items, threads, interrupt, item) == Outcome::kFinished;
}

}  // namespace numattn

#include "check_linear_state.h"

#include <array>
#include <string>

#include "check_view.h"

namespace numattn {
namespace {

constexpr std::array<PanelFormat, 7> kFormats{
    PanelFormat::kFloat32, PanelFormat::kBFloat16, PanelFormat::kSplit,  PanelFormat::kInt8,
    PanelFormat::kW8A8,    PanelFormat::kGroups8,  PanelFormat::kGroups4};

PanelFormat parse_panel_format(const std::string& name) {
  for (const PanelFormat format : kFormats) {
    if (name == panel_format_name(format)) return format;
  }
  refuse(
      "the format of a packed weight must be 'float32', 'bfloat16', 'split', 'int8', 'w8a8', "
      "'groups8' or 'groups4', not '",
      name, "'");
}

}  // namespace

const char* panel_format_name(PanelFormat format) {
  switch (format) {
    case PanelFormat::kFloat32: return "float32";
    case PanelFormat::kBFloat16: return "bfloat16";
    case PanelFormat::kSplit: return "split";
    case PanelFormat::kInt8: return "int8";
    case PanelFormat::kW8A8: return "w8a8";
    case PanelFormat::kGroups8: return "groups8";
    case PanelFormat::kGroups4: return "groups4";
  }
  return "";
}

DType panel_dtype(PanelFormat format) {
  switch (format) {
    case PanelFormat::kFloat32: return DType::kFloat32;
    case PanelFormat::kBFloat16:
    case PanelFormat::kSplit: return DType::kBFloat16;
    default: return DType::kInt8;
  }
}

PanelFormat check_linear_state(const LinearState& state) {
  if (state.version != kLinearStateVersion) {
    refuse("a packed weight of version ", number(state.version),
           " cannot be read: this is version ", number(kLinearStateVersion));
  }
  const PanelFormat format = parse_panel_format(state.format);
  const View& panels = state.panels;
  const std::string size =
      "(" + number(state.out_features) + ", " + number(state.in_features) + ")";
  if (state.out_features < 1 || state.in_features < 1) {
    refuse("a packed weight must have at least one row and one column, not ", size);
  }
  if (state.in_features % group_depth(format) != 0) {
    refuse("a packed weight in ", state.format, " must have whole groups of ",
           number(group_depth(format)), " columns, not ", number(state.in_features));
  }
  check_same_dtype(panels, "panels", panel_dtype(format), "their format");
  check_rank(panels, "panels", 2, "(panels, elements of one)");
  // No product of sizes that were read is taken before they are known to be small.
  const std::int64_t count = (state.out_features - 1) / kPanelColumns + 1;
  const bool contiguous = panels.strides[1] == panels.item_size() &&
                          panels.strides[0] == panels.shape[1] * panels.item_size();
  const bool fits = contiguous && panels.shape[0] == count &&
                    state.in_features <= panels.shape[1] &&
                    panels.shape[1] * panels.item_size() == panel_bytes(format, state.in_features);
  if (!fits) {
    refuse("panels of shape ", shape_text(panels), " do not hold a weight of shape ", size, " in ",
           state.format);
  }
  if (state.bias) {
    check_same_dtype(*state.bias, "bias", DType::kFloat32, "every layer");
    check_same_shape(*state.bias, "bias", {state.out_features, 0, 0, 0}, 1);
    if (state.bias->strides[0] != state.bias->item_size()) refuse("bias must be contiguous");
  }
  return format;
}

void check_linear_part(const PackedLinear& linear, std::int64_t begin, std::int64_t end) {
  if (begin < 0 || begin >= end || end > linear.out_features()) {
    refuse("features ", number(begin), " to ", number(end), " are no part of a layer of ",
           number(linear.out_features()));
  }
}

}  // namespace numattn

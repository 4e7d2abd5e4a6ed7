// Which class multiplies panels of a format where there is no unit for it.
#pragma once

#include "group_panels.h"
#include "int8_panels.h"
#include "split_panels.h"

namespace numattn {
namespace {

struct FloatProducts {
  template <class Call>
  static auto with(PanelFormat format, const Call& call) {
    switch (format) {
      case PanelFormat::kFloat32: return call(Type<FloatPanels>{});
      case PanelFormat::kInt8:
      case PanelFormat::kW8A8: return call(Type<Int8Panels>{});
      case PanelFormat::kBFloat16: return call(Type<WidenedPanels>{});
      case PanelFormat::kSplit: return call(Type<SplitPanels>{});
      case PanelFormat::kGroups8: return call(Type<GroupPanels<PanelFormat::kGroups8>>{});
      default: return call(Type<GroupPanels<PanelFormat::kGroups4>>{});
    }
  }
};

}  // namespace
}  // namespace numattn

// Puts the products of integers by instructions made for them into another table.
#pragma once

#include "byte_panels.h"
#include "int8_panels.h"

namespace numattn {
namespace {

struct IntegerProducts {
  static bool has(PanelFormat format) {
    return format == PanelFormat::kInt8 || format == PanelFormat::kW8A8;
  }
  template <class Call>
  static auto with(PanelFormat format, const Call& call) {
    return format == PanelFormat::kInt8 ? call(Type<Int8Panels>{}) : call(Type<BytePanels>{});
  }
};

template <const Kernels& (*Base)()>
inline Kernels with_integers(const char* isa) {
  Kernels kernels = Base();
  kernels.isa = isa;
  kernels.gemm = gemm_kernel_beside<IntegerProducts, Base>();
  return kernels;
}

}  // namespace
}  // namespace numattn

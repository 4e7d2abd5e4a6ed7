// Kernels for AVX-512 with AVX512-VNNI: those of AVX-512, and products of integers by its
// instructions.
#ifndef NUMATTN_VEC  // which lanes; tests have some in software
#define NUMATTN_VEC "vec/bytes.h"
#endif
#include NUMATTN_VEC

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

}  // namespace

const Kernels& kernels_avx512() noexcept;

const Kernels& kernels_avx512vnni() noexcept {
  static const Kernels table = [] {
    Kernels kernels = kernels_avx512();
    kernels.isa = "avx512vnni";
    kernels.gemm = gemm_kernel_beside<IntegerProducts, kernels_avx512>();
    return kernels;
  }();
  return table;
}

}  // namespace numattn

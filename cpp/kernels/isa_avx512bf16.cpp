// Kernels for AVX-512 with AVX512-BF16 and VNNI: those of AVX-512, and products of bfloat16 and of
// integers by their instructions.
#ifndef NUMATTN_VEC  // which lanes; tests have some in software
#define NUMATTN_VEC "vec/bfloat16.h"
#endif
#include NUMATTN_VEC

#include "decode_table.h"
#include "pair_keys.h"

#include "pair_tile.h"

#include "byte_panels.h"
#include "int8_panels.h"

#include "pair_table.h"

namespace numattn {
namespace {

struct Products {
  static bool has(PanelFormat format) {
    return format == PanelFormat::kBFloat16 || format == PanelFormat::kInt8 ||
           format == PanelFormat::kW8A8;
  }
  template <class Call>
  static auto with(PanelFormat format, const Call& call) {
    switch (format) {
      case PanelFormat::kInt8: return call(Type<Int8Panels>{});
      case PanelFormat::kW8A8: return call(Type<BytePanels>{});
      default: return call(Type<PairPanels<1>>{});
    }
  }
};

}  // namespace

const Kernels& kernels_avx512() noexcept;

const Kernels& kernels_avx512bf16() noexcept {
  static const Kernels table = [] {
    Kernels kernels = with_pairs<kernels_avx512, Products>("avx512bf16");
    kernels.decode = decode_kernel<kDecodeKeyBlock, PairKeys>();
    return kernels;
  }();
  return table;
}

}  // namespace numattn

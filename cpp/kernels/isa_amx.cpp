// Kernels for AMX-BF16: those of AVX-512, and bfloat16 products in the tile unit.
#ifndef NUMATTN_VEC  // which lanes; tests have some in software
#define NUMATTN_VEC "vec/bfloat16.h"
#endif
#include NUMATTN_VEC

#include "decode_table.h"
#include "pair_keys.h"

#include "amx_tile.h"
#include "int8_tiles.h"

#include "pipeline_table.h"

#include "amx_gemm.h"

namespace numattn {

const Kernels& kernels_avx512() noexcept;

const Kernels& kernels_amx() noexcept {
  static const Kernels table = [] {
    Kernels kernels = kernels_avx512();
    kernels.isa = "amx";
    kernels.decode = decode_kernel<kShortDecodeKeyBlock, PairKeys>();
    return with_strips<kernels_avx512>(with_pipeline(kernels));
  }();
  return table;
}

}  // namespace numattn

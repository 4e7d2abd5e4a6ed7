// Stands in for cpp/kernels/isa_amx.cpp where NUMATTN_EMULATE_AVX512 is on.
#include "emulated_avx512.h"

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

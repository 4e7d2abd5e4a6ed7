// Stands in for cpp/kernels/isa_avx512bf16.cpp where NUMATTN_EMULATE_AVX512 is on.
#include "emulated_avx512.h"

#include "decode_table.h"
#include "pair_keys.h"

#include "pair_tile.h"

#include "pair_table.h"

namespace numattn {

const Kernels& kernels_avx512() noexcept;

const Kernels& kernels_avx512bf16() noexcept {
  static const Kernels table = [] {
    Kernels kernels = with_pairs<kernels_avx512>("avx512bf16");
    kernels.decode = decode_kernel<kDecodeKeyBlock, PairKeys>();
    return kernels;
  }();
  return table;
}

}  // namespace numattn

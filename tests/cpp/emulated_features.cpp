// Stands in for cpp/isa/detect.cpp where NUMATTN_EMULATE_AVX512 is on: what the processor offers,
// and what is done in software.
#define detect_features detect_processor_features
#include "../../cpp/isa/detect.cpp"
#undef detect_features

namespace numattn {

std::uint32_t detect_features() {
  return detect_processor_features() | kAvx512 | kAvx512Vnni | kAvx512Bf16;
}

}  // namespace numattn

// Selection with faked features: what a machine lacks is never offered.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "detect.h"
#include "expect.h"
#include "numattn/isa.h"
#include "select.h"

namespace {

bool offers(std::uint32_t features, const std::string& name) {
  const std::vector<std::string> names = numattn::isas_for(features);
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

int main() {
  using namespace numattn;
  expect(offers(kNothing, "scalar"), "every machine runs the baseline");
  expect(isas_for(kNothing).size() == 1, "nothing else on a machine without features");
#ifdef NUMATTN_X86
  expect(!offers(kAvx2, "avx2"), "AVX2 alone, without FMA, does not suffice");
  expect(!offers(kAvx2 | kFma, "avx2"), "nor without F16C");
  expect(offers(kAvx2 | kFma | kF16c, "avx2"), "all three do");
  expect(!offers(kAvx2 | kFma | kF16c, "avx512"), "AVX-512 needs its own bit");
  expect(!offers(kAvx512, "avx512"), "and the older ones, which it also uses");
  expect(offers(kAvx2 | kFma | kF16c | kAvx512, "avx512"), "together they do");
#endif
#ifdef NUMATTN_ARM64
  expect(offers(kNeon, "neon"), "NEON is all that its kernels need");
  expect(!offers(kNeon, "neonbf16"), "BF16 has its own bit");
  expect(offers(kNeon | kNeonBf16, "neonbf16"), "together they do");
#endif
  expect(feature_names(kFma | kF16c) == "fma f16c", "names of a set");
  const std::string best = available_isas().back();
  expect(best == current_isa(), "the best available is in force");
  for (const std::string& name : available_isas()) {
    use_isa(name);
    expect(current_isa() == name && current_kernels().isa == name, "%s is in force", name.c_str());
  }
  bool refused = false;
  try {
    use_isa("sse9");
  } catch (const std::invalid_argument& error) {
    refused = std::string(error.what()).find(best) != std::string::npos;
  }
  expect(refused, "an unknown name is refused with the available ones");
  expect(current_isa() == best, "and changes nothing");
  return report();
}

#include "core.h"

namespace numattn::onnxruntime {

std::string missing_core() { return {}; }

}  // namespace numattn::onnxruntime

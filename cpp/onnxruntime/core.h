// Where the functions of numattn.h come from: the library that this one is linked to, or the Python
// package's module that lies in the same wheel.
#pragma once

#include <string>

namespace numattn::onnxruntime {

// Why they cannot be called; empty where they can.
std::string missing_core();

}  // namespace numattn::onnxruntime

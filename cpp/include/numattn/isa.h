// Which instruction set the kernels use.
#pragma once

#include <string>
#include <vector>

namespace numattn {

// Names of the instruction sets that this machine can run, slowest first.
std::vector<std::string> available_isas();

// The one in force: the best available, unless another was chosen, by use_isa() or in the
// environment by NUMATTN_ISA, which is read when one is first needed. std::invalid_argument, from
// whatever call that is, where NUMATTN_ISA names none of the available ones.
const char* current_isa();

// Chooses one; std::invalid_argument, naming the available ones, for any other.
void use_isa(const std::string& name);

// What the processor offers, for show_config().
std::string cpu_features();

}  // namespace numattn

// Which kernels are compiled for each CPU, and chosen where they run?
#pragma once

#include "program.hpp"

namespace sfiin {

// Runs a program once: `ms` and `pan` as the program's inputs lie, channel by channel; `hrms` likewise.
void run(Program& program, const float* ms, const float* pan, float* hrms);

// Takes the scratch memory that the program's steps want.
void prepare(Program& program);

// The instruction set that is used here, such as AVX3 (AVX-512), AVX2 or NEON.
const char* instruction_set();

}  // namespace sfiin

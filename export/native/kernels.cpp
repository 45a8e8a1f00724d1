// What does each step of a program do? Compiled once for each instruction set by Highway, which chooses where it runs.
#include "kernels.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

// Kernels are written for vectors of a known number of lanes, which Arm's scalable ones have not; NEON serves there.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace sfiin {
namespace HWY_NAMESPACE {

#include "vectors-inl.hpp"

#include "convolution-inl.hpp"

#include "fourier-inl.hpp"

#include "spectrum-inl.hpp"

#include "pointwise-inl.hpp"

#include "maps-inl.hpp"

void Run(Program& program, const float* ms, const float* pan, float* hrms) {
    float* scratch = program.scratch.data();
    for (const Step& step : program.steps) {
        switch (step.kind) {
            case Step::Kind::Load: {
                const Load& one = program.loads[step.index];
                load(one, one.input ? pan : ms);
                break;
            }
            case Step::Kind::Convolution: convolve(program.convolutions[step.index], scratch); break;
            case Step::Kind::Spectrum: fuse_spectra(program.spectra[step.index], scratch); break;
            case Step::Kind::Pointwise: pointwise(program.pointwise[step.index], scratch); break;
            case Step::Kind::Pad: pad(program.pads[step.index]); break;
            case Step::Kind::DepthToSpace: depth_to_space(program.depths[step.index]); break;
            case Step::Kind::Product: multiply(program.products[step.index]); break;
            case Step::Kind::Store: store(program.stores[step.index], hrms); break;
        }
    }
}

size_t Scratch(const Program& program) {
    size_t most = 0;
    for (const Convolution& step : program.convolutions) most = std::max(most, convolution_scratch(step));
    for (const Spectrum& step : program.spectra) most = std::max(most, spectrum_scratch(step));
    for (const Pointwise& step : program.pointwise) most = std::max(most, pointwise_scratch(step));
    return most;
}

#define SFIIN_TEXT(name) SFIIN_QUOTED(name)
#define SFIIN_QUOTED(name) #name
const char* Name() { return SFIIN_TEXT(HWY_NAMESPACE) + 2; }  // N_AVX2
#undef SFIIN_TEXT
#undef SFIIN_QUOTED

}  // namespace HWY_NAMESPACE
}  // namespace sfiin
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sfiin {

HWY_EXPORT(Run);
HWY_EXPORT(Scratch);
HWY_EXPORT(Name);

void run(Program& program, const float* ms, const float* pan, float* hrms) {
    HWY_DYNAMIC_DISPATCH(Run)(program, ms, pan, hrms);
}

void prepare(Program& program) { program.scratch.assign(HWY_DYNAMIC_DISPATCH(Scratch)(program), 0.0f); }

const char* instruction_set() { return HWY_DYNAMIC_DISPATCH(Name)(); }

}  // namespace sfiin
#endif

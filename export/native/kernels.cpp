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

void pad(const Pad& step) {
    for (size_t c = 0; c < step.in.size(); ++c)
        for (int y = 0; y < step.to.height; ++y) {
            const float* from = step.in[c] + std::clamp(y - step.above, 0, step.from.height - 1) * step.from.stride();
            float* to = step.out[c] + y * step.to.stride();
            for (int x = 0; x < step.to.width; ++x) to[x] = from[std::clamp(x - step.left, 0, step.from.width - 1)];
        }
}

void depth_to_space(const DepthToSpace& step) {
    const int block = step.block, channels = static_cast<int>(step.out.size());
    const Size to = {step.from.height * block, step.from.width * block};
    for (int c = 0; c < channels; ++c)
        for (int phase = 0; phase < block * block; ++phase) {
            const Plane in = step.in[step.column_row_depth ? c * block * block + phase : phase * channels + c];
            for (int y = 0; y < step.from.height; ++y) {
                const float* from = in + y * step.from.stride();
                float* row = step.out[c] + (y * block + phase / block) * to.stride() + phase % block;
                for (int x = 0; x < step.from.width; ++x) row[x * block] = from[x];
            }
        }
}

void load(const Load& step, const float* from) {
    for (Plane plane : step.out)
        for (int y = 0; y < step.size.height; ++y, from += step.size.width)
            std::copy_n(from, step.size.width, plane + y * step.size.stride());
}

void store(const Store& step, float* to) {
    for (Plane plane : step.in)
        for (int y = 0; y < step.size.height; ++y, to += step.size.width)
            std::copy_n(plane + y * step.size.stride(), step.size.width, to);
}

void Run(Program& program, const float* ms, const float* pan, float* hrms) {
    float* scratch = program.scratch.data();
    for (const Step& step : program.steps) {
        switch (step.kind) {
            case Step::Kind::Load: {
                const Load& one = program.loads[step.index];
                load(one, one.input ? pan : ms);
                break;
            }
            case Step::Kind::Convolution: convolve(program.convolutions[step.index]); break;
            case Step::Kind::Spectrum: fuse_spectra(program.spectra[step.index], scratch); break;
            case Step::Kind::Pointwise: pointwise(program.pointwise[step.index], scratch); break;
            case Step::Kind::Pad: pad(program.pads[step.index]); break;
            case Step::Kind::DepthToSpace: depth_to_space(program.depths[step.index]); break;
            case Step::Kind::Store: store(program.stores[step.index], hrms); break;
        }
    }
}

size_t Scratch(const Program& program) {
    size_t most = 0;
    for (const Spectrum& step : program.spectra) most = std::max(most, spectrum_scratch(step));
    for (const Pointwise& step : program.pointwise) most = std::max(most, pointwise_scratch(step));
    return most;
}

const char* Name() { return hwy::TargetName(HWY_TARGET); }

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

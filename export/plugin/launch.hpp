// In which order, with how much memory and for which sizes do the kernels of spectral_fusion.cuh run?
//
// The caller brings a runner, `run(kernel, threads)`: CUDA's launches one on a stream, the host's calls it in place.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "spectral_fusion.cuh"

namespace sfiin {

constexpr int THREADS = 256;
constexpr size_t SHARED = 48 * 1024;  // what every GPU gives a block without being asked

struct Rule {
    float floor, cut, fade, slope;
};

// Where an input of the node stands: `m`, `p`, then weight and bias of the seven layers, as in export/spectral_fusion.py.
enum Input { M, P, MS, PAN = 4, AMPLITUDE = 6, PHASE = 10, OUT = 14, INPUTS = 16 };

// Why a node of these sizes cannot be computed; nullptr if it can.
inline const char* unsupported(const Shape& s) {
    if (s.channels < 4 || s.channels > 32 || s.channels % 4) return "channels must be 4 to 32, in steps of 4";
    if (s.batch < 1) return "the batch must be at least 1";
    for (int side : {s.height, s.width}) {
        if (side < 64 || side > 512) return "a tile's sides must be 64 to 512";
        if (side % 2) return "a tile's sides must be even";
        for (int factor : {2, 3, 5})
            while (side % factor == 0) side /= factor;
        if (side != 1) return "a tile's sides must be products of 2, 3 and 5";
    }
    return nullptr;
}

// The length's factors, fours first, as they need the fewest operations.
inline Fourier factored(int length, const Complex* turns) {
    Fourier f{length, 0, {}, turns};
    int rest = length;
    for (int radix : {4, 5, 3, 2})
        while (rest % radix == 0) {
            f.radix[f.stages++] = radix;
            rest /= radix;
        }
    return f;
}

// exp(-2 pi i t / length) for each t, in double.
inline void turns(int length, Complex* to) {
    const double step = -2 * 3.14159265358979323846 / length;
    for (int t = 0; t < length; ++t)
        to[t] = {static_cast<float>(std::cos(step * t)), static_cast<float>(std::sin(step * t))};
}

// One piece of memory for all that lies between the kernels; the magnitudes take the place of the spectra.
struct Workspace {
    Complex *spectra, *fused;
    float *squares, *floors, *maps;

    static size_t bytes(const Shape& s) { return Workspace(s, nullptr).end; }

    Workspace(const Shape& s, char* memory) {
        const size_t images = static_cast<size_t>(s.batch) * s.channels;
        spectra = take<Complex>(memory, 2 * images * s.bins());
        maps = reinterpret_cast<float*>(spectra);  // 2 C H F complex numbers are more than C H W real ones
        fused = take<Complex>(memory, images * s.bins());
        squares = take<float>(memory, 2 * images * s.height);
        floors = take<float>(memory, 2 * images);
    }

  private:
    size_t end = 0;

    template <typename T>
    T* take(char* memory, size_t count) {
        T* found = memory ? reinterpret_cast<T*>(memory + end) : nullptr;
        end += (count * sizeof(T) + 255) / 256 * 256;
        return found;
    }
};

// As many sequences of this length as two buffers of a block hold, at most `most`.
inline int fitting(int length, int most) {
    const int fit = static_cast<int>((SHARED - 2 * 32 * LANES * sizeof(float)) / (2 * length * sizeof(Complex)));
    return fit < most ? fit : most;
}

// Shared memory in bytes: what one block may have, and what a multiprocessor has for all that run on it.
struct Shared {
    size_t block, all;

    int together(size_t size) const {
        constexpr size_t RESERVED = 1024;  // what CUDA keeps of each block's
        return size <= block ? static_cast<int>(all / (size + RESERVED)) : 0;
    }
};

// How many columns a block of WholeColumns takes: the most of which two blocks run together, so that one computes while
// the other waits for memory; but no fewer than two for that, whose 16 bytes are half of what memory gives at once. Where
// none runs beside another, the most that fit. 0: not even one fits.
template <typename T>
int columns_together(WholeColumns<T> whole, const Shared& shared) {
    int fitting = 0;
    for (whole.width = 4; whole.width >= 1; whole.width /= 2) {
        if (whole.width > 1 && shared.together(whole.shared()) >= 2) return whole.width;
        if (!fitting && whole.shared() <= shared.block) fitting = whole.width;
    }
    return fitting;
}

template <typename T, typename Runner>
void compute(const Shape& s, const Rule& rule, const void* const* inputs, T* f, char* workspace, const Complex* along_w,
             const Complex* along_h, const Shared& shared, Runner& runner) {
    const auto input = [&](int i) { return static_cast<const T*>(inputs[i]); };
    const auto layer = [&](int i) { return Layer<T>{input(i), input(i + 1)}; };
    const Workspace w(s, workspace);
    const Fourier rows = factored(s.width, along_w), columns = factored(s.height, along_h);
    const int C = s.channels, group = fitting(s.width, C), pairs = fitting(s.width, C / 2);
    const int wide = fitting(s.height, 16);
    runner.run(RowsForward<T>{s, rows, group, input(M), input(P), layer(MS), layer(PAN), w.spectra, w.squares}, THREADS);
    runner.run(Floors{s, rule.floor, w.squares, w.floors}, THREADS);
    const Networks<T> networks{s, rule.cut, rule.fade, rule.slope, w.floors,
                               {layer(AMPLITUDE), layer(AMPLITUDE + 2)}, {layer(PHASE), layer(PHASE + 2)}};
    WholeColumns<T> whole{networks, columns, 0, w.spectra, w.fused};
    whole.width = columns_together(whole, shared);
    if (whole.width) {
        runner.run(whole, THREADS);
    } else {
        runner.run(Columns{s, columns, 2 * C, wide, false, w.spectra}, THREADS);
        runner.run(Bins<T>{networks, w.spectra, w.fused}, THREADS);
        runner.run(Columns{s, columns, C, wide, true, w.fused}, THREADS);
    }
    runner.run(RowsInverse{s, rows, pairs, w.fused, w.maps}, THREADS);
    runner.run(Out<T>{s, THREADS, w.maps, layer(OUT), f}, THREADS);
}

}  // namespace sfiin

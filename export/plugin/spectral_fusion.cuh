// What does one node sfiin::SpectralFusion compute, kernel by kernel?
//
// export/spectral_fusion.py defines the operator; this is it for GPUs. A kernel is a functor whose body speaks of its
// block through `Block` only, so that the same source runs as CUDA and, for tests, on a host (host.hpp).
//
//   RowsForward     leading 1x1 convolutions, then both maps' rows as one complex transform; sums of squares
//   Floors          each map's threshold from these sums
//   WholeColumns    columns of all maps at once, in shared memory: forward along H, bins as below, and back
//                   or, where they do not fit,
//   Columns         transform along H, forward, of both maps' spectra
//   Bins            amplitude, phase, both networks, recombination
//   Columns         transform along H, inverse, of the fused spectrum
//   RowsInverse     complex to real along W, two channels in one transform; magnitude
//   Out             trailing 1x1 convolution
//
// Arithmetic is float; T, the type of maps and weights, is float or half. Spectra are orthonormal, so that nothing that
// is finite in the maps overflows.
#pragma once

#include <cmath>
#include <cstddef>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define SFIIN_BOTH __host__ __device__ __forceinline__
#else
#define SFIIN_BOTH inline
#endif

namespace sfiin {

struct Complex {
    float re, im;
};

SFIIN_BOTH Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
SFIIN_BOTH Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
SFIIN_BOTH Complex operator*(Complex a, Complex b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
SFIIN_BOTH Complex conj(Complex a) { return {a.re, -a.im}; }

constexpr int MOST_STAGES = 9;  // 512 = 2^9 is the longest chain of the smallest radix
constexpr int LANES = 32;       // partial sums of one row, and bins of one block

// A transform's length as factors 2 to 5, and exp(-2 pi i t / length) for each t.
struct Fourier {
    int length;
    int stages;
    int radix[MOST_STAGES];
    const Complex* turns;
};

struct Shape {
    int batch, channels, height, width;
    SFIIN_BOTH int columns() const { return width / 2 + 1; }
    SFIIN_BOTH size_t bins() const { return static_cast<size_t>(height) * columns(); }
    SFIIN_BOTH size_t pixels() const { return static_cast<size_t>(height) * width; }
};

template <typename T>
struct Layer {
    const T* weight;
    const T* bias;
};

// One radix-R step of a Stockham transform (autosort: no bit reversal), `done` being the product of earlier radices.
template <int R>
SFIIN_BOTH void butterfly(const Fourier& f, int done, int j, const Complex* in, Complex* out) {
    const int jump = f.length / R, k = j % done, step = f.length / (done * R);
    Complex v[R];
    for (int r = 0; r < R; ++r) v[r] = in[j + r * jump] * f.turns[r * k * step];
    Complex* to = out + (j - k) * R + k;
    if constexpr (R == 2) {
        to[0] = v[0] + v[1];
        to[done] = v[0] - v[1];
    } else if constexpr (R == 4) {
        const Complex a = v[0] + v[2], b = v[0] - v[2], c = v[1] + v[3], d = v[1] - v[3];
        to[0] = a + c;
        to[done] = {b.re + d.im, b.im - d.re};
        to[2 * done] = a - c;
        to[3 * done] = {b.re - d.im, b.im + d.re};
    } else {
        for (int q = 0; q < R; ++q) {
            Complex sum = v[0];
            for (int r = 1; r < R; ++r) sum = sum + v[r] * f.turns[(r * q % R) * jump];
            to[q * done] = sum;
        }
    }
}

// Transforms `count` sequences that lie one behind another in `a`; the result lies in the buffer that is returned.
template <typename Block>
SFIIN_BOTH Complex* transform(const Block& block, const Fourier& f, int count, Complex* a, Complex* b) {
    int done = 1;
    for (int stage = 0; stage < f.stages; ++stage) {
        const int radix = f.radix[stage], steps = f.length / radix;
        for (int i = block.thread(); i < count * steps; i += block.threads()) {
            const int base = i / steps * f.length, j = i % steps;
            switch (radix) {
                case 2: butterfly<2>(f, done, j, a + base, b + base); break;
                case 3: butterfly<3>(f, done, j, a + base, b + base); break;
                case 4: butterfly<4>(f, done, j, a + base, b + base); break;
                default: butterfly<5>(f, done, j, a + base, b + base); break;
            }
        }
        block.sync();
        Complex* other = a;
        a = b;
        b = other;
        done *= radix;
    }
    return a;
}

// The power of two that brings a row of PAN to the size of MS's, given their squares. One transform of both leaves in
// the smaller a rounding error of the larger; alike in size, each has its own only.
SFIIN_BOTH float balance(float left, float right) {
    if (!(left > 0 && right > 0)) return 1;
    const float exponent = rintf(0.5f * (log2f(left) - log2f(right)));
    return ldexpf(1, static_cast<int>(exponent < -60 ? -60 : exponent > 60 ? 60 : exponent));
}

template <typename T>
struct RowsForward {
    Shape shape;
    Fourier rows;
    int group;  // channels of one block
    const T *m, *p;
    Layer<T> ms, pan;
    Complex* spectra;  // (N, 2C, H, F): the maps of MS, then those of PAN
    float* squares;    // (N, 2C, H)

    int groups() const { return (shape.channels + group - 1) / group; }
    int blocks() const { return shape.batch * shape.height * groups(); }
    size_t shared() const { return 2 * group * (shape.width * sizeof(Complex) + LANES * sizeof(float)); }

    template <typename Block>
    SFIIN_BOTH void operator()(const Block& block, char* memory) const {
        const int C = shape.channels, W = shape.width, F = shape.columns(), number = (C + group - 1) / group;
        const int n = block.index() / (shape.height * number), h = block.index() / number % shape.height;
        const int first = block.index() % number * group, count = C - first < group ? C - first : group;
        Complex* a = reinterpret_cast<Complex*>(memory);
        Complex* b = a + group * W;
        float* sums = reinterpret_cast<float*>(b + group * W);
        const size_t row = static_cast<size_t>(n) * C * shape.pixels() + static_cast<size_t>(h) * W;
        for (int i = block.thread(); i < count * W; i += block.threads()) {
            const int c = first + i / W, w = i % W;
            float left = ms.bias[c], right = pan.bias[c];
            for (int k = 0; k < C; ++k) {
                const size_t at = row + k * shape.pixels() + w;
                left += static_cast<float>(ms.weight[c * C + k]) * static_cast<float>(m[at]);
                right += static_cast<float>(pan.weight[c * C + k]) * static_cast<float>(p[at]);
            }
            a[i] = {left, right};
        }
        block.sync();
        for (int i = block.thread(); i < 2 * count * LANES; i += block.threads()) {
            const Complex* line = a + i / LANES / 2 * W;
            const bool second = i / LANES % 2;
            float sum = 0;
            for (int w = i % LANES; w < W; w += LANES) {
                const float x = second ? line[w].im : line[w].re;
                sum += x * x;
            }
            sums[i] = sum;
        }
        block.sync();
        for (int i = block.thread(); i < count; i += block.threads()) {
            float* own = sums + i * 2 * LANES;
            float both[2] = {0, 0};
            for (int lane = 0; lane < 2 * LANES; ++lane) both[lane / LANES] += own[lane];
            for (int map = 0; map < 2; ++map)
                squares[(static_cast<size_t>(n) * 2 * C + first + i + map * C) * shape.height + h] = both[map];
            own[0] = balance(both[0], both[1]);
        }
        block.sync();
        for (int i = block.thread(); i < count * W; i += block.threads()) a[i].im *= sums[i / W * 2 * LANES];
        block.sync();
        const Complex* z = transform(block, rows, count, a, b);
        const float scale = 0.5f / sqrtf(static_cast<float>(shape.pixels()));
        for (int i = block.thread(); i < count * F; i += block.threads()) {
            const int c = i / F, l = i % F;
            const Complex x = z[c * W + l], y = conj(z[c * W + (W - l) % W]);
            const Complex sum = x + y, difference = x - y;
            const float back = scale / sums[c * 2 * LANES];
            Complex* to = spectra + static_cast<size_t>(n) * 2 * C * shape.bins() + static_cast<size_t>(h) * F + l;
            to[(first + c) * shape.bins()] = {sum.re * scale, sum.im * scale};
            to[(C + first + c) * shape.bins()] = {difference.im * back, -difference.re * back};
        }
    }
};

struct Floors {
    Shape shape;
    float floor;
    const float* squares;
    float* floors;  // (N, 2C)

    int blocks() const { return 1; }
    size_t shared() const { return 0; }

    template <typename Block>
    SFIIN_BOTH void operator()(const Block& block, char*) const {
        for (int i = block.thread(); i < shape.batch * 2 * shape.channels; i += block.threads()) {
            float sum = 0;
            for (int h = 0; h < shape.height; ++h) sum += squares[static_cast<size_t>(i) * shape.height + h];
            const float found = floor * sqrtf(sum);
            floors[i] = found > 1e-30f ? found : 1e-30f;
        }
    }
};

// Along H, in place, `width` columns of one map in a block; inverse by conjugates.
struct Columns {
    Shape shape;
    Fourier columns;
    int maps;   // of one image
    int width;  // columns of one block
    bool inverse;
    Complex* spectra;  // (N, maps, H, F)

    int blocks() const { return shape.batch * maps * ((shape.columns() + width - 1) / width); }
    size_t shared() const { return 2 * static_cast<size_t>(width) * shape.height * sizeof(Complex); }

    template <typename Block>
    SFIIN_BOTH void operator()(const Block& block, char* memory) const {
        const int F = shape.columns(), H = shape.height, number = (F + width - 1) / width;
        const int first = block.index() % number * width, count = F - first < width ? F - first : width;
        Complex* a = reinterpret_cast<Complex*>(memory);
        Complex* map = spectra + block.index() / number * shape.bins() + first;
        for (int i = block.thread(); i < count * H; i += block.threads()) {
            const Complex x = map[static_cast<size_t>(i / count) * F + i % count];
            a[i % count * H + i / count] = inverse ? conj(x) : x;
        }
        block.sync();
        const Complex* z = transform(block, columns, count, a, a + width * H);
        for (int i = block.thread(); i < count * H; i += block.threads()) {
            const Complex x = z[i % count * H + i / count];
            map[static_cast<size_t>(i / count) * F + i % count] = inverse ? conj(x) : x;
        }
    }
};

// What happens to a bin, for up to LANES bins in shared memory of `floats` floats.
template <typename T>
struct Networks {
    Shape shape;
    float cut, fade, slope;
    const float* floors;  // (N, 2C)
    Layer<T> amplitude[2], phase[2];

    SFIIN_BOTH size_t floats() const { return static_cast<size_t>(6) * shape.channels * LANES; }

    // `bin_at(map, lane)` is a map's bin, `image(lane)`, `row(lane)` and `column(lane)` where it lies, `give(c, lane, x)`
    // takes the fused one. Between the first and the last there is a barrier, so that they may share memory.
    template <typename Block, typename Lanes>
    SFIIN_BOTH void operator()(const Block& block, int count, float* memory, const Lanes& lanes) const {
        const int C = shape.channels;
        float* moduli = memory;
        float* angles = moduli + 2 * C * LANES;
        float* hidden[2] = {angles + 2 * C * LANES, angles + 3 * C * LANES};
        for (int i = block.thread(); i < 2 * C * count; i += block.threads()) {
            const int map = i / count, lane = i % count;
            Complex x = lanes.bin(map, lane);
            if (2 * lanes.row(lane) % shape.height == 0 && 2 * lanes.column(lane) % shape.width == 0)
                x.im = 0;  // its own mirror image, so it is real
            polar(x, floors[lanes.image(lane) * 2 * C + map], moduli + map * LANES + lane, angles + map * LANES + lane);
        }
        block.sync();
        for (int i = block.thread(); i < C * count; i += block.threads()) {
            const int c = i / count, lane = i % count;
            const float a = dense(amplitude[0], c, 2 * C, moduli + lane), q = dense(phase[0], c, 2 * C, angles + lane);
            hidden[0][c * LANES + lane] = a > 0 ? a : slope * a;
            hidden[1][c * LANES + lane] = q > 0 ? q : slope * q;
        }
        block.sync();
        for (int i = block.thread(); i < C * count; i += block.threads()) {
            const int c = i / count, lane = i % count;
            const float a = dense(amplitude[1], c, C, hidden[0] + lane), q = dense(phase[1], c, C, hidden[1] + lane);
            lanes.give(c, lane, {a * cosf(q), a * sinf(q)});
        }
    }

    SFIIN_BOTH float dense(const Layer<T>& layer, int row, int inputs, const float* x) const {
        float sum = layer.bias[row];
        for (int k = 0; k < inputs; ++k) sum += static_cast<float>(layer.weight[row * inputs + k]) * x[k * LANES];
        return sum;
    }

    // Modulus and continuous phase, both 0 on the floor and faded in up to twice of it.
    SFIIN_BOTH void polar(Complex x, float floor, float* modulus, float* angle) const {
        const float pi = 3.14159265358979f;
        const float size = hypotf(x.re, x.im);
        const float ratio = size / floor - 1;
        const float share = ratio < 0 ? 0 : ratio > 1 ? 1 : ratio;
        float turned = atan2f(x.im, x.re) - cut;
        if (turned < -pi) turned += 2 * pi;
        const float steep = (pi - fade) / fade, falling = steep * (pi - turned), rising = -steep * (pi + turned);
        turned = turned < falling ? turned : falling;
        turned = turned > rising ? turned : rising;
        *modulus = size * share;
        *angle = (turned + cut) * share;
    }
};

template <typename T>
struct Bins {
    Networks<T> networks;
    const Complex* spectra;  // (N, 2C, H, F)
    Complex* fused;          // (N, C, H, F)

    size_t all() const { return networks.shape.batch * networks.shape.bins(); }
    int blocks() const { return static_cast<int>((all() + LANES - 1) / LANES); }
    size_t shared() const { return networks.floats() * sizeof(float); }

    struct Lanes {
        const Bins& own;
        size_t begin, bins;
        int channels, columns;
        SFIIN_BOTH int image(int lane) const { return static_cast<int>((begin + lane) / bins); }
        SFIIN_BOTH size_t at(int lane) const { return (begin + lane) % bins; }
        SFIIN_BOTH int row(int lane) const { return static_cast<int>(at(lane) / columns); }
        SFIIN_BOTH int column(int lane) const { return static_cast<int>(at(lane) % columns); }
        SFIIN_BOTH Complex bin(int map, int lane) const {
            return own.spectra[(static_cast<size_t>(image(lane)) * 2 * channels + map) * bins + at(lane)];
        }
        SFIIN_BOTH void give(int c, int lane, Complex x) const {
            own.fused[(static_cast<size_t>(image(lane)) * channels + c) * bins + at(lane)] = x;
        }
    };

    template <typename Block>
    SFIIN_BOTH void operator()(const Block& block, char* memory) const {
        const Shape& s = networks.shape;
        const Lanes lanes{*this, static_cast<size_t>(block.index()) * LANES, s.bins(), s.channels, s.columns()};
        const size_t left = s.batch * s.bins() - lanes.begin;
        networks(block, left < LANES ? static_cast<int>(left) : LANES, reinterpret_cast<float*>(memory), lanes);
    }
};

// Forward along H, the bins, and back, for `width` columns of all maps at once.
template <typename T>
struct WholeColumns {
    Networks<T> networks;
    Fourier columns;
    int width;
    const Complex* spectra;  // (N, 2C, H, F)
    Complex* fused;          // (N, C, H, F)

    int groups() const { return (networks.shape.columns() + width - 1) / width; }
    int blocks() const { return networks.shape.batch * groups(); }
    size_t shared() const {
        const Shape& s = networks.shape;
        return static_cast<size_t>(4) * s.channels * width * s.height * sizeof(Complex) + networks.floats() * sizeof(float);
    }

    // A lane is a row of one column; sequence (map, column) lies at (map * count + column) * H.
    struct Lanes {
        Complex* z;
        int n, height, count, at, first, begin;
        SFIIN_BOTH int image(int) const { return n; }
        SFIIN_BOTH int row(int lane) const { return begin + lane; }
        SFIIN_BOTH int column(int) const { return first + at; }
        SFIIN_BOTH Complex bin(int map, int lane) const { return z[(map * count + at) * height + begin + lane]; }
        SFIIN_BOTH void give(int c, int lane, Complex x) const {
            z[(c * count + at) * height + begin + lane] = conj(x);  // the way back is by conjugates
        }
    };

    template <typename Block>
    SFIIN_BOTH void operator()(const Block& block, char* memory) const {
        const Shape& s = networks.shape;
        const int C = s.channels, H = s.height, F = s.columns(), number = (F + width - 1) / width;
        const int n = block.index() / number, first = block.index() % number * width;
        const int count = F - first < width ? F - first : width;
        Complex* a = reinterpret_cast<Complex*>(memory);
        Complex* b = a + 2 * C * width * H;
        float* floats = reinterpret_cast<float*>(b + 2 * C * width * H);
        const Complex* from = spectra + static_cast<size_t>(n) * 2 * C * s.bins() + first;
        for (int i = block.thread(); i < 2 * C * count * H; i += block.threads()) {
            const int l = i % count, h = i / count % H, map = i / count / H;
            a[(map * count + l) * H + h] = from[map * s.bins() + static_cast<size_t>(h) * F + l];
        }
        block.sync();
        Complex* z = transform(block, columns, 2 * C * count, a, b);
        Complex* other = z == a ? b : a;
        for (int l = 0; l < count; ++l)
            for (int begin = 0; begin < H; begin += LANES) {
                const int lanes = H - begin < LANES ? H - begin : LANES;
                networks(block, lanes, floats, Lanes{z, n, H, count, l, first, begin});
                block.sync();
            }
        z = transform(block, columns, C * count, z, other);
        Complex* to = fused + static_cast<size_t>(n) * C * s.bins() + first;
        for (int i = block.thread(); i < C * count * H; i += block.threads()) {
            const int l = i % count, h = i / count % H, c = i / count / H;
            to[c * s.bins() + static_cast<size_t>(h) * F + l] = conj(z[(c * count + l) * H + h]);
        }
    }
};

struct RowsInverse {
    Shape shape;
    Fourier rows;
    int pairs;             // of channels, in one block
    const Complex* fused;  // (N, C, H, F)
    float* maps;           // (N, C, H, W), magnitudes

    int groups() const { return (shape.channels / 2 + pairs - 1) / pairs; }
    int blocks() const { return shape.batch * shape.height * groups(); }
    size_t shared() const { return 2 * static_cast<size_t>(pairs) * shape.width * sizeof(Complex); }

    template <typename Block>
    SFIIN_BOTH void operator()(const Block& block, char* memory) const {
        const int C = shape.channels, W = shape.width, F = shape.columns(), number = (C / 2 + pairs - 1) / pairs;
        const int n = block.index() / (shape.height * number), h = block.index() / number % shape.height;
        const int first = block.index() % number * pairs, count = C / 2 - first < pairs ? C / 2 - first : pairs;
        Complex* a = reinterpret_cast<Complex*>(memory);
        const Complex* from = fused + static_cast<size_t>(n) * C * shape.bins() + static_cast<size_t>(h) * F;
        for (int i = block.thread(); i < count * W; i += block.threads()) {
            const int pair = first + i / W, w = i % W, l = w < F ? w : W - w;
            Complex x = from[2 * pair * shape.bins() + l], y = from[(2 * pair + 1) * shape.bins() + l];
            if (2 * l % W == 0) x.im = y.im = 0;
            if (w >= F) x = conj(x), y = conj(y);
            a[i] = conj(x + Complex{-y.im, y.re});  // the two channels as real and imaginary part; inverse by conjugates
        }
        block.sync();
        const Complex* z = transform(block, rows, count, a, a + pairs * W);
        const float scale = 1 / sqrtf(static_cast<float>(shape.pixels()));
        for (int i = block.thread(); i < count * W; i += block.threads()) {
            const int pair = first + i / W, w = i % W;
            float* to = maps + (static_cast<size_t>(n) * C + 2 * pair) * shape.pixels() + static_cast<size_t>(h) * W + w;
            to[0] = fabsf(z[i].re) * scale;
            to[shape.pixels()] = fabsf(z[i].im) * scale;
        }
    }
};

template <typename T>
struct Out {
    Shape shape;
    int threads;  // pixels of one block
    const float* maps;
    Layer<T> layer;
    T* f;

    size_t all() const { return shape.batch * shape.pixels(); }
    int blocks() const { return static_cast<int>((all() + threads - 1) / threads); }
    size_t shared() const { return 0; }

    template <typename Block>
    SFIIN_BOTH void operator()(const Block& block, char*) const {
        const int C = shape.channels;
        const size_t pixels = shape.pixels(), end = shape.batch * pixels;
        for (int i = block.thread(); i < threads; i += block.threads()) {
            const size_t at = static_cast<size_t>(block.index()) * threads + i;
            if (at >= end) return;
            const size_t base = at / pixels * C * pixels + at % pixels;
            for (int c = 0; c < C; ++c) {
                float sum = layer.bias[c];
                for (int k = 0; k < C; ++k) sum += static_cast<float>(layer.weight[c * C + k]) * maps[base + k * pixels];
                f[base + c * pixels] = static_cast<T>(sum);
            }
        }
    }
};

}  // namespace sfiin

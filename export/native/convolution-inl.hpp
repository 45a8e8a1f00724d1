// How is a convolution computed? Row by row of the output, a block of its channels and some vectors of pixels at a
// time, so that all sums stay in registers and the input's rows in cache.

// Output channels of a block: 16 vector registers, as x86 has them before AVX-512, hold 4 times 2 sums, 32 twice as many.
constexpr int WIDE = HWY_ARCH_X86 && L < 16 ? 4 : 8;

int block_of(int outputs) { return outputs == 1 ? 1 : outputs <= 4 ? 4 : WIDE; }

// (outputs, inputs, taps) to (block, input, tap, output of the block), zeros behind the last output; groups apart.
void pack(Convolution& step) {
    const int groups = step.groups, outputs = static_cast<int>(step.out.size()) / groups;
    const int inputs = static_cast<int>(step.in.size()) / groups, taps = step.height * step.width;
    step.lanes = block_of(outputs);
    const int blocks = (outputs + step.lanes - 1) / step.lanes;
    step.packed.resize(static_cast<size_t>(groups) * blocks * inputs * taps * step.lanes);
    float* to = step.packed.data();
    for (int group = 0; group < groups; ++group)
        for (int block = 0; block < blocks; ++block)
            for (int input = 0; input < inputs; ++input) {
                const float scale = step.scale.empty() ? 1.0f : *step.scale[group * inputs + input];
                for (int tap = 0; tap < taps; ++tap)
                    for (int lane = 0; lane < step.lanes; ++lane) {
                        const int output = block * step.lanes + lane;
                        const size_t row = static_cast<size_t>(group) * outputs + output;
                        *to++ = output < outputs ? scale * step.weight[(row * inputs + input) * taps + tap] : 0.0f;
                    }
            }
}

HWY_INLINE V activated(V v, Activation kind, V slope) {
    switch (kind) {
        case Activation::Leaky: return leaky(v, slope);
        case Activation::Relu: return hn::Max(v, hn::Zero(d));
        case Activation::Sigmoid: return sigmoid(v);
        default: return v;
    }
}

// `number` vectors of pixels from column x of row y, `BLOCK` outputs from `first`.
template <int BLOCK, int NUMBER, int TAPS>
HWY_INLINE void cell(const Convolution& step, int y, int x, int first, int count, int first_input, int inputs,
                     const float* weight) {
    const size_t from_stride = step.from.stride(), to_stride = step.to.stride();
    V sums[BLOCK][NUMBER];
#pragma GCC unroll 8
    for (int o = 0; o < BLOCK; ++o) {
        const V bias = splat(o < count ? step.bias[first + o] : 0.0f);
#pragma GCC unroll 4
        for (int v = 0; v < NUMBER; ++v) sums[o][v] = bias;
    }
    const ptrdiff_t offset = static_cast<ptrdiff_t>(y * step.down - step.above) * static_cast<ptrdiff_t>(from_stride) + x - step.left;
    const int height = TAPS ? TAPS : step.height, width = TAPS ? TAPS : step.width;
    for (int input = 0; input < inputs; ++input) {
        const float* row = step.in[first_input + input] + offset;
        for (int ky = 0; ky < height; ++ky, row += from_stride)
            for (int kx = 0; kx < width; ++kx, weight += BLOCK) {
                V pixels[NUMBER];
#pragma GCC unroll 4
                for (int v = 0; v < NUMBER; ++v) pixels[v] = hn::LoadU(d, row + kx + v * L);
#pragma GCC unroll 8
                for (int o = 0; o < BLOCK; ++o) {
                    const V factor = splat(weight[o]);
#pragma GCC unroll 4
                    for (int v = 0; v < NUMBER; ++v) sums[o][v] = hn::MulAdd(factor, pixels[v], sums[o][v]);
                }
            }
    }
    const V slope = splat(step.slope);
    const size_t at = y * to_stride + x;
#pragma GCC unroll 8
    for (int o = 0; o < BLOCK; ++o) {
        if (o >= count) break;
#pragma GCC unroll 4
        for (int v = 0; v < NUMBER; ++v) {
            V sum = activated(sums[o][v], step.activation, slope);
            if (!step.residual.empty()) sum = hn::Add(sum, hn::LoadU(d, step.residual[first + o] + at + v * L));
            store_first(sum, step.to.width - x - v * L, step.out[first + o] + at + v * L);
        }
    }
}

template <int BLOCK, int TAPS>
void rows(const Convolution& step) {
    const int groups = step.groups, outputs = static_cast<int>(step.out.size()) / groups;
    const int inputs = static_cast<int>(step.in.size()) / groups, width = step.to.width;
    const size_t size = static_cast<size_t>(inputs) * step.height * step.width * BLOCK;
    for (int y = 0; y < step.to.height; ++y) {
        const float* weight = step.packed.data();
        for (int group = 0; group < groups; ++group)
            for (int first = 0; first < outputs; first += BLOCK, weight += size) {
                const int count = outputs - first < BLOCK ? outputs - first : BLOCK;
                int x = 0;
                for (; x + L < width; x += 2 * L)
                    cell<BLOCK, 2, TAPS>(step, y, x, group * outputs + first, count, group * inputs, inputs, weight);
                if (x < width)
                    cell<BLOCK, 1, TAPS>(step, y, x, group * outputs + first, count, group * inputs, inputs, weight);
            }
    }
}

template <int BLOCK>
void of_block(const Convolution& step) {
    if (step.height == 3 && step.width == 3)
        rows<BLOCK, 3>(step);
    else if (step.height == 1 && step.width == 1)
        rows<BLOCK, 1>(step);
    else
        rows<BLOCK, 0>(step);
}

// The floats of each of a row's parts, when every `across`-th pixel makes one.
size_t apart(const Convolution& step) {
    return static_cast<size_t>(step.from.width + 2 * step.left) / step.across + step.width / step.across + 2 * MOST_LANES;
}

// With a stride along rows: an input's row is first taken apart, so that pixels of one tap lie side by side.
void strided(const Convolution& step, float* scratch) {
    const int outputs = static_cast<int>(step.out.size()) / step.groups, across = step.across;
    const int inputs = static_cast<int>(step.in.size()) / step.groups, taps = step.height * step.width;
    const int width = step.from.width + 2 * step.left;
    const size_t length = apart(step);
    const V slope = splat(step.slope);
    for (int y = 0; y < step.to.height; ++y)
        for (int input = 0; input < static_cast<int>(step.in.size()); ++input) {
            const int group = input / inputs, own = input % inputs;
            const float scale = step.scale.empty() ? 1.0f : *step.scale[input];
            for (int ky = 0; ky < step.height; ++ky) {
                const float* row = step.in[input] + static_cast<ptrdiff_t>(y * step.down - step.above + ky) *
                                                        static_cast<ptrdiff_t>(step.from.stride()) - step.left;
                for (int x = 0; x < width; ++x) scratch[x % across * length + x / across] = scale * row[x];
                for (int o = group * outputs; o < (group + 1) * outputs; ++o) {
                    const float* weight = step.weight + (static_cast<size_t>(o) * inputs + own) * taps + ky * step.width;
                    for (int x = 0; x < step.to.width; x += L) {
                        float* to = step.out[o] + y * step.to.stride() + x;
                        V sum = own + ky ? hn::LoadU(d, to) : splat(step.bias[o]);
                        for (int kx = 0; kx < step.width; ++kx)
                            sum = hn::MulAdd(splat(weight[kx]), hn::LoadU(d, scratch + kx % across * length + kx / across + x), sum);
                        if (own + 1 == inputs && ky + 1 == step.height) {
                            sum = activated(sum, step.activation, slope);
                            if (!step.residual.empty()) sum = hn::Add(sum, hn::LoadU(d, step.residual[o] + y * step.to.stride() + x));
                        }
                        store_first(sum, step.to.width - x, to);
                    }
                }
            }
        }
}

size_t convolution_scratch(const Convolution& step) { return step.across > 1 ? step.across * apart(step) : 0; }

void convolve(Convolution& step, float* scratch) {
    if (step.across > 1) return strided(step, scratch);
    if (step.packed.empty() || !step.scale.empty()) pack(step);
    if (step.lanes == 1)
        of_block<1>(step);
    else if (step.lanes == 4)
        of_block<4>(step);
    else
        of_block<8>(step);
}

// How does the frequency branch's core become three sweeps? Rows forward, columns with the bins' networks, rows back.
//
// sfiin/model/spectrum.py defines it. A spectrum lies in blocks of L columns, which are transformed side by side, real
// and imaginary parts apart: a block holds one map behind the other, so that all that is done between both transforms
// along the rows is done to a block while it is in cache. Few columns that are left over lie apart, those of L maps side
// by side.

struct Room {  // in the program's scratch memory
    float *re, *im;            // (block, map, H + 1, L): a line more than rows, lest all maps meet in one set of the cache
    float *rest_re, *rest_im;  // (column left over, group of L maps, H, L)
    float *left_re, *left_im;  // (2C, left_stride): one column of those as a row for each map
    float *work[8];            // a vector for each element of the longer side
    float *zeros;              // a row without light
    size_t map, left_stride;   // floats between two maps of a block
    int height, columns, maps, blocks, left, groups;

    size_t floats;             // of all

    Room(float* base, const Size& s, int channels) : floats(0) {
        height = s.height, columns = s.width / 2 + 1, maps = 2 * channels;
        left = columns % L <= L / 4 ? columns % L : 0;
        blocks = (columns - left + L - 1) / L, groups = (maps + L - 1) / L;
        map = static_cast<size_t>(height + 1) * L, left_stride = height + MOST_LANES;
        const auto take = [&](size_t count) {
            float* at = base ? base + floats : nullptr;
            floats += count;
            return at;
        };
        re = take(at(blocks, 0)), im = take(at(blocks, 0));
        rest_re = take(rest(left, 0)), rest_im = take(rest(left, 0));
        left_re = take(maps * left_stride), left_im = take(maps * left_stride);
        zeros = take(s.width + MOST_LANES);
        const size_t longer = (static_cast<size_t>(s.height > s.width ? s.height : s.width) + 2) * MOST_LANES + 32;
        for (float*& one : work) one = take(longer);
    }

    // Nothing of another step's numbers goes through the transforms in lanes that no column fills.
    void clear() const {
        std::fill(rest_re, work[0], 0.0f);
        if (!blocks || wide(blocks - 1) == L) return;
        for (float* part : {re, im}) std::fill(part + at(blocks - 1, 0), part + at(blocks, 0), 0.0f);
    }

    Parts pair(int first) const { return {work[first], work[first + 1], static_cast<size_t>(L)}; }
    size_t at(int block, int one) const { return (static_cast<size_t>(block) * maps + one) * map; }
    size_t rest(int column, int group) const { return (static_cast<size_t>(column) * groups + group) * height * L; }
    int wide(int block) const { return columns - left - block * L < L ? columns - left - block * L : L; }
};

float norm(Plane plane, const Size& size) {
    double sum = 0;
    for (int y = 0; y < size.height; ++y) {
        V squares = hn::Zero(d);
        const float* row = plane + y * size.stride();
        for (int x = 0; x < size.width; x += L) {  // beyond the width are zeros
            const V v = hn::LoadU(d, row + x);
            squares = hn::MulAdd(v, v, squares);
        }
        sum += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, squares)));
    }
    return static_cast<float>(std::sqrt(sum));
}

// Rows of one map as real and imaginary parts of complex sequences, L of each at a time.
void rows_forward(const Spectrum& step, const Room& room, const Fourier& along, int map) {
    const int H = step.size.height, W = step.size.width, F = W / 2 + 1;
    const float* from[2 * L];
    float* to[L];
    const Parts z = room.pair(0), a = room.pair(2), b = room.pair(4);
    const V half = splat(0.5f * step.forward);
    for (int first = 0; first < H; first += 2 * L) {
        for (int i = 0; i < 2 * L; ++i)
            from[i] = first + i < H ? step.in[map] + (first + i) * step.size.stride() : room.zeros;
        transposed(from, L, W, z.re, L);
        transposed(from + L, L, W, z.im, L);
        transform(along, z, z, a, b);
        for (int k = 0; k < F; ++k) {
            const C x = read(z, k), y = read(z, k ? W - k : 0);
            hn::StoreU(hn::Mul(half, hn::Add(x.re, y.re)), d, a.re + k * L);
            hn::StoreU(hn::Mul(half, hn::Sub(x.im, y.im)), d, a.im + k * L);
            hn::StoreU(hn::Mul(half, hn::Add(x.im, y.im)), d, b.re + k * L);
            hn::StoreU(hn::Mul(half, hn::Sub(y.re, x.re)), d, b.im + k * L);
        }
        const float* results[4] = {a.re, a.im, b.re, b.im};
        for (int part = 0; part < 4; ++part) {
            const int begin = first + part / 2 * L, kept = H - begin < L ? H - begin : L;
            if (kept <= 0) continue;
            for (int block = 0; block < room.blocks; ++block) {
                float* at = (part % 2 ? room.im : room.re) + room.at(block, map) + static_cast<size_t>(begin) * L;
                for (int i = 0; i < kept; ++i) to[i] = at + i * L;
                transposed_back(results[part] + block * L * L, L, L, kept, room.wide(block), to);
            }
            for (int j = 0; j < room.left; ++j) {
                float* at = (part % 2 ? room.rest_im : room.rest_re) + room.rest(j, map / L) + begin * L + map % L;
                for (int i = 0; i < kept; ++i) at[i * L] = results[part][(F - room.left + j) * L + i];
            }
        }
    }
}

void rows_back(const Spectrum& step, const Room& room, const Fourier& along, int map) {
    const int H = step.size.height, W = step.size.width, F = W / 2 + 1;
    const float* from[L];
    float* to[2 * L];
    const Parts z = room.pair(0), a = room.pair(2), b = room.pair(4);
    const Parts swapped = {z.im, z.re, z.stride}, a_swapped = {a.im, a.re, a.stride}, b_swapped = {b.im, b.re, b.stride};
    const V factor = splat(step.inverse), none = hn::Zero(d);
    for (int first = 0; first < H; first += 2 * L) {
        float* results[4] = {a.re, a.im, b.re, b.im};
        for (int part = 0; part < 4; ++part) {
            const int begin = first + part / 2 * L;
            for (int block = 0; block < room.blocks; ++block) {
                const float* at = (part % 2 ? room.im : room.re) + room.at(block, map) + static_cast<size_t>(begin) * L;
                for (int i = 0; i < L; ++i) from[i] = begin + i < H ? at + i * L : room.zeros;
                transposed(from, L, room.wide(block), results[part] + block * L * L, L);
            }
            for (int j = 0; j < room.left; ++j) {
                const float* at = (part % 2 ? room.rest_im : room.rest_re) + room.rest(j, map / L) + begin * L + map % L;
                for (int i = 0; i < L; ++i) results[part][(F - room.left + j) * L + i] = begin + i < H ? at[i * L] : 0.0f;
            }
        }
        for (int k = 0; k < F; ++k) {
            C x = read(a, k), y = read(b, k);
            const bool real = 2 * k % W == 0;
            if (real) x.im = y.im = none;
            write({hn::Sub(x.re, y.im), hn::Add(x.im, y.re)}, z, k);
            if (!real) write({hn::Add(x.re, y.im), hn::Sub(y.re, x.im)}, z, W - k);
        }
        transform(along, swapped, swapped, a_swapped, b_swapped);
        for (int k = 0; k < W; ++k) {
            const C x = read(z, k);
            write({hn::Abs(hn::Mul(x.re, factor)), hn::Abs(hn::Mul(x.im, factor))}, z, k);
        }
        for (int half = 0; half < 2; ++half) {
            const int begin = first + half * L, kept = H - begin < L ? H - begin : L;
            if (kept <= 0) continue;
            for (int i = 0; i < kept; ++i) to[i] = step.out[map] + (begin + i) * step.size.stride();
            transposed_back(half ? z.im : z.re, L, L, kept, W, to);
        }
    }
}

HWY_INLINE void dense(const float* weight, const float* bias, int inputs, int outputs, const float* x, float* to) {
    for (int first = 0; first < outputs; first += 4) {
        const int last = outputs - 1 - first;
        const float *w0 = weight + static_cast<size_t>(first) * inputs, *w1 = w0 + (last > 0 ? inputs : 0);
        const float *w2 = w0 + (last > 1 ? 2 * inputs : 0), *w3 = w0 + (last > 2 ? 3 * inputs : 0);
        V s0 = splat(bias[first]), s1 = splat(bias[first + (last > 0)]);
        V s2 = splat(bias[first + (last > 1 ? 2 : 0)]), s3 = splat(bias[first + (last > 2 ? 3 : 0)]);
        for (int i = 0; i < inputs; ++i) {
            const V v = hn::LoadU(d, x + i * L);
            s0 = hn::MulAdd(splat(w0[i]), v, s0), s1 = hn::MulAdd(splat(w1[i]), v, s1);
            s2 = hn::MulAdd(splat(w2[i]), v, s2), s3 = hn::MulAdd(splat(w3[i]), v, s3);
        }
        hn::StoreU(s0, d, to + first * L);
        if (last > 0) hn::StoreU(s1, d, to + (first + 1) * L);
        if (last > 1) hn::StoreU(s2, d, to + (first + 2) * L);
        if (last > 2) hn::StoreU(s3, d, to + (first + 3) * L);
    }
}

// Both networks on a vector of bins; a map's bins lie `stride` behind the one before. They are replaced by the fused
// ones, of C maps.
void bins(const Spectrum& step, const float* brightness, float* re, float* im, size_t stride) {
    const int channels = step.channels;
    float moduli[128 * L], angles[128 * L], hidden[64 * L], amplitude[64 * L], phase[64 * L];
    const V pi = splat(3.14159265358979324f), whole = splat(6.28318530717958648f), cut = splat(step.cut);
    const V steep = splat((3.14159265358979324f - step.fade) / step.fade), one = splat(1), slope = splat(step.slope);
    for (int map = 0; map < 2 * channels; ++map) {
        const V x = hn::LoadU(d, re + map * stride), y = hn::LoadU(d, im + map * stride);
        const V size = hn::Sqrt(hn::MulAdd(x, x, hn::Mul(y, y)));
        const V share = hn::Min(hn::Max(hn::MulSub(size, splat(brightness[map]), one), hn::Zero(d)), one);
        V turned = hn::Sub(arc_tangent(y, x), cut);
        turned = hn::IfThenElse(hn::Lt(turned, hn::Neg(pi)), hn::Add(turned, whole), turned);
        turned = hn::Min(turned, hn::Mul(steep, hn::Sub(pi, turned)));
        turned = hn::Max(turned, hn::Neg(hn::Mul(steep, hn::Add(pi, turned))));
        hn::StoreU(hn::Mul(size, share), d, moduli + map * L);
        hn::StoreU(hn::Mul(hn::Add(turned, cut), share), d, angles + map * L);
    }
    for (int network = 0; network < 2; ++network) {
        const float* const* layers = step.network + 4 * network;
        dense(layers[0], layers[1], 2 * channels, channels, network ? angles : moduli, hidden);
        for (int c = 0; c < channels; ++c) hn::StoreU(leaky(hn::LoadU(d, hidden + c * L), slope), d, hidden + c * L);
        dense(layers[2], layers[3], channels, channels, hidden, network ? phase : amplitude);
    }
    for (int c = 0; c < channels; ++c) {
        V cosine, sine;
        cosine_sine(hn::LoadU(d, phase + c * L), cosine, sine);
        const V size = hn::LoadU(d, amplitude + c * L);
        hn::StoreU(hn::Mul(size, cosine), d, re + c * stride);
        hn::StoreU(hn::Mul(size, sine), d, im + c * stride);
    }
}

// Whether a bin is its own mirror image, which is real.
bool alone(const Spectrum& step, int row, int column) {
    return 2 * row % step.size.height == 0 && 2 * column % step.size.width == 0;
}

// Columns forward, the bins' networks, and columns back, of one block.
void fuse_block(const Spectrum& step, const Room& room, const Fourier& along, const float* brightness, int block) {
    const Parts a = room.pair(0), b = room.pair(2);
    float *re = room.re + room.at(block, 0), *im = room.im + room.at(block, 0);
    for (int map = 0; map < room.maps; ++map) {
        const Parts lines = {re + map * room.map, im + map * room.map, static_cast<size_t>(L)};
        transform(along, lines, lines, a, b);
    }
    for (int y = 0; y < room.height; ++y) {
        for (int x = 0; x < L && 2 * y % room.height == 0; ++x)
            for (int map = 0; map < room.maps && alone(step, y, block * L + x); ++map) im[map * room.map + y * L + x] = 0;
        bins(step, brightness, re + y * L, im + y * L, room.map);
    }
    for (int c = 0; c < step.channels; ++c) {
        const Parts lines = {im + c * room.map, re + c * room.map, static_cast<size_t>(L)};
        transform(along, lines, lines, a, b);
    }
}

// The same for a column left over: maps side by side in the transforms, rows side by side between them.
void fuse_column(const Spectrum& step, const Room& room, const Fourier& along, const float* brightness, int j) {
    const Parts a = room.pair(0), b = room.pair(2);
    const int H = room.height, column = room.columns - room.left + j;
    for (int group = 0; group < room.groups; ++group) {
        const Parts lines = {room.rest_re + room.rest(j, group), room.rest_im + room.rest(j, group), static_cast<size_t>(L)};
        transform(along, lines, lines, a, b);
    }
    for (int map = 0; map < room.maps; ++map)
        for (int y = 0; y < H; ++y) {
            const size_t at = room.rest(j, map / L) + y * L + map % L, to = map * room.left_stride + y;
            room.left_re[to] = room.rest_re[at], room.left_im[to] = alone(step, y, column) ? 0.0f : room.rest_im[at];
        }
    for (int y = 0; y < H; y += L) bins(step, brightness, room.left_re + y, room.left_im + y, room.left_stride);
    for (int c = 0; c < step.channels; ++c)
        for (int y = 0; y < H; ++y) {
            const size_t at = room.rest(j, c / L) + y * L + c % L, from = c * room.left_stride + y;
            room.rest_re[at] = room.left_re[from], room.rest_im[at] = room.left_im[from];
        }
    for (int group = 0; group * L < step.channels; ++group) {
        const Parts lines = {room.rest_im + room.rest(j, group), room.rest_re + room.rest(j, group), static_cast<size_t>(L)};
        transform(along, lines, lines, a, b);
    }
}

void fuse_spectra(const Spectrum& step, float* scratch) {
    const Room room(scratch, step.size, step.channels);
    const Fourier along_rows(step.size.width), along_columns(step.size.height);
    float brightness[128];  // 1 / floor
    const float share = step.floor * step.forward * std::sqrt(static_cast<float>(step.size.pixels()));
    room.clear();
    for (int map = 0; map < room.maps; ++map) {
        brightness[map] = 1.0f / std::max(share * norm(step.in[map], step.size), 1e-30f);
        rows_forward(step, room, along_rows, map);
    }
    for (int block = 0; block < room.blocks; ++block) fuse_block(step, room, along_columns, brightness, block);
    for (int j = 0; j < room.left; ++j) fuse_column(step, room, along_columns, brightness, j);
    for (int map = 0; map < step.channels; ++map) rows_back(step, room, along_rows, map);
}

size_t spectrum_scratch(const Spectrum& step) {
    return Room(nullptr, step.size, step.channels).floats;
}

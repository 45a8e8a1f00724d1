// How does the frequency branch's core become three sweeps? Rows forward, columns with the bins' networks, rows back.
//
// sfiin/model/spectrum.py defines it. Spectra lie in two arrays, real and imaginary, of H rows; a row holds the F bins
// of each map, one map behind the other, so that all columns of all maps are transformed side by side.

struct Room {  // in the program's scratch memory
    float *re, *im;       // (H, row)
    float *work[8];       // a vector for each element of the longer side
    float *zeros;         // a row without light
    float *left_re, *left_im;  // (2C, left_stride): columns that fill no vector
    size_t row, left_stride;

    static size_t row_of(int maps, int columns) { return static_cast<size_t>(maps) * columns + MOST_LANES + 8; }
    static size_t work_of(const Size& s) { return (static_cast<size_t>(s.height > s.width ? s.height : s.width) + 2) * MOST_LANES + 32; }
    static size_t floats(const Size& s, int channels) {
        const size_t maps = 2 * channels;
        return 2 * s.height * row_of(maps, s.width / 2 + 1) + 8 * work_of(s) + (s.width + 8) + 2 * maps * (s.height + MOST_LANES) + 64;
    }
    Room(float* at, const Size& s, int channels) {
        const int maps = 2 * channels;
        row = row_of(maps, s.width / 2 + 1), left_stride = s.height + MOST_LANES;
        re = at, at += s.height * row, im = at, at += s.height * row;
        for (float*& one : work) one = at, at += work_of(s);
        zeros = at, at += s.width + 8;
        left_re = at, at += maps * left_stride, left_im = at;
    }
    Parts pair(int first) const { return {work[first], work[first + 1], static_cast<size_t>(L)}; }
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
    float* to[4][L];
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
            for (int i = 0; i < kept; ++i)
                to[part][i] = (part % 2 ? room.im : room.re) + (begin + i) * room.row + static_cast<size_t>(map) * F;
            transposed_back(results[part], L, L, kept, F, to[part]);
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
            for (int i = 0; i < L; ++i)
                from[i] = begin + i < H ? (part % 2 ? room.im : room.re) + (begin + i) * room.row + static_cast<size_t>(map) * F
                                        : room.zeros;
            transposed(from, L, F, results[part], L);
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

// All columns of `maps` maps, in place.
void columns(const Room& room, const Fourier& along, size_t count, bool back) {
    const Parts a = room.pair(0), b = room.pair(2);
    for (size_t k = 0; k < count; k += L) {
        const Parts lines = {(back ? room.im : room.re) + k, (back ? room.re : room.im) + k, room.row};
        transform(along, lines, lines, a, b);
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

// Both networks on a vector of bins; a map's bins lie `stride` behind the one before. The first `count` are replaced by
// the fused ones, of C maps.
void bins(const Spectrum& step, const float* brightness, float* re, float* im, size_t stride, int count) {
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
        store_first(hn::Mul(size, cosine), count, re + c * stride);
        store_first(hn::Mul(size, sine), count, im + c * stride);
    }
}

void all_bins(const Spectrum& step, const Room& room) {
    const int H = step.size.height, W = step.size.width, F = W / 2 + 1, maps = 2 * step.channels;
    float brightness[128];  // 1 / floor
    const float share = step.floor * step.forward * std::sqrt(static_cast<float>(step.size.pixels()));
    for (int map = 0; map < maps; ++map) brightness[map] = 1.0f / std::max(share * norm(step.in[map], step.size), 1e-30f);
    for (int y = 0; y < H; ++y)  // what is its own mirror image is real
        for (int k = 0; k < F; ++k) {
            if (2 * y % H == 0 && 2 * k % W == 0)
                for (int map = 0; map < maps; ++map) room.im[y * room.row + static_cast<size_t>(map) * F + k] = 0;
            else if (2 * y % H) break;
        }
    const int left = F % L <= L / 4 ? F % L : 0, straight = F - left;
    for (int y = 0; y < H; ++y)
        for (int k = 0; k < straight; k += L)
            bins(step, brightness, room.re + y * room.row + k, room.im + y * room.row + k, F, straight - k < L ? straight - k : L);
    for (int k = straight; k < F; ++k) {  // a column in vectors of rows
        for (int map = 0; map < maps; ++map)
            for (int y = 0; y < H; ++y) {
                const size_t at = y * room.row + static_cast<size_t>(map) * F + k;
                room.left_re[map * room.left_stride + y] = room.re[at], room.left_im[map * room.left_stride + y] = room.im[at];
            }
        for (int y = 0; y < H; y += L)
            bins(step, brightness, room.left_re + y, room.left_im + y, room.left_stride, H - y < L ? H - y : L);
        for (int c = 0; c < step.channels; ++c)
            for (int y = 0; y < H; ++y) {
                const size_t at = y * room.row + static_cast<size_t>(c) * F + k;
                room.re[at] = room.left_re[c * room.left_stride + y], room.im[at] = room.left_im[c * room.left_stride + y];
            }
    }
}

void fuse_spectra(const Spectrum& step, float* scratch) {
    const Room room(scratch, step.size, step.channels);
    const Fourier along_rows(step.size.width), along_columns(step.size.height);
    const size_t F = step.size.width / 2 + 1;
    for (int map = 0; map < 2 * step.channels; ++map) rows_forward(step, room, along_rows, map);
    columns(room, along_columns, 2 * step.channels * F, false);
    all_bins(step, room);
    columns(room, along_columns, step.channels * F, true);
    for (int map = 0; map < step.channels; ++map) rows_back(step, room, along_rows, map);
}

size_t spectrum_scratch(const Spectrum& step) { return Room::floats(step.size, step.channels); }

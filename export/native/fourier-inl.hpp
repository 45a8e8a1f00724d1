// How are many sequences transformed at once? One in each lane of a vector; by Stockham's scheme (autosort: no bit
// reversal) in steps of radix 8, 4, 2, 3, 5, and any other prime by its definition.
//
// A sequence's element i is the vector at i * stride, real and imaginary parts apart. The inverse transform is the
// forward one with the two exchanged.

struct Parts {
    float *re, *im;
    size_t stride;
};

struct Fourier {
    int length;
    std::vector<int> radices;
    std::vector<float> cosine, sine;  // of -2 pi t / length

    explicit Fourier(int n) : length(n), cosine(n), sine(n) {
        for (; n % 8 == 0 && (n % 16 || n % 32 == 0); n /= 8) radices.push_back(8);  // 16 is 4 times 4
        for (int radix : {4, 2, 3, 5})
            for (; n % radix == 0; n /= radix) radices.push_back(radix);
        for (int radix = 7; n > 1; radix += 2)
            for (; n % radix == 0; n /= radix) radices.push_back(radix);
        for (int t = 0; t < length; ++t) {
            const double angle = -2.0 * 3.14159265358979323846 * t / length;
            cosine[t] = static_cast<float>(std::cos(angle));
            sine[t] = static_cast<float>(std::sin(angle));
        }
        if (radices.empty()) radices.push_back(1);
    }
};

struct C {
    V re, im;
};
HWY_INLINE C operator+(C a, C b) { return {hn::Add(a.re, b.re), hn::Add(a.im, b.im)}; }
HWY_INLINE C operator-(C a, C b) { return {hn::Sub(a.re, b.re), hn::Sub(a.im, b.im)}; }
HWY_INLINE C times(C a, V cosine, V sine) {
    return {hn::NegMulAdd(a.im, sine, hn::Mul(a.re, cosine)), hn::MulAdd(a.im, cosine, hn::Mul(a.re, sine))};
}
HWY_INLINE C read(const Parts& from, size_t i) {
    return {hn::LoadU(d, from.re + i * from.stride), hn::LoadU(d, from.im + i * from.stride)};
}
HWY_INLINE void write(C x, const Parts& to, size_t i) {
    hn::StoreU(x.re, d, to.re + i * to.stride);
    hn::StoreU(x.im, d, to.im + i * to.stride);
}

template <int R>
HWY_INLINE void small(C* x) {
    if constexpr (R == 2) {
        const C a = x[0] + x[1], b = x[0] - x[1];
        x[0] = a, x[1] = b;
    } else if constexpr (R == 3) {
        const C sum = x[1] + x[2], difference = x[1] - x[2];
        const V half = splat(-0.5f), root = splat(0.86602540378443865f);
        const C middle = {hn::MulAdd(sum.re, half, x[0].re), hn::MulAdd(sum.im, half, x[0].im)};
        const C turned = {hn::Mul(difference.im, root), hn::Neg(hn::Mul(difference.re, root))};
        x[0] = x[0] + sum, x[1] = middle + turned, x[2] = middle - turned;
    } else if constexpr (R == 4) {
        const C a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], e = x[1] - x[3];
        const C turned = {e.im, hn::Neg(e.re)};
        x[0] = a + c, x[1] = b + turned, x[2] = a - c, x[3] = b - turned;
    } else if constexpr (R == 5) {
        const V c1 = splat(0.30901699437494742f), c2 = splat(-0.80901699437494742f);
        const V s1 = splat(0.95105651629515357f), s2 = splat(0.58778525229247313f);
        const C a = x[1] + x[4], b = x[2] + x[3], e = x[1] - x[4], f = x[2] - x[3];
        const C m1 = {hn::MulAdd(b.re, c2, hn::MulAdd(a.re, c1, x[0].re)), hn::MulAdd(b.im, c2, hn::MulAdd(a.im, c1, x[0].im))};
        const C m2 = {hn::MulAdd(b.re, c1, hn::MulAdd(a.re, c2, x[0].re)), hn::MulAdd(b.im, c1, hn::MulAdd(a.im, c2, x[0].im))};
        const C t1 = {hn::MulAdd(f.im, s2, hn::Mul(e.im, s1)), hn::Neg(hn::MulAdd(f.re, s2, hn::Mul(e.re, s1)))};
        const C t2 = {hn::NegMulAdd(f.im, s1, hn::Mul(e.im, s2)), hn::Neg(hn::NegMulAdd(f.re, s1, hn::Mul(e.re, s2)))};
        x[0] = x[0] + a + b, x[1] = m1 + t1, x[2] = m2 + t2, x[3] = m2 - t2, x[4] = m1 - t1;
    } else if constexpr (R == 8) {
        C even[4] = {x[0], x[2], x[4], x[6]}, odd[4] = {x[1], x[3], x[5], x[7]};
        small<4>(even), small<4>(odd);
        const V root = splat(0.70710678118654752f);
        odd[1] = {hn::Mul(root, hn::Add(odd[1].re, odd[1].im)), hn::Mul(root, hn::Sub(odd[1].im, odd[1].re))};
        odd[2] = {odd[2].im, hn::Neg(odd[2].re)};
        odd[3] = {hn::Mul(root, hn::Sub(odd[3].im, odd[3].re)), hn::Neg(hn::Mul(root, hn::Add(odd[3].re, odd[3].im)))};
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) x[k] = even[k] + odd[k], x[k + 4] = even[k] - odd[k];
    }
}

// One step, `done` being the product of earlier radices.
template <int R>
void pass(const Fourier& f, int done, const Parts& from, const Parts& to) {
    const int jump = f.length / R, step = jump / done;
    for (int k = 0; k < done; ++k) {
        V cosine[R], sine[R];
        for (int r = 1; r < R; ++r) cosine[r] = splat(f.cosine[r * k * step]), sine[r] = splat(f.sine[r * k * step]);
        for (int block = 0; block < step; ++block) {
            C x[R];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) x[r] = read(from, block * done + k + r * jump);
            if (k)
#pragma GCC unroll 8
                for (int r = 1; r < R; ++r) x[r] = times(x[r], cosine[r], sine[r]);
            small<R>(x);
#pragma GCC unroll 8
            for (int q = 0; q < R; ++q) write(x[q], to, block * done * R + k + q * done);
        }
    }
}

void any_pass(const Fourier& f, int radix, int done, const Parts& from, const Parts& to) {
    const int jump = f.length / radix, step = jump / done;
    for (int j = 0; j < jump; ++j) {
        const int k = j % done;
        for (int q = 0; q < radix; ++q) {
            C sum = read(from, j);
            for (int r = 1; r < radix; ++r) {
                const size_t turn = (static_cast<size_t>(r) * k * step + static_cast<size_t>(r) * q % radix * jump) % f.length;
                sum = sum + times(read(from, j + r * jump), splat(f.cosine[turn]), splat(f.sine[turn]));
            }
            write(sum, to, (j - k) * radix + k + q * done);
        }
    }
}

// `from` may be `to`; `a` and `b` are room for `length` vectors each and lie apart from both.
void transform(const Fourier& f, const Parts& from, const Parts& to, const Parts& a, const Parts& b) {
    int done = 1;
    const Parts* source = &from;
    for (size_t i = 0; i < f.radices.size(); ++i) {
        const bool last = i + 1 == f.radices.size();
        // A single step may not write where it still reads.
        const Parts* target = last && !(source == &from && from.re == to.re) ? &to : source == &a ? &b : &a;
        switch (f.radices[i]) {
            case 2: pass<2>(f, done, *source, *target); break;
            case 3: pass<3>(f, done, *source, *target); break;
            case 4: pass<4>(f, done, *source, *target); break;
            case 5: pass<5>(f, done, *source, *target); break;
            case 8: pass<8>(f, done, *source, *target); break;
            default: any_pass(f, f.radices[i], done, *source, *target);
        }
        done *= f.radices[i];
        source = target;
    }
    if (source != &to)
        for (int i = 0; i < f.length; ++i) write(read(*source, i), to, i);
}

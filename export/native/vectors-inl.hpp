// What do all kernels do to a vector? Included once for each CPU that is compiled for.

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, MOST_LANES>;
using V = hn::Vec<D>;
constexpr D d{};
constexpr int L = HWY_LANES(float) < MOST_LANES ? HWY_LANES(float) : MOST_LANES;
static_assert(L % 4 == 0, "vectors of four floats at least");
using D4 = hn::FixedTag<float, 4>;
constexpr D4 d4{};

HWY_INLINE V splat(float value) { return hn::Set(d, value); }

HWY_INLINE void store_first(V v, int count, float* to) {
    if (count >= L)
        hn::StoreU(v, d, to);
    else
        hn::BlendedStore(v, hn::FirstN(d, static_cast<size_t>(count)), d, to);
}

HWY_INLINE V leaky(V v, V slope) { return hn::IfThenElse(hn::Gt(v, hn::Zero(d)), v, hn::Mul(v, slope)); }

HWY_INLINE V sigmoid(V v) {
    const V one = splat(1);
    const V bounded = hn::Min(hn::Max(v, splat(-87.0f)), splat(87.0f));
    return hn::Div(one, hn::Add(one, hn::Exp(d, hn::Neg(bounded))));
}

// The angle of (re, im) in [-pi, pi], by a polynomial on |t| <= tan(pi / 8), least maximum error; (0, 0) has angle 0.
HWY_INLINE V arc_tangent(V im, V re) {
    const V x = hn::Abs(re), y = hn::Abs(im);
    const V low = hn::Min(x, y), high = hn::Max(x, y);
    const auto steep = hn::Gt(low, hn::Mul(high, splat(0.41421356f)));  // beyond pi / 8, from pi / 4 instead
    const V over = hn::IfThenElse(steep, hn::Sub(low, high), low);
    const V under = hn::IfThenElse(steep, hn::Add(low, high), high);
    const V t = hn::Div(over, hn::Max(under, splat(1e-37f)));
    const V z = hn::Mul(t, t);
    V p = splat(-0.06093585f);
    p = hn::MulAdd(p, z, splat(0.10600493f));
    p = hn::MulAdd(p, z, splat(-0.14244549f));
    p = hn::MulAdd(p, z, splat(0.19998534f));
    p = hn::MulAdd(p, z, splat(-0.33333316f));
    V angle = hn::MulAdd(hn::Mul(p, z), t, t);
    angle = hn::Add(angle, hn::IfThenElseZero(steep, splat(0.78539816339744831f)));
    angle = hn::IfThenElse(hn::Gt(y, x), hn::Sub(splat(1.57079632679489662f), angle), angle);
    angle = hn::IfThenElse(hn::Lt(re, hn::Zero(d)), hn::Sub(splat(3.14159265358979324f), angle), angle);
    return hn::IfThenElse(hn::Lt(im, hn::Zero(d)), hn::Neg(angle), angle);
}

// Cosine and sine; the argument is reduced by a multiple of pi / 2 in three parts, good to some thousands of turns.
HWY_INLINE void cosine_sine(V x, V& cosine, V& sine) {
    const hn::RebindToSigned<D> di;
    const V turns = hn::Round(hn::Mul(x, splat(0.63661977236758134f)));
    const auto quadrant = hn::ConvertTo(di, turns);
    V r = hn::NegMulAdd(turns, splat(1.5703125f), x);
    r = hn::NegMulAdd(turns, splat(4.83751296997e-4f), r);
    r = hn::NegMulAdd(turns, splat(7.54978995489e-8f), r);
    const V z = hn::Mul(r, r);
    V s = splat(2.71835036e-06f);
    s = hn::MulAdd(s, z, splat(-1.98393398e-04f));
    s = hn::MulAdd(s, z, splat(8.33332941e-03f));
    s = hn::MulAdd(s, z, splat(-1.66666666e-01f));
    s = hn::MulAdd(hn::Mul(s, z), r, r);
    V c = splat(-2.72118329e-07f);
    c = hn::MulAdd(c, z, splat(2.47995423e-05f));
    c = hn::MulAdd(c, z, splat(-1.38888839e-03f));
    c = hn::MulAdd(c, z, splat(4.16666666e-02f));
    c = hn::MulAdd(hn::Mul(c, z), z, hn::NegMulAdd(z, splat(0.5f), splat(1)));
    const auto one = hn::Set(di, 1), two = hn::Set(di, 2);
    const auto odd = hn::RebindMask(d, hn::Eq(hn::And(quadrant, one), one));
    const auto sine_negative = hn::RebindMask(d, hn::Eq(hn::And(quadrant, two), two));
    const auto cosine_negative = hn::RebindMask(d, hn::Eq(hn::And(hn::Add(quadrant, one), two), two));
    const V plain_sine = hn::IfThenElse(odd, c, s), plain_cosine = hn::IfThenElse(odd, s, c);
    sine = hn::IfThenElse(sine_negative, hn::Neg(plain_sine), plain_sine);
    cosine = hn::IfThenElse(cosine_negative, hn::Neg(plain_cosine), plain_cosine);
}

// to[column * to_stride + row] = from[row][column] for `rows`, a multiple of 4, and any number of columns; a row may be
// read up to 3 floats beyond them.
HWY_INLINE void transposed(const float* const* from, int rows, int columns, float* to, size_t to_stride) {
    for (int row = 0; row < rows; row += 4) {
        for (int column = 0; column < columns; column += 4) {
            const auto a = hn::LoadU(d4, from[row] + column), b = hn::LoadU(d4, from[row + 1] + column);
            const auto e = hn::LoadU(d4, from[row + 2] + column), f = hn::LoadU(d4, from[row + 3] + column);
            const auto ae = hn::InterleaveLower(d4, a, e), bf = hn::InterleaveLower(d4, b, f);
            const auto ae2 = hn::InterleaveUpper(d4, a, e), bf2 = hn::InterleaveUpper(d4, b, f);
            float* at = to + column * to_stride + row;
            hn::StoreU(hn::InterleaveLower(d4, ae, bf), d4, at);
            if (column + 1 < columns) hn::StoreU(hn::InterleaveUpper(d4, ae, bf), d4, at + to_stride);
            if (column + 2 < columns) hn::StoreU(hn::InterleaveLower(d4, ae2, bf2), d4, at + 2 * to_stride);
            if (column + 3 < columns) hn::StoreU(hn::InterleaveUpper(d4, ae2, bf2), d4, at + 3 * to_stride);
        }
    }
}

// to[row][column] = from[column * from_stride + row] for `rows`, a multiple of 4, of which `kept` are stored.
HWY_INLINE void transposed_back(const float* from, size_t from_stride, int rows, int kept, int columns, float* const* to) {
    for (int row = 0; row < rows && row < kept; row += 4) {
        int column = 0;
        for (; column + 4 <= columns; column += 4) {
            const float* at = from + column * from_stride + row;
            const auto a = hn::LoadU(d4, at), b = hn::LoadU(d4, at + from_stride);
            const auto e = hn::LoadU(d4, at + 2 * from_stride), f = hn::LoadU(d4, at + 3 * from_stride);
            const auto ae = hn::InterleaveLower(d4, a, e), bf = hn::InterleaveLower(d4, b, f);
            const auto ae2 = hn::InterleaveUpper(d4, a, e), bf2 = hn::InterleaveUpper(d4, b, f);
            hn::StoreU(hn::InterleaveLower(d4, ae, bf), d4, to[row] + column);
            if (row + 1 < kept) hn::StoreU(hn::InterleaveUpper(d4, ae, bf), d4, to[row + 1] + column);
            if (row + 2 < kept) hn::StoreU(hn::InterleaveLower(d4, ae2, bf2), d4, to[row + 2] + column);
            if (row + 3 < kept) hn::StoreU(hn::InterleaveUpper(d4, ae2, bf2), d4, to[row + 3] + column);
        }
        for (; column < columns; ++column)
            for (int i = row; i < row + 4 && i < kept; ++i) to[i][column] = from[column * from_stride + i];
    }
}

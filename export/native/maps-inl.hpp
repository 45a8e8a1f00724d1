// How do maps move: in and out, over their edges, between channels and pixels, and through a matrix for each side?

void pad(const Pad& step) {
    const int width = step.from.width, first = std::min(step.left, step.to.width);
    const int middle = std::min(width, step.to.width - first);
    for (size_t c = 0; c < step.in.size(); ++c)
        for (int y = 0; y < step.to.height; ++y) {
            const float* from = step.in[c] + std::clamp(y - step.above, 0, step.from.height - 1) * step.from.stride();
            float* to = step.out[c] + y * step.to.stride();
            std::fill_n(to, first, from[0]);
            std::copy_n(from, middle, to + first);
            std::fill_n(to + first + middle, step.to.width - first - middle, from[width - 1]);
        }
}

// One row of pixels from `block` rows, which lie apart.
void interleave(const float* const* from, int block, int width, float* to) {
    int x = 0;
    if (block == 2)
        for (; x + L <= width; x += L)
            hn::StoreInterleaved2(hn::LoadU(d, from[0] + x), hn::LoadU(d, from[1] + x), d, to + 2 * x);
    else if (block == 4)
        for (; x + L <= width; x += L)
            hn::StoreInterleaved4(hn::LoadU(d, from[0] + x), hn::LoadU(d, from[1] + x), hn::LoadU(d, from[2] + x),
                                  hn::LoadU(d, from[3] + x), d, to + 4 * x);
    for (; x < width; ++x)
        for (int i = 0; i < block; ++i) to[x * block + i] = from[i][x];
}

void depth_to_space(const DepthToSpace& step) {
    const int block = step.block, channels = static_cast<int>(step.out.size());
    const Size to = {step.from.height * block, step.from.width * block};
    const float* from[64];
    for (int c = 0; c < channels; ++c)
        for (int y = 0; y < to.height; ++y) {
            for (int i = 0; i < block; ++i) {
                const int phase = y % block * block + i;
                const Plane in = step.in[step.column_row_depth ? c * block * block + phase : phase * channels + c];
                from[i] = in + y / block * step.from.stride();
            }
            interleave(from, block, step.from.width, step.out[c] + y * to.stride());
        }
}

// One row of a product, vectors of pixels at a time: the rows that `factors` weigh lie `stride` apart.
void weigh(const float* factors, const float* rows, size_t stride, int count, int width, float* to) {
    for (int x = 0; x < width; x += L) {
        V sum = hn::Zero(d);
        for (int k = 0; k < count; ++k) {
            const float factor = factors[k];
            if (factor == 0) continue;  // most of resampling
            sum = hn::MulAdd(splat(factor), hn::LoadU(d, rows + k * stride + x), sum);
        }
        store_first(sum, width - x, to + x);
    }
}

void multiply(const Product& step) {
    const size_t stride = step.from.stride();
    for (size_t c = 0; c < step.in.size(); ++c)
        for (int y = 0; y < step.to.height; ++y) {
            float* to = step.out[c] + y * step.to.stride();
            if (step.left)
                weigh(step.matrix + static_cast<size_t>(y) * step.from.height, step.in[c], stride, step.from.height, step.to.width, to);
            else
                weigh(step.in[c] + y * stride, step.matrix, step.to.width, step.from.width, step.to.width, to);
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

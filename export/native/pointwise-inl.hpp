// How is a chain of pointwise operators computed in one sweep? Row by row, each operator on a row that is in cache.

struct Register {
    const float* row;
    int step;  // 0: one value for the whole row, in a vector
};

template <typename Work>
HWY_INLINE void sweep(const Register& first, const Register& second, int width, float* to, const Work& work) {
    for (int x = 0; x < width; x += L)
        hn::StoreU(work(hn::LoadU(d, first.row + x * first.step), hn::LoadU(d, second.row + x * second.step)), d, to + x);
}

void instruction(const Pointwise::Instruction& one, const Register& a, const Register& b, int width, float* to) {
    const V value = splat(one.value);
    switch (one.operation) {
        case Operation::Add: return sweep(a, b, width, to, [](V x, V y) { return hn::Add(x, y); });
        case Operation::Subtract: return sweep(a, b, width, to, [](V x, V y) { return hn::Sub(x, y); });
        case Operation::Multiply: return sweep(a, b, width, to, [](V x, V y) { return hn::Mul(x, y); });
        case Operation::Divide: return sweep(a, b, width, to, [](V x, V y) { return hn::Div(x, y); });
        case Operation::Maximum: return sweep(a, b, width, to, [](V x, V y) { return hn::Max(x, y); });
        case Operation::Minimum: return sweep(a, b, width, to, [](V x, V y) { return hn::Min(x, y); });
        case Operation::Sigmoid: return sweep(a, b, width, to, [](V x, V) { return sigmoid(x); });
        case Operation::Leaky: return sweep(a, b, width, to, [&](V x, V) { return leaky(x, value); });
        case Operation::Relu: return sweep(a, b, width, to, [](V x, V) { return hn::Max(x, hn::Zero(d)); });
        case Operation::Exp: return sweep(a, b, width, to, [](V x, V) { return hn::Exp(d, x); });
        case Operation::Tanh: return sweep(a, b, width, to, [](V x, V) { return hn::Tanh(d, x); });
        case Operation::Sqrt: return sweep(a, b, width, to, [](V x, V) { return hn::Sqrt(x); });
        case Operation::Abs: return sweep(a, b, width, to, [](V x, V) { return hn::Abs(x); });
        case Operation::Negate: return sweep(a, b, width, to, [](V x, V) { return hn::Neg(x); });
    }
}

size_t pointwise_stride(const Pointwise& step) { return static_cast<size_t>(step.size.width) + 2 * MOST_LANES; }

size_t pointwise_scratch(const Pointwise& step) {
    return step.operands.size() * MOST_LANES + step.code.size() * pointwise_stride(step);
}

void pointwise(const Pointwise& step, float* scratch) {
    const int width = step.size.width;
    const size_t stride = step.size.stride(), operands = step.operands.size();
    std::vector<Register> registers(operands + step.code.size());
    float* rows = scratch + operands * MOST_LANES;
    for (size_t i = 0; i < step.code.size(); ++i) registers[operands + i] = {rows + i * pointwise_stride(step), 1};
    for (size_t c = 0; c < step.out.size(); ++c) {
        for (size_t i = 0; i < operands; ++i) {
            const auto& operand = step.operands[i];
            if (operand.kind == Pointwise::Kind::Map) continue;
            const float value = operand.kind == Pointwise::Kind::Constant ? operand.value : *operand.planes[c];
            hn::StoreU(splat(value), d, scratch + i * MOST_LANES);
            registers[i] = {scratch + i * MOST_LANES, 0};
        }
        double sum = 0;
        for (int y = 0; y < step.size.height; ++y) {
            for (size_t i = 0; i < operands; ++i)
                if (step.operands[i].kind == Pointwise::Kind::Map) registers[i] = {step.operands[i].planes[c] + y * stride, 1};
            for (size_t i = 0; i < step.code.size(); ++i) {
                const auto& one = step.code[i];
                instruction(one, registers[one.first], registers[one.second], width, rows + i * pointwise_stride(step));
            }
            const Register& result = registers.back();
            V total = hn::Zero(d);
            for (int x = 0; x < width; x += L) {
                const V v = hn::LoadU(d, result.row + x * result.step);
                if (!step.mean)
                    store_first(v, width - x, step.out[c] + y * stride + x);
                else
                    total = hn::Add(total, width - x < L ? hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(width - x)), v) : v);
            }
            if (step.mean) sum += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, total)));
        }
        if (step.mean) *step.out[c] = static_cast<float>(sum / static_cast<double>(step.size.pixels()));
    }
}

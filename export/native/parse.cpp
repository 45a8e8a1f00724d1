// Is this a program that may be run? Reads one, and refuses what would read or write outside its buffers.
#include <cstring>
#include <stdexcept>

#include "program.hpp"

namespace sfiin {
namespace {

constexpr int MOST_SIDE = 8192, MOST_CHANNELS = 1024;

struct Reader {
    const int32_t* at;
    const int32_t* end;
    Program& program;
    size_t known;  // constants
    std::vector<Size> sizes;
    std::vector<int> channels;

    int32_t next() {
        if (at == end) throw std::runtime_error("the program ends within a step");
        return *at++;
    }

    int32_t within(int32_t low, int32_t high, const char* what) {
        const int32_t value = next();
        if (value < low || value > high) throw std::runtime_error(std::string(what) + " out of range");
        return value;
    }

    float real() {
        const int32_t bits = next();
        float value;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }

    const float* constant(size_t count) {
        const int32_t offset = next();
        if (offset < 0 || offset + count > known)
            throw std::runtime_error("constants out of range");
        return program.constants.data() + offset;
    }

    Size size() {
        const int height = within(1, MOST_SIDE, "a height");
        return {height, within(1, MOST_SIDE, "a width")};
    }

    // A number of planes, then a buffer and a channel for each; all must be of `size`.
    Planes planes(const Size& size) {
        Planes found(within(0, MOST_CHANNELS, "a number of planes"));
        for (Plane& plane : found) {
            const int buffer = within(0, static_cast<int32_t>(sizes.size()) - 1, "a buffer");
            const int channel = within(0, channels[buffer] - 1, "a channel");
            if (!(sizes[buffer] == size)) throw std::runtime_error("a plane of another size than its step's");
            plane = program.buffers[buffer].data() + channel * size.plane() + size.origin();
        }
        return found;
    }

    Planes planes(const Size& size, size_t count) {
        Planes found = planes(size);
        if (found.size() != count) throw std::runtime_error("another number of planes than its step's");
        return found;
    }

    void buffers() {
        const int count = within(0, 4096, "a number of buffers");
        for (int i = 0; i < count; ++i) {
            sizes.push_back(size());
            channels.push_back(within(1, MOST_CHANNELS, "a number of channels"));
            program.buffers.emplace_back(channels.back() * sizes.back().plane(), 0.0f);
        }
    }

    void load() {
        Load step;
        step.size = size();
        step.input = within(0, 1, "an input");
        step.out = planes(step.size);
        program.loads.push_back(step);
    }

    void store() {
        Store step;
        step.size = size();
        step.in = planes(step.size);
        program.stores.push_back(step);
    }

    void convolution() {
        Convolution step;
        step.from = size();
        step.height = within(1, MOST_SIDE, "a kernel's height");
        step.width = within(1, MOST_SIDE, "a kernel's width");
        step.above = within(0, MARGIN, "padding");
        step.left = within(0, MARGIN, "padding");
        step.groups = within(1, MOST_CHANNELS, "a number of groups");
        step.down = within(1, MOST_SIDE, "a stride");
        step.across = within(1, MOST_SIDE, "a stride");
        const int rows = step.from.height + 2 * step.above - step.height, columns = step.from.width + 2 * step.left - step.width;
        if (rows < 0 || columns < 0) throw std::runtime_error("a kernel larger than its maps");
        step.to = {rows / step.down + 1, columns / step.across + 1};
        step.activation = static_cast<Activation>(within(0, 3, "an activation"));
        step.slope = real();
        step.in = planes(step.from);
        step.out = planes(step.to);
        const int inputs = static_cast<int>(step.in.size()), outputs = static_cast<int>(step.out.size());
        if (!inputs || !outputs || inputs % step.groups || outputs % step.groups)
            throw std::runtime_error("channels that do not divide into groups");
        step.residual = planes(step.to);
        step.scale = planes({1, 1});
        if ((!step.residual.empty() && step.residual.size() != step.out.size()) ||
            (!step.scale.empty() && step.scale.size() != step.in.size()))
            throw std::runtime_error("a residual or scale of another number of channels");
        step.weight = constant(static_cast<size_t>(outputs) * (inputs / step.groups) * step.height * step.width);
        step.bias = constant(outputs);
        program.convolutions.push_back(step);
    }

    void spectrum() {
        Spectrum step;
        step.size = size();
        step.channels = within(1, 64, "a number of channels");
        for (float* value : {&step.floor, &step.cut, &step.fade, &step.slope, &step.forward, &step.inverse}) *value = real();
        step.in = planes(step.size, 2 * step.channels);
        step.out = planes(step.size, step.channels);
        const size_t c = step.channels, counts[4] = {2 * c * c, c, c * c, c};
        for (int i = 0; i < 8; ++i) step.network[i] = constant(counts[i % 4]);
        program.spectra.push_back(step);
    }

    void pointwise() {
        Pointwise step;
        step.size = size();
        step.mean = within(0, 1, "a kind of result");
        step.out = planes(step.mean ? Size{1, 1} : step.size);
        const int operands = within(1, 64, "a number of operands");
        for (int i = 0; i < operands; ++i) {
            Pointwise::Operand operand{};
            operand.kind = static_cast<Pointwise::Kind>(within(0, 2, "a kind of operand"));
            if (operand.kind == Pointwise::Kind::Constant)
                operand.constants = constant(step.out.size());
            else
                operand.planes = planes(operand.kind == Pointwise::Kind::Map ? step.size : Size{1, 1}, step.out.size());
            step.operands.push_back(operand);
        }
        const int count = within(0, 256, "a number of instructions");
        for (int i = 0; i < count; ++i) {
            Pointwise::Instruction one;
            one.operation = static_cast<Operation>(within(0, 13, "an operation"));
            one.first = within(0, operands + i - 1, "a register");
            one.second = within(0, operands + i - 1, "a register");
            one.value = real();
            step.code.push_back(one);
        }
        program.pointwise.push_back(step);
    }

    void pad() {
        Pad step;
        step.from = size();
        step.to = size();
        step.above = within(0, MOST_SIDE, "padding");
        step.left = within(0, MOST_SIDE, "padding");
        step.in = planes(step.from);
        step.out = planes(step.to, step.in.size());
        program.pads.push_back(step);
    }

    void depth_to_space() {
        DepthToSpace step;
        step.from = size();
        step.block = within(1, 64, "a block");
        step.column_row_depth = within(0, 1, "an order");
        step.in = planes(step.from);
        const int square = step.block * step.block;
        if (step.in.size() % square) throw std::runtime_error("channels that do not divide into blocks");
        step.out = planes({step.from.height * step.block, step.from.width * step.block}, step.in.size() / square);
        program.depths.push_back(step);
    }

    void product() {
        Product step;
        step.from = size();
        step.left = within(0, 1, "a side");
        const int side = within(1, MOST_SIDE, "a side's length");
        step.to = step.left ? Size{side, step.from.width} : Size{step.from.height, side};
        step.in = planes(step.from);
        step.out = planes(step.to, step.in.size());
        step.matrix = constant(static_cast<size_t>(side) * (step.left ? step.from.height : step.from.width));
        program.products.push_back(step);
    }

    void steps() {
        while (at != end) {
            const auto kind = static_cast<Step::Kind>(within(1, 8, "a kind of step"));
            size_t index = 0;
            switch (kind) {
                case Step::Kind::Load: index = program.loads.size(); load(); break;
                case Step::Kind::Convolution: index = program.convolutions.size(); convolution(); break;
                case Step::Kind::Spectrum: index = program.spectra.size(); spectrum(); break;
                case Step::Kind::Pointwise: index = program.pointwise.size(); pointwise(); break;
                case Step::Kind::Pad: index = program.pads.size(); pad(); break;
                case Step::Kind::DepthToSpace: index = program.depths.size(); depth_to_space(); break;
                case Step::Kind::Product: index = program.products.size(); product(); break;
                case Step::Kind::Store: index = program.stores.size(); store(); break;
            }
            program.steps.push_back({kind, static_cast<int>(index)});
        }
    }
};

}  // namespace

std::string parse(const int32_t* code, size_t length, const float* constants, size_t count, Program& program) {
    program.constants.assign(constants, constants + count);
    program.constants.resize(count + MOST_LANES);  // a vector may begin at any of them
    Reader reader{code, code + length, program, count, {}, {}};
    try {
        if (reader.next() != VERSION) return "a program of another version";
        reader.buffers();
        reader.steps();
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "";
}

}  // namespace sfiin

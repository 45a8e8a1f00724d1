// What is a network to the native library? A list of steps on maps in memory, made by sfiin.runtime.backends.
//
// Maps of one size lie in buffers, a plane for each channel, with margins of zeros around each plane: a convolution
// reads over the edge, and a vector may begin anywhere. A step names planes, not buffers, so that joining maps along
// their channels is a list, not a copy. Steps write the inside of planes only; margins stay zero for ever.
//
// A program arrives as integers, constants apart from it (parse.cpp reads it, sfiin/runtime/backends/native_program.py
// writes it).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace sfiin {

constexpr int MARGIN = 2;        // rows of zeros above and below a plane
constexpr int SIDE = 16;         // zeros left of a row, and at least as many to its right
constexpr int VERSION = 2;       // of the program's form
constexpr int MOST_LANES = 16;   // floats in the widest vector that is compiled for

struct Size {
    int height = 0, width = 0;
    size_t stride() const { return static_cast<size_t>(SIDE + (width + SIDE - 1) / SIDE * SIDE + 2 * SIDE); }
    size_t plane() const { return stride() * (height + 2 * MARGIN); }
    size_t pixels() const { return static_cast<size_t>(height) * width; }
    size_t origin() const { return stride() * MARGIN + SIDE; }
    bool operator==(const Size& other) const { return height == other.height && width == other.width; }
};

using Plane = float*;  // the first pixel; the size goes with the step
using Planes = std::vector<Plane>;

enum class Activation : int32_t { None = 0, Leaky = 1, Relu = 2, Sigmoid = 3 };

struct Convolution {
    Size from, to;
    int height, width, above, left, groups;  // kernel and zero padding; `above` and `left` also stand for the rest
    int down, across;                        // strides
    Activation activation;
    float slope;
    Planes in, out, residual, scale;  // added after the activation; one value for each input; both may be empty
    const float* weight;              // (outputs, inputs / groups, height, width)
    const float* bias;
    int lanes = 0;               // outputs of one block of `packed`
    std::vector<float> packed;   // (block, input, tap, output of the block)
};

struct Spectrum {
    Size size;
    int channels;
    float floor, cut, fade, slope, forward, inverse;  // the floor is for ||x||; factors of the two transforms
    Planes in, out;            // 2C maps to C magnitudes
    const float* network[8];   // amplitude: weight, bias, weight, bias; phase likewise
};

enum class Operation : int32_t {
    Add = 0, Subtract, Multiply, Divide, Maximum, Minimum, Sigmoid, Leaky, Relu, Exp, Tanh, Sqrt, Abs, Negate
};

// Pointwise work along rows that stay in cache: registers are rows, those of the operands first, one per instruction
// behind them.
struct Pointwise {
    enum class Kind : int32_t { Map = 0, Channel = 1, Constant = 2 };
    struct Operand {
        Kind kind;
        Planes planes;           // of each channel: a map, or one value
        const float* constants;  // or a constant
    };
    struct Instruction {
        Operation operation;
        int first, second;
        float value;
    };
    Size size;
    bool mean;  // the result is each channel's mean, not its map
    std::vector<Operand> operands;
    std::vector<Instruction> code;
    Planes out;
};

struct Pad {  // the edge's values go on
    Size from, to;
    int above, left;
    Planes in, out;
};

struct DepthToSpace {
    Size from;
    int block;
    bool column_row_depth;
    Planes in, out;
};

struct Product {  // each map times a matrix
    Size from, to;
    bool left;            // matrix (to.height, from.height) times map, else map times matrix (from.width, to.width)
    const float* matrix;
    Planes in, out;
};

struct Load {
    Size size;
    int input;  // 0: MS, 1: PAN
    Planes out;
};

struct Store {
    Size size;
    Planes in;
};

struct Step {
    enum class Kind : int32_t { Load = 1, Convolution, Spectrum, Pointwise, Pad, DepthToSpace, Product, Store } kind;
    int index;  // among those of its kind
};

struct Program {
    std::vector<float> constants;
    std::vector<std::vector<float>> buffers;
    std::vector<Step> steps;
    std::vector<Load> loads;
    std::vector<Convolution> convolutions;
    std::vector<Spectrum> spectra;
    std::vector<Pointwise> pointwise;
    std::vector<Pad> pads;
    std::vector<DepthToSpace> depths;
    std::vector<Product> products;
    std::vector<Store> stores;
    std::vector<float> scratch;
};

// Fills `program`; returns what is wrong, "" if nothing.
std::string parse(const int32_t* code, size_t length, const float* constants, size_t count, Program& program);

}  // namespace sfiin

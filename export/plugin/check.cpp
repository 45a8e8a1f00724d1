// The kernels over many sizes and both ways, in a process of their own, for a sanitizer to watch. Prints how many ran.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "launch.hpp"

extern "C" void sfiin_spectral_fusion(int half, const int* shape, const float* rule, const void* const* inputs, void* f,
                                      size_t limit, int threads);

namespace {

template <typename T>
void once(const int (&shape)[4], size_t limit, int threads) {
    const int C = shape[1];
    const size_t map = static_cast<size_t>(shape[0]) * C * shape[2] * shape[3];
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<std::vector<T>> arrays(sfiin::INPUTS);
    const void* inputs[sfiin::INPUTS];
    for (int i = 0; i < sfiin::INPUTS; ++i) {
        const bool doubled = i == sfiin::AMPLITUDE || i == sfiin::PHASE;
        const size_t size = i < sfiin::MS ? map : i % 2 ? C : static_cast<size_t>(C) * C * (doubled ? 2 : 1);
        for (size_t k = 0; k < size; ++k) arrays[i].push_back(static_cast<T>(normal(random) / (i < sfiin::MS ? 1 : C)));
        inputs[i] = arrays[i].data();
    }
    std::vector<T> f(map);
    const float rule[] = {1e-6f, 0.2f, 0.1f, 0.1f};
    sfiin_spectral_fusion(sizeof(T) == 2, shape, rule, inputs, f.data(), limit, threads);
}

}  // namespace

int main(int, char** arguments) {
    const int threads = std::atoi(arguments[1]);
    const int shapes[][4] = {{1, 4, 64, 64}, {2, 8, 72, 90}, {1, 12, 100, 64}, {1, 32, 64, 96}, {1, 4, 64, 500}};
    int count = 0;
    for (const auto& shape : shapes)
        for (size_t limit : {static_cast<size_t>(0), static_cast<size_t>(99) << 10}) {
            once<float>(shape, limit, threads);
            once<_Float16>(shape, limit, threads);
            count += 2;
        }
    std::printf("%d\n", count);
}

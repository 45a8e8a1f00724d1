// The kernels on a host, for tests: the same source, with threads and a barrier for each block.
#include <barrier>
#include <thread>

#include "launch.hpp"

namespace {

struct HostBlock {
    int number, of, block;
    std::barrier<>* barrier;
    int thread() const { return number; }
    int threads() const { return of; }
    int index() const { return block; }
    void sync() const {
        if (of > 1) barrier->arrive_and_wait();
    }
};

// Every block in turn, all of its threads at once; shared memory is of the size asked for, so that a sanitizer sees
// what lies beyond, and holds rubbish before each kernel.
struct HostRunner {
    int threads;

    template <typename Kernel>
    void run(const Kernel& kernel, int) const {
        std::vector<char> memory(kernel.shared(), static_cast<char>(0xA5));
        std::barrier<> barrier(threads);
        const auto work = [&](int number) {
            for (int block = 0; block < kernel.blocks(); ++block) {
                const HostBlock own{number, threads, block, &barrier};
                kernel(own, memory.data());
                own.sync();  // the next block takes over the memory
            }
        };
        std::vector<std::thread> others;
        for (int i = 1; i < threads; ++i) others.emplace_back(work, i);
        work(0);
        for (auto& other : others) other.join();
    }
};

template <typename T>
void computed(const sfiin::Shape& s, const sfiin::Rule& rule, const void* const* inputs, void* f,
              const sfiin::Shared& shared, int threads) {
    std::vector<char> workspace(sfiin::Workspace::bytes(s), static_cast<char>(0xA5));
    std::vector<sfiin::Complex> along_w(s.width), along_h(s.height);
    sfiin::turns(s.width, along_w.data());
    sfiin::turns(s.height, along_h.data());
    HostRunner runner{threads};
    sfiin::compute<T>(s, rule, inputs, static_cast<T*>(f), workspace.data(), along_w.data(), along_h.data(),
                      shared, runner);
}

}  // namespace

extern "C" const char* sfiin_unsupported(int batch, int channels, int height, int width) {
    return sfiin::unsupported({batch, channels, height, width});
}

extern "C" size_t sfiin_workspace(int batch, int channels, int height, int width) {
    return sfiin::Workspace::bytes({batch, channels, height, width});
}

extern "C" void sfiin_spectral_fusion(int half, const int* shape, const float* rule, const void* const* inputs, void* f,
                                      size_t limit, int threads) {
    const sfiin::Shape s{shape[0], shape[1], shape[2], shape[3]};
    const sfiin::Rule r{rule[0], rule[1], rule[2], rule[3]};
    const sfiin::Shared shared{limit, limit};
    if (half)
        computed<_Float16>(s, r, inputs, f, shared, threads);
    else
        computed<float>(s, r, inputs, f, shared, threads);
}

// How many columns a block takes, and how many blocks then run together on a multiprocessor of so much shared memory.
extern "C" void sfiin_columns(int channels, int height, size_t block, size_t all, int* width, int* together) {
    const sfiin::Shape s{1, channels, height, height};
    const sfiin::Shared shared{block, all};
    sfiin::WholeColumns<float> whole{};
    whole.networks.shape = s;
    whole.width = *width = sfiin::columns_together(whole, shared);
    *together = *width ? shared.together(whole.shared()) : 0;
}

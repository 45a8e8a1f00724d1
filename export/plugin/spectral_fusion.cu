// The kernels on a GPU: launches on a stream, and a C interface that takes device pointers.
#include "spectral_fusion.cuh"

#include "launch.hpp"

namespace {

struct GpuBlock {
    __device__ int thread() const { return threadIdx.x; }
    __device__ int threads() const { return blockDim.x; }
    __device__ int index() const { return blockIdx.x; }
    __device__ void sync() const { __syncthreads(); }
};

template <typename Kernel>
__global__ void __launch_bounds__(sfiin::THREADS) block_of(const Kernel kernel) {
    extern __shared__ __align__(16) char memory[];
    kernel(GpuBlock{}, memory);
}

struct GpuRunner {
    cudaStream_t stream;
    cudaError_t error = cudaSuccess;

    template <typename Kernel>
    void run(const Kernel& kernel, int threads) {
        if (error != cudaSuccess) return;
        const size_t shared = kernel.shared();
        if (shared > sfiin::SHARED)
            error = cudaFuncSetAttribute(block_of<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(shared));
        if (error != cudaSuccess) return;
        block_of<<<kernel.blocks(), threads, shared, stream>>>(kernel);
        error = cudaGetLastError();
    }
};

}  // namespace

// Shared memory on the current device, in bytes: what a block may have, then what a multiprocessor has.
extern "C" void sfiin_shared(size_t* shared) {
    int device = 0, block = 0, all = 0;
    const bool told = cudaGetDevice(&device) == cudaSuccess &&
                      cudaDeviceGetAttribute(&block, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) == cudaSuccess &&
                      cudaDeviceGetAttribute(&all, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device) == cudaSuccess;
    shared[0] = told ? block : sfiin::SHARED;
    shared[1] = told ? all : sfiin::SHARED;
}

extern "C" const char* sfiin_unsupported(int batch, int channels, int height, int width) {
    return sfiin::unsupported({batch, channels, height, width});
}

extern "C" size_t sfiin_workspace(int batch, int channels, int height, int width) {
    return sfiin::Workspace::bytes({batch, channels, height, width});
}

// exp(-2 pi i t / length) for each t, (length, 2) float, on the host: the tables that sfiin_enqueue wants on the device.
extern "C" void sfiin_turns(int length, float* to) { sfiin::turns(length, reinterpret_cast<sfiin::Complex*>(to)); }

// All pointers are the device's but `shape` (N, C, H, W), `rule`, `shared` (as sfiin_shared gives it) and the array
// `inputs` itself. Asynchronous; the name of CUDA's error, nullptr if there is none.
extern "C" const char* sfiin_enqueue(int half, const int* shape, const float* rule, const void* const* inputs, void* f,
                                     void* workspace, const void* along_w, const void* along_h,
                                     const size_t* shared, cudaStream_t stream) {
    const sfiin::Shape s{shape[0], shape[1], shape[2], shape[3]};
    const sfiin::Rule r{rule[0], rule[1], rule[2], rule[3]};
    const auto *w = static_cast<const sfiin::Complex*>(along_w), *h = static_cast<const sfiin::Complex*>(along_h);
    const sfiin::Shared own{shared[0], shared[1]};
    GpuRunner runner{stream};
    if (half)
        sfiin::compute<__half>(s, r, inputs, static_cast<__half*>(f), static_cast<char*>(workspace), w, h, own, runner);
    else
        sfiin::compute<float>(s, r, inputs, static_cast<float*>(f), static_cast<char*>(workspace), w, h, own, runner);
    return runner.error == cudaSuccess ? nullptr : cudaGetErrorName(runner.error);
}

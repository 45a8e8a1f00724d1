// CUDA's runtime over host memory, as far as the plugin calls it: each stream is a thread that does its work in order,
// so that a sanitizer sees a wait that is missing. What a stream is told is done at once, later or much later, as on a GPU.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>

using Work = std::function<void()>;

class Stream {
  public:
    Stream() : thread_([this] { run(); }) {}
    ~Stream() {
        add(nullptr);
        thread_.join();
    }
    // Noted down during a capture, else done by and by; nullptr ends the stream.
    void add(Work work) {
        if (noting) return noted.push_back(std::move(work));
        const std::lock_guard lock(mutex_);
        waiting_.push_back(std::move(work));
        changed_.notify_all();
    }
    void wait() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return waiting_.empty() && !busy_; });
    }

    bool noting = false;
    std::vector<Work> noted;

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Work> waiting_;
    bool busy_ = false;
    std::thread thread_;

    void run() {
        for (bool ended = false; !ended;) {
            std::unique_lock lock(mutex_);
            changed_.wait(lock, [this] { return !waiting_.empty(); });
            Work work = std::move(waiting_.front());
            waiting_.pop_front();
            busy_ = true;
            lock.unlock();
            if (work) work();
            ended = !work;
            lock.lock();
            busy_ = false;
            changed_.notify_all();
        }
    }
};

inline Stream& stream_of(cudaStream_t stream) {
    static Stream legacy;
    return stream ? *reinterpret_cast<Stream*>(stream) : legacy;
}

inline std::mutex counting;
inline int living = 0, failing_at = -1;  // device allocations; and how many more go well

inline cudaError_t made(void** to, size_t bytes) {
    const std::lock_guard lock(counting);
    if (failing_at == 0) return cudaErrorMemoryAllocation;
    failing_at -= failing_at > 0;
    ++living;
    *to = std::malloc(bytes);
    std::memset(*to, 0xA5, bytes);
    return cudaSuccess;
}

extern "C" {
cudaError_t cudaMalloc(void** to, size_t bytes) { return made(to, bytes); }
cudaError_t cudaFree(void* memory) {
    const std::lock_guard lock(counting);
    living -= memory != nullptr;
    std::free(memory);
    return cudaSuccess;
}
// From memory that is not pinned: it is read at once, and may be written long after the call has returned.
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
    const auto* first = static_cast<const char*>(from);
    stream_of(nullptr).add([to, staged = std::vector<char>(first, first + bytes)] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        std::memcpy(to, staged.data(), staged.size());
    });
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    stream_of(stream).add([=] { std::memcpy(to, from, bytes); });
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = reinterpret_cast<cudaStream_t>(new Stream);
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    stream_of(stream).wait();
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete &stream_of(stream);
    return cudaSuccess;
}
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorMemoryAllocation"; }
}

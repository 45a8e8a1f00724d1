// A stand-in for NVIDIA's driver over host memory, for tests: the few functions that sfiin's device layer calls.
//
// What it is strict about, since a real one forgives none of it: work on a stream is done when somebody waits for it
// and not before, so that a missing wait shows in the numbers; copies must lie inside an allocation; handles must be
// alive; a call without a context in its thread is an error. What it says nothing about: speed, kernels, other calls.
// `standin_fail(name, n)` makes a function fail from its n-th call from now on; with "" none does.

#include <cuda.h>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#undef cuMemAlloc
#undef cuMemFree
#undef cuMemGetInfo
#undef cuMemcpyHtoDAsync
#undef cuMemcpyDtoHAsync
#undef cuStreamDestroy
#undef cuEventDestroy
#undef cuEventElapsedTime
#undef cuStreamBeginCapture
#undef cuGraphInstantiate
#undef cuDevicePrimaryCtxRelease
#undef cuGetProcAddress
#undef cuCtxPushCurrent
#undef cuCtxPopCurrent
#undef cuCtxDetach
#undef cuCtxSynchronize
#undef cuCtxGetDevice

namespace {

struct Stream;
struct Event { int recorded = 0, happened = 0; double at = 0; Stream *where = nullptr; };
struct Step { std::function<void()> work; Event *awaited = nullptr; int count = 0; };
struct Stream { std::deque<Step> waiting; bool noting = false; std::vector<Step> noted; };
struct Graph { std::vector<Step> steps; };

std::map<char *, size_t> device, host;
std::set<Stream *> streams;
std::set<Event *> events;
std::set<Graph *> graphs, programs;
int retained = 0, context_place = 0;
double clock_ms = 0;
thread_local std::vector<CUcontext> stack(1, nullptr);

CUcontext context() { return reinterpret_cast<CUcontext>(&context_place); }

std::string failing;
int calls_until = 0;

bool fails(const char *name) { return failing == name && --calls_until <= 0; }

bool holds(const std::map<char *, size_t> &memory, const void *place, size_t size) {
    auto next = memory.upper_bound(static_cast<char *>(const_cast<void *>(place)));
    if (next == memory.begin()) return false;
    --next;
    return static_cast<const char *>(place) + size <= next->first + next->second;
}

// Do what waits on a stream, up to an event if one is given; a step that awaits another stream's event does that first.
void work_off(Stream *stream, Event *until = nullptr, int count = 0) {
    while (!stream->waiting.empty() && !(until && until->happened >= count)) {
        Step step = stream->waiting.front();
        stream->waiting.pop_front();
        if (step.awaited) {
            Stream *other = step.awaited->where;
            if (other && other != stream && step.awaited->happened < step.count) work_off(other, step.awaited, step.count);
        } else {
            step.work();
        }
    }
}

void add(Stream *stream, Step step) {
    if (stream->noting) stream->noted.push_back(step);
    else stream->waiting.push_back(step);
}

Stream *known(CUstream stream) {
    auto found = reinterpret_cast<Stream *>(stream);
    return streams.count(found) ? found : nullptr;
}

Event *known(CUevent event) {
    auto found = reinterpret_cast<Event *>(event);
    return events.count(found) ? found : nullptr;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) CUresult
#define BEGIN if (fails(__func__)) return CUDA_ERROR_UNKNOWN
#define HERE BEGIN; if (stack.back() != context()) return CUDA_ERROR_INVALID_CONTEXT

extern "C" __attribute__((visibility("default"))) int standin_living() {
    return static_cast<int>(device.size() + host.size() + streams.size() + events.size() + graphs.size() + programs.size());
}

extern "C" __attribute__((visibility("default"))) void standin_fail(const char *name, int calls) {
    failing = name;
    calls_until = calls;
}

// For a stand-in of TensorRT: work of the host's own on a stream. 0 where it was taken.
extern "C" __attribute__((visibility("default"))) int standin_enqueue(unsigned long long stream, void (*work)()) {
    Stream *found = known(reinterpret_cast<CUstream>(stream));
    if (!found) return 1;
    add(found, {[=] { work(); }});
    return 0;
}

API cuInit(unsigned) { BEGIN; return CUDA_SUCCESS; }
API cuDriverGetVersion(int *version) { *version = std::atoi(std::getenv("DRIVER") ? std::getenv("DRIVER") : "12060"); return CUDA_SUCCESS; }
API cuDeviceGetCount(int *count) { *count = 1; return CUDA_SUCCESS; }
API cuDeviceGet(CUdevice *found, int place) { BEGIN; *found = 0; return place ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS; }
API cuDeviceGetName(char *name, int size, CUdevice) { std::strncpy(name, "Stand-in", size); return CUDA_SUCCESS; }
API cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice) {
    *value = which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 8 : which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? 7 : 0;
    return CUDA_SUCCESS;
}
API cuDevicePrimaryCtxRetain(CUcontext *found, CUdevice) { BEGIN; ++retained; *found = context(); return CUDA_SUCCESS; }
API cuDevicePrimaryCtxRelease_v2(CUdevice) { --retained; return CUDA_SUCCESS; }
API cuCtxSetCurrent(CUcontext wanted) { BEGIN; stack.back() = wanted; return CUDA_SUCCESS; }
API cuCtxGetCurrent(CUcontext *found) { *found = stack.back(); return CUDA_SUCCESS; }
API cuCtxPushCurrent_v2(CUcontext wanted) { BEGIN; stack.push_back(wanted); return CUDA_SUCCESS; }
API cuCtxPopCurrent_v2(CUcontext *found) {
    BEGIN;
    if (stack.size() < 2) return CUDA_ERROR_INVALID_CONTEXT;
    if (found) *found = stack.back();
    stack.pop_back();
    return CUDA_SUCCESS;
}
API cuCtxGetDevice(CUdevice *found) { HERE; *found = 0; return CUDA_SUCCESS; }
API cuCtxGetApiVersion(CUcontext, unsigned *version) { *version = 12060; return CUDA_SUCCESS; }
API cuCtxDetach(CUcontext) { return CUDA_SUCCESS; }
API cuCtxSynchronize() {
    HERE;
    for (Stream *stream : streams) work_off(stream);
    return CUDA_SUCCESS;
}

API cuMemAlloc_v2(CUdeviceptr *place, size_t size) {
    HERE;
    char *made = static_cast<char *>(std::malloc(size));
    std::memset(made, 0xAB, size);  // what nobody wrote is no zero
    device[made] = size;
    *place = reinterpret_cast<CUdeviceptr>(made);
    return CUDA_SUCCESS;
}
API cuMemFree_v2(CUdeviceptr place) {
    HERE;
    auto found = reinterpret_cast<char *>(place);
    if (!device.erase(found)) return CUDA_ERROR_INVALID_VALUE;
    std::free(found);
    return CUDA_SUCCESS;
}
API cuMemHostAlloc(void **place, size_t size, unsigned) {
    HERE;
    *place = std::calloc(1, size);
    host[static_cast<char *>(*place)] = size;
    return CUDA_SUCCESS;
}
API cuMemFreeHost(void *place) {
    HERE;
    if (!host.erase(static_cast<char *>(place))) return CUDA_ERROR_INVALID_VALUE;
    std::free(place);
    return CUDA_SUCCESS;
}
API cuMemGetInfo_v2(size_t *left, size_t *all) { HERE; *left = 3u << 20; *all = 8u << 20; return CUDA_SUCCESS; }

API cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    HERE;
    Stream *found = known(stream);
    if (!found || !holds(device, reinterpret_cast<void *>(to), size) || !holds(host, from, size)) return CUDA_ERROR_INVALID_VALUE;
    add(found, {[=] { std::memcpy(reinterpret_cast<void *>(to), from, size); }});
    return CUDA_SUCCESS;
}
API cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    HERE;
    Stream *found = known(stream);
    if (!found || !holds(device, reinterpret_cast<void *>(from), size) || !holds(host, to, size)) return CUDA_ERROR_INVALID_VALUE;
    add(found, {[=] { std::memcpy(to, reinterpret_cast<void *>(from), size); }});
    return CUDA_SUCCESS;
}

API cuStreamCreate(CUstream *made, unsigned) {
    HERE;
    auto stream = new Stream;
    streams.insert(stream);
    *made = reinterpret_cast<CUstream>(stream);
    return CUDA_SUCCESS;
}
API cuStreamDestroy_v2(CUstream stream) {
    HERE;
    Stream *found = known(stream);
    if (!found) return CUDA_ERROR_INVALID_HANDLE;
    work_off(found);
    streams.erase(found);
    delete found;
    return CUDA_SUCCESS;
}
API cuStreamSynchronize(CUstream stream) {
    HERE;
    Stream *found = known(stream);
    if (!found) return CUDA_ERROR_INVALID_HANDLE;
    if (found->noting) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    work_off(found);
    return CUDA_SUCCESS;
}
API cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    HERE;
    Stream *found = known(stream);
    Event *awaited = known(event);
    if (!found || !awaited) return CUDA_ERROR_INVALID_HANDLE;
    add(found, {nullptr, awaited, awaited->recorded});
    return CUDA_SUCCESS;
}

API cuEventCreate(CUevent *made, unsigned) {
    HERE;
    auto event = new Event;
    events.insert(event);
    *made = reinterpret_cast<CUevent>(event);
    return CUDA_SUCCESS;
}
API cuEventDestroy_v2(CUevent event) {
    HERE;
    Event *found = known(event);
    if (!found) return CUDA_ERROR_INVALID_HANDLE;
    events.erase(found);
    delete found;
    return CUDA_SUCCESS;
}
API cuEventRecord(CUevent event, CUstream stream) {
    HERE;
    Stream *found = known(stream);
    Event *recorded = known(event);
    if (!found || !recorded) return CUDA_ERROR_INVALID_HANDLE;
    int count = ++recorded->recorded;
    recorded->where = found;
    add(found, {[=] { recorded->happened = count; recorded->at = clock_ms += 1; }});
    return CUDA_SUCCESS;
}
API cuEventSynchronize(CUevent event) {
    HERE;
    Event *found = known(event);
    if (!found) return CUDA_ERROR_INVALID_HANDLE;
    if (found->where && found->happened < found->recorded) work_off(found->where, found, found->recorded);
    return CUDA_SUCCESS;
}
API cuEventElapsedTime(float *ms, CUevent first, CUevent second) {
    HERE;
    Event *one = known(first), *other = known(second);
    if (!one || !other) return CUDA_ERROR_INVALID_HANDLE;
    if (one->happened < one->recorded || other->happened < other->recorded) return CUDA_ERROR_NOT_READY;
    *ms = static_cast<float>(other->at - one->at);
    return CUDA_SUCCESS;
}
API cuEventElapsedTime_v2(float *ms, CUevent first, CUevent second) { return cuEventElapsedTime(ms, first, second); }

API cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode) {
    HERE;
    Stream *found = known(stream);
    if (!found || found->noting) return CUDA_ERROR_ILLEGAL_STATE;
    found->noting = true;
    return CUDA_SUCCESS;
}
API cuStreamEndCapture(CUstream stream, CUgraph *made) {
    HERE;
    Stream *found = known(stream);
    if (!found || !found->noting) return CUDA_ERROR_ILLEGAL_STATE;
    auto graph = new Graph{found->noted};
    found->noting = false;
    found->noted.clear();
    graphs.insert(graph);
    *made = reinterpret_cast<CUgraph>(graph);
    return CUDA_SUCCESS;
}
API cuGraphInstantiateWithFlags(CUgraphExec *made, CUgraph graph, unsigned long long) {
    HERE;
    auto found = reinterpret_cast<Graph *>(graph);
    if (!graphs.count(found)) return CUDA_ERROR_INVALID_HANDLE;
    auto program = new Graph{found->steps};
    programs.insert(program);
    *made = reinterpret_cast<CUgraphExec>(program);
    return CUDA_SUCCESS;
}
API cuGraphDestroy(CUgraph graph) {
    HERE;
    auto found = reinterpret_cast<Graph *>(graph);
    if (!graphs.erase(found)) return CUDA_ERROR_INVALID_HANDLE;
    delete found;
    return CUDA_SUCCESS;
}
API cuGraphLaunch(CUgraphExec program, CUstream stream) {
    HERE;
    auto found = reinterpret_cast<Graph *>(program);
    Stream *on = known(stream);
    if (!programs.count(found) || !on) return CUDA_ERROR_INVALID_HANDLE;
    for (const Step &step : found->steps) add(on, step);
    return CUDA_SUCCESS;
}
API cuGraphExecDestroy(CUgraphExec program) {
    HERE;
    auto found = reinterpret_cast<Graph *>(program);
    if (!programs.erase(found)) return CUDA_ERROR_INVALID_HANDLE;
    delete found;
    return CUDA_SUCCESS;
}

API cuGetErrorName(CUresult, const char **name) { *name = "CUDA_ERROR"; return CUDA_SUCCESS; }
API cuGetErrorString(CUresult, const char **text) { *text = "an error"; return CUDA_SUCCESS; }

// Bindings ask for each function by name and version; the newest that is here is the one that is meant.
API cuGetProcAddress_v2(const char *name, void **function, int, cuuint64_t, CUdriverProcAddressQueryResult *result) {
    void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    *function = nullptr;
    std::string wanted = name;
    if (wanted == "cuGraphInstantiate") wanted = "cuGraphInstantiateWithFlags";
    for (const char *end : {"_v2", ""})
        if (!*function) *function = dlsym(self, (wanted + end).c_str());
    if (result) *result = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
API cuGetProcAddress(const char *name, void **function, int version, cuuint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}

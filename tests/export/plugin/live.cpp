// The plugin's host side alive, as TensorRT would have it live: built, serialised, run in two contexts on two streams at
// once, through changes of shape and the replay of what was captured. Prints a line for each thing that was right.
#include <NvInfer.h>

#include <cstdio>
#include <random>

#include "runtime.hpp"

#include "host.cpp"

using namespace nvinfer1;

// The kernels, compiled for the host, as work on a stream. The tables are read when the work is done, not before.
extern "C" void sfiin_shared(size_t* shared) { shared[0] = shared[1] = 99 << 10; }
extern "C" const char* sfiin_enqueue(int, const int* shape, const float* rule, const void* const* inputs, void* f,
                                     void* workspace, const void* along_w, const void* along_h, const size_t* shared,
                                     cudaStream_t stream) {
    const sfiin::Shape s{shape[0], shape[1], shape[2], shape[3]};
    const sfiin::Rule r{rule[0], rule[1], rule[2], rule[3]};
    const sfiin::Shared own{shared[0], shared[1]};
    const std::vector<const void*> all(inputs, inputs + sfiin::INPUTS);
    stream_of(stream).add([=] {
        HostRunner runner{1};
        sfiin::compute<float>(s, r, all.data(), static_cast<float*>(f), static_cast<char*>(workspace),
                              static_cast<const sfiin::Complex*>(along_w), static_cast<const sfiin::Complex*>(along_h),
                              own, runner);
    });
    return nullptr;
}

#if NV_TENSORRT_MAJOR >= 10
extern "C" IPluginCreatorInterface* const* getCreators(int32_t& count);
using Plugin = IPluginV3;
IPluginCreatorV3One* creator() {
    int32_t count = 0;
    return static_cast<IPluginCreatorV3One*>(getCreators(count)[0]);
}
Plugin* created(const PluginFieldCollection* fields) { return creator()->createPlugin("n", fields, TensorRTPhase::kBUILD); }
IPluginV3OneBuild* build_of(Plugin* p) {
    return static_cast<IPluginV3OneBuild*>(p->getCapabilityInterface(PluginCapabilityType::kBUILD));
}
IPluginV3OneRuntime* run_of(Plugin* p) {
    return static_cast<IPluginV3OneRuntime*>(p->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}
bool configured(Plugin* p, const DynamicPluginTensorDesc* all) { return !build_of(p)->configurePlugin(all, 16, all, 1); }
size_t workspace(Plugin* p, const DynamicPluginTensorDesc* all) { return build_of(p)->getWorkspaceSize(all, 16, all, 1); }
Plugin* attached(Plugin* p) { return run_of(p)->attachToContext(nullptr); }
bool shaped(Plugin* p, const PluginTensorDesc* in) { return !run_of(p)->onShapeChange(in, 16, in, 1); }
int enqueued(Plugin* p, const PluginTensorDesc* in, const void* const* inputs, void* f, void* memory, cudaStream_t stream) {
    void* outputs[] = {f};
    return run_of(p)->enqueue(in, in, inputs, outputs, memory, stream);
}
Plugin* again(Plugin* p) { return created(run_of(p)->getFieldsToSerialize()); }
void destroyed(Plugin* p) { delete p; }
#else
extern "C" IPluginCreator* const* getPluginCreators(int32_t& count);
using Plugin = IPluginV2DynamicExt;
IPluginCreator* creator() {
    int32_t count = 0;
    return getPluginCreators(count)[0];
}
Plugin* created(const PluginFieldCollection* fields) { return static_cast<Plugin*>(creator()->createPlugin("n", fields)); }
bool configured(Plugin* p, const DynamicPluginTensorDesc* all) { return p->configurePlugin(all, 16, all, 1), true; }
size_t workspace(Plugin* p, const DynamicPluginTensorDesc* all) {
    std::vector<PluginTensorDesc> in;
    for (int i = 0; i < 16; ++i) in.push_back(all[i].desc);
    return p->getWorkspaceSize(in.data(), 16, in.data(), 1);
}
Plugin* attached(Plugin* p) {
    Plugin* found = p->clone();
    found->initialize();
    return found;
}
bool shaped(Plugin*, const PluginTensorDesc*) { return true; }
int enqueued(Plugin* p, const PluginTensorDesc* in, const void* const* inputs, void* f, void* memory, cudaStream_t stream) {
    void* outputs[] = {f};
    return p->enqueue(in, in, inputs, outputs, memory, stream);
}
Plugin* again(Plugin* p) {
    std::vector<char> bytes(p->getSerializationSize());
    p->serialize(bytes.data());
    return static_cast<Plugin*>(creator()->deserializePlugin("n", bytes.data(), bytes.size()));
}
void destroyed(Plugin* p) { p->destroy(); }
#endif

// One set of inputs of a size, where its result goes, and what that should be.
struct Case {
    explicit Case(int batch, int height, int width, unsigned seed) {
        const int C = 4, shape[] = {batch, C, height, width};
        std::mt19937 random(seed);
        std::normal_distribution<float> normal;
        const size_t map = static_cast<size_t>(batch) * C * height * width;
        for (int i = 0; i < sfiin::INPUTS; ++i) {
            const int doubled = i == sfiin::AMPLITUDE || i == sfiin::PHASE ? 2 : 1;
            DynamicPluginTensorDesc found{};
            found.desc.type = DataType::kFLOAT;
            found.desc.format = TensorFormat::kLINEAR;
            if (i < sfiin::MS) found.desc.dims = {4, {batch, C, height, width}};
            else if (i % 2) found.desc.dims = {1, {C}};
            else found.desc.dims = {2, {C, C * doubled}};
            found.min = found.max = found.desc.dims;
            described.push_back(found);
            plain.push_back(found.desc);
            std::vector<float> values(i < sfiin::MS ? map : i % 2 ? C : static_cast<size_t>(C) * C * doubled);
            for (float& value : values) value = normal(random) / (i < sfiin::MS ? 1 : C);
            arrays.push_back(values);
        }
        for (const auto& array : arrays) inputs.push_back(array.data());
        expected.resize(map), f.resize(map);
        sfiin_spectral_fusion(0, shape, RULE, inputs.data(), expected.data(), 99 << 10, 1);
        memory.resize(sfiin_workspace(batch, C, height, width));
    }
    bool right() {
        const bool same = f == expected;
        std::fill(f.begin(), f.end(), -1.0f);
        return same;
    }
    static constexpr float RULE[] = {1e-6f, 0.2f, 0.1f, 0.1f};
    std::vector<DynamicPluginTensorDesc> described;
    std::vector<PluginTensorDesc> plain;
    std::vector<std::vector<float>> arrays;
    std::vector<const void*> inputs;
    std::vector<float> expected, f;
    std::vector<char> memory;
};

void say(const char* what, bool well) { std::printf("%s %d\n", what, well); }

int run(Plugin* p, Case& c, cudaStream_t stream) {
    return shaped(p, c.plain.data()) ? enqueued(p, c.plain.data(), c.inputs.data(), c.f.data(), c.memory.data(), stream) : 1;
}

int main() {
    float rule[] = {Case::RULE[0], Case::RULE[1], Case::RULE[2], Case::RULE[3]};
    const char* names[] = {"floor", "cut", "fade", "slope"};
    std::vector<PluginField> fields;
    for (int i = 0; i < 4; ++i) fields.emplace_back(names[i], rule + i, PluginFieldType::kFLOAT32, 1);
    const PluginFieldCollection given{4, fields.data()};
    Case pair(2, 64, 64, 1), one(1, 64, 64, 2), wide(1, 64, 80, 3), other(2, 64, 64, 4);

    Plugin* first = created(&given);
    say("configured", configured(first, pair.described.data()));
    say("workspace", workspace(first, pair.described.data()) >= pair.memory.size());
    Plugin* built = again(first);
    destroyed(first);
    Plugin *left = attached(built), *right = attached(built);

    cudaStream_t streams[2];
    for (auto& stream : streams) cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    std::thread beside([&] { say("beside", !run(right, other, streams[1]) && !cudaStreamSynchronize(streams[1])); });
    int failed = 0;
    for (Case* each : {&pair, &one, &wide}) failed += run(left, *each, streams[0]);  // changes of shape, without a wait
    beside.join();
    cudaStreamSynchronize(streams[0]);
    say("two contexts", !failed && other.right() && pair.right() && one.right() && wide.right());

    Stream& stream = stream_of(streams[0]);
    stream.noting = true;
    failed = run(left, pair, streams[0]);
    stream.noting = false;
    const std::vector<Work> graph = std::move(stream.noted);
    stream.noted.clear();
    failed += run(left, wide, streams[0]);
    for (const Work& work : graph) stream.add(work);
    cudaStreamSynchronize(streams[0]);
    say("replayed after another tile", !failed && wide.right() && pair.right());

    Plugin* poor = attached(built);
    const int before = living;
    failing_at = 0;
    say("without memory", run(poor, pair, streams[0]) != 0 && living == before);
    failing_at = -1;
    say("with memory again", !run(poor, pair, streams[0]) && !cudaStreamSynchronize(streams[0]) && pair.right());
    for (Plugin* each : {poor, left, right, built}) destroyed(each);
    for (auto each : streams) cudaStreamDestroy(each);
    say("all given back", living == 0);
}

// How does TensorRT call the kernels? As a plugin: IPluginV3 from 10 on, IPluginV2DynamicExt in 8.
//
// Thin over spectral_fusion.cu. The node is export/spectral_fusion.py's: 16 inputs of one type, float or half, in linear
// layout, one output of the shape of the first; attributes floor, cut, fade and slope. A node of sizes that the kernels
// do not compute is refused when the network is built, with the reason in TensorRT's log. TensorRT 8.5 loads no library
// by itself: there the plugin registers when whoever runs the plan opens the library.
#include <NvInfer.h>
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "launch.hpp"

extern "C" {
void sfiin_shared(size_t* shared);
const char* sfiin_enqueue(int half, const int* shape, const float* rule, const void* const* inputs, void* f,
                          void* workspace, const void* along_w, const void* along_h, const size_t* shared,
                          cudaStream_t stream);
}

namespace {

using namespace nvinfer1;

constexpr char NAME[] = "SpectralFusion", VERSION[] = "1", NAMESPACE[] = "sfiin";
// Under it TensorRT keeps the node's time with those of its own layers; the attributes change nothing in it.
constexpr char TIMING[] = "sfiin.SpectralFusion.1";
constexpr const char* FIELDS[] = {"floor", "cut", "fade", "slope"};

#define SFIIN_LOADED_BY_TENSORRT (NV_TENSORRT_MAJOR > 8 || (NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR >= 6))

#if SFIIN_LOADED_BY_TENSORRT
ILoggerFinder* finder = nullptr;
ILogger* find_logger() { return finder ? finder->findLogger() : nullptr; }
#else
ILogger* find_logger() { return getLogger(); }
#endif

void complain(const std::string& text) {
    ILogger* logger = find_logger();
    if (logger) logger->log(ILogger::Severity::kERROR, ("sfiin::SpectralFusion: " + text).c_str());
}

sfiin::Shape shape_of(const Dims& d) {
    const auto side = [&](int i) { return static_cast<int>(d.d[i]); };
    return {side(0), side(1), side(2), side(3)};
}

bool is_format(const PluginTensorDesc& first, const PluginTensorDesc& it) {
    return it.format == TensorFormat::kLINEAR && it.type == first.type &&
           (it.type == DataType::kFLOAT || it.type == DataType::kHALF);
}

// Whether all inputs fit the first: maps alike, weights for their channels.
bool fits(const Dims* inputs, int count) {
    if (count != sfiin::INPUTS) return complain("16 inputs are wanted, not " + std::to_string(count)), false;
    if (inputs[0].nbDims != 4) return complain("features of four dimensions are wanted"), false;
    const sfiin::Shape s = shape_of(inputs[0]);
    if (const char* why = sfiin::unsupported(s)) return complain(why), false;
    for (int i = 0; i < count; ++i) {
        size_t size = 1, wanted = i % 2 ? s.channels : static_cast<size_t>(s.channels) * s.channels;
        if (i < sfiin::MS) wanted = static_cast<size_t>(s.batch) * s.channels * s.pixels();
        if (i == sfiin::AMPLITUDE || i == sfiin::PHASE) wanted *= 2;
        for (int k = 0; k < inputs[i].nbDims; ++k) size *= inputs[i].d[k];
        if (size != wanted)
            return complain("input " + std::to_string(i) + " has " + std::to_string(size) + " elements, not " +
                            std::to_string(wanted)), false;
    }
    return true;
}

// Copies to the device, and is done when it returns. cudaMemcpy is not, from memory that is not pinned, and streams that
// do not wait for the legacy one, as TensorRT's may be, would read what is not there yet.
cudaError_t copied(void* to, const void* from, size_t bytes) {
    cudaStream_t stream;
    cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (error != cudaSuccess) return error;
    error = cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream);
    const cudaError_t ended = cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
    return error == cudaSuccess ? ended : error;
}

// The attributes, and the tables of the transforms on the device. Tables of a tile stay until the node goes: work that is
// under way, and graphs that were captured, go on with them after a change of the tile.
class Node {
  public:
    Node() = default;
    explicit Node(const float (&rule)[4]) { std::memcpy(rule_, rule, sizeof(rule_)); }
    Node(const Node& other) : Node(other.rule_) {}
    Node& operator=(const Node&) = delete;
    ~Node() {
        for (const auto& [tile, tables] : tables_) cudaFree(tables);
    }

    const float (&rule() const)[4] { return rule_; }

    // Every attribute once, as one float; anything else is refused.
    bool set(const PluginFieldCollection& given) {
        unsigned seen = 0;
        for (int i = 0; i < given.nbFields; ++i)
            for (int k = 0; k < 4; ++k)
                if (!std::strcmp(given.fields[i].name, FIELDS[k])) {
                    const PluginField& field = given.fields[i];
                    if (field.type != PluginFieldType::kFLOAT32 || field.length != 1 || !field.data)
                        return complain(std::string(FIELDS[k]) + " is one float"), false;
                    rule_[k] = *static_cast<const float*>(field.data);
                    seen |= 1u << k;
                }
        if (seen != 15u) return complain("floor, cut, fade and slope are all wanted"), false;
        return true;
    }

    bool prepare(const sfiin::Shape& s) {
        if (tables_.count({s.width, s.height})) return true;
        std::vector<sfiin::Complex> turns(s.width + s.height);
        sfiin::turns(s.width, turns.data());
        sfiin::turns(s.height, turns.data() + s.width);
        const size_t bytes = turns.size() * sizeof(sfiin::Complex);
        void* tables = nullptr;
        cudaError_t error = cudaMalloc(&tables, bytes);
        if (error == cudaSuccess) error = copied(tables, turns.data(), bytes);
        if (error != cudaSuccess) {
            cudaFree(tables);
            return complain(cudaGetErrorName(error)), false;
        }
        tables_[{s.width, s.height}] = tables;
        sfiin_shared(shared_);
        return true;
    }

    int enqueue(const PluginTensorDesc& m, const void* const* inputs, void* f, void* workspace, cudaStream_t stream) const {
        const sfiin::Shape s = shape_of(m.dims);
        const int shape[] = {s.batch, s.channels, s.height, s.width};
        const auto found = tables_.find({s.width, s.height});
        if (found == tables_.end()) return complain("enqueued for a tile that it was not prepared for"), 1;
        const auto* along_w = static_cast<const sfiin::Complex*>(found->second);
        const char* error = sfiin_enqueue(m.type == DataType::kHALF, shape, rule_, inputs, f, workspace, along_w,
                                          along_w + s.width, shared_, stream);
        if (error) complain(error);
        return error != nullptr;
    }

  private:
    float rule_[4] = {};
    std::map<std::pair<int, int>, void*> tables_;  // by width and height
    size_t shared_[2] = {};
};

std::vector<PluginField> fields_of(const float (*rule)[4]) {
    std::vector<PluginField> fields;
    for (int k = 0; k < 4; ++k)
        fields.emplace_back(FIELDS[k], rule ? *rule + k : nullptr, PluginFieldType::kFLOAT32, 1);
    return fields;
}

std::vector<Dims> largest(const DynamicPluginTensorDesc* in, int count) {
    std::vector<Dims> dims;
    for (int i = 0; i < count; ++i) dims.push_back(in[i].max);
    return dims;
}

#if NV_TENSORRT_MAJOR >= 10

class Plugin : public IPluginV3, public IPluginV3OneCore, public IPluginV3OneBuild, public IPluginV3OneRuntime {
  public:
    explicit Plugin(const Node& node) : node_(node), fields_(fields_of(&node_.rule())) {
        collection_ = {static_cast<int>(fields_.size()), fields_.data()};
    }

    IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
        switch (type) {
            case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
            case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
            case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
        }
        return nullptr;
    }
    IPluginV3* clone() noexcept override { return new Plugin(node_); }

    AsciiChar const* getPluginName() const noexcept override { return NAME; }
    AsciiChar const* getPluginVersion() const noexcept override { return VERSION; }
    AsciiChar const* getPluginNamespace() const noexcept override { return NAMESPACE; }

    int32_t getNbOutputs() const noexcept override { return 1; }
    int32_t configurePlugin(DynamicPluginTensorDesc const* in, int32_t count, DynamicPluginTensorDesc const*,
                            int32_t) noexcept override {
        return !fits(largest(in, count).data(), count);
    }
    bool supportsFormatCombination(int32_t at, DynamicPluginTensorDesc const* all, int32_t, int32_t) noexcept override {
        return is_format(all[0].desc, all[at].desc);
    }
    int32_t getOutputDataTypes(DataType* out, int32_t, DataType const* in, int32_t) const noexcept override {
        out[0] = in[0];
        return 0;
    }
    int32_t getOutputShapes(DimsExprs const* in, int32_t count, DimsExprs const*, int32_t, DimsExprs* out, int32_t,
                            IExprBuilder&) noexcept override {
        if (count != sfiin::INPUTS) return complain("16 inputs are wanted"), 1;
        out[0] = in[0];
        return 0;
    }
    size_t getWorkspaceSize(DynamicPluginTensorDesc const* in, int32_t, DynamicPluginTensorDesc const*,
                            int32_t) const noexcept override {
        return sfiin::Workspace::bytes(shape_of(in[0].max));
    }

    AsciiChar const* getTimingCacheID() noexcept override { return TIMING; }

    int32_t onShapeChange(PluginTensorDesc const* in, int32_t, PluginTensorDesc const*, int32_t) noexcept override {
        return !node_.prepare(shape_of(in[0].dims));
    }
    int32_t enqueue(PluginTensorDesc const* in, PluginTensorDesc const*, void const* const* inputs, void* const* outputs,
                    void* workspace, cudaStream_t stream) noexcept override {
        return node_.enqueue(in[0], inputs, outputs[0], workspace, stream);
    }
    IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }
    PluginFieldCollection const* getFieldsToSerialize() noexcept override { return &collection_; }

  private:
    Node node_;
    std::vector<PluginField> fields_;
    PluginFieldCollection collection_;
};

class Creator : public IPluginCreatorV3One {
  public:
    Creator() : fields_(fields_of(nullptr)), collection_{static_cast<int>(fields_.size()), fields_.data()} {}
    AsciiChar const* getPluginName() const noexcept override { return NAME; }
    AsciiChar const* getPluginVersion() const noexcept override { return VERSION; }
    AsciiChar const* getPluginNamespace() const noexcept override { return NAMESPACE; }
    PluginFieldCollection const* getFieldNames() noexcept override { return &collection_; }
    IPluginV3* createPlugin(AsciiChar const*, PluginFieldCollection const* given, TensorRTPhase) noexcept override {
        Node node;
        return given && node.set(*given) ? new Plugin(node) : nullptr;
    }

  private:
    std::vector<PluginField> fields_;
    PluginFieldCollection collection_;
};

#else

class Plugin : public IPluginV2DynamicExt {
  public:
    explicit Plugin(const Node& node) : node_(node) {}

    IPluginV2DynamicExt* clone() const noexcept override { return new Plugin(node_); }
    void destroy() noexcept override { delete this; }
    AsciiChar const* getPluginType() const noexcept override { return NAME; }
    AsciiChar const* getPluginVersion() const noexcept override { return VERSION; }
    AsciiChar const* getPluginNamespace() const noexcept override { return NAMESPACE; }
    void setPluginNamespace(AsciiChar const*) noexcept override {}
    int32_t initialize() noexcept override { return 0; }
    void terminate() noexcept override {}

    int32_t getNbOutputs() const noexcept override { return 1; }
    DimsExprs getOutputDimensions(int32_t, DimsExprs const* in, int32_t, IExprBuilder&) noexcept override { return in[0]; }
    DataType getOutputDataType(int32_t, DataType const* in, int32_t) const noexcept override { return in[0]; }
    bool supportsFormatCombination(int32_t at, PluginTensorDesc const* all, int32_t, int32_t) noexcept override {
        return is_format(all[0], all[at]);
    }
    void configurePlugin(DynamicPluginTensorDesc const* in, int32_t count, DynamicPluginTensorDesc const*,
                         int32_t) noexcept override {
        fits_ = fits(largest(in, count).data(), count);  // TensorRT 8 has no way to refuse here; `enqueue` does
    }
    size_t getWorkspaceSize(PluginTensorDesc const* in, int32_t, PluginTensorDesc const*, int32_t) const noexcept override {
        return sfiin::Workspace::bytes(shape_of(in[0].dims));
    }
    int32_t enqueue(PluginTensorDesc const* in, PluginTensorDesc const*, void const* const* inputs, void* const* outputs,
                    void* workspace, cudaStream_t stream) noexcept override {
        const sfiin::Shape s = shape_of(in[0].dims);
        if (!fits_ || sfiin::unsupported(s) || !node_.prepare(s)) return 1;
        return node_.enqueue(in[0], inputs, outputs[0], workspace, stream);
    }

    size_t getSerializationSize() const noexcept override { return sizeof(node_.rule()); }
    void serialize(void* to) const noexcept override { std::memcpy(to, node_.rule(), sizeof(node_.rule())); }

  private:
    Node node_;
    bool fits_ = true;  // a plan was built from what did
};

class Creator : public IPluginCreator {
  public:
    Creator() : fields_(fields_of(nullptr)), collection_{static_cast<int>(fields_.size()), fields_.data()} {}
    AsciiChar const* getPluginName() const noexcept override { return NAME; }
    AsciiChar const* getPluginVersion() const noexcept override { return VERSION; }
    AsciiChar const* getPluginNamespace() const noexcept override { return NAMESPACE; }
    void setPluginNamespace(AsciiChar const*) noexcept override {}
    PluginFieldCollection const* getFieldNames() noexcept override { return &collection_; }
    IPluginV2* createPlugin(AsciiChar const*, PluginFieldCollection const* given) noexcept override {
        Node node;
        return given && node.set(*given) ? new Plugin(node) : nullptr;
    }
    IPluginV2* deserializePlugin(AsciiChar const*, void const* data, size_t size) noexcept override {
        float rule[4];
        if (size != sizeof(rule)) return complain("a serialised node of another version"), nullptr;
        std::memcpy(rule, data, size);
        return new Plugin(Node(rule));
    }

  private:
    std::vector<PluginField> fields_;
    PluginFieldCollection collection_;
};

#endif

#if SFIIN_LOADED_BY_TENSORRT

Creator creator;

}  // namespace

// What TensorRT looks for in a library that it loads.
extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder* given) { finder = given; }

#if NV_TENSORRT_MAJOR >= 10
extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static nvinfer1::IPluginCreatorInterface* const all[] = {&creator};
    count = 1;
    return all;
}
#else
extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreator* const* getPluginCreators(int32_t& count) {
    static nvinfer1::IPluginCreator* const all[] = {&creator};
    count = 1;
    return all;
}
#endif

#else

REGISTER_TENSORRT_PLUGIN(Creator);

}  // namespace

#endif

// Asks a plugin library, without TensorRT, what TensorRT 10 and later would ask; prints an answer a line.
#include <NvInfer.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <tuple>
#include <vector>

using namespace nvinfer1;

struct Logger : ILogger, ILoggerFinder {
    void log(Severity, char const* text) noexcept override { std::printf("log %s\n", text); }
    ILogger* findLogger() noexcept override { return this; }
} logger;

DynamicPluginTensorDesc described(std::vector<int> sides, DataType type = DataType::kFLOAT,
                                  TensorFormat format = TensorFormat::kLINEAR) {
    DynamicPluginTensorDesc found{};
    found.desc.dims.nbDims = static_cast<int>(sides.size());
    for (size_t i = 0; i < sides.size(); ++i) found.desc.dims.d[i] = sides[i];
    found.desc.type = type;
    found.desc.format = format;
    found.min = found.max = found.desc.dims;
    return found;
}

std::vector<DynamicPluginTensorDesc> node(int channels, int height, int width) {
    std::vector<DynamicPluginTensorDesc> all(2, described({4, channels, height, width}));
    for (int inputs : {1, 1, 2, 1, 2, 1, 1}) {
        all.push_back(described({channels, inputs * channels}));
        all.push_back(described({channels}));
    }
    return all;
}

int main(int, char** arguments) {
    void* library = dlopen(arguments[1], RTLD_NOW);
    if (!library) return std::printf("%s\n", dlerror()), 1;
    reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"))(&logger);
    int count = 0;
    auto* creators = reinterpret_cast<IPluginCreatorInterface* const* (*)(int&)>(dlsym(library, "getCreators"))(count);
    auto* creator = static_cast<IPluginCreatorV3One*>(creators[0]);
    float rule[] = {1e-6f, 0.2f, 0.1f, 0.3f};
    PluginField fields[] = {{"floor", rule, PluginFieldType::kFLOAT32, 1}, {"cut", rule + 1, PluginFieldType::kFLOAT32, 1},
                            {"fade", rule + 2, PluginFieldType::kFLOAT32, 1},
                            {"slope", rule + 3, PluginFieldType::kFLOAT32, 1}};
    PluginFieldCollection three{3, fields}, four{4, fields};
    std::printf("creators %d\n", count);
    std::printf("three fields %d\n", creator->createPlugin("n", &three, TensorRTPhase::kBUILD) != nullptr);
    IPluginV3* first = creator->createPlugin("n", &four, TensorRTPhase::kBUILD);
    IPluginV3* plugin = first->clone();
    delete first;  // a clone stands on its own
    auto* build = static_cast<IPluginV3OneBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
    auto* run = static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    auto configured = [&](std::vector<DynamicPluginTensorDesc> all) {
        return build->configurePlugin(all.data(), static_cast<int>(all.size()), all.data(), 1);
    };
    std::printf("configured %d\n", configured(node(8, 128, 96)));
    std::printf("configured %d\n", configured(node(8, 130, 96)));
    std::printf("configured %d\n", configured(node(6, 128, 96)));
    auto wrong = node(8, 128, 96);
    wrong[6] = described({8, 8});
    std::printf("configured %d\n", configured(wrong));
    wrong.pop_back();
    std::printf("configured %d\n", configured(wrong));
    auto all = node(8, 128, 96);
    std::printf("workspace %zu\n", build->getWorkspaceSize(all.data(), 16, all.data(), 1));
    for (auto [a, b, format] : {std::tuple{DataType::kFLOAT, DataType::kFLOAT, TensorFormat::kLINEAR},
                                std::tuple{DataType::kHALF, DataType::kHALF, TensorFormat::kLINEAR},
                                std::tuple{DataType::kFLOAT, DataType::kHALF, TensorFormat::kLINEAR},
                                std::tuple{DataType::kINT8, DataType::kINT8, TensorFormat::kLINEAR},
                                std::tuple{DataType::kHALF, DataType::kHALF, TensorFormat::kCHW4}}) {
        all[0].desc.type = a, all[5].desc.type = b, all[5].desc.format = format;
        std::printf("format %d\n", build->supportsFormatCombination(5, all.data(), 16, 1));
    }
    std::printf("timing %s\n", build->getTimingCacheID());
    DataType out, in = DataType::kHALF;
    build->getOutputDataTypes(&out, 1, &in, 16);
    std::printf("output half %d, of %d\n", out == DataType::kHALF, build->getNbOutputs());
    PluginFieldCollection const* kept = run->getFieldsToSerialize();
    for (int i = 0; i < kept->nbFields; ++i)
        std::printf("field %s %g\n", kept->fields[i].name, *static_cast<float const*>(kept->fields[i].data));
    delete plugin;
}

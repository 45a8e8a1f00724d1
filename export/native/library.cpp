// How does Python speak to the native library? A plain C interface, for ctypes.
#include <cstring>
#include <new>

#include "kernels.hpp"

#define SFIIN_EXPORT extern "C" __attribute__((visibility("default")))

SFIIN_EXPORT int sfiin_native_version() { return sfiin::VERSION; }

SFIIN_EXPORT const char* sfiin_native_instruction_set() { return sfiin::instruction_set(); }

// A program that can be run, by one thread at a time; null, with the reason in `why`, for what is none.
SFIIN_EXPORT void* sfiin_native_open(const int32_t* code, size_t length, const float* constants, size_t count, char* why,
                                     size_t room) {
    std::string wrong;
    sfiin::Program* program = new (std::nothrow) sfiin::Program;
    if (program) {
        try {
            wrong = sfiin::parse(code, length, constants, count, *program);
            if (wrong.empty()) {
                sfiin::prepare(*program);
                return program;
            }
        } catch (const std::bad_alloc&) {
            wrong = "out of memory";
        }
        delete program;
    } else {
        wrong = "out of memory";
    }
    std::strncpy(why, wrong.c_str(), room - 1);
    why[room - 1] = 0;
    return nullptr;
}

// Tiles one behind another; `ms_size`, `pan_size` and `hrms_size` are the floats of one.
SFIIN_EXPORT void sfiin_native_run(void* handle, size_t tiles, const float* ms, size_t ms_size, const float* pan,
                                   size_t pan_size, float* hrms, size_t hrms_size) {
    auto* program = static_cast<sfiin::Program*>(handle);
    for (size_t i = 0; i < tiles; ++i) sfiin::run(*program, ms + i * ms_size, pan + i * pan_size, hrms + i * hrms_size);
}

SFIIN_EXPORT void sfiin_native_close(void* handle) { delete static_cast<sfiin::Program*>(handle); }

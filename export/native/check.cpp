// Does the library run a program on this machine, without an error that a sanitizer sees? For tests: programs, inputs
// and outputs are files, so that it can be compiled for another processor and run in an emulator.
//
//   check FILE OUTPUT    FILE: numbers of integers, constants, floats of ms, of pan, of hrms (int64 each), then these
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

extern "C" {
const char* sfiin_native_instruction_set();
void* sfiin_native_open(const int32_t*, size_t, const float*, size_t, char*, size_t);
void sfiin_native_run(void*, size_t, const float*, size_t, const float*, size_t, float*, size_t);
void sfiin_native_close(void*);
}

namespace {

template <typename T>
std::vector<T> take(std::ifstream& file, int64_t count) {
    std::vector<T> values(static_cast<size_t>(count));
    file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * sizeof(T)));
    return values;
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 3) return 2;
    std::ifstream file(arguments[1], std::ios::binary);
    const std::vector<int64_t> counts = take<int64_t>(file, 5);
    const std::vector<int32_t> code = take<int32_t>(file, counts[0]);
    const std::vector<float> constants = take<float>(file, counts[1]), ms = take<float>(file, counts[2]);
    const std::vector<float> pan = take<float>(file, counts[3]);
    std::vector<float> hrms(static_cast<size_t>(counts[4]));
    char why[256];
    void* program = sfiin_native_open(code.data(), code.size(), constants.data(), constants.size(), why, sizeof why);
    if (!program) {
        std::printf("%s\n", why);
        return 1;
    }
    for (int again = 0; again < 2; ++again)  // what one run leaves behind may not matter to the next
        sfiin_native_run(program, 1, ms.data(), ms.size(), pan.data(), pan.size(), hrms.data(), hrms.size());
    sfiin_native_close(program);
    std::ofstream(arguments[2], std::ios::binary)
        .write(reinterpret_cast<const char*>(hrms.data()), static_cast<std::streamsize>(hrms.size() * sizeof(float)));
    std::printf("%s\n", sfiin_native_instruction_set());
    return 0;
}

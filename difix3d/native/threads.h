// Loops over several threads, for all C++ files of this folder.
//
// Not OpenMP: there, a loop ends when every thread of the team has come, and on a busy machine a thread comes when some other
// program's time is up. Here the calling thread works through the loop itself, and whoever else has a core to itself helps:
// the caller waits only for iterations that a helper has begun.

#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace threads {

// Calls body(data, i) for i = 0..count-1, each once, on the calling thread and up to threads - 1 helpers.
void run(int64_t count, int64_t threads, void (*body)(void*, int64_t), void* data);

}  // namespace threads

// Calls f(i) for i = 0..count-1, in any order and on up to `threads` threads; returns when all calls have returned.
template <class F> void parallel_for(int64_t count, int64_t threads, F&& f) {
    using Body = std::remove_reference_t<F>;
    threads::run(count, threads, [](void* body, int64_t i) { (*static_cast<Body*>(body))(i); }, (void*)std::addressof(f));
}

#include "threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#endif

namespace {

// How long a thread looks for work, or for the last helper, before it sleeps. Long enough for the next loop of the same C++
// function; far shorter than a time slice, which another program could use.
constexpr auto PATIENCE = std::chrono::microseconds(20);

struct Job {
    void (*body)(void*, int64_t);
    void* data;
    int64_t count;
    int wanted;                     // helpers that may still join
    std::atomic<int64_t> next{0};   // the first iteration that nobody has begun
    std::atomic<int> helpers{0};    // inside now

    void work() {
        for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(data, i);
    }
    bool open() const { return wanted > 0 && next.load(std::memory_order_relaxed) < count; }
};

template <class F> bool soon(F condition) {
    auto end = std::chrono::steady_clock::now() + PATIENCE;
    do {
        if (condition()) return true;
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    } while (std::chrono::steady_clock::now() < end);
    return condition();
}

// The helpers, and the loops that they may join; several Python threads may be in one at a time.
struct Pool {
    std::mutex mutex;
    std::condition_variable posted, left;
    std::vector<Job*> jobs;
    std::atomic<int64_t> number{0};  // of loops posted so far
    int helpers = 0;

    void help() {
        std::unique_lock<std::mutex> lock(mutex);
        while (true) {
            auto job = std::find_if(jobs.begin(), jobs.end(), [](Job* job) { return job->open(); });
            if (job != jobs.end()) {
                Job& joined = **job;
                joined.wanted--, joined.helpers++;
                lock.unlock();
                joined.work();
                lock.lock();
                if (--joined.helpers == 0) left.notify_all();
                continue;
            }
            int64_t seen = number;
            lock.unlock();
            bool more = soon([&] { return number != seen; });
            lock.lock();
            if (!more) posted.wait(lock, [&] { return number != seen; });
        }
    }

    void run(Job& job) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            for (; helpers < job.wanted; helpers++) std::thread([this] { help(); }).detach();
            jobs.push_back(&job);
            number++;
        }
        posted.notify_all();
        job.work();
        {
            std::lock_guard<std::mutex> lock(mutex);
            jobs.erase(std::find(jobs.begin(), jobs.end(), &job));
        }
        soon([&] { return job.helpers == 0; });
        std::unique_lock<std::mutex> lock(mutex);
        left.wait(lock, [&] { return job.helpers == 0; });
    }
};

// Never destroyed, as its helpers live as long as the process; a forked child has none of them and begins anew.
Pool* pool = nullptr;
std::once_flag made;

}  // namespace

void threads::run(int64_t count, int64_t threads, void (*body)(void*, int64_t), void* data) {
    int helpers = int(std::min(count, threads)) - 1;
    Job job{body, data, count, helpers};
    if (helpers < 1) return job.work();
    std::call_once(made, [] {
        pool = new Pool;
#ifndef _WIN32
        pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
#endif
    });
    pool->run(job);
}

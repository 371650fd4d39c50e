// Runs CUDA kernels on a CPU, for tests only: the threads of a block are coroutines of one thread that take turns at
// barriers and shuffles; blocks run one after another. With `reverse` threads and blocks run last to first, so a kernel
// that lacks a barrier, or depends on the order of blocks, gives another result.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <vector>

#define EMULATED 1
#define __global__
#define __device__
#define __shared__ static thread_local

struct uint2 { alignas(8) unsigned x; unsigned y; };
struct uint4 { alignas(16) unsigned x; unsigned y, z, w; };
struct float4 { alignas(16) float x; float y, z, w; };
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

static inline float __uint_as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
static inline float __int_as_float(int bits) { return __uint_as_float((unsigned)bits); }

/// Rounds to nearest even, as cvt.rn.bf16x2.f32 does (PTX ISA 9.7.9.21); NaN becomes 0x7fff.
static inline unsigned short emulated_bf16(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    if (x != x) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

struct Index { unsigned x, y; };
static thread_local Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

struct Barrier { unsigned waiting = 0, generation = 0; };

struct Thread {
    ucontext_t start;
    jmp_buf at;
    bool started = false, done = false;
};

const unsigned MOST_THREADS = 1024, STACK = 64 << 10;

struct State {
    std::vector<Thread> threads{MOST_THREADS};
    std::unique_ptr<char[]> stacks{new char[(size_t)MOST_THREADS * STACK]};
    ucontext_t outside;
    jmp_buf scheduler;
    Barrier block, warps[MOST_THREADS / 32];
    uint64_t slots[MOST_THREADS];
    unsigned current = 0;
    uint64_t events = 0; // arrivals and ends: a round without one is a deadlock
    const std::function<void()>* body = nullptr;
};

static thread_local std::unique_ptr<State> state;

/// Gives the other threads a turn. The first switch into a thread is a context of its own; later ones are jumps, which
/// cost no system call.
static inline void yield() {
    Thread& me = state->threads[state->current];
    if (_setjmp(me.at) == 0) _longjmp(state->scheduler, 1);
}

static inline void wait(Barrier& barrier, unsigned threads) {
    state->events++;
    unsigned generation = barrier.generation;
    if (++barrier.waiting == threads) {
        barrier.waiting = 0;
        barrier.generation++;
        return;
    }
    while (barrier.generation == generation) yield();
}

static void enter() {
    (*state->body)();
    state->threads[state->current].done = true;
    state->events++;
    _longjmp(state->scheduler, 1);
}

static void resume(unsigned i) {
    Thread& thread = state->threads[i];
    state->current = i;
    threadIdx = {i, 0};
    if (_setjmp(state->scheduler) != 0) return;
    if (thread.started) _longjmp(thread.at, 1);
    thread.started = true;
    getcontext(&thread.start);
    thread.start.uc_stack.ss_sp = state->stacks.get() + (size_t)i * STACK;
    thread.start.uc_stack.ss_size = STACK;
    thread.start.uc_link = nullptr;
    makecontext(&thread.start, enter, 0);
    setcontext(&thread.start);
}

static const char* run_block(bool reverse) {
    unsigned count = blockDim.x, done = 0;
    state->block = Barrier();
    for (unsigned w = 0; w < count / 32; w++) state->warps[w] = Barrier();
    for (unsigned i = 0; i < count; i++) state->threads[i].started = state->threads[i].done = false;
    while (done < count) {
        uint64_t before = state->events;
        for (unsigned k = 0; k < count; k++) {
            unsigned i = reverse ? count - 1 - k : k;
            if (state->threads[i].done) continue;
            resume(i);
            if (state->threads[i].done) done++;
        }
        if (state->events == before) return "threads of a block wait for each other at different barriers";
    }
    return nullptr;
}

static const char* run(unsigned grid_x, unsigned grid_y, unsigned block, int reverse, const std::function<void()>& body) {
    if (block == 0 || block > MOST_THREADS || block % 32 != 0) return "a block is 1 to 32 whole warps";
    if (!state) state.reset(new State());
    state->body = &body;
    blockDim = {block, 1};
    gridDim = {grid_x, grid_y};
    for (unsigned k = 0; k < grid_x * grid_y; k++) {
        unsigned b = reverse ? grid_x * grid_y - 1 - k : k;
        blockIdx = {b % grid_x, b / grid_x};
        if (const char* problem = run_block(reverse)) return problem;
    }
    return nullptr;
}

} // namespace emulator

static inline void __syncthreads() { emulator::wait(emulator::state->block, blockDim.x); }

template <typename T> static inline T __shfl_xor_sync(unsigned, T value, int distance) {
    emulator::State& s = *emulator::state;
    unsigned me = s.current;
    memcpy(&s.slots[me], &value, sizeof(T));
    emulator::wait(s.warps[me / 32], 32);
    T other;
    memcpy(&other, &s.slots[me ^ (unsigned)distance], sizeof(T));
    emulator::wait(s.warps[me / 32], 32); // nobody may write before all have read
    return other;
}

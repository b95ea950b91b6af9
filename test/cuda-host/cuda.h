// Just enough of CUDA to run generated files on a CPU, one thread of the machine for each of a block's: ids, barriers, exchanges
// between lanes, atomics, mathematics. What differs from a GPU on purpose: whatever C++ leaves undefined is an error, by the
// sanitizers.
// Source: CUDA C++ Programming Guide, "C++ Language Extensions".
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#define __device__
#define __global__ static
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

struct Index { unsigned x = 0, y = 0, z = 0; };
static thread_local Index threadIdx, blockIdx;

[[noreturn]] static void refuse(const std::string& what) {
  fprintf(stderr, "%s\n", what.c_str());
  _Exit(3);
}

// Lanes of a warp, warps of a block.
struct Warp {
  std::barrier<> meeting{32};
  uint32_t slots[32];
  std::vector<uint32_t> fragments[32];
};
static std::barrier<>* blockMeeting;
static std::vector<Warp*> warps;

static int laneId() { return threadIdx.x % 32; }
static Warp& ownWarp() { return *warps[threadIdx.x / 32]; }
static void __syncthreads() { blockMeeting->arrive_and_wait(); }
static void __syncwarp() { ownWarp().meeting.arrive_and_wait(); }

static void __nanosleep(unsigned ns) { std::this_thread::sleep_for(std::chrono::nanoseconds(ns)); }

template <typename T> static T exchange(T x, int source) {
  static_assert(sizeof(T) == 4);
  Warp& warp = ownWarp();
  memcpy(&warp.slots[laneId()], &x, 4);
  __syncwarp();
  T result;
  memcpy(&result, &warp.slots[source < 0 || source > 31 ? laneId() : source], 4);
  __syncwarp();
  return result;
}
// The instruction takes the low 5 bits of the amount.
template <typename T> static T __shfl_xor_sync(unsigned, T x, int by) { return exchange(x, laneId() ^ (by & 31)); }
template <typename T> static T __shfl_up_sync(unsigned, T x, unsigned by) { return exchange(x, laneId() - (int)(by & 31)); }
template <typename T> static T __shfl_down_sync(unsigned, T x, unsigned by) { return exchange(x, laneId() + (int)(by & 31)); }
template <typename T> static T __shfl_sync(unsigned, T x, int by) { return exchange(x, by & 31); }
// What all lanes have, as `use` sees it.
template <typename F> static auto gather(const std::vector<uint32_t>& words, F use) {
  Warp& warp = ownWarp();
  warp.fragments[laneId()] = words;
  __syncwarp();
  const auto result = use(warp.fragments);
  __syncwarp();
  return result;
}
static unsigned ballot(bool x) {
  return gather({x}, [](const std::vector<uint32_t>* all) {
    unsigned votes = 0;
    for (int lane = 0; lane < 32; ++lane) votes |= all[lane][0] << lane;
    return votes;
  });
}
static bool __all_sync(unsigned, bool x) { return ballot(x) == 0xffffffffu; }
static bool __any_sync(unsigned, bool x) { return ballot(x) != 0; }

static std::mutex atomics;
template <typename T, typename F> static T atomically(T* p, F change) {
  std::lock_guard<std::mutex> hold(atomics);
  const T old = *p;
  *p = change(old);
  return old;
}
static int atomicAdd(int* p, int x) { return atomically(p, [x](int old) { return (int)((unsigned)old + (unsigned)x); }); }
static unsigned atomicAdd(unsigned* p, unsigned x) { return atomically(p, [x](unsigned old) { return old + x; }); }
static float atomicAdd(float* p, float x) { return atomically(p, [x](float old) { return old + x; }); }
template <typename T> static T atomicMin(T* p, T x) { return atomically(p, [x](T old) { return old < x ? old : x; }); }
template <typename T> static T atomicMax(T* p, T x) { return atomically(p, [x](T old) { return old > x ? old : x; }); }
template <typename T> static T atomicAnd(T* p, T x) { return atomically(p, [x](T old) { return old & x; }); }
template <typename T> static T atomicOr(T* p, T x) { return atomically(p, [x](T old) { return old | x; }); }
template <typename T> static T atomicXor(T* p, T x) { return atomically(p, [x](T old) { return old ^ x; }); }
template <typename T> static T atomicExch(T* p, T x) { return atomically(p, [x](T) { return x; }); }
template <typename T> static T atomicCAS(T* p, T compare, T x) {
  return atomically(p, [=](T old) { return old == compare ? x : old; });
}

template <typename To, typename From> static To bitsAs(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  memcpy(&result, &x, sizeof result);
  return result;
}
static float __uint_as_float(unsigned x) { return bitsAs<float>(x); }
static float __int_as_float(int x) { return bitsAs<float>(x); }
static unsigned __float_as_uint(float x) { return bitsAs<unsigned>(x); }
static int __float_as_int(float x) { return bitsAs<int>(x); }
static int __float2int_rz(float x) {
  return x != x ? 0 : x >= 2147483648.0f ? 2147483647 : x <= -2147483648.0f ? -2147483647 - 1 : (int)x;
}
static unsigned __float2uint_rz(float x) { return !(x > 0) ? 0 : x >= 4294967296.0f ? 4294967295u : (unsigned)x; }
static int __popc(unsigned x) { return __builtin_popcount(x); }
static int __clz(unsigned x) { return x == 0 ? 32 : __builtin_clz(x); }
static float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static int min(int a, int b) { return a < b ? a : b; }
static int max(int a, int b) { return a > b ? a : b; }
static unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
static unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }

#include "ptx.h"

// Runs a kernel's blocks one after the other: static memory is that of the block that runs.
template <typename Kernel> static void launch(Index grid, unsigned block, Kernel kernel) {
  std::barrier<> meeting(block);
  blockMeeting = &meeting;
  warps.clear();
  for (unsigned warp = 0; warp < block / 32; ++warp) warps.push_back(new Warp);
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < block; ++thread) {
    threads.emplace_back([=] {
      threadIdx.x = thread;
      for (unsigned z = 0; z < grid.z; ++z) {
        for (unsigned y = 0; y < grid.y; ++y) {
          for (unsigned x = 0; x < grid.x; ++x) {
            blockIdx = {x, y, z};
            kernel();
            __syncthreads();
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (Warp* warp : warps) delete warp;
}

// A pointer to whatever a kernel takes.
struct Any {
  void* at;
  template <typename T> operator T*() const { return (T*)at; }
};

static std::vector<std::vector<char>> readAll(FILE* file, const std::vector<size_t>& sizes) {
  std::vector<std::vector<char>> all;
  for (size_t size : sizes) {
    all.emplace_back(size);
    if (fread(all.back().data(), 1, size, file) != size) refuse("a tensor is missing");
  }
  return all;
}
static void writeAll(const char* path, const std::vector<std::vector<char>>& all) {
  FILE* file = fopen(path, "wb");
  for (const std::vector<char>& one : all) fwrite(one.data(), 1, one.size(), file);
  fclose(file);
}

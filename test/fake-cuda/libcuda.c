/*
 * A stand-in for libcuda.so.1, to test the CUDA backend's FFI without a GPU. Device memory is malloc'ed; work is queued and
 * done late (when a stream is synchronized, or one piece per event query), so that a missing wait shows; struct layouts and
 * kernelParams are read as C reads them. A "cubin" is text whose lines `//kernel NAME tensors scalars static threads`
 * declare kernels (and at the end may count tensor maps): axpy (y += a * x), trap (illegal address), others do nothing.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t Pointer;
typedef struct { uint32_t id; char pad[4]; union { char pad[64]; int32_t value; } value; } Attribute;
typedef struct {
  uint32_t grid[3], block[3], shared;
  void *stream;
  Attribute *attributes;
  uint32_t attributeCount;
} Config;
_Static_assert(sizeof(Attribute) == 72 && sizeof(Config) == 56, "as in cuda.h");

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201, INVALID_HANDLE = 400,
       NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700 };

typedef struct { char name[64]; int tensors, scalars, staticShared, maxThreads, tensorMaps, dynamicShared, live; } Function;
typedef struct { Pointer start; size_t size; int live; } Allocation;
typedef struct { int done, withTiming, live; float ms; } Event;
typedef struct { int kind; void *host; Pointer device; size_t size; Event *event; Function *fn; uint64_t args[8]; uint32_t threads; } Work;

static struct {
  int devices, major, minor, retained, sticky, streams, modules, events;
  void *current;
  size_t capacity, used;
  char failing[64]; int failure;
  char log[1 << 20]; size_t logged;
  Allocation allocations[4096]; int allocationCount;
  Work queue[4096]; int head, tail;
  float clock;
} S = { .devices = 1, .major = 9, .minor = 0, .capacity = 1 << 20 };

static void note(const char *format, ...) {
  va_list args;
  va_start(args, format);
  if (S.logged + 512 < sizeof S.log) {
    S.logged += vsnprintf(S.log + S.logged, 500, format, args);
    S.log[S.logged++] = '\n';
    S.log[S.logged] = 0;
  }
  va_end(args);
}

/* Controls for tests. */
void fake_reset(void) { memset(&S, 0, sizeof S); S.devices = 1; S.major = 9; S.capacity = 1 << 20; }
void fake_device(int count, int major, int minor) { S.devices = count; S.major = major; S.minor = minor; }
void fake_fail(const char *function, int result) { snprintf(S.failing, sizeof S.failing, "%s", function); S.failure = result; }
/* Another library of this thread makes its context current. */
void fake_steal(void) { S.current = (void *)0xbad; }
const char *fake_log(void) { return S.log; }
int fake_leaks(void) { return (S.used > 0) + S.streams + S.modules + S.events + S.retained; }

/* What a call answers before it does anything. */
static int before(const char *function) {
  note("%s", function);
  if (strcmp(S.failing, function) == 0) { S.failing[0] = 0; return S.failure; }
  return OK;
}
#define BEGIN do { int early = before(__func__); if (early) return early; } while (0)
#define IN_CONTEXT do { BEGIN; if ((uintptr_t)S.current >> 16 != 0xc0de) return INVALID_CONTEXT; if (S.sticky) return S.sticky; } while (0)

static int inside(Pointer at, size_t size) {
  for (int i = 0; i < S.allocationCount; i++) {
    Allocation *a = &S.allocations[i];
    if (a->live && at >= a->start && at + size <= a->start + a->size) return 1;
  }
  return 0;
}

static void execute(Work *w) {
  S.clock += 0.25f;
  if (w->kind == 'h') memcpy((void *)w->device, w->host, w->size);
  if (w->kind == 'd') memcpy(w->host, (void *)w->device, w->size);
  if (w->kind == 'e') { w->event->done = 1; w->event->ms = S.clock; }
  if (w->kind != 'k') return;
  if (strcmp(w->fn->name, "trap") == 0) S.sticky = ILLEGAL_ADDRESS;
  if (strcmp(w->fn->name, "axpy") == 0) {
    float a;
    memcpy(&a, &w->args[2], 4);
    uint32_t n;
    memcpy(&n, &w->args[3], 4);
    if (!inside(w->args[0], 4 * n) || !inside(w->args[1], 4 * n)) { S.sticky = ILLEGAL_ADDRESS; return; }
    const float *x = (const float *)w->args[0];
    float *y = (float *)w->args[1];
    for (uint32_t i = 0; i < n && i < w->threads; i++) y[i] += a * x[i];
  }
}

static Work *enqueue(int kind) {
  if (S.head == S.tail) S.head = S.tail = 0;
  if (S.tail == 4096) { fprintf(stderr, "fake libcuda: queue full\n"); abort(); }
  Work *w = &S.queue[S.tail++];
  memset(w, 0, sizeof *w);
  w->kind = kind;
  return w;
}
static int step(void) {
  if (S.head < S.tail && !S.sticky) execute(&S.queue[S.head++]);
  return S.sticky;
}

int cuInit(uint32_t flags) { BEGIN; return S.devices == 0 ? NO_DEVICE : flags ? INVALID_VALUE : OK; }
int cuDriverGetVersion(int *version) { BEGIN; *version = 13000; return OK; }
int cuGetErrorName(int result, const char **text) {
  *text = result == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : result == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_FAKE";
  return OK;
}
int cuGetErrorString(int result, const char **text) {
  *text = result == ILLEGAL_ADDRESS ? "an illegal memory access was encountered" : "made up";
  return OK;
}
int cuDeviceGetCount(int *count) { BEGIN; *count = S.devices; return OK; }
int cuDeviceGet(int *device, int ordinal) { BEGIN; *device = ordinal; return ordinal < S.devices ? OK : 101; }
int cuDeviceGetName(char *name, int size, int device) { BEGIN; snprintf(name, size, "Fake H%d", device); return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  BEGIN;
  (void)device;
  *value = attribute == 75 ? S.major : attribute == 76 ? S.minor : attribute == 97 ? 232448 : -1;
  return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { BEGIN; S.retained++; *context = (void *)(uintptr_t)(0xc0de0000ull + device); return OK; }
int cuDevicePrimaryCtxRelease_v2(int device) {
  note("%s", __func__);
  (void)device;
  if (--S.retained > 0) return OK;
  S.sticky = S.head = S.tail = 0; /* as far as the real driver keeps its promises, a new context is a fresh start */
  return OK;
}
int cuCtxSetCurrent(void *context) { S.current = context; return OK; } /* not noted: it goes before every call */

int cuMemAlloc_v2(Pointer *pointer, size_t size) {
  IN_CONTEXT;
  if (size == 0) return INVALID_VALUE;
  if (S.used + size > S.capacity) return OUT_OF_MEMORY;
  void *memory = aligned_alloc(256, (size + 255) / 256 * 256);
  memset(memory, 0xff, size);
  *pointer = (Pointer)(uintptr_t)memory;
  S.allocations[S.allocationCount++] = (Allocation){ *pointer, size, 1 };
  S.used += size;
  return OK;
}
int cuMemFree_v2(Pointer pointer) {
  IN_CONTEXT;
  for (int i = 0; i < S.allocationCount; i++) {
    Allocation *a = &S.allocations[i];
    if (a->start != pointer || !a->live) continue;
    a->live = 0;
    S.used -= a->size;
    free((void *)(uintptr_t)pointer);
    return OK;
  }
  return INVALID_VALUE;
}
int cuMemGetInfo_v2(size_t *available, size_t *total) { IN_CONTEXT; *available = S.capacity - S.used; *total = S.capacity; return OK; }
int cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t size, void *stream) {
  IN_CONTEXT;
  if (!inside(to, size) || !stream) return INVALID_VALUE;
  Work *w = enqueue('h');
  w->host = (void *)from; w->device = to; w->size = size;
  return OK;
}
int cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t size, void *stream) {
  IN_CONTEXT;
  if (!inside(from, size) || !stream) return INVALID_VALUE;
  Work *w = enqueue('d');
  w->host = to; w->device = from; w->size = size;
  return OK;
}

typedef struct { Function functions[8]; int count; } Module;
int cuModuleLoadData(void **module, const void *image) {
  IN_CONTEXT;
  Module *m = calloc(1, sizeof *m);
  for (const char *line = strstr(image, "//kernel "); line; line = strstr(line + 1, "//kernel ")) {
    Function *f = &m->functions[m->count++];
    sscanf(line, "//kernel %63s %d %d %d %d %d", f->name, &f->tensors, &f->scalars, &f->staticShared, &f->maxThreads, &f->tensorMaps);
  }
  if (m->count == 0) return 200;
  S.modules++;
  *module = m;
  return OK;
}
int cuModuleUnload(void *module) { IN_CONTEXT; free(module); S.modules--; return OK; }
int cuModuleGetFunction(void **fn, void *module, const char *name) {
  IN_CONTEXT;
  Module *m = module;
  for (int i = 0; i < m->count; i++) if (strcmp(m->functions[i].name, name) == 0) { *fn = &m->functions[i]; return OK; }
  return NOT_FOUND;
}
int cuFuncGetAttribute(int *value, int attribute, void *fn) {
  IN_CONTEXT;
  Function *f = fn;
  *value = attribute == 0 ? f->maxThreads : attribute == 1 ? f->staticShared : attribute == 4 ? 255 : -1;
  return OK;
}
int cuFuncSetAttribute(void *fn, int attribute, int value) {
  IN_CONTEXT;
  if (attribute != 8) return INVALID_VALUE;
  ((Function *)fn)->dynamicShared = value;
  return OK;
}
int cuOccupancyMaxActiveClusters(int *clusters, void *fn, const Config *c) {
  IN_CONTEXT;
  (void)fn;
  *clusters = c->grid[0] <= 4 ? 1 : 0; /* clusters of 8 never fit */
  return OK;
}
int cuTensorMapEncodeTiled(void *map, int type, uint32_t rank, Pointer address, const uint64_t *sizes, const uint64_t *strides,
                           const uint32_t *box, const uint32_t *steps, int interleave, int swizzle, int promotion, int fill) {
  IN_CONTEXT;
  if ((uintptr_t)map % 64 || address % 16 || rank < 1 || rank > 5 || interleave || fill) return INVALID_VALUE;
  for (uint32_t i = 0; i + 1 < rank; i++) if (strides[i] % 16) return INVALID_VALUE;
  for (uint32_t i = 0; i < rank; i++) if (box[i] > 256 || !box[i] || steps[i] != 1) return INVALID_VALUE;
  note("tensor map type %d rank %u size %u box %u swizzle %d promotion %d", type, rank, (unsigned)sizes[0], box[0], swizzle, promotion);
  memset(map, 0, 128);
  memcpy(map, "a tensor map", 13);
  return OK;
}
int cuLaunchKernelEx(const Config *c, void *fn, void **params, void **extra) {
  IN_CONTEXT;
  Function *f = fn;
  if (extra || !c->stream) return INVALID_VALUE;
  note("launch %s grid %u %u %u block %u %u %u shared %u attributes %u", f->name, c->grid[0], c->grid[1], c->grid[2],
       c->block[0], c->block[1], c->block[2], c->shared, c->attributeCount);
  for (uint32_t i = 0; i < c->attributeCount; i++) note("attribute %u = %d", c->attributes[i].id, c->attributes[i].value.value);
  if (c->grid[0] == 0 || (c->shared > 49152 && c->shared > (uint32_t)f->dynamicShared)) return INVALID_VALUE;
  Work *w = enqueue('k');
  w->fn = f;
  w->threads = c->grid[0] * c->grid[1] * c->grid[2] * c->block[0];
  for (int i = 0; i < f->tensors; i++) w->args[i] = *(uint64_t *)params[i];
  for (int i = f->tensors; i < f->tensors + f->scalars; i++) {
    uint32_t bits = *(uint32_t *)params[i];
    w->args[i] = bits;
    note("scalar %08x", bits);
  }
  if (f->tensorMaps) {
    const char *map = params[f->tensors + f->scalars];
    note("argument %s aligned %d", map, (int)((uintptr_t)map % 64));
  }
  return OK;
}

int cuStreamCreate(void **stream, uint32_t flags) { IN_CONTEXT; if (flags != 1) return INVALID_VALUE; S.streams++; *stream = malloc(8); return OK; }
int cuStreamDestroy_v2(void *stream) { IN_CONTEXT; S.streams--; free(stream); return OK; }
int cuStreamSynchronize(void *stream) {
  IN_CONTEXT;
  if (!stream) return INVALID_HANDLE;
  while (S.head < S.tail) { int result = step(); if (result) return result; }
  return OK;
}
int cuEventCreate(void **event, uint32_t flags) {
  IN_CONTEXT;
  Event *e = calloc(1, sizeof *e);
  e->withTiming = flags == 0;
  S.events++;
  *event = e;
  return OK;
}
int cuEventDestroy_v2(void *event) { IN_CONTEXT; S.events--; free(event); return OK; }
int cuEventRecord(void *event, void *stream) { IN_CONTEXT; if (!stream) return INVALID_HANDLE; enqueue('e')->event = event; return OK; }
int cuEventQuery(void *event) {
  IN_CONTEXT;
  int result = step();
  return result ? result : ((Event *)event)->done ? OK : NOT_READY;
}
int cuEventElapsedTime(float *ms, void *start, void *end) {
  IN_CONTEXT;
  Event *a = start, *b = end;
  if (!a->withTiming || !b->withTiming || !a->done || !b->done) return INVALID_HANDLE;
  *ms = b->ms - a->ms;
  return OK;
}

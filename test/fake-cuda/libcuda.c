/*
 * A stand-in for libcuda.so.1, to test the CUDA backend's FFI without a GPU. Device memory is malloc'ed; struct layouts and
 * kernelParams are read as C reads them. Work is queued on its stream and done as late as the driver may do it: when that
 * stream is synchronized, or one piece per query of an event in it, so that a missing wait shows. What a real driver would
 * let corrupt memory in silence (freeing what queued work uses, calls that are illegal while a graph is captured) is counted
 * as a violation. A "cubin" is text whose lines `//kernel NAME tensors scalars static threads` declare kernels (and at the
 * end may count tensor maps): axpy (y += a * x), trap (illegal address), others do nothing.
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
typedef struct { unsigned char fromPort, toPort, type, reserved[5]; } EdgeData;
typedef struct { int32_t result; void *node, *from; } UpdateInfo;
_Static_assert(sizeof(Attribute) == 72 && sizeof(Config) == 56 && sizeof(EdgeData) == 8 && sizeof(UpdateInfo) == 24, "as in cuda.h");

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201, INVALID_HANDLE = 400,
       NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, ALREADY_REGISTERED = 712, NOT_REGISTERED = 713,
       CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, UPDATE_REFUSED = 910 };

typedef struct { char name[64]; int tensors, scalars, staticShared, maxThreads, tensorMaps, dynamicShared; void *context; } Function;
typedef struct { Pointer start; size_t size; int live, device, foreign; } Region; /* of device memory, or of locked host pages */
struct Stream;
typedef struct { int done, recorded, withTiming; float ms; struct Stream *stream; } Event;
typedef struct { int kind, programmatic; void *host; Pointer device, other; size_t size; Event *event; Function *fn; uint64_t args[8]; uint32_t threads; } Work;
typedef struct { Work *items; int head, tail, room; } Queue;
typedef struct Stream { Queue queue; void *context; struct Graph *graph; int invalid, live, foreign; struct Stream *next; } Stream;
typedef struct Graph { Queue nodes; } Graph;

static struct {
  int devices, major[8], minor[8], retained, sticky, streams, modules, events, graphs, execs, violations, quiet;
  int64_t calls;
  void *current;
  size_t capacity, used;
  char failing[64]; int failure;
  char log[1 << 20]; size_t logged;
  Region memory[4096], locked[256]; int lockedCount;
  Stream *all, standard;
  float clock;
} S;

static void note(const char *format, ...) {
  if (S.quiet) return;
  va_list args;
  va_start(args, format);
  if (S.logged + 512 < sizeof S.log) {
    S.logged += vsnprintf(S.log + S.logged, 500, format, args);
    S.log[S.logged++] = '\n';
    S.log[S.logged] = 0;
  }
  va_end(args);
}

static void violation(const char *what) { S.violations++; note("VIOLATION %s", what); }
static void *contextOf(int device) { return (void *)(uintptr_t)(0xc0de0000ull + device); }

/* Controls for tests. */
void fake_device(int ordinal, int major, int minor) {
  if (ordinal >= S.devices) S.devices = ordinal + 1;
  S.major[ordinal] = major; S.minor[ordinal] = minor;
}
void fake_no_device(void) { S.devices = 0; }
void fake_reset(void) { memset(&S, 0, sizeof S); S.capacity = 1 << 20; fake_device(0, 9, 0); S.standard.live = 1; S.standard.context = contextOf(0); }
void fake_fail(const char *function, int result) { snprintf(S.failing, sizeof S.failing, "%s", function); S.failure = result; }
/* Another library of this thread makes its context current. */
void fake_steal(void) { S.current = (void *)0xbad; }
/* Keeps no log and drops kernels: nothing but the cost of calling. */
void fake_quiet(int quiet) { S.quiet = quiet; }
const char *fake_log(void) { return S.log; }
/* Calls of the driver, noted or not. */
int64_t fake_calls(void) { return S.calls; }
int fake_violations(void) { return S.violations; }
int fake_leaks(void) { return (S.used > 0) + S.streams + S.modules + S.events + S.retained + S.graphs + S.execs + S.lockedCount; }

/* What a call answers before it does anything. */
static int before(const char *function) {
  S.calls++;
  note("%s", function);
  if (S.failing[0] && strcmp(S.failing, function) == 0) { S.failing[0] = 0; return S.failure; }
  return OK;
}
#define BEGIN do { int early = before(__func__); if (early) return early; } while (0)
#define IN_CONTEXT do { BEGIN; if ((uintptr_t)S.current >> 16 != 0xc0de) return INVALID_CONTEXT; if (S.sticky) return S.sticky; } while (0)
/* Of a capture in thread-local mode: these end it, whichever stream it is on. */
static int spoil(const char *function, int result) {
  int spoiled = 0;
  for (Stream *s = S.all; s; s = s->next) if (s->graph) { s->invalid = result; spoiled = 1; }
  if (spoiled && function) violation(function);
  return spoiled;
}
/* Another library of this thread allocates or waits (901), or leaves work on a stream of its own (904). */
void fake_interfere(int result) { spoil(NULL, result); }
#define NOT_IN_CAPTURE do { if (spoil(__func__, CAPTURE_INVALIDATED)) return CAPTURE_UNSUPPORTED; } while (0)

static Region *regionOf(Region *regions, int count, Pointer at, size_t size) {
  for (int i = 0; i < count; i++) {
    Region *r = &regions[i];
    if (r->live && at >= r->start && at + size <= r->start + r->size) return r;
  }
  return NULL;
}
static Region *inside(Pointer at, size_t size) { return regionOf(S.memory, 4096, at, size); }
static Region *lockedAt(const void *host, size_t size) { return regionOf(S.locked, 256, (Pointer)(uintptr_t)host, size); }
static Region *newRegion(Region *regions, int count, Pointer start, size_t size) {
  for (int i = 0; i < count; i++) if (!regions[i].live) { regions[i] = (Region){ start, size, 1, 0, 0 }; return &regions[i]; }
  fprintf(stderr, "fake libcuda: too many allocations\n");
  abort();
}

static Work *push(Queue *q, const Work *work) {
  if (q->head == q->tail) q->head = q->tail = 0;
  if (q->tail == q->room) q->items = realloc(q->items, (q->room = q->room ? 2 * q->room : 64) * sizeof(Work));
  q->items[q->tail] = *work;
  return &q->items[q->tail++];
}
static Queue copyOf(const Queue *q) {
  Queue copy = { 0 };
  for (int i = q->head; i < q->tail; i++) push(&copy, &q->items[i]);
  return copy;
}

static Stream *streamOf(void *handle) {
  if ((uintptr_t)handle <= 2) return &S.standard;
  for (Stream *s = S.all; s; s = s->next) if (s == handle && s->live) return s;
  return NULL;
}
static int enqueue(Stream *s, const Work *work) {
  if (!s) return INVALID_HANDLE;
  if (s->graph) {
    if (s->invalid) return CAPTURE_INVALIDATED;
    push(&s->graph->nodes, work);
  } else if (!(S.quiet && work->kind == 'k')) {
    push(&s->queue, work);
  }
  return OK;
}

static void execute(const Work *w) {
  S.clock += 0.25f;
  if (w->kind == 'h') memcpy((void *)w->device, w->host, w->size);
  if (w->kind == 'd') memcpy(w->host, (void *)w->device, w->size);
  if (w->kind == 'c') memcpy((void *)w->device, (void *)w->other, w->size);
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
/* One piece of a stream's work, or of what it waits for. */
static void step(Stream *s) {
  if (S.sticky || s->queue.head == s->queue.tail) return;
  const Work *w = &s->queue.items[s->queue.head];
  if (w->kind == 'w' && w->event->recorded && !w->event->done) { step(w->event->stream); return; }
  s->queue.head++;
  execute(w);
}

static int usesRegion(const Work *w, const Region *r) {
  const Pointer end = r->start + r->size;
#define WITHIN(p) ((p) >= r->start && (p) < end)
  if (WITHIN((Pointer)(uintptr_t)w->host) || WITHIN(w->device) || WITHIN(w->other)) return 1;
  for (int i = 0; w->kind == 'k' && i < w->fn->tensors; i++) if (WITHIN(w->args[i])) return 1;
  return 0;
}
static void checkUnused(const Region *r, const char *what) {
  for (Stream *s = S.all; s; s = s->next)
    for (int i = s->queue.head; i < s->queue.tail; i++) if (usesRegion(&s->queue.items[i], r)) { violation(what); return; }
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
  *value = attribute == 75 ? S.major[device] : attribute == 76 ? S.minor[device] : attribute == 97 ? 232448 : -1;
  return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { BEGIN; if (S.sticky) return S.sticky; S.retained++; *context = contextOf(device); return OK; }
int cuDevicePrimaryCtxRelease_v2(int device) {
  note("%s", __func__);
  (void)device;
  S.retained--;
  return OK; /* and a sticky error stays: no new context is a fresh start */
}
int cuCtxSetCurrent(void *context) { S.calls++; S.current = context; return OK; } /* not noted: it goes before nearly every call */

int cuMemAlloc_v2(Pointer *pointer, size_t size) {
  IN_CONTEXT;
  NOT_IN_CAPTURE;
  if (size == 0) return INVALID_VALUE;
  if (S.used + size > S.capacity) return OUT_OF_MEMORY;
  void *memory = aligned_alloc(256, (size + 255) / 256 * 256);
  memset(memory, 0xff, size);
  *pointer = (Pointer)(uintptr_t)memory;
  newRegion(S.memory, 4096, *pointer, size)->device = (uintptr_t)S.current & 0xff;
  S.used += size;
  return OK;
}
int cuMemFree_v2(Pointer pointer) {
  IN_CONTEXT;
  NOT_IN_CAPTURE;
  Region *a = inside(pointer, 1);
  if (!a || a->start != pointer) return INVALID_VALUE;
  if (a->foreign) violation("freed another library's memory");
  checkUnused(a, "freed memory that queued work uses");
  a->live = 0;
  S.used -= a->size;
  free((void *)(uintptr_t)pointer);
  return OK;
}
/* Memory and streams that another library of the process made. */
int64_t fake_foreign_memory(int size, int device) {
  void *memory = aligned_alloc(256, (size + 255) / 256 * 256);
  Region *r = newRegion(S.memory, 4096, (Pointer)(uintptr_t)memory, size);
  r->device = device;
  r->foreign = 1;
  return (int64_t)(uintptr_t)memory;
}
int cuMemGetInfo_v2(size_t *available, size_t *total) { IN_CONTEXT; *available = S.capacity - S.used; *total = S.capacity; return OK; }
int cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t size, void *stream) {
  IN_CONTEXT;
  if (!inside(to, size)) return INVALID_VALUE;
  note("copy %s", lockedAt(from, size) ? "from pinned memory" : "from pageable memory");
  Work w = { .kind = 'h', .host = (void *)from, .device = to, .size = size };
  return enqueue(streamOf(stream), &w);
}
int cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t size, void *stream) {
  IN_CONTEXT;
  if (!inside(from, size)) return INVALID_VALUE;
  note("copy %s", lockedAt(to, size) ? "to pinned memory" : "to pageable memory");
  Work w = { .kind = 'd', .host = to, .device = from, .size = size };
  return enqueue(streamOf(stream), &w);
}
int cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t size, void *stream) {
  IN_CONTEXT;
  if (!inside(from, size) || !inside(to, size)) return INVALID_VALUE;
  Work w = { .kind = 'c', .device = to, .other = from, .size = size };
  return enqueue(streamOf(stream), &w);
}
int cuMemHostRegister_v2(void *memory, size_t size, uint32_t flags) {
  IN_CONTEXT;
  NOT_IN_CAPTURE;
  if (flags || !size || (uintptr_t)memory % 4096 || size % 4096) return INVALID_VALUE;
  for (int i = 0; i < 256; i++) {
    Region *r = &S.locked[i];
    const Pointer start = (Pointer)(uintptr_t)memory;
    if (r->live && start < r->start + r->size && r->start < start + size) return ALREADY_REGISTERED;
  }
  newRegion(S.locked, 256, (Pointer)(uintptr_t)memory, size);
  S.lockedCount++;
  return OK;
}
int cuMemHostUnregister(void *memory) {
  IN_CONTEXT;
  NOT_IN_CAPTURE;
  Region *r = lockedAt(memory, 1);
  if (!r || r->start != (Pointer)(uintptr_t)memory) return NOT_REGISTERED;
  checkUnused(r, "unlocked pages that a queued copy uses");
  r->live = 0;
  S.lockedCount--;
  return OK;
}
int cuPointerGetAttribute(void *value, int attribute, Pointer pointer) {
  IN_CONTEXT;
  const Region *r = inside(pointer, 1), *host = r ? NULL : lockedAt((void *)(uintptr_t)pointer, 1);
  if (!r && !host) return INVALID_VALUE;
  if (attribute == 2) *(uint32_t *)value = r ? 2 : 1;
  else if (attribute == 9) *(int *)value = r ? r->device : 0;
  else if (attribute == 11) *(Pointer *)value = r ? r->start : host->start;
  else if (attribute == 12) *(size_t *)value = r ? r->size : host->size;
  else return INVALID_VALUE;
  return OK;
}

typedef struct { Function functions[8]; int count; } Module;
int cuModuleLoadData(void **module, const void *image) {
  IN_CONTEXT;
  NOT_IN_CAPTURE;
  Module *m = calloc(1, sizeof *m);
  for (const char *line = strstr(image, "//kernel "); line; line = strstr(line + 1, "//kernel ")) {
    Function *f = &m->functions[m->count++];
    f->context = S.current;
    sscanf(line, "//kernel %63s %d %d %d %d %d", f->name, &f->tensors, &f->scalars, &f->staticShared, &f->maxThreads, &f->tensorMaps);
  }
  if (m->count == 0) return 200;
  S.modules++;
  *module = m;
  return OK;
}
int cuModuleUnload(void *module) {
  IN_CONTEXT;
  NOT_IN_CAPTURE;
  const Module *m = module;
  for (Stream *s = S.all; s; s = s->next)
    for (int i = s->queue.head; i < s->queue.tail; i++) {
      const Function *f = s->queue.items[i].fn;
      if (f >= m->functions && f < m->functions + 8) { violation("unloaded code that is queued"); break; }
    }
  free(module);
  S.modules--;
  return OK;
}
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
  Stream *s = streamOf(c->stream);
  if (extra) return INVALID_VALUE;
  if (!s || f->context != S.current || s->context != S.current) return INVALID_HANDLE;
  note("launch %s grid %u %u %u block %u %u %u shared %u attributes %u", f->name, c->grid[0], c->grid[1], c->grid[2],
       c->block[0], c->block[1], c->block[2], c->shared, c->attributeCount);
  Work w = { .kind = 'k', .fn = f, .threads = c->grid[0] * c->grid[1] * c->grid[2] * c->block[0] };
  for (uint32_t i = 0; i < c->attributeCount; i++) {
    note("attribute %u = %d", c->attributes[i].id, c->attributes[i].value.value);
    if (c->attributes[i].id == 6 && c->attributes[i].value.value) w.programmatic = 1;
  }
  if (c->grid[0] == 0 || (c->shared > 49152 && c->shared > (uint32_t)f->dynamicShared)) return INVALID_VALUE;
  for (int i = 0; i < f->tensors; i++) w.args[i] = *(uint64_t *)params[i];
  for (int i = f->tensors; i < f->tensors + f->scalars; i++) {
    uint32_t bits = *(uint32_t *)params[i];
    w.args[i] = bits;
    note("scalar %08x", bits);
  }
  if (f->tensorMaps) {
    const char *map = params[f->tensors + f->scalars];
    note("argument %s aligned %d", map, (int)((uintptr_t)map % 64));
  }
  return enqueue(s, &w);
}

static Stream *newStream(void *context) {
  Stream *s = calloc(1, sizeof *s);
  s->context = context;
  s->live = 1;
  s->next = S.all;
  return S.all = s;
}
int64_t fake_foreign_stream(int device) { Stream *s = newStream(contextOf(device)); s->foreign = 1; return (int64_t)(uintptr_t)s; }
int cuStreamCreate(void **stream, uint32_t flags) {
  IN_CONTEXT;
  if (flags != 1) return INVALID_VALUE;
  S.streams++;
  *stream = newStream(S.current);
  return OK;
}
int cuStreamDestroy_v2(void *stream) {
  IN_CONTEXT;
  Stream *s = streamOf(stream);
  if (!s) return INVALID_HANDLE;
  if (s->foreign) violation("destroyed another library's stream");
  if (s->graph) violation("destroyed a stream that is being captured");
  for (int i = s->queue.head; i < s->queue.tail; i++)
    if (s->queue.items[i].kind != 'e') { violation("destroyed a stream with work in it"); break; }
  s->live = 0;
  S.streams--;
  return OK;
}
int cuStreamGetCtx(void *stream, void **context) {
  IN_CONTEXT;
  Stream *s = streamOf(stream);
  if (!s) return INVALID_HANDLE;
  *context = s == &S.standard ? S.current : s->context;
  return OK;
}
/* Its work goes on, as after cuStreamDestroy, but nobody can wait for it. */
void fake_destroy_foreign_stream(int64_t stream) { ((Stream *)(uintptr_t)stream)->live = 0; }
int cuStreamIsCapturing(void *stream, int *status) {
  IN_CONTEXT;
  Stream *s = streamOf(stream);
  if (!s) return INVALID_HANDLE;
  *status = s->graph ? 1 : 0;
  return OK;
}
int cuStreamSynchronize(void *stream) {
  IN_CONTEXT;
  Stream *s = streamOf(stream);
  if (!s) return INVALID_HANDLE;
  NOT_IN_CAPTURE;
  while (s->queue.head < s->queue.tail) { step(s); if (S.sticky) return S.sticky; }
  return OK;
}
int cuStreamWaitEvent(void *stream, void *event, uint32_t flags) {
  IN_CONTEXT;
  if (flags) return INVALID_VALUE;
  Work w = { .kind = 'w', .event = event };
  return enqueue(streamOf(stream), &w);
}
int cuEventCreate(void **event, uint32_t flags) {
  IN_CONTEXT;
  Event *e = calloc(1, sizeof *e);
  e->withTiming = flags == 0;
  S.events++;
  *event = e;
  return OK;
}
/* Not freed: a queued wait may still look at it, as the real driver's does. */
int cuEventDestroy_v2(void *event) { IN_CONTEXT; (void)event; S.events--; return OK; }
int cuEventRecord(void *event, void *stream) {
  IN_CONTEXT;
  NOT_IN_CAPTURE;
  Event *e = event;
  Stream *s = streamOf(stream);
  if (!s) return INVALID_HANDLE;
  e->done = 0;
  e->recorded = 1;
  e->stream = s;
  Work w = { .kind = 'e', .event = e };
  return enqueue(s, &w);
}
int cuEventQuery(void *event) {
  IN_CONTEXT;
  NOT_IN_CAPTURE;
  Event *e = event;
  step(e->stream);
  return S.sticky ? S.sticky : e->done ? OK : NOT_READY;
}
int cuEventElapsedTime(float *ms, void *start, void *end) {
  IN_CONTEXT;
  Event *a = start, *b = end;
  if (!a->withTiming || !b->withTiming || !a->done || !b->done) return INVALID_HANDLE;
  *ms = b->ms - a->ms;
  return OK;
}

int cuStreamBeginCapture_v2(void *stream, int mode) {
  IN_CONTEXT;
  Stream *s = streamOf(stream);
  if (!s || s == &S.standard) return INVALID_HANDLE;
  if (mode != 1 || s->graph) return INVALID_VALUE;
  s->graph = calloc(1, sizeof *s->graph);
  s->invalid = 0;
  return OK;
}
int cuStreamEndCapture(void *stream, void **graph) {
  IN_CONTEXT;
  Stream *s = streamOf(stream);
  if (!s || !s->graph) return INVALID_VALUE;
  Graph *g = s->graph;
  s->graph = NULL;
  if (s->invalid) { *graph = NULL; return s->invalid; }
  S.graphs++;
  *graph = g;
  return OK;
}
static int countOf(const Graph *g) { return g->nodes.tail - g->nodes.head; }
int cuGraphGetNodes(void *graph, void *nodes, size_t *count) { IN_CONTEXT; if (nodes) return INVALID_VALUE; *count = countOf(graph); return OK; }
int cuGraphGetEdges_v2(void *graph, void **from, void **to, EdgeData *data, size_t *count) {
  IN_CONTEXT;
  const Graph *g = graph;
  const size_t room = *count;
  *count = 0;
  for (int i = 1; i < countOf(g) && *count < room; i++) {
    const Work *a = &g->nodes.items[i - 1], *b = &g->nodes.items[i];
    from[*count] = (void *)a;
    to[*count] = (void *)b;
    data[*count] = (EdgeData){ .type = a->kind == 'k' && b->kind == 'k' && b->programmatic };
    (*count)++;
  }
  return OK;
}
int cuGraphInstantiateWithFlags(void **exec, void *graph, uint64_t flags) {
  IN_CONTEXT;
  if (flags) return INVALID_VALUE;
  Graph *copy = calloc(1, sizeof *copy);
  copy->nodes = copyOf(&((Graph *)graph)->nodes);
  S.execs++;
  *exec = copy;
  return OK;
}
int cuGraphExecUpdate_v2(void *exec, void *graph, UpdateInfo *info) {
  IN_CONTEXT;
  Graph *e = exec, *g = graph;
  info->result = countOf(e) != countOf(g) ? 2 : 0;
  for (int i = 0; !info->result && i < countOf(e); i++) if (e->nodes.items[i].kind != g->nodes.items[i].kind) info->result = 3;
  if (info->result) return UPDATE_REFUSED;
  free(e->nodes.items);
  e->nodes = copyOf(&g->nodes);
  return OK;
}
int cuGraphLaunch(void *exec, void *stream) {
  IN_CONTEXT;
  Stream *s = streamOf(stream);
  if (!s || s->context != S.current) return INVALID_HANDLE;
  const Graph *g = exec;
  note("launch graph of %d", countOf(g));
  for (int i = 0; i < countOf(g); i++) { int result = enqueue(s, &g->nodes.items[i]); if (result) return result; }
  return OK;
}
int cuGraphExecDestroy(void *exec) { IN_CONTEXT; free(((Graph *)exec)->nodes.items); free(exec); S.execs--; return OK; }
int cuGraphDestroy(void *graph) { IN_CONTEXT; free(((Graph *)graph)->nodes.items); free(graph); S.graphs--; return OK; }

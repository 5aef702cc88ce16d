/* A stand-in for NVIDIA's driver library, in the host's memory, for tests on computers without a GPU.
 *
 * It is as strict as the driver where an engine can be wrong:
 * - every call needs a current context in its own thread, and a retained one (201, 709);
 * - work on a stream runs when the stream is synchronised, not before;
 * - a copy must lie inside one live allocation (700), also when a graph is launched;
 * - a synchronisation during a capture invalidates the capture (900, 901);
 * - contexts, allocations, streams and graphs are counted (`standin_counts`).
 * `standin_fail(function, status, times)` makes the next calls of a function fail.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, CONTEXT_IS_DESTROYED = 709, NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901,
};
enum { DEVICE, HOST, MAPPED };

typedef struct op { void *to; const void *from; size_t size; void (*kernel)(long); long argument; struct op *next; } op;
typedef struct { op *first, *last; } queue;
typedef struct { queue waiting, captured; int capturing, invalid; unsigned flags; } stream;
typedef struct allocation { char *start; size_t size; int kind; struct allocation *next; } allocation;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static allocation *allocations;
static long retained, streams, graphs, executables, blocking_streams, launches, in_use;
static int initialised, primary;
static __thread void *stack[64];
static __thread int depth;
static struct { char function[64]; int status, times; } failure;

static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

void standin_fail(const char *function, int status, int times) {
    snprintf(failure.function, sizeof failure.function, "%s", function);
    failure.status = status;
    failure.times = times;
}

static int usable(const char *function) {
    if (!initialised) return NOT_INITIALIZED;
    if (!depth) return INVALID_CONTEXT;
    if (retained <= 0) return CONTEXT_IS_DESTROYED;
    if (failure.times > 0 && !strcmp(failure.function, function)) {
        failure.times--;
        return failure.status;
    }
    return SUCCESS;
}
#define NEED do { int status_ = usable(__func__); if (status_) return status_; } while (0)

/* Device and context */

int cuInit(unsigned flags) { initialised = 1; return SUCCESS; }
int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
int cuDeviceGet(int *device, int index) { *device = 0; return index ? INVALID_DEVICE : SUCCESS; }
int cuDeviceGetName(char *name, int size, int device) {
    const char *given = getenv("STANDIN_NAME");
    snprintf(name, size, "%s", given ? given : "Orin");
    return SUCCESS;
}
int cuDeviceComputeCapability(int *major, int *minor, int device) { *major = 8; *minor = 7; return SUCCESS; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)setting("STANDIN_GIB", 8) << 30; return SUCCESS; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) { /* CUdevice_attribute */
    case 16: *value = (int)setting("STANDIN_MULTIPROCESSORS", 8); break;
    case 18: *value = (int)setting("STANDIN_INTEGRATED", 1); break;
    case 41: *value = 1; break; /* unified addressing */
    case 75: *value = 8; break;
    case 76: *value = 7; break;
    default: *value = 0;
    }
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { retained++; *context = &primary; return SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int device) { return retained > 0 ? (retained--, SUCCESS) : INVALID_CONTEXT; }
int cuCtxPushCurrent_v2(void *context) {
    if (context != &primary || depth == 64) return INVALID_CONTEXT;
    stack[depth++] = context;
    return SUCCESS;
}
int cuCtxPopCurrent_v2(void **context) {
    if (!depth) return INVALID_CONTEXT;
    depth--;
    if (context) *context = stack[depth];
    return SUCCESS;
}
int cuCtxGetCurrent(void **context) { *context = depth ? stack[depth - 1] : NULL; return SUCCESS; }
int cuCtxGetDevice(int *device) { NEED; *device = 0; return SUCCESS; }

/* Memory */

static allocation *holding(const void *address, size_t size) {
    for (allocation *each = allocations; each; each = each->next)
        if ((char *)address >= each->start && (char *)address + size <= each->start + each->size) return each;
    return NULL;
}
static int allocate(void **address, size_t size, int kind) {
    long limit = setting("STANDIN_GIB", 8) << 30;
    if (!size) return INVALID_VALUE;
    if (in_use + (long)size > limit) return OUT_OF_MEMORY;
    allocation *made = malloc(sizeof *made);
    *made = (allocation){aligned_alloc(4096, (size + 4095) & ~4095UL), size, kind, NULL};
    memset(made->start, 0xA5, size); /* nobody may rely on zeros */
    pthread_mutex_lock(&lock);
    made->next = allocations;
    allocations = made;
    in_use += (long)size;
    pthread_mutex_unlock(&lock);
    *address = made->start;
    return SUCCESS;
}
static int release(void *address, int device) {
    pthread_mutex_lock(&lock);
    for (allocation **at = &allocations; *at; at = &(*at)->next)
        if ((*at)->start == address && ((*at)->kind == DEVICE) == device) {
            allocation *gone = *at;
            *at = gone->next;
            in_use -= (long)gone->size;
            free(gone->start);
            free(gone);
            pthread_mutex_unlock(&lock);
            return SUCCESS;
        }
    pthread_mutex_unlock(&lock);
    return INVALID_VALUE;
}
int cuMemAlloc_v2(void **address, size_t size) { NEED; return allocate(address, size, DEVICE); }
int cuMemFree_v2(void *address) { NEED; return release(address, 1); }
int cuMemHostAlloc(void **address, size_t size, unsigned flags) { NEED; return allocate(address, size, flags & 2 ? MAPPED : HOST); }
int cuMemFreeHost(void *address) { NEED; return release(address, 0); }
int cuMemHostGetDevicePointer_v2(void **device, void *host, unsigned flags) {
    NEED;
    allocation *found = holding(host, 1);
    if (!found || found->kind != MAPPED) return INVALID_VALUE;
    *device = host;
    return SUCCESS;
}
int cuMemGetInfo_v2(size_t *available, size_t *total) {
    NEED;
    *total = (size_t)setting("STANDIN_GIB", 8) << 30;
    *available = *total - (size_t)in_use;
    return SUCCESS;
}

/* Streams and graphs */

static void put(queue *line, op given) {
    op *made = malloc(sizeof *made);
    *made = given;
    made->next = NULL;
    if (line->last) line->last->next = made; else line->first = made;
    line->last = made;
}
static void empty(queue *line) {
    for (op *each = line->first, *next; each; each = next) {
        next = each->next;
        free(each);
    }
    *line = (queue){NULL, NULL};
}
static int submit(stream *on, op given) { put(on->capturing ? &on->captured : &on->waiting, given); return SUCCESS; }
static int run(queue *line) {
    int status = SUCCESS;
    for (op *each = line->first; each && !status; each = each->next) {
        if (each->kernel) {
            each->kernel(each->argument);
            continue;
        }
        allocation *to = holding(each->to, each->size), *from = holding(each->from, each->size);
        if (!(to && to->kind != HOST) && !(from && from->kind != HOST)) status = ILLEGAL_ADDRESS; /* no side is the device's */
        else memcpy(each->to, each->from, each->size);
    }
    empty(line);
    return status;
}
int cuStreamCreate(stream **made, unsigned flags) {
    NEED;
    *made = calloc(1, sizeof **made);
    (*made)->flags = flags;
    streams++;
    blocking_streams += !(flags & 1);
    return SUCCESS;
}
int cuStreamDestroy_v2(stream *gone) {
    NEED;
    streams--;
    blocking_streams -= !(gone->flags & 1);
    empty(&gone->waiting);
    empty(&gone->captured);
    free(gone);
    return SUCCESS;
}
int cuStreamSynchronize(stream *on) {
    NEED;
    if (on->capturing) { on->invalid = 1; return CAPTURE_UNSUPPORTED; }
    return run(&on->waiting);
}
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, stream *on) { NEED; return submit(on, (op){to, from, size}); }
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t size, stream *on) { NEED; return submit(on, (op){to, from, size}); }
int cuStreamBeginCapture_v2(stream *on, int mode) {
    NEED;
    if (on->capturing) return CAPTURE_UNSUPPORTED;
    on->capturing = 1;
    on->invalid = 0;
    return SUCCESS;
}
int cuStreamEndCapture(stream *on, queue **made) {
    int status = usable("cuStreamEndCapture");
    if (!on->capturing) return CAPTURE_UNSUPPORTED;
    on->capturing = 0;
    *made = NULL;
    if (status || on->invalid) {
        empty(&on->captured);
        return status ? status : CAPTURE_INVALIDATED;
    }
    *made = malloc(sizeof **made);
    **made = on->captured;
    on->captured = (queue){NULL, NULL};
    graphs++;
    return SUCCESS;
}
int cuStreamIsCapturing(stream *on, int *capturing) { NEED; *capturing = on->capturing; return SUCCESS; }
static queue *copied(const queue *line) {
    queue *made = calloc(1, sizeof *made);
    for (op *each = line->first; each; each = each->next) put(made, *each);
    return made;
}
int cuGraphInstantiateWithFlags(queue **made, queue *graph, unsigned long long flags) {
    NEED;
    *made = copied(graph);
    executables++;
    return SUCCESS;
}
int cuGraphLaunch(queue *executable, stream *on) {
    NEED;
    for (op *each = executable->first; each; each = each->next) put(&on->waiting, *each);
    launches++;
    return SUCCESS;
}
int cuGraphDestroy(queue *gone) { empty(gone); free(gone); graphs--; return SUCCESS; }
int cuGraphExecDestroy(queue *gone) { empty(gone); free(gone); executables--; return SUCCESS; }

/* A kernel is a function of the test's. */
int standin_launch(stream *on, void (*kernel)(long), long argument) {
    NEED;
    return submit(on, (op){.kernel = kernel, .argument = argument});
}

/* What is held now: contexts, the depth of this thread's stack, allocations, bytes, streams, blocking streams, graphs, executable
 * graphs; and how many graphs were launched since the beginning. */
void standin_counts(long *counts) {
    long allocated = 0;
    for (allocation *each = allocations; each; each = each->next) allocated++;
    long held[] = {retained, depth, allocated, in_use, streams, blocking_streams, graphs, executables, launches};
    memcpy(counts, held, sizeof held);
}

/* How cuda-bindings finds functions; the newest version of each that is here. */
int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *found) {
    static const char *endings[] = {"_v3", "_v2", ""};
    void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    char name[128];
    const char *base = strcmp(symbol, "cuGraphInstantiate") ? symbol : "cuGraphInstantiateWithFlags";
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s", base, endings[i]);
        if ((*function = dlsym(self, name))) {
            if (found) *found = 0;
            return SUCCESS;
        }
    }
    if (found) *found = 1;
    *function = NULL;
    return NOT_FOUND;
}
int cuGetErrorString(int status, const char **text) { *text = "an error of the stand-in"; return SUCCESS; }
int cuGetErrorName(int status, const char **text) { *text = status == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR"; return SUCCESS; }

/* A stand-in for libnvidia-ml.so.1 that the real pynvml loads.
 *
 * What it answers is read, at each call, from the file that STUB_NVML names: lines of `key=number`.
 *   count=2              GPUs
 *   <function>=15        a call of a GPU-less function fails with this code
 *   0.<function>=3       a call for GPU 0 fails with this code
 *   0.<value>=37         values: util, mem_used, power, temp, ecc, reasons, mig, pcie_rx, ...
 *   0.xid=79, 0.xid_seq=1   an Xid event, delivered once for each new sequence number
 * Handles point into an array, as the driver's do.
 *
 * Compiled with -DGPUS=8 it has so many, all idle, and reads no file: to open one would cost more than
 * all that is to be measured.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GPUS 8
#define TIMEOUT 10
#define INSUFFICIENT_SIZE 7
#define UNINITIALIZED 1
#define NOT_SUPPORTED 3

typedef struct { int index; } device;
typedef struct { int gpus[MAX_GPUS]; } event_set;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process;
typedef struct { device *dev; unsigned long long type, data; unsigned gi, ci; } event;
typedef struct {
    unsigned field, scope; long long timestamp, latency; unsigned type, ret;
    union { double d; unsigned ui; unsigned long long ull; } value;
} field_value;

static device devices[MAX_GPUS];
static event_set events;
static int initialized;
static long long delivered[MAX_GPUS];

static long long get(const char *key, long long fallback) {
#ifdef GPUS
    return strcmp(key, "count") ? fallback : GPUS;
#else
    const char *path = getenv("STUB_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256];
    size_t length = strlen(key);
    long long value = fallback;
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, length) && line[length] == '=') value = atoll(line + length + 1);
    if (file) fclose(file);
    return value;
#endif
}

static long long gpu(const device *dev, const char *key, long long fallback) {
    char full[128];
    snprintf(full, sizeof full, "%d.%s", dev->index, key);
    return get(full, fallback);
}

static int failure(const char *function) {
    long long code = get(function, 0);
    return code ? (int)code : initialized ? 0 : UNINITIALIZED;
}

static int device_failure(const device *dev, const char *function) {
    int code = failure(function);
    if (!code) code = failure("all");
    if (!code) code = (int)gpu(dev, "all", 0);
    return code ? code : (int)gpu(dev, function, 0);
}

#define CHECK() do { int code_ = failure(__func__); if (code_) return code_; } while (0)
#define CHECK_GPU(d) do { int code_ = device_failure(d, __func__); if (code_) return code_; } while (0)
#define NUMBER(name, type, key, fallback) \
    int name(device *dev, type *out) { CHECK_GPU(dev); *out = (type)gpu(dev, key, fallback); return 0; }

int nvmlInitWithFlags(unsigned flags) {
    int code = (int)get(__func__, 0);
    (void)flags;
    if (code) return code;
    initialized = 1;
    for (int i = 0; i < MAX_GPUS; i++) devices[i].index = i;
    return 0;
}
int nvmlShutdown(void) { CHECK(); initialized = 0; return 0; }
const char *nvmlErrorString(int code) { (void)code; return "an error of the stub"; }
int nvmlSystemGetDriverVersion(char *out, unsigned n) { CHECK(); snprintf(out, n, "570.86.15"); return 0; }
int nvmlSystemGetCudaDriverVersion(int *out) { CHECK(); *out = 12080; return 0; }
int nvmlDeviceGetCount_v2(unsigned *out) { CHECK(); *out = (unsigned)get("count", 0); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **out) {
    CHECK_GPU(&devices[index]);
    *out = &devices[index];
    return 0;
}
int nvmlDeviceGetUUID(device *dev, char *out, unsigned n) {
    CHECK_GPU(dev);
    snprintf(out, n, "GPU-%d", dev->index);
    return 0;
}
int nvmlDeviceGetName(device *dev, char *out, unsigned n) {
    CHECK_GPU(dev);
    snprintf(out, n, "NVIDIA Stub");
    return 0;
}
int nvmlDeviceGetMigMode(device *dev, unsigned *current, unsigned *pending) {
    CHECK_GPU(dev);
    *current = *pending = (unsigned)gpu(dev, "mig", 0);
    return 0;
}
int nvmlDeviceGetMemoryInfo_v2(device *dev, memory_v2 *out) {
    CHECK_GPU(dev);
    out->total = 80ULL << 30;
    out->reserved = 1ULL << 30;
    out->used = (unsigned long long)gpu(dev, "mem_used", 0);
    return 0;
}
int nvmlDeviceGetMemoryInfo(device *dev, memory_v1 *out) {
    CHECK_GPU(dev);
    out->total = 80ULL << 30;
    out->used = (unsigned long long)gpu(dev, "mem_used", 0) + (1ULL << 30);
    return 0;
}
int nvmlDeviceGetUtilizationRates(device *dev, utilization *out) {
    CHECK_GPU(dev);
    out->gpu = (unsigned)gpu(dev, "util", 0);
    return 0;
}
int nvmlDeviceGetTemperature(device *dev, unsigned sensor, unsigned *out) {
    CHECK_GPU(dev);
    *out = sensor ? 0 : (unsigned)gpu(dev, "temp", 30);
    return 0;
}
int nvmlDeviceGetClockInfo(device *dev, unsigned kind, unsigned *out) {
    CHECK_GPU(dev);
    *out = kind == 1 ? 1980 : kind == 2 ? 2619 : 0; /* SM, memory */
    return 0;
}
int nvmlDeviceGetTotalEccErrors(device *dev, unsigned kind, unsigned counter, unsigned long long *out) {
    CHECK_GPU(dev);
    *out = counter ? 999 : (unsigned long long)gpu(dev, kind ? "ecc_uncorrected" : "ecc_corrected", 0);
    return 0;
}
NUMBER(nvmlDeviceGetPowerUsage, unsigned, "power", 75000)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, "power_limit", 700000)
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, "reasons", 1)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, "old_reasons", 1)
NUMBER(nvmlDeviceGetSupportedEventTypes, unsigned long long, "event_types", 8)

static int list(device *dev, const char *kind, unsigned *count, process *out) {
    char key[32];
    unsigned room = *count;
    *count = 0;
    for (unsigned i = 0; i < 4; i++) {
        snprintf(key, sizeof key, "%s%u", kind, i);
        long long pid = gpu(dev, key, 0);
        if (!pid) break;
        if (*count < room && out) {
            snprintf(key, sizeof key, "%s%u_mem", kind, i);
            out[*count] = (process){(unsigned)pid, (unsigned long long)gpu(dev, key, -1), 0, 0};
        }
        ++*count;
    }
    return *count > room ? INSUFFICIENT_SIZE : 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(device *dev, unsigned *count, process *out) {
    CHECK_GPU(dev);
    return list(dev, "compute", count, out);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(device *dev, unsigned *count, process *out) {
    CHECK_GPU(dev);
    return list(dev, "graphics", count, out);
}
int nvmlDeviceGetPcieThroughput(device *dev, unsigned counter, unsigned *out) {
    CHECK_GPU(dev);
    *out = (unsigned)gpu(dev, counter ? "throughput_rx" : "throughput_tx", 0); /* kB/s */
    return 0;
}
int nvmlDeviceGetFieldValues(device *dev, int count, field_value *values) {
    CHECK_GPU(dev);
    for (int i = 0; i < count; i++) {
        const char *key = values[i].field == 197   ? "pcie_tx"
                          : values[i].field == 198 ? "pcie_rx"
                          : values[i].scope != 0xFFFFFFFFu ? "no such scope"
                          : values[i].field == 138 ? "nvlink_tx"
                          : values[i].field == 139 ? "nvlink_rx" : "no such field";
        long long value = gpu(dev, key, -1);
        values[i].ret = value < 0 ? NOT_SUPPORTED : 0;
        values[i].type = (unsigned)gpu(dev, "field_type", 3); /* unsigned long long */
        values[i].value.ull = (unsigned long long)value;
    }
    return 0;
}

int nvmlEventSetCreate(event_set **out) {
    CHECK();
    memset(&events, 0, sizeof events);
    *out = &events;
    return 0;
}
int nvmlEventSetFree(event_set *set) { CHECK(); (void)set; return 0; }
int nvmlDeviceRegisterEvents(device *dev, unsigned long long types, event_set *set) {
    CHECK_GPU(dev);
    set->gpus[dev->index] = types == 8;
    return 0;
}
int nvmlEventSetWait_v2(event_set *set, event *out, unsigned timeout_ms) {
    CHECK();
    if (timeout_ms) return 2; /* a sampler must not wait */
    for (int i = 0; i < MAX_GPUS; i++) {
        long long sequence = gpu(&devices[i], "xid_seq", 0);
        if (set->gpus[i] && sequence > delivered[i]) {
            delivered[i] = sequence;
            *out = (event){&devices[i], 8, (unsigned long long)gpu(&devices[i], "xid", 0), 0, 0};
            return 0;
        }
    }
    return TIMEOUT;
}

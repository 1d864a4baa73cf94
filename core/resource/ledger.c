#include "core/resource/ledger.h"

#include "core/base/alloc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct rs_ledger {
    struct rs_resources total, free;
    int64_t *device_free; /* by device; their sum is free.gpu */
    size_t devices;
    struct rs_list reservations;
    size_t count;
};

int rs_ledger_new(struct rs_ledger **ret, const struct rs_resources *total, struct rs_error *err)
{
    rs_auto(rs_ledger_freep) struct rs_ledger *l = rs_alloc(sizeof(*l));

    rs_list_init(&l->reservations);
    if (total->gpu % RS_ONE != 0 || total->gpu > RS_GPU_MAX * RS_ONE)
        return rs_error_set(err, RS_INVALID,
                            "a node has a whole number of GPUs, at most %d; got %g", RS_GPU_MAX,
                            rs_fixed_double(total->gpu));
    rs_resources_copy(&l->total, total);
    rs_resources_copy(&l->free, total);
    l->devices = (size_t)(total->gpu / RS_ONE);
    l->device_free = rs_alloc(l->devices * sizeof(*l->device_free));
    for (size_t i = 0; i < l->devices; i++)
        l->device_free[i] = RS_ONE;
    *ret = rs_steal(l);
    return 0;
}

static void reservation_free(struct rs_reservation *r)
{
    rs_list_remove(&r->link);
    rs_resources_fini(&r->want);
    free(r->devices);
    free(r);
}

void rs_ledger_free(struct rs_ledger *l)
{
    if (!l)
        return;
    rs_list_for_each (it, &l->reservations)
        reservation_free(rs_container_of(it, struct rs_reservation, link));
    rs_resources_fini(&l->total);
    rs_resources_fini(&l->free);
    free(l->device_free);
    free(l);
}

/* What a reservation takes of each of its devices. */
static int64_t device_share(const struct rs_resources *want)
{
    return want->gpu < RS_ONE ? want->gpu : RS_ONE;
}

static struct rs_reservation *reservation_new(struct rs_ledger *l, const struct rs_resources *want,
                                              size_t device_count)
{
    struct rs_reservation *r = rs_alloc(sizeof(*r));

    rs_list_init(&r->link);
    rs_resources_copy(&r->want, want);
    r->devices = rs_alloc(device_count * sizeof(*r->devices));
    rs_list_push_back(&l->reservations, &r->link);
    l->count++;
    return r;
}

static void take_device(struct rs_ledger *l, struct rs_reservation *r, size_t device)
{
    l->device_free[device] -= device_share(&r->want);
    r->devices[r->device_count++] = (int)device;
}

/* The fullest device that still has room for a share; -1 if none has. */
static int best_device(const struct rs_ledger *l, int64_t share)
{
    int best = -1;

    for (size_t i = 0; i < l->devices; i++) {
        if (l->device_free[i] >= share && (best < 0 || l->device_free[i] < l->device_free[best]))
            best = (int)i;
    }
    return best;
}

static size_t whole_devices(const struct rs_ledger *l)
{
    size_t n = 0;

    for (size_t i = 0; i < l->devices; i++)
        n += l->device_free[i] == RS_ONE;
    return n;
}

static bool gpus_fit(const struct rs_ledger *l, int64_t gpu)
{
    if (gpu == 0)
        return true;
    if (gpu <= RS_ONE)
        return best_device(l, gpu) >= 0;
    return gpu % RS_ONE == 0 && whole_devices(l) >= (size_t)(gpu / RS_ONE);
}

int rs_ledger_reserve(struct rs_ledger *l, const struct rs_resources *want,
                      struct rs_reservation **ret)
{
    size_t wanted = (size_t)((want->gpu + RS_ONE - 1) / RS_ONE);
    struct rs_reservation *r;

    if (!gpus_fit(l, want->gpu) || !rs_resources_take(&l->free, want))
        return RS_LEDGER_NO_ROOM;
    r = reservation_new(l, want, wanted);
    if (want->gpu > 0 && want->gpu <= RS_ONE)
        take_device(l, r, (size_t)best_device(l, want->gpu));
    for (size_t i = 0; i < l->devices && r->device_count < wanted; i++) {
        if (l->device_free[i] == RS_ONE)
            take_device(l, r, i);
    }
    assert(r->device_count == wanted);
    *ret = r;
    return 0;
}

void rs_ledger_adopt(struct rs_ledger *l, const struct rs_resources *want, const int *devices,
                     size_t device_count, struct rs_reservation **ret)
{
    struct rs_reservation *r = reservation_new(l, want, device_count);

    /* What is told of devices must add up, or the sums would not: unknown ones count for nothing. */
    r->want.gpu = 0;
    for (size_t i = 0; i < device_count; i++) {
        bool enough = r->want.gpu >= want->gpu; /* a fraction lies on one device */

        if (enough || devices[i] < 0 || (size_t)devices[i] >= l->devices)
            continue;
        l->device_free[devices[i]] -= device_share(want);
        r->devices[r->device_count++] = devices[i];
        r->want.gpu += device_share(want);
    }
    rs_resources_take_anyway(&l->free, &r->want);
    r->committed = true;
    *ret = r;
}

void rs_ledger_commit(struct rs_ledger *l, struct rs_reservation *r)
{
    assert(!r->committed && l->count > 0);
    r->committed = true;
}

void rs_ledger_release(struct rs_ledger *l, struct rs_reservation *r)
{
    if (!r)
        return;
    assert(l->count > 0);
    for (size_t i = 0; i < r->device_count; i++) {
        int64_t *f = &l->device_free[r->devices[i]];

        *f += device_share(&r->want);
        assert(*f <= RS_ONE);
    }
    rs_resources_give(&l->free, &r->want);
    l->count--;
    reservation_free(r);
    assert(l->free.cpu <= l->total.cpu && l->free.gpu <= l->total.gpu &&
           l->free.memory <= l->total.memory);
    assert(l->count > 0 || rs_resources_equal(&l->free, &l->total));
}

const struct rs_resources *rs_ledger_total(const struct rs_ledger *l)
{
    return &l->total;
}

const struct rs_resources *rs_ledger_available(const struct rs_ledger *l)
{
    return &l->free;
}

int64_t rs_ledger_device_free(const struct rs_ledger *l, size_t device)
{
    assert(device < l->devices);
    return l->device_free[device];
}

size_t rs_ledger_count(const struct rs_ledger *l)
{
    return l->count;
}

bool rs_ledger_feasible(const struct rs_ledger *l, const struct rs_resources *want)
{
    if (want->gpu > RS_ONE && want->gpu % RS_ONE != 0)
        return false;
    return rs_resources_fits(&l->total, want);
}

static void why_amount(struct rs_buf *out, const char **sep, const char *unit, int64_t want,
                       int64_t total, int64_t available)
{
    if (want <= available)
        return;
    rs_buf_printf(out, "%sneeds ", *sep);
    rs_fixed_print(out, want);
    rs_buf_printf(out, " %s; node has ", unit);
    rs_fixed_print(out, total);
    rs_buf_puts(out, ", ");
    rs_fixed_print(out, available);
    rs_buf_puts(out, " free");
    *sep = "; ";
}

static void why_devices(const struct rs_ledger *l, int64_t want, struct rs_buf *out,
                        const char **sep)
{
    int64_t most = 0;

    rs_buf_printf(out, "%sneeds ", *sep);
    rs_fixed_print(out, want);
    *sep = "; ";
    if (want > RS_ONE) {
        rs_buf_printf(out, " whole GPUs; node has %zu, %zu of them unused", l->devices,
                      whole_devices(l));
        return;
    }
    for (size_t i = 0; i < l->devices; i++)
        most = l->device_free[i] > most ? l->device_free[i] : most;
    rs_buf_printf(out, " GPU on one device; node has %zu, ", l->devices);
    rs_fixed_print(out, l->free.gpu);
    rs_buf_puts(out, " free, at most ");
    rs_fixed_print(out, most);
    rs_buf_puts(out, " on one");
}

bool rs_ledger_why(const struct rs_ledger *l, const struct rs_resources *want, struct rs_buf *out)
{
    const char *sep = "";

    why_amount(out, &sep, "CPU", want->cpu, l->total.cpu, l->free.cpu);
    if (want->gpu > l->free.gpu)
        why_amount(out, &sep, "GPU", want->gpu, l->total.gpu, l->free.gpu);
    else if (!gpus_fit(l, want->gpu))
        why_devices(l, want->gpu, out, &sep);
    if (want->memory > l->free.memory) {
        rs_buf_printf(out, "%sneeds ", sep);
        rs_memory_print(out, want->memory);
        rs_buf_puts(out, " of memory; node has ");
        rs_memory_print(out, l->total.memory);
        rs_buf_puts(out, ", ");
        rs_memory_print(out, l->free.memory);
        rs_buf_puts(out, " free");
        sep = "; ";
    }
    for (size_t i = 0; i < want->count; i++) {
        const struct rs_resource_item *w = &want->custom[i];

        why_amount(out, &sep, w->name, w->amount, rs_resources_custom(&l->total, w->name),
                   rs_resources_custom(&l->free, w->name));
    }
    return *sep != '\0';
}

void rs_ledger_check(const struct rs_ledger *l)
{
    struct rs_resources sum;
    int64_t gpu = 0;
    size_t n = 0;

    rs_resources_copy(&sum, &l->free);
    rs_list_for_each (it, &l->reservations) {
        const struct rs_reservation *r = rs_container_of(it, struct rs_reservation, link);

        rs_resources_give(&sum, &r->want);
        assert(r->want.gpu == (int64_t)r->device_count * device_share(&r->want));
        n++;
    }
    for (size_t i = 0; i < l->devices; i++)
        gpu += l->device_free[i];
    assert(rs_resources_equal(&sum, &l->total));
    assert(gpu == l->free.gpu);
    assert(n == l->count);
    rs_resources_fini(&sum);
}

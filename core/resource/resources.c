#include "core/resource/resources.h"

#include "core/base/alloc.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* accelerator_type asks for this much of "accelerator_type:T", as Ray does: it marks the machine and
 * is practically never used up. */
#define ACCELERATOR_SHARE (RS_ONE / 1000)

void rs_resources_fini(struct rs_resources *r)
{
    for (size_t i = 0; i < r->count; i++)
        free(r->custom[i].name);
    free(r->custom);
    *r = (struct rs_resources){0};
}

void rs_resources_copy(struct rs_resources *to, const struct rs_resources *from)
{
    *to = *from;
    to->custom = rs_alloc(from->count * sizeof(*to->custom));
    for (size_t i = 0; i < from->count; i++) {
        to->custom[i].name = rs_strdup(from->custom[i].name);
        to->custom[i].amount = from->custom[i].amount;
    }
}

/* The place of `name` in the sorted names; *found tells whether it is there. */
static size_t custom_at(const struct rs_resources *r, const char *name, bool *found)
{
    size_t lo = 0, hi = r->count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(r->custom[mid].name, name);

        if (c == 0) {
            *found = true;
            return mid;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *found = false;
    return lo;
}

int64_t rs_resources_custom(const struct rs_resources *r, const char *name)
{
    bool found;
    size_t i = custom_at(r, name, &found);

    return found ? r->custom[i].amount : 0;
}

void rs_resources_set_custom(struct rs_resources *r, const char *name, int64_t amount)
{
    bool found;
    size_t i = custom_at(r, name, &found);

    assert(!found || r->custom);
    if (found && amount == 0) {
        free(r->custom[i].name);
        r->count--;
        memmove(r->custom + i, r->custom + i + 1, (r->count - i) * sizeof(*r->custom));
    } else if (found) {
        r->custom[i].amount = amount;
    } else if (amount != 0) {
        r->custom = rs_realloc(r->custom, (r->count + 1) * sizeof(*r->custom));
        memmove(r->custom + i + 1, r->custom + i, (r->count - i) * sizeof(*r->custom));
        r->custom[i] = (struct rs_resource_item){.name = rs_strdup(name), .amount = amount};
        r->count++;
    }
}

bool rs_resources_equal(const struct rs_resources *a, const struct rs_resources *b)
{
    if (a->cpu != b->cpu || a->gpu != b->gpu || a->memory != b->memory || a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        if (strcmp(a->custom[i].name, b->custom[i].name) != 0 ||
            a->custom[i].amount != b->custom[i].amount)
            return false;
    }
    return true;
}

bool rs_resources_empty(const struct rs_resources *r)
{
    return r->cpu == 0 && r->gpu == 0 && r->memory == 0 && r->count == 0;
}

bool rs_resources_fits(const struct rs_resources *have, const struct rs_resources *want)
{
    if (have->cpu < want->cpu || have->gpu < want->gpu || have->memory < want->memory)
        return false;
    for (size_t i = 0; i < want->count; i++) {
        if (rs_resources_custom(have, want->custom[i].name) < want->custom[i].amount)
            return false;
    }
    return true;
}

/* have += sign * want, with amounts below zero kept. */
static void add(struct rs_resources *have, const struct rs_resources *want, int sign)
{
    assert(want->cpu >= 0 && want->gpu >= 0 && want->memory >= 0);
    have->cpu += sign * want->cpu;
    have->gpu += sign * want->gpu;
    have->memory += sign * want->memory;
    for (size_t i = 0; i < want->count; i++) {
        const struct rs_resource_item *w = &want->custom[i];

        assert(w->amount > 0);
        rs_resources_set_custom(have, w->name,
                                rs_resources_custom(have, w->name) + sign * w->amount);
    }
}

bool rs_resources_take(struct rs_resources *have, const struct rs_resources *want)
{
    if (!rs_resources_fits(have, want))
        return false;
    add(have, want, -1);
    return true;
}

void rs_resources_take_anyway(struct rs_resources *have, const struct rs_resources *want)
{
    add(have, want, -1);
}

void rs_resources_give(struct rs_resources *have, const struct rs_resources *want)
{
    add(have, want, 1);
}

int rs_fixed_parse(const char *text, int64_t *ret, struct rs_error *err)
{
    const char *p = text;
    int64_t whole = 0, part = 0, unit = RS_ONE / 10;
    size_t digits = 0;

    for (; *p >= '0' && *p <= '9'; p++, digits++) {
        whole = whole * 10 + (*p - '0');
        if (whole > RS_FIXED_MAX / RS_ONE)
            return rs_error_set(err, RS_INVALID, "expected a number up to %" PRId64 ", got \"%s\"",
                                RS_FIXED_MAX / RS_ONE, text);
    }
    if (*p == '.') {
        for (p++; *p >= '0' && *p <= '9'; p++, digits++) {
            if (unit == 0 && *p != '0')
                return rs_error_set(err, RS_INVALID,
                                    "expected at most 4 digits after the point, got \"%s\"", text);
            part += unit * (*p - '0');
            unit /= 10;
        }
    }
    if (*p || digits == 0)
        return rs_error_set(err, RS_INVALID, "expected a number such as 2 or 0.5, got \"%s\"",
                            text);
    *ret = whole * RS_ONE + part;
    return 0;
}

int rs_fixed_from_double(double v, int64_t *ret, struct rs_error *err)
{
    double scaled = v * (double)RS_ONE;
    const int64_t most = RS_FIXED_MAX / RS_ONE;
    int64_t fixed;

    if (!(v >= 0) || v > (double)most)
        return rs_error_set(err, RS_INVALID, "expected a number from 0 to %" PRId64 ", got %g",
                            most, v);
    fixed = (int64_t)llround(scaled);
    if (fixed == 0 && v > 0)
        return rs_error_set(err, RS_INVALID, "expected 0 or at least 0.0001, got %g", v);
    *ret = fixed;
    return 0;
}

double rs_fixed_double(int64_t v)
{
    return (double)v / (double)RS_ONE;
}

void rs_fixed_print(struct rs_buf *out, int64_t v)
{
    char part[8];
    size_t n;
    uint64_t abs = v < 0 ? (uint64_t)0 - (uint64_t)v : (uint64_t)v;

    rs_buf_printf(out, "%s%" PRIu64, v < 0 ? "-" : "", abs / (uint64_t)RS_ONE);
    if (abs % (uint64_t)RS_ONE == 0)
        return;
    n = (size_t)snprintf(part, sizeof(part), ".%04" PRIu64, abs % (uint64_t)RS_ONE);
    while (part[n - 1] == '0')
        n--;
    rs_buf_append(out, part, n);
}

void rs_memory_print(struct rs_buf *out, int64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    double v = (double)bytes / 1024;
    size_t u = 0;
    char text[32];
    size_t n;

    if (bytes > -1024 && bytes < 1024) {
        rs_buf_printf(out, "%" PRId64 " byte%s", bytes, bytes == 1 ? "" : "s");
        return;
    }
    while (fabs(v) >= 1024 && u + 1 < RS_COUNT(units)) {
        v /= 1024;
        u++;
    }
    n = (size_t)snprintf(text, sizeof(text), "%.2f", v);
    while (text[n - 1] == '0')
        n--;
    if (text[n - 1] == '.')
        n--;
    rs_buf_append(out, text, n);
    rs_buf_printf(out, " %s", units[u]);
}

/* Leaves an empty one behind, so that the scope may clean up. */
static struct rs_resources move(struct rs_resources *r)
{
    struct rs_resources old = *r;

    *r = (struct rs_resources){0};
    return old;
}

static int json_amount(const char *name, const json_t *v, int64_t *ret, struct rs_error *err)
{
    if (!json_is_number(v)) {
        rs_auto(rs_freep) char *text = rs_json_dump(v);

        return rs_error_set(err, RS_INVALID, "%s: expected a number >= 0, got %.100s", name, text);
    }
    if (rs_fixed_from_double(json_number_value(v), ret, err) < 0)
        return rs_error_wrap(err, "%s", name);
    return 0;
}

static int json_memory(const char *name, const json_t *v, int64_t *ret, struct rs_error *err)
{
    double d = json_number_value(v);

    if (!json_is_number(v) || !(d >= 0) || d > (double)RS_MEMORY_MAX) {
        rs_auto(rs_freep) char *text = rs_json_dump(v);

        return rs_error_set(err, RS_INVALID,
                            "%s: expected a number of bytes from 0 to %" PRId64 ", got %.100s",
                            name, RS_MEMORY_MAX, text);
    }
    *ret = json_is_integer(v) ? (int64_t)json_integer_value(v) : (int64_t)ceil(d);
    return 0;
}

static int gpu_is_possible(const char *name, int64_t gpu, struct rs_error *err)
{
    if (gpu > RS_ONE && gpu % RS_ONE != 0)
        return rs_error_set(err, RS_INVALID,
                            "%s: expected a whole number above 1, got %g (a fraction is a share of "
                            "one device)",
                            name, rs_fixed_double(gpu));
    return 0;
}

static int custom_name_is_free(const char *name, struct rs_error *err)
{
    if (!*name)
        return rs_error_set(err, RS_INVALID, "a resource needs a name");
    return 0;
}

int rs_resources_from_json(struct rs_resources *ret, const json_t *obj, struct rs_error *err)
{
    rs_auto(rs_resources_fini) struct rs_resources r = {0};
    const char *name;
    json_t *v;

    if (!json_is_object(obj))
        return rs_error_set(err, RS_INVALID, "expected resources such as {\"CPU\": 2}");
    json_object_foreach ((json_t *)(uintptr_t)obj, name, v) {
        int64_t amount = 0;

        if (strcmp(name, "CPU") == 0) {
            if (json_amount(name, v, &r.cpu, err) < 0)
                return -1;
        } else if (strcmp(name, "GPU") == 0) {
            if (json_amount(name, v, &r.gpu, err) < 0 || gpu_is_possible(name, r.gpu, err) < 0)
                return -1;
        } else if (strcmp(name, "memory") == 0) {
            if (json_memory(name, v, &r.memory, err) < 0)
                return -1;
        } else {
            if (custom_name_is_free(name, err) < 0 || json_amount(name, v, &amount, err) < 0)
                return -1;
            rs_resources_set_custom(&r, name, amount);
        }
    }
    *ret = move(&r);
    return 0;
}

/* `resources` of ray_actor_options holds custom names only. */
static int custom_from_options(struct rs_resources *r, const json_t *custom, struct rs_error *err)
{
    const char *name;
    json_t *v;

    json_object_foreach ((json_t *)(uintptr_t)custom, name, v) {
        int64_t amount = 0;

        if (strcmp(name, "CPU") == 0 || strcmp(name, "GPU") == 0 || strcmp(name, "memory") == 0)
            return rs_error_set(err, RS_INVALID, "resources: '%s' is asked for by %s", name,
                                *name == 'C'   ? "num_cpus"
                                : *name == 'G' ? "num_gpus"
                                               : "memory");
        if (custom_name_is_free(name, err) < 0 || json_amount(name, v, &amount, err) < 0)
            return rs_error_wrap(err, "resources");
        rs_resources_set_custom(r, name, amount);
    }
    return 0;
}

int rs_resources_from_actor_options(struct rs_resources *ret, const json_t *options,
                                    struct rs_error *err)
{
    rs_auto(rs_resources_fini) struct rs_resources r = {.cpu = RS_ONE};
    const json_t *cpus = json_object_get(options, "num_cpus");
    const json_t *gpus = json_object_get(options, "num_gpus");
    const json_t *memory = json_object_get(options, "memory");
    const char *accelerator = rs_json_str(options, "accelerator_type", NULL);

    if (cpus && !json_is_null(cpus) && json_amount("num_cpus", cpus, &r.cpu, err) < 0)
        return -1;
    if (gpus && !json_is_null(gpus) &&
        (json_amount("num_gpus", gpus, &r.gpu, err) < 0 ||
         gpu_is_possible("num_gpus", r.gpu, err) < 0))
        return -1;
    if (memory && !json_is_null(memory) && json_memory("memory", memory, &r.memory, err) < 0)
        return -1;
    if (custom_from_options(&r, json_object_get(options, "resources"), err) < 0)
        return -1;
    if (accelerator) {
        rs_auto(rs_freep) char *name = rs_asprintf("accelerator_type:%s", accelerator);

        rs_resources_set_custom(&r, name, ACCELERATOR_SHARE);
    }
    *ret = move(&r);
    return 0;
}

json_t *rs_resources_json(const struct rs_resources *r)
{
    json_t *obj = json_object();

    if (r->cpu)
        json_object_set_new(obj, "CPU", json_real(rs_fixed_double(r->cpu)));
    if (r->gpu)
        json_object_set_new(obj, "GPU", json_real(rs_fixed_double(r->gpu)));
    if (r->memory)
        json_object_set_new(obj, "memory", json_integer(r->memory));
    for (size_t i = 0; i < r->count; i++)
        json_object_set_new(obj, r->custom[i].name,
                            json_real(rs_fixed_double(r->custom[i].amount)));
    return obj;
}

void rs_resources_print(struct rs_buf *out, const struct rs_resources *r)
{
    const char *comma = "";

    if (r->cpu) {
        rs_fixed_print(out, r->cpu);
        rs_buf_puts(out, " CPU");
        comma = ", ";
    }
    if (r->gpu) {
        rs_buf_puts(out, comma);
        rs_fixed_print(out, r->gpu);
        rs_buf_puts(out, " GPU");
        comma = ", ";
    }
    if (r->memory) {
        rs_buf_puts(out, comma);
        rs_memory_print(out, r->memory);
        rs_buf_puts(out, " memory");
        comma = ", ";
    }
    for (size_t i = 0; i < r->count; i++) {
        rs_buf_puts(out, comma);
        rs_fixed_print(out, r->custom[i].amount);
        rs_buf_printf(out, " %s", r->custom[i].name);
        comma = ", ";
    }
    if (!*comma)
        rs_buf_puts(out, "nothing");
}

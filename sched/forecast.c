#include "sched/forecast.h"

#include "core/base/alloc.h"
#include "core/base/json.h"

#include <math.h>
#include <stdlib.h>

#define PERIODS_MAX 14u
#define LOAD_MAX 1e9

/* The last periods, and the one that is under way. */
static unsigned rows(const struct rs_forecast *f)
{
    return f->periods + 1;
}

void rs_forecast_fini(struct rs_forecast *f)
{
    free(f->peaks);
    free(f->of);
    *f = (struct rs_forecast){0};
}

void rs_forecast_set(struct rs_forecast *f, double period, unsigned periods)
{
    periods = periods > PERIODS_MAX ? PERIODS_MAX : periods;
    if (f->period == period && f->periods == periods)
        return;
    rs_forecast_fini(f);
    if (period <= 0 || periods == 0)
        return;
    f->period = period;
    f->periods = periods;
    f->peaks = rs_alloc(rows(f) * RS_FORECAST_SLOTS * sizeof(*f->peaks));
    f->of = rs_alloc(rows(f) * sizeof(*f->of));
    for (unsigned i = 0; i < rows(f); i++)
        f->of[i] = INT64_MIN;
    f->slot = INT64_MIN;
    f->peak = -1;
}

static double slot_length(const struct rs_forecast *f)
{
    return f->period / RS_FORECAST_SLOTS;
}

static int64_t slot_of(const struct rs_forecast *f, double t)
{
    return (int64_t)floor(t / slot_length(f));
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static unsigned row_of(const struct rs_forecast *f, int64_t period)
{
    int64_t n = rows(f);

    return (unsigned)(((period % n) + n) % n);
}

static void keep(struct rs_forecast *f, int64_t slot, double peak)
{
    int64_t period = floor_div(slot, RS_FORECAST_SLOTS);
    unsigned row = row_of(f, period);
    float *peaks = &f->peaks[row * RS_FORECAST_SLOTS];

    if (f->of[row] != period) {
        f->of[row] = period;
        for (unsigned i = 0; i < RS_FORECAST_SLOTS; i++)
            peaks[i] = -1;
    }
    peaks[slot - period * RS_FORECAST_SLOTS] = (float)peak;
}

bool rs_forecast_tell(struct rs_forecast *f, double load, double t)
{
    bool over = false;
    int64_t slot;

    if (f->period <= 0 || !(load >= 0))
        return false;
    slot = slot_of(f, t);
    if (slot != f->slot) {
        over = f->peak >= 0;
        if (over)
            keep(f, f->slot, f->peak);
        f->slot = slot;
        f->peak = -1;
    }
    load = load > LOAD_MAX ? LOAD_MAX : load;
    f->peak = load > f->peak ? load : f->peak;
    return over;
}

/* The mean over the periods that know it; < 0: none does. */
static double expected(const struct rs_forecast *f, int64_t slot, unsigned *of)
{
    int64_t period = floor_div(slot, RS_FORECAST_SLOTS);
    double sum = 0;

    *of = 0;
    for (unsigned row = 0; row < rows(f); row++) {
        float peak = f->peaks[row * RS_FORECAST_SLOTS + (slot - period * RS_FORECAST_SLOTS)];

        /* Those of before, none of which is too old. */
        if (f->of[row] == INT64_MIN || f->of[row] >= period ||
            f->of[row] < period - (int64_t)f->periods || peak < 0)
            continue;
        sum += peak;
        ++*of;
    }
    return *of ? sum / *of : -1;
}

struct rs_forecast_now rs_forecast_at(const struct rs_forecast *f, double ahead, double t)
{
    struct rs_forecast_now now = {.load = -1, .at = t, .until = INFINITY};
    double length;
    int64_t first, last;

    if (f->period <= 0)
        return now;
    length = slot_length(f);
    first = slot_of(f, t);
    last = slot_of(f, t + ahead);
    if (last - first >= RS_FORECAST_SLOTS)
        last = first + RS_FORECAST_SLOTS - 1;
    /* One part leaves it when the next begins, one enters it `ahead` before it begins. */
    now.until = fmin((double)(first + 1) * length, (double)(last + 1) * length - ahead);
    for (int64_t slot = first; slot <= last; slot++) {
        unsigned of;
        double load = expected(f, slot, &of);

        if (load <= now.load)
            continue;
        now.load = load;
        now.of = of;
        now.at = slot == first ? t : (double)slot * length;
    }
    return now;
}

/* --- keeping it ---------------------------------------------------------------------------------- */

json_t *rs_forecast_json(const struct rs_forecast *f)
{
    json_t *kept = json_object();

    if (f->period <= 0) {
        json_decref(kept);
        return json_null();
    }
    for (unsigned row = 0; row < rows(f); row++) {
        rs_auto(rs_freep) char *key = rs_asprintf("%lld", (long long)f->of[row]);
        json_t *peaks;

        if (f->of[row] == INT64_MIN)
            continue;
        peaks = json_array();
        for (unsigned i = 0; i < RS_FORECAST_SLOTS; i++)
            json_array_append_new(
                peaks, json_real(round(f->peaks[row * RS_FORECAST_SLOTS + i] * 100.0) / 100));
        json_object_set_new(kept, key, peaks);
    }
    return json_pack("{s:f, s:o}", "period_s", f->period, "peaks", kept);
}

void rs_forecast_restore(struct rs_forecast *f, const json_t *json)
{
    const char *key;
    json_t *peaks;

    if (f->period <= 0 || rs_json_num(json, "period_s", 0) != f->period)
        return;
    json_object_foreach (json_object_get(json, "peaks"), key, peaks) {
        char *end;
        long long period = strtoll(key, &end, 10);
        unsigned row;

        if (*end || end == key || llabs(period) > INT64_C(1) << 40)
            continue;
        row = row_of(f, period);
        if (f->of[row] >= period)
            continue; /* it knows of a later one */
        for (unsigned i = 0; i < RS_FORECAST_SLOTS; i++) {
            const json_t *v = json_array_get(peaks, i);
            double peak = json_is_number(v) ? json_number_value(v) : -1;

            keep(f, period * RS_FORECAST_SLOTS + i, peak >= 0 && peak <= LOAD_MAX ? peak : -1);
        }
    }
}

#include "sched/autoscale.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void rs_autoscale_fini(struct rs_autoscale *a)
{
    free(a->spans);
    *a = (struct rs_autoscale){0};
}

void rs_autoscale_start(struct rs_autoscale *a, unsigned target, int64_t now)
{
    a->target = a->wanted = target;
    a->direction = RS_SCALE_STABLE;
    a->since = now;
    a->started = true;
}

/* --- load -------------------------------------------------------------------------------------- */

static double seconds(int64_t ns)
{
    return (double)ns / 1e9;
}

/* The older half in pairs: an hour of nervous load takes no more memory than a minute. */
static void join_old(struct rs_autoscale *a)
{
    size_t half = a->n_spans / 2 & ~(size_t)1, to = 0;

    for (size_t i = 0; i < half; i += 2) {
        struct rs_autoscale_span x = a->spans[i], y = a->spans[i + 1];

        a->spans[to++] = (struct rs_autoscale_span){
            .from = x.from,
            .area = x.area + y.area,
            .queued_area = x.queued_area + y.queued_area,
            .high = fmax(x.high, y.high),
            .low = fmin(x.low, y.low),
        };
    }
    memmove(&a->spans[to], &a->spans[half], (a->n_spans - half) * sizeof(*a->spans));
    a->n_spans -= half - to;
}

static void add_span(struct rs_autoscale *a, int64_t now)
{
    if (a->n_spans >= RS_AUTOSCALE_SPANS)
        join_old(a);
    a->spans = rs_grow(a->spans, &a->cap_spans, a->n_spans + 1, sizeof(*a->spans));
    a->spans[a->n_spans++] =
        (struct rs_autoscale_span){.from = now, .high = a->load, .low = a->load};
}

static void advance(struct rs_autoscale *a, int64_t now)
{
    struct rs_autoscale_span *last;

    if (!a->n_spans) {
        a->at = now;
        add_span(a, now);
    }
    if (now <= a->at)
        return;
    last = &a->spans[a->n_spans - 1];
    last->area += a->load * seconds(now - a->at);
    last->queued_area += a->queued * seconds(now - a->at);
    a->at = now;
}

void rs_autoscale_load(struct rs_autoscale *a, double queued, double total, int64_t now)
{
    advance(a, now);
    if (a->queued == queued && a->load == total)
        return;
    a->queued = queued;
    a->load = total;
    if (a->spans[a->n_spans - 1].from < now)
        add_span(a, now);
    else
        a->spans[a->n_spans - 1].high = a->spans[a->n_spans - 1].low = total;
}

void rs_autoscale_correct(struct rs_autoscale *a, double area, int64_t now)
{
    advance(a, now);
    if (area == 0 || a->spans[a->n_spans - 1].from >= now)
        return; /* no time passed in which it could have been */
    a->spans[a->n_spans - 1].area += area;
    add_span(a, now);
}

/* Those that ended before the window are of no use any more. */
static void forget_old(struct rs_autoscale *a, int64_t start)
{
    size_t old = 0;

    while (old + 1 < a->n_spans && a->spans[old + 1].from <= start)
        old++;
    memmove(a->spans, a->spans + old, (a->n_spans - old) * sizeof(*a->spans));
    a->n_spans -= old;
}

struct sums {
    double area, queued_area, high, low, time;
};

/* Over the window; of the span that it cuts, the part that is inside. */
static struct sums sum_up(struct rs_autoscale *a, int64_t window, int64_t now)
{
    int64_t start = now - window;
    struct sums s = {.high = a->load, .low = a->load};

    advance(a, now);
    forget_old(a, start);
    for (size_t i = 0; i < a->n_spans; i++) {
        const struct rs_autoscale_span *x = &a->spans[i];
        int64_t end = i + 1 < a->n_spans ? a->spans[i + 1].from : a->at;
        int64_t from = x->from > start ? x->from : start;
        double part;

        if (end <= from)
            continue;
        part = (double)(end - from) / (double)(end - x->from);
        s.area += x->area * part;
        s.queued_area += x->queued_area * part;
        s.time += seconds(end - from);
        s.high = fmax(s.high, x->high);
        s.low = fmin(s.low, x->low);
    }
    return s;
}

double rs_autoscale_total(struct rs_autoscale *a, enum rs_autoscale_aggregation how, int64_t window,
                          int64_t now)
{
    struct sums s = sum_up(a, window, now);

    if (how == RS_AUTOSCALE_MAX)
        return s.high;
    if (how == RS_AUTOSCALE_MIN)
        return s.low;
    return s.time > 0 ? fmax(s.area / s.time, 0) : a->load;
}

double rs_autoscale_queued(struct rs_autoscale *a, int64_t window, int64_t now)
{
    struct sums s = sum_up(a, window, now);

    return s.time > 0 ? s.queued_area / s.time : a->queued;
}

enum rs_autoscale_aggregation rs_autoscale_how(const struct rs_autoscaling_conf *c)
{
    const char *name = c->aggregation_function ? c->aggregation_function : "mean";

    return strcmp(name, "max") == 0   ? RS_AUTOSCALE_MAX
           : strcmp(name, "min") == 0 ? RS_AUTOSCALE_MIN
                                      : RS_AUTOSCALE_MEAN;
}

/* --- decision ---------------------------------------------------------------------------------- */

/* What is a hair above a whole number for want of precision is that number. */
static double up(double x)
{
    return ceil(x - 1e-9);
}

static double scaled_by_factor(const struct rs_autoscaling_conf *c, double running, double desired)
{
    double factor = desired > running ? c->upscaling_factor : c->downscaling_factor;
    double scaled = up(running + factor * (desired - running));

    if (up(desired) < running && scaled == running)
        scaled -= 1; /* small factors must still move */
    return scaled;
}

/* Before delays and bounds. *at_once: a request waits and nothing runs. */
static double propose(struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                      const struct rs_autoscale_facts *f, bool *at_once)
{
    if (f->running == 0 && a->load > 0) {
        *at_once = true;
        a->total = fmax(a->total, a->load);
        return fmax(up(c->upscaling_factor), (double)a->target);
    }
    if (f->has_policy)
        return f->policy_wants < 0 ? (double)a->target
                                   : scaled_by_factor(c, f->running, up(f->policy_wants));
    if (f->running == 0)
        return (double)a->target; /* nothing to measure by */
    return scaled_by_factor(c, f->running, a->total / c->target_ongoing_requests);
}

static unsigned bounded(const struct rs_autoscale_facts *f, double wanted)
{
    double gang = f->gang > 1 ? f->gang : 1;

    wanted = fmax(f->lower, fmin(f->upper, wanted));
    wanted = ceil(wanted / gang) * gang;
    return wanted > 0 ? (unsigned)wanted : 0;
}

static void remember(struct rs_autoscale *a, const struct rs_autoscale_facts *f, unsigned to,
                     const char *why)
{
    struct rs_autoscale_decision *d;

    if (a->n_decisions == RS_AUTOSCALE_DECISIONS)
        memmove(a->decisions, a->decisions + 1, --a->n_decisions * sizeof(*a->decisions));
    d = &a->decisions[a->n_decisions++];
    *d = (struct rs_autoscale_decision){
        .wall_s = f->wall_s, .from = a->target, .to = to, .by_policy = f->has_policy};
    snprintf(d->reason, sizeof(d->reason), "%s: %.2f ongoing requests, %u running replicas", why,
             a->total, f->running);
    *(to > a->target ? &a->last_up_s : &a->last_down_s) = f->wall_s;
}

static bool move_to(struct rs_autoscale *a, const struct rs_autoscale_facts *f, unsigned to,
                    const char *why, int64_t now)
{
    if (to == a->target)
        return false;
    remember(a, f, to, why);
    rs_autoscale_start(a, to, now);
    return true;
}

static int64_t delay_of(const struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                        enum rs_autoscale_direction direction)
{
    if (direction == RS_SCALE_UP)
        return c->upscale_delay;
    return a->target == 1 ? c->downscale_to_zero_delay : c->downscale_delay;
}

bool rs_autoscale_decide(struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                         const struct rs_autoscale_facts *f, int64_t now)
{
    bool at_once = false;
    enum rs_autoscale_direction direction;
    double proposal;

    a->total = rs_autoscale_total(a, rs_autoscale_how(c), c->look_back_period, now);
    a->running = f->running;
    a->lower = bounded(f, 0);
    a->upper = bounded(f, 1e9);
    /* Other bounds count at once. */
    if (bounded(f, a->target) != a->target)
        return move_to(a, f, bounded(f, a->target), "the bounds changed", now);
    proposal = propose(a, c, f, &at_once);
    if (proposal < a->target && a->target > 1)
        proposal = fmax(1, proposal); /* 0 is reached from 1 only */
    a->wanted = bounded(f, proposal);
    a->held = (double)a->wanted != proposal && a->wanted == a->target;
    direction = a->wanted > a->target   ? RS_SCALE_UP
                : a->wanted < a->target ? RS_SCALE_DOWN
                                        : RS_SCALE_STABLE;
    if (direction != a->direction) {
        a->direction = direction;
        a->since = now;
    }
    if (direction == RS_SCALE_STABLE)
        return false;
    a->delay = at_once ? 0 : delay_of(a, c, direction);
    if (now - a->since < a->delay)
        return false;
    return move_to(a, f, a->wanted,
                   at_once         ? "requests wait and no replica runs"
                   : f->has_policy ? "the custom policy asks for it"
                   : direction > 0 ? "more load than the replicas should have"
                                   : "less load than the replicas could have",
                   now);
}

int64_t rs_autoscale_deadline(const struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                              int64_t now)
{
    int64_t tick = now + RS_AUTOSCALE_TICK_MS * RS_MS;
    int64_t due = a->direction == RS_SCALE_STABLE ? INT64_MAX : a->since + a->delay;

    /* With one span there is one load: nothing changes but by being told. */
    if (a->n_spans > 1 && a->spans[1].from + c->look_back_period > now && tick < due)
        return tick;
    return due;
}

/* --- for people -------------------------------------------------------------------------------- */

void rs_autoscale_why(const struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                      int64_t now, char *ret, size_t size)
{
    int n = snprintf(ret, size, "%.2f ongoing requests in the last %g s, %g wanted per replica",
                     a->total, seconds(c->look_back_period), c->target_ongoing_requests);
    double left = seconds(a->since + a->delay - now);

    if (n < 0 || (size_t)n >= size)
        return;
    if (a->direction != RS_SCALE_STABLE)
        snprintf(ret + n, size - (size_t)n, ": %s from %u to %u replicas in %.1f s (%s %g s)",
                 a->direction > 0 ? "goes up" : "goes down", a->target, a->wanted,
                 left > 0 ? left : 0,
                 a->direction > 0 ? "upscale_delay_s"
                 : a->target == 1 ? "downscale_to_zero_delay_s"
                                  : "downscale_delay_s",
                 seconds(a->delay));
    else if (a->held)
        snprintf(ret + n, size - (size_t)n, ": stays at %u of %u to %u replicas", a->target,
                 a->lower, a->upper);
}

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
            .queued_high = fmax(x.queued_high, y.queued_high),
            .queued_low = fmin(x.queued_low, y.queued_low),
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
    a->spans[a->n_spans++] = (struct rs_autoscale_span){
        .from = now,
        .high = a->load,
        .low = a->load,
        .queued_high = a->queued,
        .queued_low = a->queued,
    };
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
    if (a->spans[a->n_spans - 1].from < now) {
        add_span(a, now);
    } else { /* no time passed with what it was told before */
        struct rs_autoscale_span *last = &a->spans[a->n_spans - 1];

        last->high = last->low = total;
        last->queued_high = last->queued_low = queued;
    }
}

void rs_autoscale_correct(struct rs_autoscale *a, double area, int64_t now)
{
    size_t last;

    advance(a, now);
    last = a->n_spans - 1;
    if (a->spans[last].from >= now && last-- == 0)
        return; /* no time passed in which it could have been */
    a->spans[last].area += area;
    if (area != 0 && last + 1 == a->n_spans)
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
    double area, queued_area, high, low, queued_high, queued_low, time;
};

/* Over the window; of the span that it cuts, the part that is inside. */
static struct sums sum_up(struct rs_autoscale *a, int64_t window, int64_t now)
{
    int64_t start = now - window;
    struct sums s = {
        .high = a->load, .low = a->load, .queued_high = a->queued, .queued_low = a->queued};

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
        s.queued_high = fmax(s.queued_high, x->queued_high);
        s.queued_low = fmin(s.queued_low, x->queued_low);
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

double rs_autoscale_queued(struct rs_autoscale *a, enum rs_autoscale_aggregation how,
                           int64_t window, int64_t now)
{
    struct sums s = sum_up(a, window, now);

    if (how == RS_AUTOSCALE_MAX)
        return s.queued_high;
    if (how == RS_AUTOSCALE_MIN)
        return s.queued_low;
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

static void propose_by_load(struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                            const struct rs_autoscale_facts *f)
{
    a->basis = RS_SCALE_BY_LOAD;
    a->desired = a->total / c->target_ongoing_requests;
    a->proposed = scaled_by_factor(c, f->running, a->desired);
}

static void propose_by_policy(struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                              const struct rs_autoscale_facts *f)
{
    if (f->policy_wants < 0) {
        a->basis = RS_SCALE_NO_ANSWER;
        a->desired = a->proposed = a->target;
        return;
    }
    a->basis = RS_SCALE_BY_POLICY;
    a->desired = f->policy_wants;
    /* From zero a factor would multiply the whole of it. */
    a->proposed = f->running ? scaled_by_factor(c, f->running, a->desired) : up(a->desired);
}

/* Before delays and bounds. */
static void propose(struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                    const struct rs_autoscale_facts *f)
{
    if (f->running == 0 && a->load > 0) {
        a->basis = RS_SCALE_COLD;
        a->total = fmax(a->total, a->load);
        a->desired = a->proposed = fmax(up(c->upscaling_factor), (double)a->target);
    } else if (f->has_policy) {
        propose_by_policy(a, c, f);
    } else if (f->running == 0) { /* nothing to measure by */
        a->basis = RS_SCALE_NOTHING;
        a->desired = a->proposed = a->target;
    } else {
        propose_by_load(a, c, f);
    }
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

/* The last replica, or gang of them. */
static bool at_last(const struct rs_autoscale *a, const struct rs_autoscale_facts *f)
{
    return a->target == (f->gang > 1 && f->lower <= 0 ? (unsigned)f->gang : 1);
}

static int64_t delay_of(const struct rs_autoscale_facts *f, const struct rs_autoscale *a,
                        const struct rs_autoscaling_conf *c)
{
    if (a->direction == RS_SCALE_UP)
        return c->upscale_delay;
    return at_last(a, f) ? c->downscale_to_zero_delay : c->downscale_delay;
}

static void turn_to(struct rs_autoscale *a, enum rs_autoscale_direction direction, int64_t now)
{
    if (direction == a->direction)
        return;
    a->direction = direction;
    a->since = now;
}

static const char *reason_of(const struct rs_autoscale *a)
{
    switch (a->basis) {
    case RS_SCALE_COLD:
        return "requests wait and no replica runs";
    case RS_SCALE_BY_POLICY:
        return "the custom policy asks for it";
    default:
        return a->wanted > a->target ? "more load than the replicas should have"
                                     : "less load than the replicas could have";
    }
}

/* With nothing running there is no delay, and one that runs out is left as it is. */
static bool settles_at_once(const struct rs_autoscale *a, const struct rs_autoscale_facts *f)
{
    return a->basis == RS_SCALE_NO_ANSWER || (f->running == 0 && a->proposed > 0);
}

bool rs_autoscale_decide(struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                         const struct rs_autoscale_facts *f, int64_t now)
{
    double target;

    a->total = rs_autoscale_total(a, rs_autoscale_how(c), c->look_back_period, now);
    a->running = f->running;
    /* What the bounds held back waits for its delay when they do so no more. */
    if (a->held && (a->lower != bounded(f, 0) || a->upper != bounded(f, 1e9)))
        a->direction = RS_SCALE_STABLE;
    a->lower = bounded(f, 0);
    a->upper = bounded(f, 1e9);
    a->held = false;
    /* Other bounds count at once. */
    if (bounded(f, a->target) != a->target) {
        a->basis = RS_SCALE_BY_BOUNDS;
        a->desired = a->proposed = a->target;
        return move_to(
            a, f, bounded(f, a->target),
            f->lower_reason && a->target < a->lower ? f->lower_reason : "the bounds changed", now);
    }
    propose(a, c, f);
    if (settles_at_once(a, f)) {
        a->wanted = bounded(f, a->proposed);
        return move_to(a, f, a->wanted, reason_of(a), now);
    }
    /* The last gang is to the delays what the last replica is: 0 is reached from there only. */
    target = at_last(a, f) ? 1 : a->target;
    if (a->proposed < target && target > 1)
        a->proposed = fmax(1, a->proposed);
    a->wanted = bounded(f, a->proposed);
    a->held = a->proposed != target && a->wanted == a->target;
    turn_to(a,
            a->proposed > target   ? RS_SCALE_UP
            : a->proposed < target ? RS_SCALE_DOWN
                                   : RS_SCALE_STABLE,
            now);
    a->delay = a->direction == RS_SCALE_STABLE ? 0 : delay_of(f, a, c);
    if (a->direction == RS_SCALE_STABLE || now - a->since < a->delay)
        return false;
    if (a->wanted == a->target) {
        turn_to(a, RS_SCALE_STABLE, now); /* nothing came of it: the next delay is a whole one */
        return false;
    }
    return move_to(a, f, a->wanted, reason_of(a), now);
}

int64_t rs_autoscale_deadline(const struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                              int64_t now)
{
    int64_t tick = now + RS_AUTOSCALE_TICK_MS * RS_MS;
    int64_t due =
        a->wanted == a->target || a->direction == RS_SCALE_STABLE ? INT64_MAX : a->since + a->delay;

    /* With one span there is one load: nothing changes but by being told. */
    if (a->n_spans > 1 && a->spans[1].from + c->look_back_period > now && tick < due)
        return tick;
    return due;
}

int64_t rs_autoscale_left(const struct rs_autoscale *a, int64_t now)
{
    int64_t left = a->since + a->delay - now;

    if (a->direction == RS_SCALE_STABLE || a->wanted == a->target)
        return -1;
    return left > 0 ? left : 0;
}

const char *rs_autoscale_basis_name(enum rs_autoscale_basis basis)
{
    static const char *const names[RS_SCALE_BASES] = {
        [RS_SCALE_BY_LOAD] = "load",         [RS_SCALE_BY_POLICY] = "policy",
        [RS_SCALE_NO_ANSWER] = "no_answer",  [RS_SCALE_COLD] = "cold_start",
        [RS_SCALE_NOTHING] = "nothing_runs", [RS_SCALE_BY_BOUNDS] = "bounds",
    };

    return names[basis];
}

/* --- for people -------------------------------------------------------------------------------- */

void rs_autoscale_why(const struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                      int64_t now, char *ret, size_t size)
{
    int n = snprintf(ret, size, "%.2f ongoing requests in the last %g s, %g wanted per replica",
                     a->total, seconds(c->look_back_period), c->target_ongoing_requests);
    int64_t left = rs_autoscale_left(a, now);

    if (n < 0 || (size_t)n >= size)
        return;
    if (left >= 0)
        snprintf(ret + n, size - (size_t)n, ": %s from %u to %u replicas in %.1f s (%s %g s)",
                 a->direction > 0 ? "goes up" : "goes down", a->target, a->wanted, seconds(left),
                 a->direction > 0 ? "upscale_delay_s"
                 : a->wanted == 0 && a->delay == c->downscale_to_zero_delay
                     ? "downscale_to_zero_delay_s"
                     : "downscale_delay_s",
                 seconds(a->delay));
    else if (a->held)
        snprintf(ret + n, size - (size_t)n, ": stays at %u of %u to %u replicas", a->target,
                 a->lower, a->upper);
}

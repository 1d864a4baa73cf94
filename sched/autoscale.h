/* How many replicas a deployment should have: its load and the time -> a number.
 *
 * A plain state machine, one per deployment that autoscales. It is told of the load (requests that
 * wait and requests under way) when that changes, keeps it for look_back_period as a step function,
 * and decides as Ray Serve does: load / target_ongoing_requests, smoothed by a factor, held back by a
 * delay, kept within bounds. The clock is the caller's.
 *
 * Units:     load in requests, areas in request seconds, times in monotonic ns.
 * Ownership: rs_autoscale_fini; a zeroed struct is one that was never told anything.
 * Exact:     the mean is weighted by time. Of a node that reports the integral of its load, what a
 *            step function missed between two reports is put right by rs_autoscale_correct.
 */
#pragma once

#include "core/config/deployment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RS_AUTOSCALE_TICK_MS = 100, /* how often it looks while something changes */
    RS_AUTOSCALE_SPANS = 512,   /* kept at most; older ones are joined */
    RS_AUTOSCALE_DECISIONS = 10 /* remembered */
};

/* A stretch of time with one load, up to the start of the next one. */
struct rs_autoscale_span {
    int64_t from;
    double area, queued_area; /* so far */
    double high, low, queued_high, queued_low;
};

struct rs_autoscale_decision {
    double wall_s;
    unsigned from, to;
    bool by_policy;
    char reason[160];
};

/* What the last decision went by. */
enum rs_autoscale_basis {
    RS_SCALE_BY_LOAD,   /* requests / target_ongoing_requests */
    RS_SCALE_BY_POLICY, /* what the user's code answered */
    RS_SCALE_NO_ANSWER, /* the user's code has not answered: the number stays */
    RS_SCALE_COLD,      /* a request waits and nothing runs: at once */
    RS_SCALE_NOTHING,   /* nothing runs and nothing is asked for: the number stays */
    RS_SCALE_BY_BOUNDS, /* the number was out of bounds: at once */
    RS_SCALE_BASES
};
const char *rs_autoscale_basis_name(enum rs_autoscale_basis basis); /* "load", "policy", .. */

enum rs_autoscale_direction { RS_SCALE_DOWN = -1, RS_SCALE_STABLE = 0, RS_SCALE_UP = 1 };

struct rs_autoscale {
    unsigned target; /* the number that should be: read it, set it through rs_autoscale_start */
    bool started;

    struct rs_autoscale_span *spans;
    size_t n_spans, cap_spans;
    double load, queued; /* now */
    int64_t at;          /* when the areas were last brought up to date */

    /* Between wanting another number and having it. */
    enum rs_autoscale_direction direction;
    int64_t since, delay;
    unsigned wanted; /* that it waits for; the target if it waits for nothing */

    /* The last decision: what it went by, and each step of the formula. */
    enum rs_autoscale_basis basis;
    double total;    /* requests */
    double desired;  /* total / target_ongoing_requests, or the policy's number */
    double proposed; /* after the factor, before the bounds */
    unsigned running;
    unsigned lower, upper;
    bool held; /* load alone wants more or fewer, but for the bounds */

    double last_up_s, last_down_s;                                  /* wall clock; 0: never */
    struct rs_autoscale_decision decisions[RS_AUTOSCALE_DECISIONS]; /* oldest first */
    size_t n_decisions;
};

/* What a decision goes by beside the load. */
struct rs_autoscale_facts {
    unsigned running; /* replicas that take requests */
    int lower, upper; /* bounds, after target_capacity */
    int gang;         /* > 1: only multiples of it */
    bool has_policy;  /* the user's own code decides; it has not answered while policy_wants < 0 */
    double policy_wants;
    const char *lower_reason; /* why `lower` is what it is; NULL: the configuration says so */
    double wall_s;            /* wall clock at `now` */
};

void rs_autoscale_fini(struct rs_autoscale *a);
/* Begins at, or is moved to, `target`, without any delay. */
void rs_autoscale_start(struct rs_autoscale *a, unsigned target, int64_t now);
/* From now on so many requests wait and so many are there altogether. */
void rs_autoscale_load(struct rs_autoscale *a, double queued, double total, int64_t now);
/* So much more (or less) was there before `now` than what it was told. */
void rs_autoscale_correct(struct rs_autoscale *a, double area, int64_t now);

enum rs_autoscale_aggregation { RS_AUTOSCALE_MEAN, RS_AUTOSCALE_MAX, RS_AUTOSCALE_MIN };
/* The load over the last `window`, or since it was first told of one. */
double rs_autoscale_total(struct rs_autoscale *a, enum rs_autoscale_aggregation how, int64_t window,
                          int64_t now);
double rs_autoscale_queued(struct rs_autoscale *a, enum rs_autoscale_aggregation how,
                           int64_t window, int64_t now);
/* How long until it moves to `wanted`; -1: it waits for nothing. */
int64_t rs_autoscale_left(const struct rs_autoscale *a, int64_t now);
enum rs_autoscale_aggregation rs_autoscale_how(const struct rs_autoscaling_conf *c);

/* True: a->target is another one than before, and the last decision says why. */
bool rs_autoscale_decide(struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                         const struct rs_autoscale_facts *f, int64_t now);
/* When to decide again if nothing is told meanwhile; INT64_MAX: no need. */
int64_t rs_autoscale_deadline(const struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                              int64_t now);
/* For people: what it waits for, what holds it. Writes a sentence without a final dot. */
void rs_autoscale_why(const struct rs_autoscale *a, const struct rs_autoscaling_conf *c,
                      int64_t now, char *ret, size_t size);

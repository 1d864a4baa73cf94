/* A new version beside the old one: what share of the requests it gets, and whether it does harm.
 *
 * A plain state machine. Tallies of both versions and `now` go in; out come the share, and a verdict:
 *
 *   RUNNING --harm--> HARMFUL                      at any time: the share is 0 at once
 *   RUNNING --each over, requests, no doubt--> RUNNING, next step; after the last one PASSED
 *
 * Harm:      errors: the new version fails more often than the old one, and more often than
 *            max_error_rate. A replica that dies counts as one failed request, however many were with it.
 *            slowness: a larger part of its requests takes longer than max_p99_ratio x the old version's
 *            p99 than of the old version's takes longer than that p99. 1 ms more is never slow, and its
 *            first RS_CANARY_WARM requests are not looked at.
 *            Both are sequential tests (evidence.h) that start anew with each step and may end it at any
 *            time. A canary whose new version is no worse comes to harm with a probability of at most
 *            `false_alarm`, all its steps together.
 * Doubt:     evidence of 1 to 20, too little for a verdict: the step goes on until it grows or goes.
 * Too few:   a step in which the new version ended fewer than min_requests goes on until it has (WAIT), or says nothing: PROMOTE goes on to the next step, ROLLBACK takes it as
 *            harm.
 * No steps:  the judgement alone, of an ordinary roll (rollout.analysis): share < 0, never PASSED.
 * Units:     shares and rates 0 to 1; times in monotonic ns.
 * Ownership: a plain value; rs_canary_start makes one.
 */
#pragma once

#include "core/config/deployment.h"
#include "core/model/tally.h"
#include "sched/evidence.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RS_CANARY_WARM = 20, RS_CANARY_TIMED_MIN = 100 };
#define RS_CANARY_FALSE_ALARM 0.01

struct rs_canary_conf {
    double steps[RS_CANARY_STEPS_MAX]; /* above 0, below 1 */
    size_t n_steps;
    int64_t each;
    double max_error_rate; /* 0: the old version's alone counts */
    double max_p99_ratio;  /* 0: how long it takes is not judged */
    unsigned min_requests;
    enum rs_canary_too_few too_few;
    double false_alarm; /* 0: RS_CANARY_FALSE_ALARM */
};

enum rs_canary_state { RS_CANARY_RUNNING, RS_CANARY_PASSED, RS_CANARY_HARMFUL };
/* What the step waits for; of a canary that is HARMFUL why it is. */
enum rs_canary_why {
    RS_CANARY_TIME,     /* `each` is not over */
    RS_CANARY_REQUESTS, /* too few */
    RS_CANARY_DOUBT,
    RS_CANARY_ERRORS,
    RS_CANARY_SLOW,
    RS_CANARY_WHYS
};
enum rs_canary_did { RS_CANARY_NOTHING, RS_CANARY_STEPPED, RS_CANARY_ENDED };

struct rs_canary_side {
    struct rs_tally whole;             /* since the start */
    uint64_t requests, errors, deaths; /* of this step */
};

struct rs_canary {
    struct rs_canary_conf conf;
    enum rs_canary_state state;
    enum rs_canary_why why;
    size_t step;   /* from 0; n_steps: PASSED */
    int64_t since; /* when the step began */
    struct rs_canary_side old, fresh;
    struct rs_evidence errors, limit, slow; /* of this step */
    uint64_t slow_old, slow_fresh;          /* requests that counted as slow */
};

/* As the keys of rollout say; steps of 100 % are none. */
struct rs_canary_conf rs_canary_conf_of(const struct rs_rollout_conf *conf);
void rs_canary_start(struct rs_canary *c, const struct rs_canary_conf *conf, int64_t now);
/* What came since the last time, of both versions; of all nodes or of some. */
void rs_canary_feed(struct rs_canary *c, const struct rs_tally *old, const struct rs_tally *fresh);
/* The step does not begin before now: its share is not reached yet. */
void rs_canary_hold(struct rs_canary *c, int64_t now);
/* Without steps: enough was seen of the new version, and there is neither harm nor doubt. */
bool rs_canary_is_well(const struct rs_canary *c);
/* Decides; after each feed, and when rs_canary_deadline is due. */
enum rs_canary_did rs_canary_tick(struct rs_canary *c, int64_t now);
int64_t rs_canary_deadline(const struct rs_canary *c); /* INT64_MAX: the next feed */
/* Of requests that go to the new version: 0 to 1; < 0: no share is kept. */
double rs_canary_share(const struct rs_canary *c);

/* "errors": how surely it is harm, as 1 - the bound on a false alarm; 0: there is no evidence. */
double rs_canary_sure(const struct rs_canary *c, enum rs_canary_why what);
/* One line: what was measured against what in this step. Caller frees. */
char *rs_canary_text(const struct rs_canary *c);
/* {"state", "why", "step", "steps", "share", "old": {"requests", "errors", "deaths", "p99_ms"},
 * "new": .., "evidence": {"errors", "slow"}, ..}. New. */
json_t *rs_canary_json(const struct rs_canary *c, int64_t now);
const char *rs_canary_why_name(enum rs_canary_why why); /* "too_few_requests" */

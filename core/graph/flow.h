/* Requests on their way through a declared graph, as a state machine: events in, actions out. It knows
 * no sockets, no clock and no threads.
 *
 * A run is one request (or the shadow of one), a task one step of a run. Events are what became of the
 * calls that the machine asked for, timers that it set, and that a run is not wanted any more; each
 * is followed by taking the actions until there is none. Actions may lead to events at once.
 *
 * Promises: a run that is not cancelled gets exactly one ANSWER (or was handed over to a stream), a
 *           cancelled or shadowing one none. Every CALL is answered or failed by the caller, or
 *           CANCELled by the machine. Nothing is called for a run that has ended. Of a step with a
 *           cache one call per key is under way at a time.
 * Cache:    the key is made of the step, the client's method, path and query, the chosen headers, and
 *           the bytes of the input. Only 2xx is kept. An error is shared by those that waited for it;
 *           when who worked on it was cancelled or had no more time, the next one starts over.
 * Retries:  each first try earns `retry_budget` of a token, each further one takes a whole one, ten can
 *           be saved up.
 * Thread:   one. Ownership: values and info are counted; actions hold references of their own until
 *           the next call of rs_flow_next.
 */
#pragma once

#include "core/base/hash.h"
#include "core/graph/plan.h"
#include "core/graph/value.h"

struct rs_flow;
struct rs_run;
struct rs_task;

/* What is known of a request beside its body. Counted; texts are the owner's `text`. */
struct rs_flow_info {
    unsigned refs;
    struct rs_buf text; /* what the members point into */
    const char *id;
    size_t id_len;
    const char *headers; /* name NUL value NUL ... */
    size_t headers_len;
    const char *target; /* all of the request line that a stage may answer by */
    size_t target_len;
};
struct rs_flow_info *rs_flow_info_new(void);
void rs_flow_info_unref(struct rs_flow_info *i); /* NULL is fine */

enum rs_flow_do {
    RS_DO_CALL,   /* ask task's deployment with `value`, by `at` (0: no limit) */
    RS_DO_CANCEL, /* that call is not wanted any more */
    RS_DO_TIMER,  /* rs_flow_due(task) at `at`; 0: not any more */
    RS_DO_ANSWER, /* of a run: `value`. The run has ended */
};

struct rs_flow_action {
    enum rs_flow_do what;
    struct rs_run *run;
    struct rs_task *task; /* not of ANSWER; lives until rs_flow_next has told of all */
    struct rs_value *value;
    int64_t at;
};

enum rs_flow_event {
    RS_FLOW_ENDED, /* a step, with an outcome, after `ns`; not of cancelled ones */
    RS_FLOW_RETRY,
    RS_FLOW_FELL_BACK,
    RS_FLOW_HIT,
    RS_FLOW_MISS,
    RS_FLOW_SHARED,  /* it waited for the answer of another */
    RS_FLOW_DROPPED, /* a shadow that was not begun */
};
/* For figures. */
typedef void rs_flow_observe(const struct rs_step *s, enum rs_flow_event what, enum rs_outcome o,
                             int64_t ns, void *arg);

/* The plan is taken. */
struct rs_flow *rs_flow_new(struct rs_plan *plan, const struct rs_hash_key *key,
                            rs_flow_observe *observe, void *arg);
void rs_flow_free(struct rs_flow *f); /* NULL is fine; no runs are left */
const struct rs_plan *rs_flow_plan(const struct rs_flow *f);
unsigned rs_flow_runs(const struct rs_flow *f);
bool rs_flow_idle(const struct rs_flow *f); /* no runs, no shadows, no actions */
/* Bytes in the caches. */
uint64_t rs_flow_cached(const struct rs_flow *f);

/* Takes `info` and `input`. `deadline` 0: none; the caller enforces it by rs_flow_cancel. */
struct rs_run *rs_flow_start(struct rs_flow *f, struct rs_flow_info *info, struct rs_value *input,
                             int64_t deadline, void *data, int64_t now);
/* Nobody wants it any more. Not after its ANSWER. */
void rs_flow_cancel(struct rs_flow *f, struct rs_run *run, int64_t now);
/* All of them, and the shadows. */
void rs_flow_close(struct rs_flow *f, int64_t now);
/* A whole answer; taken. */
void rs_flow_answered(struct rs_flow *f, struct rs_task *t, struct rs_value *value, int64_t now);
/* No answer: what became of it, in one line. `later`: in how many seconds there may be room; 0: not
 * known. */
void rs_flow_failed(struct rs_flow *f, struct rs_task *t, enum rs_outcome o, const char *why,
                    unsigned later, int64_t now);
/* An answer below 400 begins that is not whole. True: it is the run's answer, to be passed on as it
 * comes; rs_flow_streamed (or rs_flow_cancel) ends the run. False: it is to be gathered. */
bool rs_flow_begun(struct rs_flow *f, struct rs_task *t);
void rs_flow_streamed(struct rs_flow *f, struct rs_task *t, bool ok, int64_t now);
void rs_flow_due(struct rs_flow *f, struct rs_task *t, int64_t now);

/* The next action; false: none. */
bool rs_flow_next(struct rs_flow *f, struct rs_flow_action *ret);

void *rs_run_data(const struct rs_run *run);
bool rs_run_is_shadow(const struct rs_run *run);
const struct rs_flow_info *rs_run_info(const struct rs_run *run);
const struct rs_step *rs_task_step(const struct rs_task *t);
struct rs_run *rs_task_run(const struct rs_task *t);
/* What a weight or a share decides by: in [0, 1), the same for the same text and salt everywhere. */
double rs_flow_lot(const char *text, size_t len, const char *salt);
void **rs_task_slot(struct rs_task *t); /* the caller's; NULL at first */

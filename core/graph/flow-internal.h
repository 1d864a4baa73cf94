/* What flow.c (life of runs and tasks), flow-steps.c (what each kind of step does), flow-cache.c and
 * flow-merge.c share. */
#pragma once

#include "core/graph/cache.h"
#include "core/graph/flow.h"

enum rs_task_state {
    RS_TASK_NEW,
    RS_TASK_CALLING,   /* a call is under way */
    RS_TASK_PAUSED,    /* before the next try */
    RS_TASK_STREAMING, /* its answer goes straight to the client */
    RS_TASK_WAITING,   /* for somebody else's answer to the same question */
    RS_TASK_WORKING,   /* the steps below it are at work */
    RS_TASK_ENDED,     /* its outcome is known, and to be told to its parent */
    RS_TASK_GONE,
};

struct rs_task {
    struct rs_list link;  /* among the children of its parent, or in flow->dead */
    struct rs_list todo;  /* in flow->todo */
    struct rs_list share; /* in a cache entry's `waiting` */
    struct rs_list kids;
    struct rs_run *run;
    const struct rs_step *step;
    struct rs_task *parent;
    enum rs_task_state state;
    size_t place; /* among the outputs of its parent */
    void *slot;
    struct rs_value *input;
    int64_t started, due;
    unsigned tries;
    bool timed;                   /* the caller has a timer of it */
    struct rs_cache_entry *entry; /* it works on it, or waits for it */

    size_t next, open, failed; /* of its children */
    struct rs_value **outputs;
    size_t n_outputs;

    enum rs_outcome outcome; /* once ENDED */
    struct rs_value *output;
};

struct rs_run {
    struct rs_list link; /* in flow->runs or flow->dead_runs */
    struct rs_flow *flow;
    struct rs_task *root;
    struct rs_flow_info *info;
    void *data;
    int64_t deadline;
    const struct rs_step *shadow_of; /* NULL: it is no shadow */
    bool streamed, cancelled, ended;
};

struct rs_flow {
    struct rs_plan *plan;
    struct rs_hash_key key;
    rs_flow_observe *observe;
    void *arg;
    struct rs_list runs, dead_runs, spare_runs, dead, spare, todo;
    unsigned n_runs, n_spare, n_spare_runs;
    bool pumping;
    double tokens;
    struct rs_cache *caches;
    unsigned *shadows; /* under way, by step */
    struct rs_flow_action *actions;
    size_t first, count, cap;
    struct rs_value *handed; /* of the action that was told last */
};

/* --- flow.c ------------------------------------------------------------------------------------ */

void rs_flow_act(struct rs_flow *f, struct rs_flow_action a); /* a.value is taken */
void rs_flow_pump(struct rs_flow *f, int64_t now);
struct rs_task *rs_task_new(struct rs_run *run, const struct rs_step *s, struct rs_task *parent,
                            size_t place, struct rs_value *input);
/* Its outcome; `value` is taken. */
void rs_task_end(struct rs_task *t, enum rs_outcome o, struct rs_value *value);
/* It and all below it are not wanted. */
void rs_task_abort(struct rs_task *t, int64_t now);
void rs_task_abort_kids(struct rs_task *t, int64_t now);
void rs_task_timer(struct rs_task *t, int64_t at); /* 0: none */
struct rs_run *rs_run_new(struct rs_flow *f, struct rs_flow_info *info, const struct rs_step *root,
                          struct rs_value *input);
/* "stage 'x' (deployment 'y')" */
const char *rs_task_label(const struct rs_task *t, char *buf, size_t size);

/* --- flow-steps.c ------------------------------------------------------------------------------ */

void rs_task_execute(struct rs_task *t, int64_t now);
void rs_task_kid_ended(struct rs_task *t, struct rs_task *from, int64_t now);
void rs_task_call(struct rs_task *t, int64_t now);
/* The answer of a stage, or why there is none: perhaps another try. `value` is taken. */
void rs_task_judge(struct rs_task *t, enum rs_outcome o, struct rs_value *value, int64_t now);

/* --- flow-merge.c ------------------------------------------------------------------------------ */

/* All that is to be merged is there. Ends the task. */
void rs_task_merge(struct rs_task *t);
/* A value of the client or of a stage is not what the step needs. Ends the task. */
void rs_task_blame(struct rs_task *t, const struct rs_value *v, const struct rs_error *err);

/* --- flow-cache.c ------------------------------------------------------------------------------ */

/* True: the answer is there, or somebody works on it. */
bool rs_task_from_cache(struct rs_task *t, int64_t now);
/* It worked on the entry and has ended. */
void rs_task_to_cache(struct rs_task *t, int64_t now);
/* It worked on the entry, or waited for it, and will not go on. */
void rs_task_leave_cache(struct rs_task *t);

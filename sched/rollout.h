/* How a new version of a deployment takes the place of the old one: how many replicas of which should
 * run now. A plain state machine over counts; where they run, and what a version is, others know.
 *
 * Up to `surge` more than wanted start beside the old ones, and an old one goes for each new one that
 * is ready. Where nothing may be above the wanted number (max_surge_percent: 0, as Ray does it), or
 * nothing more fits and the configuration says so, a batch of old ones goes first. What runs never
 * falls below wanted - batch by the machine's own doing, and never rises above wanted + surge.
 *
 * A new version whose replicas do not become ready, or die, stops the roll: the new replicas that are
 * ready stay, the others go, and the old version runs with all that are missing, for good: those that
 * die are started again. Only another version (a deploy, a rollback), a resume or an abort ends that.
 *
 * The decision is the head's, for all nodes together. It gives each node a number of replicas of each
 * version (TARGET), which the node keeps up by itself while the head is away.
 *
 * Units:  counts are replicas; now is monotonic ns.
 * Errors: none. Inputs are what nodes report, which may be late: they are never trusted to be more
 *         than what was asked for.
 */
#pragma once

#include "core/config/deployment.h"

#include <stdbool.h>
#include <stdint.h>

#define RS_ROLLOUT_PHASES(X)                                                                       \
    X(IDLE, "idle")         /* one version, that never took the place of another here */           \
    X(SURGING, "surging")   /* new replicas start; no old one has been asked to go for them yet */ \
    X(SHIFTING, "shifting") /* old ones go as new ones are ready */                                \
    X(PAUSED, "paused")     /* at a share that it must not pass: pause_after, a canary's step */   \
    X(STOPPED, "stopped")   /* the new version is not well, or was called off */                   \
    X(DONE, "done")         /* no old replica is left */
#define RS_X(name, text) RS_ROLLOUT_##name,
enum rs_rollout_phase { RS_ROLLOUT_PHASES(RS_X) RS_ROLLOUT_PHASE_COUNT };
#undef RS_X

/* Why it waits, pauses or stopped. */
#define RS_ROLLOUT_WHYS(X)                                                                         \
    X(NONE, "")                                                                                    \
    X(NO_ROOM, "no_room")           /* waits: nothing more fits (`full`), when_full: wait */       \
    X(STOP_FIRST, "stop_first")     /* nothing more fits: old ones go first */                     \
    X(PAUSE_AFTER, "pause_after")   /* paused at `share` percent */                                \
    X(CANARY, "canary")             /* paused at `share` percent */                                \
    X(START_FAILED, "start_failed") /* stopped: `failures` starts in a row, `limit` are allowed */ \
    X(DEATHS, "deaths")             /* stopped: `failures` new replicas died, `limit` allowed */   \
    X(NO_PROGRESS, "no_progress")   /* stopped: no further one ready for `waited` */               \
    X(ABORTED, "aborted")           /* stopped by a person: back to the old version */             \
    X(CANARY_FAILED, "canary_failed") /* stopped by its figures: back to the old version */
#define RS_X(name, text) RS_ROLLOUT_WHY_##name,
enum rs_rollout_why { RS_ROLLOUT_WHYS(RS_X) RS_ROLLOUT_WHY_COUNT };
#undef RS_X

const char *rs_rollout_phase_name(enum rs_rollout_phase p); /* "shifting" */
const char *rs_rollout_why_name(enum rs_rollout_why w);     /* "no_room" */
int rs_rollout_phase_parse(const char *name);               /* -1: none of them */
int rs_rollout_why_parse(const char *name);

/* A plain value; {0}: IDLE. */
struct rs_rollout {
    enum rs_rollout_phase phase;
    enum rs_rollout_why why;
    int64_t started_at, since; /* of the roll, of the phase */

    unsigned wanted, surge,
        batch;                 /* that the last step went by; batch: old ones that may go first */
    unsigned ready, best;      /* new ones ready for min_ready; the most so far */
    unsigned new_run, old_run; /* how many of each should run: the answer of the last step */
    unsigned new_up, old_up;   /* that took requests at the last step */
    bool full;                 /* the next new one found no room */
    double share;              /* percent of the replicas that may be new now; 100: all */

    /* of the reason */
    unsigned failures, limit;
    int64_t waited; /* ns */

    /* its own */
    unsigned new_sure, old_sure; /* the least that was answered since nodes last followed */
    bool past_pause;             /* somebody said resume at the pause */
    unsigned candidates;         /* up, but not for long enough yet */
    int64_t candidates_at;       /* since then; 0: none */
    int64_t progress_at;         /* `best` rose, or waiting did not count */
    unsigned failures_before,    /* what the counters said at the last progress */
        deaths_before;
};

/* What there is, of all nodes together. */
struct rs_rollout_in {
    unsigned wanted, unit;     /* replicas come and go in multiples of `unit` (a gang), >= 1 */
    unsigned new_live, new_up; /* not on their way out; of those, take requests */
    unsigned old_live, old_up; /* of all other versions together */
    unsigned leaving;          /* on their way out, of any version */
    bool fresh;                /* every node follows the last answer */
    bool blind;                /* some nodes may not be back yet: nothing is taken away */
    bool away;                 /* a node may come back with what it ran: what is not seen may run */
    bool full;                 /* a new one that should run has no place */
    bool feasible;             /* it would have one if old ones were not there */
    bool old_full;             /* an old one that should run has no place */
    bool failed;               /* its starts were given up */
    unsigned failures,
        deaths;             /* of the new version since it is there: starts, and after they ran */
    unsigned failure_limit; /* of starts since one more was ready; 0: none */
    unsigned death_limit;   /* in the whole roll; 0: none */
    double canary_share; /* percent of the replicas that may be new; 100: no canary, or it passed */
};

/* Replicas above `wanted`, in whole units; 0: old ones go first. */
unsigned rs_rollout_surge(const struct rs_deployment_conf *conf, unsigned wanted, unsigned unit);
/* Old ones that go at a time where they go first: at least one unit. */
unsigned rs_rollout_batch(const struct rs_deployment_conf *conf, unsigned wanted, unsigned unit);
/* How many may be new, and how many are old, at a share of `percent`: together at most one unit above
 * `wanted`, so that neither part has less than its share of the replicas. */
void rs_rollout_split(unsigned wanted, unsigned unit, double percent, bool surge, unsigned *new_run,
                      unsigned *old_run);

/* Another version is wanted while `old` replicas of others run (0: there is nothing to replace), and
 * `have` of it already (it was the old one, and comes back). */
void rs_rollout_begin(struct rs_rollout *r, unsigned wanted, unsigned have, unsigned old,
                      int64_t now);
/* Decides anew: r->new_run and r->old_run. True: something that people are told changed (phase, why).
 * Calling it more often does no harm. */
bool rs_rollout_step(struct rs_rollout *r, const struct rs_deployment_conf *conf,
                     const struct rs_rollout_in *in, int64_t now);
/* When a step is due by time alone; INT64_MAX: never. */
int64_t rs_rollout_deadline(const struct rs_rollout *r, const struct rs_deployment_conf *conf);

/* There is an old version beside the new one. */
bool rs_rollout_active(const struct rs_rollout *r);
/* Of PAUSED by pause_after, and of STOPPED: go on, with counters from zero. False: there was nothing to
 * resume. A canary's step is not resumed by this: canary_share says when. */
bool rs_rollout_resume(struct rs_rollout *r, const struct rs_rollout_in *in, int64_t now);
/* Back to the old version: `why` is ABORTED or CANARY_FAILED. False: there is no roll. */
bool rs_rollout_abort(struct rs_rollout *r, enum rs_rollout_why why, int64_t now);
/* All of it goes back to the old version. */
bool rs_rollout_goes_back(const struct rs_rollout *r);

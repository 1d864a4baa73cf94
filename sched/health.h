/* How a replica does, from figures: samples and `now` in, findings with their evidence out. Pure; what
 * follows from a finding is agent-health.c's.
 *
 * Not answering: nothing came from it since a question that is still open.
 * Stuck:     it has requests to which it has not begun to answer, and nothing of what it has moves. Only
 *            time in which that is so counts; requests that were given up (their time was over) are no
 *            answers. Whoever waits for other deployments is not stuck: they may be. How long is too
 *            long follows from what the deployment's requests take.
 * Slow:      its median latency is out of the range of its siblings' (median and median absolute
 *            deviation, which a minority of slow ones does not move), several windows in a row.
 * Replace:   one that is well, and has grown, aged or worked enough.
 * Units:     ns, bytes; what is told to people in the unit that the finding names.
 */
#pragma once

#include "core/base/buf.h"
#include "core/config/deployment.h"
#include "core/model/tally.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* condition, its name in reports and for programs, status in events, kind of event: health or replace */
#define RS_HEALTH_CONDITIONS(X)                                                                    \
    X(WELL, "well", "WELL", true)                                                                  \
    X(CHECK_FAILED, "check_failed", "CHECK_FAILED", true)                                          \
    X(SILENT, "not_answering", "SILENT", true)                                                     \
    X(STUCK, "stuck", "STUCK", true)                                                               \
    X(SLOW, "slow", "SLOW", true)                                                                  \
    X(OOM, "out_of_memory", "OOM", true)                                                           \
    X(DEAD, "dead", "DEAD", true)                                                                  \
    X(MEMORY, "memory", "MEMORY", false)                                                           \
    X(GROWTH, "memory_growth", "MEMORY", false)                                                    \
    X(AGE, "age", "AGE", false)                                                                    \
    X(REQUESTS, "requests", "REQUESTS", false)                                                     \
    X(ASKED, "asked", "ASKED", false)
#define RS_X(condition, name, status, health) RS_HEALTH_##condition,
enum rs_health_condition { RS_HEALTH_CONDITIONS(RS_X) RS_HEALTH_CONDITION_COUNT };
#undef RS_X

/* What should follow, the hardest last. */
enum rs_health_action {
    RS_HEALTH_TELL,    /* it is shown */
    RS_HEALTH_SPARE,   /* fewer requests while others can take them */
    RS_HEALTH_REPLACE, /* another one starts, then this one finishes what it has and goes */
    RS_HEALTH_END,     /* it finishes what it has, in its grace period, and another one starts */
    RS_HEALTH_KILL,    /* waiting would be of no use */
    RS_HEALTH_ACTION_COUNT
};

struct rs_health_finding {
    enum rs_health_condition what;
    enum rs_health_action action;
    int64_t since;       /* monotonic ns; 0: not known */
    double value, limit; /* how much, against what; in `unit` */
    const char *unit;    /* "s", "bytes", "requests", "failures"; static */
    double usual;        /* s: of its requests (99 %), or of its siblings (median); 0: none */
    unsigned siblings;   /* that it was compared with */
    unsigned waiting;    /* requests that it has and has not begun to answer */
};

const char *rs_health_condition_name(enum rs_health_condition c); /* "not_answering" */
int rs_health_condition_parse(const char *name);                  /* -1: none of them */
const char *rs_health_status_name(enum rs_health_condition c);    /* "SILENT" */
bool rs_health_is_illness(enum rs_health_condition c);            /* false: why it is replaced */
const char *rs_health_action_name(enum rs_health_action a);       /* "spare" */
/* "stuck: 5 requests and none brought forward for 62 s (limit 60 s; 99 % of its requests take 0.031 s)".
 * Appends. */
void rs_health_text(struct rs_buf *out, const struct rs_health_finding *f);
/* {"condition", "action", "since_s" (wall clock), "value", "limit", "unit", ...}. New. */
json_t *rs_health_json(const struct rs_health_finding *f, double wall_offset_s);

/* What a look at a replica's figures shows. */
struct rs_health_sample {
    unsigned in_flight; /* requests that it has */
    unsigned open;      /* of those: it has begun to answer */
    unsigned calls;     /* of its own, to other deployments, that are not answered */
    uint64_t moved;     /* answers begun, pieces of them, ends */
    uint64_t given_up;  /* requests that it had and that were cancelled */
    uint64_t done;
    const uint64_t *took; /* RS_TALLY_BUCKETS: how long those took that it answered */
};

/* --- not answering --- */

/* `check`: how long a question and the pause before it take; `since`: of the oldest question that nothing was heard after. False: it is well. */
bool rs_silent_judge(const struct rs_health_conf *c, int64_t check, int64_t since, int64_t now,
                     struct rs_health_finding *ret);
/* How long until rs_silent_judge says something else. */
int64_t rs_silent_deadline(const struct rs_health_conf *c, int64_t check, int64_t since,
                           int64_t now);

/* --- stuck --- */

#define RS_STALL_GAP (2 * RS_SEC) /* a longer gap between samples was not looked into */

struct rs_stall {
    int64_t at;    /* of the last sample; 0: none */
    int64_t since; /* nothing moved after */
    int64_t time;  /* of that, with requests that wait for it */
    uint64_t moved, given_up;
    bool waiting; /* it had some at the last sample */
};

void rs_stall_feed(struct rs_stall *s, const struct rs_health_sample *x, int64_t now);
/* The limit, ns; 0: none is known. `own`, `all`: what its requests, and all of the deployment, took;
 * `at_least`: more is known of what they may take (0: nothing). `usual`: the p99 that it is from. */
int64_t rs_stall_limit(const struct rs_health_conf *c, const struct rs_tally *own,
                       const struct rs_tally *all, int64_t at_least, int64_t *usual);
bool rs_stall_judge(const struct rs_stall *s, int64_t limit, int64_t usual, unsigned waiting,
                    struct rs_health_finding *ret);

/* --- slow --- */

enum { RS_SLOW_SIBLINGS = 3, RS_SLOW_STRIKES = 3, RS_SLOW_SHARE = 10 };

struct rs_slow {
    unsigned strikes, calm; /* windows in a row */
    bool spared;
    int64_t since; /* it gets fewer requests */
};

struct rs_slow_one {
    struct rs_slow *state;
    double median;  /* s, of the last window */
    uint64_t count; /* in it */
    /* out */
    bool finding;
    struct rs_health_finding found;
};

/* The end of a window. `spare`: how many more may be spared. */
void rs_slow_judge(const struct rs_health_conf *c, struct rs_slow_one *all, size_t n,
                   unsigned spare, int64_t now);
/* How many of `n` may get fewer requests or be replaced for being slow or stuck at a time. */
unsigned rs_eject_most(const struct rs_health_conf *c, unsigned n);
/* Sorts `v`. 0 for none. */
double rs_median(double *v, size_t n);

/* --- replace one that is well --- */

struct rs_wear {
    uint64_t memory, memory_first; /* bytes; 0: not known */
    int64_t age;
    uint64_t requests;
    uint32_t hash; /* of its id: its share of the jitter */
};

bool rs_wear_judge(const struct rs_replace_conf *c, const struct rs_wear *w,
                   struct rs_health_finding *ret);
/* Something of it needs looking at now and then. */
bool rs_wear_asked(const struct rs_replace_conf *c);
int64_t rs_wear_age_limit(const struct rs_replace_conf *c, uint32_t hash); /* -1: none */

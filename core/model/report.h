/* Everything that runs on one node: the payload of REPORT (node to head, whole; at once on change,
 * at least every report_ms). The JSON members bear the names of the struct members.
 *
 * Ownership: a report owns everything below it; rs_report_free releases it all.
 * Decoding:  strict about the types of the members below, members not listed are ignored.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <jansson.h>
#include <stdint.h>

/* One process of a deployment. Ray's names are those of its details API. */
#define RS_REPLICA_STATES(X)                                                                       \
    X(PENDING, "STARTING")  /* waits for resources of the node, or for its turn after a failure */ \
    X(STARTING, "STARTING") /* the process exists; its constructor has not finished */             \
    X(RUNNING, "RUNNING")   /* takes requests */                                                   \
    X(UPDATING, "UPDATING") /* takes requests; RECONFIGURE is not answered yet */                  \
    X(DRAINING, "STOPPING") /* takes no new requests; finishes those that it has */                \
    X(STOPPING, "STOPPING") /* was told to stop, or is being killed */                             \
    X(STOPPED, "STOPPING")  /* the process is gone */
#define RS_X(name, ray) RS_REPLICA_##name,
enum rs_replica_state { RS_REPLICA_STATES(RS_X) RS_REPLICA_STATE_COUNT };
#undef RS_X
const char *rs_replica_state_name(enum rs_replica_state s);     /* "DRAINING" */
const char *rs_replica_state_ray_name(enum rs_replica_state s); /* "STOPPING" */
int rs_replica_state_parse(const char *name);                   /* -1: none of them */

struct rs_report_replica {
    char *app, *deployment;
    char *replica_id; /* 8 lower-case letters and digits */
    char *version;    /* heavy version that it runs */
    enum rs_replica_state state;
    int pid; /* 0: no process yet, or no longer */
    unsigned rank;
    double start_time_s; /* wall clock: when its process was made; 0: not yet */
    double ready_time_s; /* wall clock: when it became RUNNING; 0: not yet */
    char *message;       /* why it is in this state, what it waits for; NULL */
    char *log_file;      /* its captured output, on its node; NULL */
    bool waiting;        /* it waits for results of others and has lent its CPUs meanwhile */
    json_t *stats; /* {"at": time, "values": {name: number}} of record_autoscaling_stats; NULL */
    json_t *
        health; /* what is the matter with it, or how it ended, with figures (sched/health.h); NULL */
    unsigned in_flight; /* filled in by who knows the data plane */
    unsigned models;    /* multiplexed models that it has loaded; as in_flight */
    uint64_t done, errors;
};

struct rs_report_deployment {
    char *app, *name;
    char *version;           /* that the node was told to run */
    unsigned start_failures; /* in a row, of this version, while none of it ever ran */
    unsigned failures_total; /* of starts, of this version */
    unsigned deaths;         /* replicas of this version that died or fell ill after they ran */
    bool ever_ran;           /* a replica of this version reached RUNNING */
    char *last_error;        /* of the last start failure or death: traceback or one line; NULL */
    char *blocked;   /* why a wanted replica is not started: "needs 1 GPU; node has 0"; NULL */
    unsigned queued; /* requests that wait; filled in by who knows the data plane, as is: */
    /* The integral of those that wait and those under way, in request microseconds: its rise between
     * two reports, by the time between them, is the exact mean load. */
    uint64_t load_us;
    /* Requests that were refused before any work on them: by max_queued_requests, because they waited
     * too long, because their time was over. */
    uint64_t dropped_full, dropped_shed, dropped_expired;
    uint64_t router_fallbacks; /* choices that the deployment's own request router did not make */
    char *router;              /* why it does not; NULL: it does, or there is none */
    /* {"version", "new", "old"}: tallies (tally.h) of that version and of all others, where two run;
     * filled in by who knows the data plane; {} */
    json_t *versions;
    json_t *lost; /* {id: why}: named replicas of the target that were started and are no more */
};

struct rs_report_zygote {
    char *app, *version;
    char *start;  /* "fork" or "spawn" */
    char *reason; /* why spawn; NULL */
    char *python; /* executable; NULL: not known yet */
    char *state; /* "waiting", "preparing", "starting", "building", "ready", "failed", "stopping" */
    char *message; /* what the making of its environment is at; NULL */
    int pid;
};

struct rs_report {
    uint64_t revision; /* of the target that it follows */
    bool draining;     /* the node was told to finish */
    json_t *resources; /* total: {"CPU": 2.0, ..} */
    json_t *free;      /* of those, not taken */
    json_t
        *refused; /* {app: {cause: n}}: HTTP requests so far that got no answer of the application
                        (net/http/cause.h); NULL: none. From who knows the data plane */
    struct rs_report_replica *replicas;
    size_t n_replicas;
    struct rs_report_deployment *deployments;
    size_t n_deployments;
    struct rs_report_zygote *zygotes;
    size_t n_zygotes;
    struct rs_report_replica
        *dead; /* the last ones that ended, newest last, at most 10 per deployment */
    size_t n_dead;
};

struct rs_report *rs_report_new(void);
void rs_report_free(struct rs_report *r);
RS_DEFINE_AUTO(struct rs_report *, rs_report_free);

json_t *rs_report_to_json(const struct rs_report *r); /* the caller's */
RS_MUST_CHECK int rs_report_from_json(struct rs_report **ret, const json_t *j,
                                      struct rs_error *err);

/* NULL: none. For who fills in the figures of the data plane. */
struct rs_report_replica *rs_report_replica(struct rs_report *r, const char *replica_id);
struct rs_report_deployment *rs_report_deployment(struct rs_report *r, const char *app,
                                                  const char *name);

/* Builders: zeroed elements, pointers good until the next call on the same array. */
struct rs_report_replica *rs_report_add_replica(struct rs_report *r);
struct rs_report_replica *rs_report_add_dead(struct rs_report *r);
struct rs_report_deployment *rs_report_add_deployment(struct rs_report *r);
struct rs_report_zygote *rs_report_add_zygote(struct rs_report *r);

/* What the files of the agent share: agent.c (targets, time), agent-replica.c (the state machine of a
 * replica), agent-reconcile.c (how many of which version), agent-zygote.c, agent-env.c, agent-report.c.
 *
 * Intent (what the target wants, `stopping`, `failed`) is kept apart from what was observed (state,
 * health). rs_ag_on is the only writer of a replica's state, rs_ag_zygote_enter of a zygote's.
 */
#pragma once

#include "core/base/list.h"
#include "core/base/map.h"
#include "core/resource/ledger.h"
#include "sched/agent.h"
#include "sched/health.h"
#include "sched/message.h"
#include "sched/replica-states.h"
#include "sched/restart.h"

#define RS_AG_DEAD_MAX 10       /* ended replicas remembered per deployment */
#define RS_AG_UNHEALTHY_AFTER 3 /* failed health checks in a row */

#define RS_ENV_STATES(X)                                                                           \
    X(WAITING)  /* no builder yet; starts at retry_at */                                           \
    X(BUILDING) /* the builder works */                                                            \
    X(READY)    /* `ready` tells how to start an interpreter in it */                              \
    X(FAILED)   /* `failure` tells why */
#define RS_X(name) RS_ENV_##name,
enum rs_ag_env_state { RS_ENV_STATES(RS_X) RS_ENV_STATE_COUNT };
#undef RS_X

struct rs_ag_env {
    char *key; /* of the map, and of the builder's process */
    enum rs_ag_env_state state;
    pid_t pid;                  /* of the builder, which may go on tidying after READY; 0: none */
    json_t *ask;                /* {"runtime_env", "base_dir", "node"} */
    char *python;               /* that it is built from; NULL: the default */
    json_t *ready, *failure;    /* ENV_READY, FAILED; NULL */
    char *progress;             /* what it is at, for people */
    unsigned tries;             /* since it was last asked for */
    int64_t timeout;            /* 0: none */
    int64_t retry_at, deadline; /* 0: none */
    bool killed;
    bool rechecked; /* an interpreter did not start in it, and it was looked for again */
    bool news;      /* it failed, and those who wait have not seen it yet */
};

#define RS_ZYGOTE_STATES(X)                                                                        \
    X(WAITING, "waiting")     /* no process; starts at retry_at */                                 \
    X(PREPARING, "preparing") /* its environment is being built */                                 \
    X(STARTING, "starting")   /* no HELLO yet */                                                   \
    X(BUILDING, "building")   /* BUILD was sent */                                                 \
    X(READY, "ready")         /* forks */                                                          \
    X(FAILED, "failed")       /* the build failed; the process may still be there */               \
    X(STOPPING, "stopping")   /* was told to stop, or killed */
#define RS_X(name, text) RS_ZYGOTE_##name,
enum rs_ag_zygote_state { RS_ZYGOTE_STATES(RS_X) RS_ZYGOTE_STATE_COUNT };
#undef RS_X

struct rs_ag_zygote {
    char *key, *app, *version;
    char *env; /* key of its environment; NULL: none is to be built */
    enum rs_ag_zygote_state state;
    pid_t pid;              /* 0: no process */
    json_t *build;          /* BUILD to send */
    char *python, *app_dir; /* NULL: defaults */
    json_t *runtime_env;
    bool answer;                /* the head waits for GRAPH or FAILED */
    int64_t helper_until;       /* user code in the control path was asked for */
    int64_t linger_until;       /* built for the head; no target that names this version came yet */
    bool spawn;                 /* it said that replicas must be fresh processes */
    bool hangs;                 /* its build took too long: it is being stopped */
    bool again;                 /* start anew when the process has ended */
    char *reason;               /* why spawn; NULL */
    char *executable;           /* as HELLO said; NULL */
    char *trouble;              /* why its socket was closed; NULL */
    int64_t retry_at, deadline; /* 0: none */
    unsigned failures;          /* in a row */
};

struct rs_ag_deployment {
    struct rs_agent *agent;
    char *app, *name, *version;
    struct rs_deployment_conf *conf;
    json_t *told;             /* the options as the target had them */
    struct rs_resources want; /* of one replica; borrowed from conf */
    unsigned replicas, world_size, start_limit;
    unsigned *ranks; /* `replicas` of them */
    bool ingress, failed;
    json_t *core;     /* as in the target; an empty object: a deployment of Serve */
    unsigned started; /* processes of this version; core.max_starts bounds them */
    bool gone;        /* not in the target: everything stops, then it is forgotten */
    /* Another version has taken its name: it is in the map by name and version. */
    bool old;
    bool
        stray; /* old, and the target does not say how many: they go as those of the new one come up */

    struct rs_list list; /* of rs_ag_replica */
    unsigned start_failures, failures_total, deaths;
    struct rs_restarts restarts;
    bool ever_ran;
    char *last_error, *blocked;
    int64_t retry_at;                              /* nothing is started before */
    struct rs_report_replica dead[RS_AG_DEAD_MAX]; /* oldest first */
    size_t n_dead;
    struct rs_map used; /* ids of places for which a process was started */

    struct rs_tally *took;  /* how long requests took, of all its replicas so far; NULL: none yet */
    bool multiplexed;       /* its replicas tell of models that they have */
    int64_t window_at;      /* begin of the window in which replicas are compared; 0: none */
    int64_t stuck_at_least; /* ns: one that seemed stuck for half of that may have been at work */
    int64_t replace_at;     /* age or memory of some are due then; 0: none */
    int64_t look_at;        /* next look at the memory of its processes */
};

/* Of one that had requests, or is ill. */
struct rs_ag_health {
    struct rs_health_finding found; /* WELL: nothing */
    struct rs_stall stall;
    struct rs_slow slow;
    bool slow_found;
    struct rs_health_finding slow_finding; /* of the last window */
    struct rs_tally took, window;          /* how long its requests took; at the window's begin */
    uint64_t requests;                     /* that it ended */
    uint64_t moved;                        /* as the last sample had it */
    unsigned waiting;                      /* that it has not begun to answer */
    unsigned spare;                        /* percent of its share of requests that others take */
};

struct rs_ag_replica {
    struct rs_list link;
    struct rs_ag_deployment *deployment;
    char *id, *version;
    char *zygote;      /* key; NULL: a fresh process */
    char *environment; /* of a fresh process: key of its environment; NULL: none */
    char *app_dir;     /* that it runs in, where the environment says so; NULL: the application's */
    enum rs_deployment_kind kind;
    enum rs_replica_state state;
    pid_t pid;      /* 0: none, or not told yet */
    pid_t last_pid; /* kept after its end */
    unsigned rank;
    struct rs_reservation *reservation;
    json_t *env;                /* object of what was added to its environment */
    int64_t start_at, ready_at; /* 0: not yet */
    int64_t deadline;           /* of the state; 0: none */
    int64_t stop_by;            /* end of the grace period, once it is to stop */
    int kill_stage;             /* 0; 1 SIGTERM was sent; 2 SIGKILL was sent */
    bool attached;              /* the data plane knows it */
    bool greeted;               /* HELLO came */
    bool hello;                 /* INIT was sent */
    bool stale;                 /* it runs older light options than the deployment's */
    bool waiting;               /* it lent its CPUs */
    bool cut;                   /* its connection closed while it ran */
    bool counted;               /* its failure or death stands in the counters */
    char *message;

    /* what its own version wants */
    int64_t period, timeout, grace;
    char *ready_path; /* http */

    int64_t check_at; /* next PING or probe; 0: none */
    int64_t asked_at; /* of the check under way; 0: none */
    uint64_t check_no;
    unsigned sick; /* failed checks in a row */
    int64_t sick_since;
    int64_t last_asked,
        silent_since;            /* of the oldest question that nothing was heard after; 0: none */
    int64_t silent_now;          /* when that was looked at last */
    struct rs_ag_health *health; /* NULL: there is nothing to say */
    bool ejected;                /* it has to go since it is ill */
    bool asked;                  /* somebody wants another one in its place */
    bool outgoing;               /* another one starts in its place, and then it goes */
    struct rs_health_finding going; /* why */
    char process;                   /* its state when somebody looked last, as in /proc; 0 */
    uint64_t memory, memory_first;  /* bytes resident, then and when it was warm; 0: not known */
    json_t *end;                    /* how it ended; NULL */
    int64_t probe_gap;              /* http, while it starts */
    char *last_probe;
};

struct rs_agent {
    struct rs_agent_ops ops;
    void *arg;
    char *node_id, *node_name, *log_dir;
    double wall_offset_s;
    bool omp_set, draining, killing;
    struct rs_ledger *ledger;
    struct rs_target *target;  /* the last one; NULL before the first */
    struct rs_map deployments; /* "app#name" -> struct rs_ag_deployment */
    struct rs_map zygotes;     /* key -> struct rs_ag_zygote */
    struct rs_map envs;        /* key -> struct rs_ag_env */
    struct rs_map replicas;    /* id -> struct rs_ag_replica */
    char *routes_text;         /* what the routers were told last */
    int64_t sample_at;         /* figures are wanted then */
    bool busy;                 /* by those that were told, there are requests */
};

/* agent.c */
void rs_ag_changed(struct rs_agent *a);
void rs_ag_set(char **text, char *value);   /* takes `value` */
int64_t rs_ag_sooner(int64_t x, int64_t y); /* 0 counts as never */
const struct rs_target_app *rs_ag_app(const struct rs_agent *a, const char *name);
/* request_router_config of a router of one's own; NULL: it has none. */
const json_t *rs_ag_router(const struct rs_deployment_conf *c);
/* That has the code of its version, and what the target says of it; NULL: it is not in the target. */
const struct rs_target_app *rs_ag_code(const struct rs_ag_deployment *d);
const struct rs_target_deployment *rs_ag_told(const struct rs_ag_deployment *d);
void rs_ag_routes(struct rs_agent *a); /* tells the routers if something changed for them */
struct rs_ag_deployment *rs_ag_deployment(const struct rs_agent *a, const char *app,
                                          const char *name);
/* The one that stands for the name: the wanted version, or where that is gone one that is left. */
struct rs_ag_deployment *rs_ag_face(const struct rs_agent *a, const char *app, const char *name);
bool rs_ag_same_name(const struct rs_ag_deployment *a, const struct rs_ag_deployment *b);

/* agent-version.c */
/* NULL: nothing of that version is here. */
struct rs_ag_deployment *rs_ag_version(const struct rs_agent *a, const char *app, const char *name,
                                       const char *version);
struct rs_ag_deployment *rs_ag_deployment_new(struct rs_agent *a, const char *app, const char *name,
                                              const char *version, bool old);
/* Of its other versions, that are wanted here. */
unsigned rs_ag_old_replicas(const struct rs_ag_deployment *d);
/* `version` is the one that bears the name from here, if it is here; another one is set aside. */
void rs_ag_versions_turn(struct rs_agent *a, const char *app, const char *name,
                         const char *version);
/* Those that are no longer wanted, and of which nothing runs. */
void rs_ag_versions_forget(struct rs_agent *a);

/* It is an actor or a worker for tasks. */
bool rs_ag_is_core(const struct rs_ag_deployment *d);

/* agent-replica.c */
/* The only writer of a replica's state: by the table of replica-states.h. False: it is where it was. */
bool rs_ag_on(struct rs_ag_replica *r, enum rs_replica_event event, int64_t now);
bool rs_ag_is_up(const struct rs_ag_replica *r); /* it takes requests */
/* It counts for its deployment: not on its way out. */
bool rs_ag_live(const struct rs_ag_replica *r);
/* `id` NULL: one that nobody else has. */
struct rs_ag_replica *rs_ag_replica_new(struct rs_ag_deployment *d, const char *id, unsigned rank,
                                        struct rs_reservation *reservation);
void rs_ag_replica_free(struct rs_ag_replica *r);
/* Makes its process, or has it made. */
void rs_ag_replica_launch(struct rs_ag_replica *r, int64_t now);
/* No longer wanted: drains, or ends at once if it has not started yet. */
void rs_ag_retire(struct rs_ag_replica *r, const char *why, int64_t now);
void rs_ag_kill(struct rs_ag_replica *r, const char *why, int64_t now);
/* The start did not come to an end; counts once. */
void rs_ag_start_failed(struct rs_ag_replica *r, const char *error, int64_t now);
/* Counts a failure of a start that had no replica: the zygote's. */
void rs_ag_count_failure(struct rs_ag_deployment *d, const char *error, int64_t now);
/* Light options changed. */
void rs_ag_replica_reconfigure(struct rs_ag_replica *r, int64_t now);
/* Sends INIT, once HELLO came and the process is known. */
void rs_ag_replica_greet(struct rs_ag_replica *r);
void rs_ag_replica_adjust(struct rs_ag_replica *r);
void rs_ag_replica_tick(struct rs_ag_replica *r, int64_t now);
int64_t rs_ag_replica_deadline(const struct rs_ag_replica *r); /* 0: none */
/* It never came to be: no process to wait for. */
void rs_ag_lost(struct rs_ag_replica *r, int64_t now);
/* Remembers an ended replica. Takes what it holds. */
void rs_ag_bury(struct rs_ag_deployment *d, const struct rs_report_replica *dead);
/* Forgets replicas that are STOPPED. */
void rs_ag_sweep(struct rs_agent *a, int64_t now);

void rs_ag_count_death(struct rs_ag_replica *r, const char *why, int64_t now);

/* agent-health.c */
void rs_ag_health_free(struct rs_ag_replica *r);
void rs_ag_health_forget(struct rs_ag_deployment *d); /* another version: others may take longer */
/* It was asked how it does; something came of it. */
void rs_ag_health_asked(struct rs_ag_replica *r, int64_t now);
void rs_ag_health_heard(struct rs_ag_replica *r, int64_t now);
/* Its checks failed as often as they may. True: it is not there at all, and waiting is of no use. `text`:
 * what is to be said. */
bool rs_ag_health_failed(struct rs_ag_replica *r, const char *why, int64_t now, char **text);
void rs_ag_health_tick(struct rs_ag_replica *r, int64_t now);
int64_t rs_ag_health_deadline(const struct rs_ag_replica *r); /* 0: none */
/* Its process ended: what is known of how. */
void rs_ag_health_ended(struct rs_ag_replica *r, int status, const char *output, int64_t now);
json_t *rs_ag_health_json(const struct rs_ag_replica *r); /* new; NULL: it is well */
void rs_ag_look(struct rs_ag_replica *r);                 /* at its process */

/* agent-replace.c */
/* Another one is to start in its place, if that may be now. */
void rs_ag_replace(struct rs_ag_replica *r, const struct rs_health_finding *f, int64_t now);
void rs_ag_replace_step(struct rs_ag_deployment *d, int64_t now);

/* agent-place.c */
/* Of the last target; NULL: it names no such replica. */
const struct rs_target_place *rs_ag_place(const struct rs_ag_deployment *d, const char *id);
/* Named replicas that were started and are no more: {id: why}. New. */
json_t *rs_ag_lost_places(const struct rs_ag_deployment *d);
void rs_ag_places_reconcile(struct rs_ag_deployment *d, int64_t now);

/* agent-reconcile.c */
bool rs_ag_given_up(const struct rs_ag_deployment *d);
void rs_ag_block(struct rs_ag_deployment *d, char *why); /* takes it; NULL: nothing is in the way */
/* One more replica, that of `place` if there is one. False: no room, d->blocked says so. */
bool rs_ag_start(struct rs_ag_deployment *d, const struct rs_target_place *place, int64_t now);
void rs_ag_reconcile(struct rs_agent *a, int64_t now);
void rs_ag_deployment_free(struct rs_ag_deployment *d);

/* agent-zygote.c */
/* That of a deployment's replicas: the application's, unless its runtime_env is another one. */
struct rs_ag_zygote *rs_ag_zygote_for(struct rs_agent *a, const struct rs_target_app *app,
                                      const struct rs_ag_deployment *d);
/* The first application of the target that is forked from it; NULL: none. */
const struct rs_target_app *rs_ag_zygote_wanted_by(const struct rs_agent *a,
                                                   const struct rs_ag_zygote *z);
void rs_ag_zygote_free(struct rs_ag_zygote *z);
/* Starts those that are due, stops those that nobody needs. */
void rs_ag_zygotes_tick(struct rs_agent *a, int64_t now);
int64_t rs_ag_zygote_deadline(const struct rs_ag_zygote *z); /* 0: none */
const char *rs_ag_zygote_state_name(enum rs_ag_zygote_state s);

/* agent-env.c */
bool rs_ag_env_needed(const json_t *runtime_env);
uint64_t rs_ag_hash(const json_t *json);
/* env_vars with ${NAME} filled in. New. */
json_t *rs_ag_env_vars(const struct rs_agent *a, const json_t *runtime_env);
/* "NAME=value", NULL at the end. */
char **rs_ag_env_list(const json_t *vars);
void rs_ag_env_list_free(char **list);
/* Found or made. */
struct rs_ag_env *rs_ag_env_for(struct rs_agent *a, const char *python, const char *app_dir,
                                const json_t *runtime_env);
struct rs_ag_env *rs_ag_env_find(const struct rs_agent *a, const char *key);
/* Builds anew one that failed, or looks again for one that was ready. */
void rs_ag_env_again(struct rs_agent *a, struct rs_ag_env *e);
void rs_ag_env_free(struct rs_ag_env *e);
/* Starts those that are due, ends and forgets those that nobody needs. */
void rs_ag_envs_tick(struct rs_agent *a, int64_t now);
int64_t rs_ag_env_deadline(const struct rs_ag_env *e); /* 0: none */

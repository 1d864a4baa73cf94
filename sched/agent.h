/* The node's half of the control plane: TARGET + what processes do -> what to start, admit, stop,
 * kill, and REPORT.
 *
 * A plain state machine like the controller: it opens nothing, reads no clock, draws no random
 * number that it was not handed. cmd/node.c joins it to sched/supervise and the data plane.
 *
 * A zygote is kept per application and build version; its key is "app@version", and one more for each
 * deployment whose runtime_env is another than the application's. A replica is known by its id, unique on the node. Each start is one id: a replacement is a new replica.
 *
 * The order of calls for a replica that speaks frames:
 *   ops.fork or ops.spawn (the implementation makes the socket pair and pipes and attaches its end
 *   to the data plane at once) -> event HELLO -> ops.tell(INIT) -> event READY -> ops.admit ->
 *   [PING/PONG, RECONFIGURE/READY] -> ops.retire -> event idle -> ops.tell(STOP) -> event exited ->
 *   ops.detach. A process that dies on its own comes as `exited` and/or `gone`, in any order.
 * For an HTTP replica: ops.spawn (chooses the port, attaches) -> ops.probe until ready -> ops.admit.
 *
 * Thread:    one, the control thread.
 * Ownership: arguments are borrowed for the call, both ways. Ops may not call back into the agent;
 *            their failure is told by their return value or by a later event.
 * Units:     now is monotonic ns.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/config/deployment.h"
#include "core/model/report.h"
#include "core/model/target.h"

#include <jansson.h>
#include <stdint.h>
#include <sys/types.h>

struct rs_agent;

/* What to run to get an environment built. */
struct rs_agent_env {
    const char *key;
    const char *python;     /* interpreter to build from; NULL: the node's default */
    const json_t *ask;      /* BUILD for it: {"runtime_env", "base_dir", "node"} */
    const char *const *env; /* env_vars, "NAME=value"; NULL-ended */
};

/* What to run to get a zygote. */
struct rs_agent_zygote {
    const char *key; /* "app@version" */
    const char *app;
    const char *python;  /* interpreter; NULL: the node's default */
    const char *app_dir; /* working directory and first on sys.path; NULL: none */
    const json_t *runtime_env;
    const json_t *ready;    /* its environment, as ENV_READY told; NULL: none was built */
    const char *const *env; /* "NAME=value" to add to the node's own; NULL-ended */
};

/* What to run to get a replica. */
struct rs_agent_start {
    const char *app, *deployment, *version, *replica_id;
    const struct rs_deployment_conf
        *conf;              /* kind; of exec and http: command, env, cwd, port, ... */
    const char *zygote;     /* key of the zygote that forks it; NULL: a fresh process */
    const char *python;     /* spawned Python: interpreter; NULL: the node's default */
    const char *app_dir;    /* NULL: none */
    const json_t *ready;    /* spawned Python: its environment, as ENV_READY told; NULL: none */
    const char *const *env; /* "NAME=value" to add to the node's own: CUDA_VISIBLE_DEVICES,
                              * OMP_NUM_THREADS, env_vars of the runtime environment, env of the
                              * file; NULL-ended. A forked replica gets the same as member "env"
                              * (object) of its INIT. */
};

enum rs_agent_tell { RS_TELL_INIT, RS_TELL_PING, RS_TELL_RECONFIGURE, RS_TELL_STOP };
enum rs_agent_heard { RS_HEARD_HELLO, RS_HEARD_READY, RS_HEARD_FAILED, RS_HEARD_PONG };

/* What the routers of the data plane should know; fields as in net/router/dataplane.h. */
struct rs_agent_route_app {
    const char *name, *prefix, *ingress; /* prefix NULL: not on HTTP */
    const json_t *policy;
    const json_t *graph; /* NULL: none */
};
struct rs_agent_route_deployment {
    const char *app, *name;
    int max_ongoing, max_queued;
    int backpressure_status;
    double retry_after_s; /* < 0: what the queue measures */
    int64_t priority_ageing, shed_target, shed_interval, request_timeout;
    const json_t *router; /* request_router_config of one of its own; NULL: none */
    const char *fresh;    /* version that is told apart; NULL: none */
    double fresh_share;   /* of the requests; < 0: none is kept */
    bool by_value;
    bool failed;
    bool scales;
};
struct rs_agent_routes {
    const struct rs_agent_route_app *apps;
    size_t n_apps;
    const struct rs_agent_route_deployment *deployments;
    size_t n_deployments;
    bool populated, draining;
};

/* What a look at a process shows. */
struct rs_agent_look {
    char state;      /* as in /proc/PID/stat: 'R', 'S', 'D', 'T' (stopped), .. */
    uint64_t memory; /* bytes that it has in memory */
};

/* Signs that the kernel ended a process for want of memory. */
struct rs_agent_oom {
    char evidence[160]; /* what was seen, for people */
    unsigned kills;     /* that were counted since it was last asked */
    bool certain;       /* the counter is that of the processes of this node alone */
};

struct rs_health_sample;

struct rs_agent_ops {
    /* Start the builder of an environment and send it BUILD; rs_agent_env_progress.. _ready or _failed
     * and, in any case, _exited follow. */
    int (*env_start)(const struct rs_agent_env *e, pid_t *pid, void *arg, struct rs_error *err);
    /* Value of a variable of the node's own environment, or NULL. May be NULL: there are none. */
    const char *(*getenv)(const char *name, void *arg);
    /* Start the zygote's process; its HELLO follows by rs_agent_zygote_hello. */
    int (*zygote_start)(const struct rs_agent_zygote *z, pid_t *pid, void *arg,
                        struct rs_error *err);
    /* Send it BUILD {"app", "import_path", "app_dir", "args", "runtime_env"}. */
    void (*zygote_build)(const char *key, const json_t *build, void *arg);
    /* Send it STOP and close its socket when it is gone; rs_agent_zygote_exited follows. */
    void (*zygote_stop)(const char *key, void *arg);

    /* FORK by s->zygote: pid comes by rs_agent_zygote_forked. */
    int (*fork)(const struct rs_agent_start *s, void *arg, struct rs_error *err);
    /* A fresh process: exec, http, or Python without a zygote. */
    int (*spawn)(const struct rs_agent_start *s, pid_t *pid, void *arg, struct rs_error *err);
    /* Signal to the process group of a replica (replica_id), zygote or builder (key). */
    void (*kill)(const char *id, int signal, void *arg);

    void (*tell)(const char *replica_id, enum rs_agent_tell what, uint64_t stream,
                 const json_t *msg, void *arg);
    void (*admit)(const char *replica_id, void *arg);
    void (*retire)(const char *replica_id, void *arg);
    /* It gets so many percent of its share of requests; 100: as others. May be NULL. */
    void (*weigh)(const char *replica_id, unsigned percent, void *arg);
    /* False: there is no such process. May be NULL: nothing is known of processes. */
    bool (*look)(pid_t pid, struct rs_agent_look *ret, void *arg);
    /* A process was killed, not by the agent: true: for want of memory, as it seems. May be NULL. */
    bool (*oom)(struct rs_agent_oom *ret, void *arg);
    /* It is no more; `why` may be NULL. */
    void (*detach)(const char *replica_id, const char *why, void *arg);
    /* `version`: the one that is told apart; NULL: any other. */
    void (*remote)(const char *app, const char *deployment, const char *version,
                   const char *node_id, const char *address, unsigned slots, void *arg);
    void (*routes)(const struct rs_agent_routes *routes, void *arg);

    /* GET `path` of an HTTP replica, answered by rs_agent_probed within `timeout` ns. path NULL: does
     * it accept a connection? */
    void (*probe)(const char *replica_id, const char *path, int64_t timeout, void *arg);

    /* Answer to rs_agent_build, for the head: GRAPH or FAILED with "app" and "version". */
    void (*built)(bool ok, const json_t *answer, void *arg);
    /* Something changed that the head should know: rs_agent_report, soon. */
    void (*changed)(void *arg);
    uint64_t (*random)(void *arg);
};

struct rs_agent_conf {
    const char *node_id;
    const char *node_name;   /* for people; NULL: node_id */
    const json_t *resources; /* {"CPU": 2.0, "GPU": 1.0, "memory": bytes, ..} */
    double wall_offset_s;    /* wall clock in s = now / 1e9 + this */
    const char *log_dir;     /* for log_file of the report; NULL: not captured */
    bool omp_set;            /* OMP_NUM_THREADS is in the node's own environment */
};

RS_MUST_CHECK int rs_agent_new(struct rs_agent **ret, const struct rs_agent_conf *conf,
                               const struct rs_agent_ops *ops, void *arg, struct rs_error *err);
void rs_agent_free(struct rs_agent *a); /* calls no op */
RS_DEFINE_AUTO(struct rs_agent *, rs_agent_free);

/* From the head. Older revisions are ignored. -1: not a target. */
RS_MUST_CHECK int rs_agent_target(struct rs_agent *a, const json_t *target, int64_t now,
                                  struct rs_error *err);
RS_MUST_CHECK int rs_agent_build(struct rs_agent *a, const json_t *build, int64_t now,
                                 struct rs_error *err);

/* From builders of environments. */
void rs_agent_env_progress(struct rs_agent *a, const char *key, const json_t *msg, int64_t now);
void rs_agent_env_ready(struct rs_agent *a, const char *key, const json_t *msg, int64_t now);
void rs_agent_env_failed(struct rs_agent *a, const char *key, const json_t *msg, int64_t now);
void rs_agent_env_exited(struct rs_agent *a, const char *key, int wait_status, const char *output,
                         int64_t now);

/* What to run to have user code of an application in the control path. */
struct rs_agent_helper {
    const char *key;              /* "app@version" of its code */
    const char *zygote;           /* that forks it; NULL: a fresh interpreter */
    const char *python, *app_dir; /* of that; NULL: the node's default; none */
    const json_t *ready;          /* its environment, as ENV_READY told; NULL: none was built */
    json_t *init;                 /* INIT for it; the caller's */
};
enum { RS_AGENT_NOT_YET = 1 };
/* RS_AGENT_NOT_YET: the application is being imported for it; ask again. -1: it cannot be had. */
RS_MUST_CHECK int rs_agent_helper(struct rs_agent *a, const char *app, struct rs_agent_helper *ret,
                                  int64_t now, struct rs_error *err);
bool rs_agent_knows(const struct rs_agent *a, const char *app); /* its last TARGET names it */
/* Is that the code that the application has now? */
bool rs_agent_helper_is(const struct rs_agent *a, const char *app, const char *key);

/* From zygotes. `output` here and below: the last lines that it wrote to stderr, for a process that
 * ends without a word; NULL or "" if there are none. */
void rs_agent_zygote_hello(struct rs_agent *a, const char *key, const json_t *msg, int64_t now);
void rs_agent_zygote_graph(struct rs_agent *a, const char *key, const json_t *msg, int64_t now);
/* FAILED: of the build, or of the fork of its "replica_id". */
void rs_agent_zygote_failed(struct rs_agent *a, const char *key, const json_t *msg, int64_t now);
void rs_agent_zygote_forked(struct rs_agent *a, const char *key, const json_t *msg, int64_t now);
/* `why`: garbage or hang-up on its socket, or NULL; the process is still to be ended. */
void rs_agent_zygote_gone(struct rs_agent *a, const char *key, const char *why, int64_t now);
void rs_agent_zygote_exited(struct rs_agent *a, const char *key, int wait_status,
                            const char *output, int64_t now);

/* From replicas. */
void rs_agent_heard(struct rs_agent *a, const char *replica_id, enum rs_agent_heard what,
                    uint64_t stream, const json_t *msg, int64_t now);
void rs_agent_gone(struct rs_agent *a, const char *replica_id, const char *why, int64_t now);
void rs_agent_idle(struct rs_agent *a, const char *replica_id, int64_t now);
void rs_agent_exited(struct rs_agent *a, const char *replica_id, int wait_status,
                     const char *output, int64_t now);
/* A worker waits for results of others: its CPUs are free meanwhile. When it goes on it has them
 * again, also where that is more than there is. */
void rs_agent_waiting(struct rs_agent *a, const char *replica_id, bool waiting, int64_t now);
/* Another one in its place, as soon as all of its deployment run; an unknown one: nothing. */
void rs_agent_replace(struct rs_agent *a, const char *replica_id, int64_t now);
/* Kills what runs of a deployment; whether it is started again is up to its target. */
void rs_agent_kill_deployment(struct rs_agent *a, const char *app, const char *deployment,
                              const char *why, int64_t now);
void rs_agent_probed(struct rs_agent *a, const char *replica_id, bool ok, const char *why,
                     int64_t now);

/* Figures of the data plane, of each replica; then rs_agent_sampled, once for all of them. */
void rs_agent_sample(struct rs_agent *a, const char *replica_id, const struct rs_health_sample *x,
                     int64_t now);
void rs_agent_sampled(struct rs_agent *a, int64_t now);
/* It tells which models it has: its siblings may have others. */
void rs_agent_tells_models(struct rs_agent *a, const char *replica_id);
/* When figures are wanted next; INT64_MAX: not before rs_agent_loaded. */
int64_t rs_agent_sample_at(const struct rs_agent *a);
void rs_agent_loaded(struct rs_agent *a, int64_t now); /* there are requests */

void rs_agent_tick(struct rs_agent *a, int64_t now);
int64_t rs_agent_deadline(const struct rs_agent *a); /* INT64_MAX: none */

/* First Ctrl-C: everything drains and nothing is started any more. */
void rs_agent_drain(struct rs_agent *a, int64_t now);
/* Second Ctrl-C: SIGKILL to everything. */
void rs_agent_kill_all(struct rs_agent *a, int64_t now);
/* No process is left. */
bool rs_agent_done(const struct rs_agent *a);
/* What a drain still waits for, for people, "" if nothing: "2 replicas: rag#Generator#ab12cd34 (finishes
 * its requests), ...". The caller's. */
char *rs_agent_waits_for(const struct rs_agent *a);

/* in_flight, queued, done and errors are left 0: the caller knows the data plane. */
struct rs_report *rs_agent_report(const struct rs_agent *a, int64_t now);

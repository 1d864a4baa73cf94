/* The control plane: the desired applications + what the nodes report -> what each node should run.
 *
 * A plain state machine: events and `now` come in, actions go out through rs_controller_ops. It
 * opens no socket, reads no clock and starts no thread, so that a test, a simulator and `plan` run
 * the very same code.
 *
 * Life of a deploy: rs_controller_apply -> BUILD of each Python application whose code version is
 * new -> rs_controller_graph (or _failed) -> options merged, replicas placed -> TARGET to the nodes
 * -> rs_controller_report -> statuses. A failed build leaves what runs as it is.
 *
 * Thread:    one, the control thread.
 * Ownership: text and JSON are copied; "takes" is said where it is meant. Ops may not call back into
 *            the controller.
 * Units:     now is monotonic ns.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/model/report.h"
#include "core/model/target.h"

#include <jansson.h>
#include <stdint.h>

struct rs_config;
struct rs_controller;

/* What happened; who receives it may show it, keep it (core/events) or judge by it. `status` is:
 *   APP, DEPLOYMENT  Ray's name of the status; told when that changes, or its message
 *   REPLICA          our own name of the state (core/model/report.h), "STOPPED" at the end
 *   NODE             "JOINED", "LEFT"
 *   SCALE            "UP", "DOWN"; "POLICY": the user's policy fails, or works again
 *   DEPLOY           "APPLY", "PUT", "DELETE", "SCALE", "REPLACE", "ROLLBACK": somebody ordered it; "REFUSED";
 *                    "RUNS": the configuration runs, and is in the application's history
 *   PLAN             what a deploy does to a deployment: "NEW", "IN PLACE", "ROLLING", "RECREATE",
 *                    "REMOVED"; `before` and `after` are numbers of replicas, `cause` the option that
 *                    weighs most, `data` {"fields": as in docs/deploy.md}. "REFUSED": by no_restart
 *   BUILD            "STARTED", "DONE", "FAILED"
 *   ROLLOUT          "STARTED", "STEP", "WAITING", "PAUSED", "STOPPED", "RESUMED", "DONE", "ROLLED_BACK"
 *   CANARY           "STARTED", "STEP", "PASSED", "FAILED", "ROLLED_BACK"
 *   HEALTH           "DEAD", "SILENT", "STUCK", "SLOW", "OOM", "CHECK_FAILED", "WELL"
 *   REPLACE          "MEMORY", "AGE", "REQUESTS", "ASKED", "DOWNSCALE", "NODE": why a replica that is well goes
 *   STORE            "MOVED_ASIDE", "FAILED"
 *   HEAD             "STARTED", "RESTORED"
 */
#define RS_CONTROLLER_EVENTS(X)                                                                    \
    X(APP, "app")                                                                                  \
    X(DEPLOYMENT, "deployment")                                                                    \
    X(REPLICA, "replica")                                                                          \
    X(NODE, "node")                                                                                \
    X(SCALE, "scale")                                                                              \
    X(DEPLOY, "deploy")                                                                            \
    X(PLAN, "plan")                                                                                \
    X(BUILD, "build")                                                                              \
    X(ROLLOUT, "rollout")                                                                          \
    X(CANARY, "canary")                                                                            \
    X(HEALTH, "health")                                                                            \
    X(REPLACE, "replace")                                                                          \
    X(STORE, "store")                                                                              \
    X(HEAD, "head")
#define RS_X(name, text) RS_EVENT_##name,
enum rs_controller_event_kind { RS_CONTROLLER_EVENTS(RS_X) RS_EVENT_KIND_COUNT };
#undef RS_X
const char *rs_controller_event_kind_name(enum rs_controller_event_kind kind); /* "scale" */

/* All text borrowed for the call; NULL where it does not apply. */
struct rs_controller_event {
    enum rs_controller_event_kind kind;
    const char *app, *deployment, *replica_id, *node_id;
    const char *node;   /* the name of that node; NULL: found by its id */
    const char *status; /* as above; "" */
    const char *text;   /* message; "" */
    const char *before; /* what it was, e.g. "HEALTHY", "2"; NULL: it is new, or no change */
    const char *after;  /* what it is now; NULL: `status` says it, or no change */
    const char *cause;  /* short name for programs, e.g. "surge_no_room", "oom"; NULL */
    const char *who;    /* "rest 127.0.0.1", "cli", "program", "autoscaler", "health",
                           "node worker-2"; NULL: as rs_controller_who said, if anybody did */
    const json_t *data; /* the figures behind it, an object; NULL */
};

struct rs_controller_ops {
    /* Send TARGET to the node. `target` is borrowed. */
    void (*target)(const char *node_id, const json_t *target, void *arg);
    /* Send BUILD to the node: {"app", "version", "import_path", "app_dir", "args", "runtime_env",
     * "python", "start"}; GRAPH or FAILED with the same app and version come back by
     * rs_controller_graph / rs_controller_build_failed. */
    void (*build)(const char *node_id, const json_t *build, void *arg);
    /* Send CORE_DOWN to the node. Needed by rs_controller_core only. */
    void (*core)(const char *node_id, const json_t *down, void *arg);
    /* Send POLICY with this number to the node; rs_controller_decision answers. NULL: policies of
     * users are not run. */
    void (*policy)(const char *node_id, uint64_t question, const json_t *msg, void *arg);
    void (*event)(const struct rs_controller_event *e, void *arg); /* may be NULL */
};

struct rs_controller_conf {
    double wall_offset_s; /* wall clock in s = now / 1e9 + this */
    const char *node_id;  /* the head's own id, for controller_info; NULL: "head" */
    const char *node_ip;  /* "127.0.0.1" */
    const char *log_file; /* of the head; NULL: "" */
};

struct rs_controller_node {
    const char *node_id, *name, *version;
    const char *address;     /* of its peer listener, NULL: none */
    const json_t *resources; /* {"CPU": 2.0, ..} */
    const json_t *labels;    /* {"region": "eu"}; NULL: none. "ray.io/node-id" is added */
};

RS_MUST_CHECK int rs_controller_new(struct rs_controller **ret,
                                    const struct rs_controller_conf *conf,
                                    const struct rs_controller_ops *ops, void *arg,
                                    struct rs_error *err);
void rs_controller_free(struct rs_controller *c);
RS_DEFINE_AUTO(struct rs_controller *, rs_controller_free);

/* Who gives the next order (apply, put, delete, delete_all, scale): the `who` of the events that it
 * brings about, up to the end of that call. Copied; NULL: nobody. */
void rs_controller_who(struct rs_controller *c, const char *who);

/* The full desired state, as PUT /api/serve/applications/ means it: applications that it does not
 * name are deleted, but for those of rs_controller_put. Takes `config`. Only what makes no sense at all is refused; what is wrong
 * with one application makes that one DEPLOY_FAILED. */
RS_MUST_CHECK int rs_controller_apply(struct rs_controller *c, struct rs_config *config,
                                      int64_t now, struct rs_error *err);
/* What rs_controller_apply would do with `config` (taken), as it stands at the moment when all of it is
 * known: changed code is imported for it by a node, and nothing else happens. *ret is the number under
 * which rs_controller_plan_result tells it, for a minute. RS_NO_ROOM: too many at a time. */
RS_MUST_CHECK int rs_controller_plan(struct rs_controller *c, struct rs_config *config, int64_t now,
                                     uint64_t *ret, struct rs_error *err);
/* {"id", "state": "building"}, or "ready" with all of docs/deploy.md. New. RS_NOT_FOUND. */
RS_MUST_CHECK int rs_controller_plan_result(struct rs_controller *c, uint64_t id, json_t **ret,
                                            struct rs_error *err);
/* RS_CONFLICT: applying `config` (borrowed) would restart replicas that serve; the first deployment and
 * why. For apply right after it: nothing comes between. */
RS_MUST_CHECK int rs_controller_check_restarts(struct rs_controller *c,
                                               const struct rs_config *config,
                                               struct rs_error *err);
/* Adds or replaces these applications and leaves the others, as serve.run does: a later apply does not
 * delete them. Takes `config`. A route prefix that another application has is refused. */
RS_MUST_CHECK int rs_controller_put(struct rs_controller *c, struct rs_config *config, int64_t now,
                                    struct rs_error *err);
/* false: there is no such application. */
bool rs_controller_delete(struct rs_controller *c, const char *app, int64_t now);
/* The http_options and so on that hold from here, if none did. Takes `config`, whose applications
 * do not count. */
void rs_controller_start(struct rs_controller *c, struct rs_config *config);
/* Deletes all applications (they drain). rs_controller_empty tells when nothing runs any more. */
void rs_controller_delete_all(struct rs_controller *c, int64_t now);
bool rs_controller_empty(const struct rs_controller *c);

/* So many replicas, until the next configuration is applied. RS_NOT_FOUND: no such deployment;
 * RS_CONFLICT: it is being deleted, or its application does not allow it. */
RS_MUST_CHECK int rs_controller_scale(struct rs_controller *c, const char *app,
                                      const char *deployment, unsigned replicas, int64_t now,
                                      struct rs_error *err);

/* Another one starts in the place of this replica, which then finishes what it has and goes. It is of the
 * node's part to begin: while its deployment changes, it waits. RS_NOT_FOUND: no such replica lives;
 * RS_CONFLICT: it is one of a group that starts and ends together. */
RS_MUST_CHECK int rs_controller_replace(struct rs_controller *c, const char *replica_id,
                                        struct rs_error *err);
/* RESUME: a roll that is paused goes on, one that is stopped is tried again. ABORT: back to the old
 * version, until another one is deployed. `deployment` NULL: all of the application. How many it was of;
 * -1: RS_NOT_FOUND, or RS_CONFLICT: nothing there is in such a state. */
enum rs_controller_roll { RS_CONTROLLER_RESUME, RS_CONTROLLER_ABORT };
RS_MUST_CHECK int rs_controller_roll(struct rs_controller *c, const char *app,
                                     const char *deployment, enum rs_controller_roll order,
                                     int64_t now, struct rs_error *err);

/* What only the head knows: {"config": C or null, "apps": {name: C}, "counts": {app: {deployment:
 * replicas}}}. C is a configuration {"dir", "app_dir" or null, "document"}: the one of the last apply,
 * and those of put; counts are of deployments that are scaled; "forecasts" as below. New. */
json_t *rs_controller_desired(const struct rs_controller *c);
/* "rolls" of rs_controller_desired: deployments that are made from here go on with these versions. */
void rs_controller_restore_rolls(struct rs_controller *c, const json_t *rolls);
/* Deployments that are made from here start with these counts, as far as they may. */
void rs_controller_restore_counts(struct rs_controller *c, const json_t *counts);

/* What deployments with `predict` remember of their load: {app: {deployment: ..}}. Changes with every
 * part of a period (5 minutes of a day). New. */
json_t *rs_controller_forecasts(const struct rs_controller *c);
/* Another one whenever rs_controller_forecasts has more to tell. */
uint64_t rs_controller_forecasts_revision(const struct rs_controller *c);
/* Deployments that are made from here remember this. */
void rs_controller_restore_forecasts(struct rs_controller *c, const json_t *forecasts);
/* The wall clock was set, or the machine slept: seconds since the epoch at now 0. */
void rs_controller_set_wall(struct rs_controller *c, double wall_offset_s);
/* Configurations that ran, by application (sched/history.h). New; NULL: none of that name ever did. */
json_t *rs_controller_history(const struct rs_controller *c, const char *app);
/* One of them; 0: the last that ran before the present one. Borrowed until the next event. RS_NOT_FOUND. */
RS_MUST_CHECK int rs_controller_revision(const struct rs_controller *c, const char *app,
                                         int64_t revision, const json_t **ret,
                                         struct rs_error *err);
/* `config` (taken) is the one in force but for application `name`, which is again as in that revision. The
 * others are left alone, also those that have failed. */
RS_MUST_CHECK int rs_controller_roll_back(struct rs_controller *c, struct rs_config *config,
                                          const char *name, int64_t revision, int64_t now,
                                          struct rs_error *err);
/* All of them, to be kept: {app: ..}. Borrowed until the next event; NULL: nothing. */
const json_t *rs_controller_histories(const struct rs_controller *c);
void rs_controller_restore_history(struct rs_controller *c, const char *app, const json_t *kept);

/* A node (re)joined: its reports count from here; the first one is answered by a
 * TARGET (see too_early in controller-target.c). */
RS_MUST_CHECK int rs_controller_node_joined(struct rs_controller *c,
                                            const struct rs_controller_node *node, int64_t now,
                                            struct rs_error *err);
void rs_controller_node_left(struct rs_controller *c, const char *node_id, int64_t now);
/* The same, with what is known of how. */
#define RS_NODE_SILENT                                                                             \
    (10 * RS_SEC) /* one of another process that says nothing for so long is lost */
struct rs_controller_loss {
    int64_t silent,
        limit;        /* ns that nothing was heard of it, against what; 0: its connection ended */
    const char *text; /* why that ended; NULL */
};
void rs_controller_node_lost(struct rs_controller *c, const char *node_id,
                             const struct rs_controller_loss *why, int64_t now);
/* REPORT of a node. -1: it is not one; the connection should end. */
RS_MUST_CHECK int rs_controller_report(struct rs_controller *c, const char *node_id,
                                       const json_t *report, int64_t now, struct rs_error *err);
/* GRAPH of a node, for an earlier BUILD; one for an older version is ignored. */
void rs_controller_graph(struct rs_controller *c, const char *node_id, const json_t *graph,
                         int64_t now);
/* FAILED {"app", "version", "phase", "kind", "error", "traceback"} of a node. */
void rs_controller_build_failed(struct rs_controller *c, const char *node_id, const json_t *failed,
                                int64_t now);

/* CORE_UP of a node, see controller-core.h; answered by ops.core. */
void rs_controller_core(struct rs_controller *c, const char *node_id, const json_t *up,
                        int64_t now);

/* DECISION of a node, for an earlier question; one for an older question is ignored. */
void rs_controller_decision(struct rs_controller *c, const char *node_id, uint64_t question,
                            const json_t *msg, int64_t now);

/* Time passed. Call when rs_controller_deadline is due; more often does no harm. */
void rs_controller_tick(struct rs_controller *c, int64_t now);
int64_t rs_controller_deadline(const struct rs_controller *c); /* INT64_MAX: none */

/* Body of GET /api/serve/applications/ in the exact shape of Ray 2.60. With `extended`, members of
 * our own are added under the key "rserve" of the document, its applications, deployments and
 * replicas (in flight, queued, uptime, pending and why, rank, ...): see docs in controller-view.c. */
json_t *rs_controller_details(const struct rs_controller *c, bool extended, int64_t now);

/* What a question is about; NULL: all of them. */
struct rs_controller_subject {
    const char *app, *deployment, *replica;
};
/* Why it is as it is: why it waits, fails, scales or does not, and why requests were refused; of a
 * replica also why it ended. {"at_s", "applications": {NAME: {"status", "reasons": [..], "deployments":
 * {NAME: {"status", "running", "wanted", "reasons": [..]}}}}}, reasons as in controller-why.h. A new
 * reference. RS_NOT_FOUND: there is none of that name. */
RS_MUST_CHECK int rs_controller_why(const struct rs_controller *c,
                                    const struct rs_controller_subject *of, int64_t now,
                                    json_t **ret, struct rs_error *err);

/* For the progress of `rserve run`. */
struct rs_controller_deployment_summary {
    const char *app, *name; /* borrowed until the next event */
    const char *status;     /* Ray's name */
    const char *message;
    const char *kind;                                      /* "python", "exec", "http" */
    unsigned target, running, starting, stopping, pending; /* pending: not placed or not started */
    unsigned start_failures;
    const char *blocked;    /* why pending; NULL */
    const char *last_error; /* NULL */
};
struct rs_controller_app_summary {
    const char *name, *status, *message, *route_prefix;
    const char *start, *start_reason; /* "fork" or "spawn", why; NULL before the build */
    bool building;
    const struct rs_controller_deployment_summary *deployments;
    size_t n_deployments;
};
struct rs_controller_summary {
    struct rs_controller_app_summary *apps;
    size_t n_apps;
    unsigned deployments, replicas, running; /* totals */
    bool settled;                            /* no application is DEPLOYING or DELETING */
    bool failed;                             /* some application is DEPLOY_FAILED or UNHEALTHY */
    void *storage;
};
/* Borrows from the controller until its next event; release with rs_controller_summary_fini. */
void rs_controller_summary(const struct rs_controller *c, struct rs_controller_summary *ret);
void rs_controller_summary_fini(struct rs_controller_summary *s);

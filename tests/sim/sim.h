/* A cluster on a virtual clock: the production controller, agents and queues, joined by connections and
 * running processes that are only pretended. What happens to it is a script; what must never happen is
 * in check.c.
 *
 * world.c runs it, head.c is around the controller (connections, store), node.c around an agent,
 * process.c pretends zygotes and replicas, traffic.c requests.
 *
 * Everything that a run does follows from its script: no clock, no random number of its own.
 */
#pragma once

#include "cmd/simulate_events.h"
#include "cmd/simulate_pool.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/map.h"
#include "sched/agent.h"
#include "sched/controller.h"
#include "tests/sim/script.h"

enum { SIM_APPS = 4, SIM_PUT = 3 }; /* the last one is deployed by a program */
extern const char *const sim_app_names[SIM_APPS];
enum { SIM_A, SIM_B, SIM_DEPLOYMENTS }; /* of each application; A calls B */

/* Bugs that are put in, to see that they are found: name, the invariant that finds it, among which seeds
 * (modulo 4, see script.c). */
#define SIM_MUTATIONS(X)                                                                           \
    X(NONE, "", "", 0)                                                                             \
    X(DOUBLE_PLACE, "double-place", "overcommit", 3) /* agents believe in twice their CPUs */      \
    X(EXTRA_SLOT, "extra-slot", "ongoing", 0)        /* a replica is given one request too many */ \
    X(TWO_ENDS, "two-ends", "ends-once", 3) /* a lost request is answered, and runs again */       \
    X(NO_END, "no-end", "ends-once", 3)     /* a lost request is forgotten */                      \
    X(DROP_REPORTS, "drop-reports", "converges", 0) /* one node's reports do not arrive */         \
    X(DEAF_NODE, "deaf-node", "converges", 0)       /* one node ignores every other TARGET */      \
    X(STOP_FIRST, "stop-first", "capacity", 0)      /* agents end old replicas before new ones */  \
    X(LOAD_WAVES, "load-waves", "flapping", 0)      /* the load that is reported swings */         \
    X(FORGETFUL, "forgetful", "acknowledged", 1)    /* the store says yes and keeps nothing */     \
    X(KEEPS_COUNT, "no-counts", "converges", 1)     /* a new head is not told the counts */
#define RS_X(name, text, finds, among) SIM_MUTATION_##name,
enum sim_mutation { SIM_MUTATIONS(RS_X) SIM_MUTATION_COUNT };
#undef RS_X

struct sim;
struct sim_node;

/* What people asked for. */
struct sim_wish {
    bool there;
    int64_t args[SIM_ARGS]; /* of the deploy */
    int64_t count;          /* replicas of A: by the deploy, or an external scaler */
};

struct sim_app {
    struct sim_wish live, saved; /* what holds, and what a new head will know */
    int64_t most_ongoing;        /* the highest max_ongoing_requests that it ever had */
    bool was_hurt;               /* replicas of it failed because of the script */
    unsigned crashes;            /* so many of the next starts fail */
    unsigned up[SIM_DEPLOYMENTS];
    /* A promise: not fewer replicas that take requests. */
    bool promised;
    unsigned floor[SIM_DEPLOYMENTS];
    int64_t rate, service; /* requests a second, ns */
    uint64_t load_life;
    /* Of the autoscaler, since its load changed last. */
    int64_t steady_since;
    int last_way;
    unsigned turns;
};

/* What the code of an application is like: it stands in its import path. */
struct sim_code {
    int version, crash, side, start;
};

/* A process that is only pretended. */
struct sim_proc {
    struct sim_node *node;
    uint64_t serial;
    char id[64]; /* replica id, or key of a zygote */
    pid_t pid;
    int app; /* -1: no replica */
    int deployment;
    struct sim_code code;
    int64_t user, cpu; /* cpu in 1/10000 */
    bool admitted, hangs;
    struct sim_pool *pool; /* where it is attached; NULL */
    struct rs_sim_backend backend;
};

/* A deployment on a node. */
struct sim_pool {
    struct rs_sim_pool pool;
    struct sim_node *node;
    int app, deployment;
    struct rs_map remotes; /* node id and version -> struct sim_remote */
    int64_t wake_at;
};

struct sim_remote {
    struct rs_sim_backend backend;
    char node_id[16];
};

struct sim_request {
    struct rs_sim_request base;
    struct rs_list all;       /* sim's list */
    struct sim_node *node;    /* where it entered; for a part of another one, where it is */
    struct sim_request *from; /* that it works for; NULL: a client's */
    struct sim_request *part; /* that works for it; NULL */
    int app, deployment;
    int64_t deadline, service;
    unsigned ended, attempts;
    bool careless, forgotten; /* bugs that were put in */
    unsigned pending;         /* events that know it */
};

struct sim_node {
    struct sim *sim;
    unsigned index, life;
    char id[16];
    int64_t cpus;
    struct rs_agent *agent; /* NULL: it is down */
    struct rs_map procs;    /* id -> struct sim_proc */
    struct rs_map pools;    /* "app#deployment" -> struct sim_pool */
    int64_t used;           /* CPUs of all processes, 1/10000 */

    int64_t paused_until, away_until, slow_until, slow;
    uint64_t link, head_link; /* number of the connection, as each end sees it; 0: none */
    int64_t last_down, last_up, heard_at;

    bool dirty, busy;
    int64_t reported_at, wake_at;
    unsigned reports, targets;
};

struct sim {
    int64_t now;
    uint64_t random;
    struct rs_sim_events events;
    enum sim_mutation mutation;
    bool loud;
    struct sim_node *nodes;
    size_t n_nodes, cap_nodes;
    struct rs_controller *controller; /* NULL: the head is down */
    json_t *saved;
    int64_t store_fails_until, head_wake_at, head_since;
    bool unsaved;
    uint64_t links, serials;
    struct sim_app apps[SIM_APPS];
    struct rs_list requests;
    size_t n_requests, n_ended;
    uint64_t events_run;
    int64_t disturbed_until; /* by a fault */
    bool ending;             /* no more faults, and no load */
    unsigned entry;
    char invariant[24]; /* that was violated; "" */
    char violation[600];
    int64_t violated_at;
};

/* Something that happens to a node, an application, or a request. */
struct sim_note {
    struct sim *sim;
    struct sim_node *node;
    unsigned life;
    uint64_t link, serial;
    char id[64];
    json_t *json;
    int64_t number;
    struct sim_request *request;
    struct sim_input input;
    bool down; /* a message of the head */
    void (*fn)(struct sim_note *note);
};

/* world.c */
void sim_open(struct sim *s, enum sim_mutation mutation, bool loud);
void sim_close(struct sim *s);
/* Runs the script, lets all faults end, and waits until all is as it is wanted. */
void sim_run(struct sim *s, const struct sim_script *script);
void sim_run_until(struct sim *s, int64_t until);
/* Happens after `delay`; with a node: to it, unless it ended meanwhile, and not while it is paused. */
struct sim_note *sim_later(struct sim *s, int64_t delay, void (*fn)(struct sim_note *note),
                           struct sim_node *n);
void sim_violate(struct sim *s, const char *invariant, const char *fmt, ...) RS_PRINTF(3, 4);
void sim_say(const struct sim *s, const char *fmt, ...) RS_PRINTF(2, 3);
uint64_t sim_random(struct sim *s);
struct sim_node *sim_node_at(struct sim *s, int64_t index);         /* NULL: none */
struct sim_node *sim_node_find(struct sim *s, const char *node_id); /* the same */
int sim_app_index(const char *name);
int sim_deployment_index(const char *name); /* -1: none */

/* head.c */
void sim_head_start(struct sim *s);
void sim_head_stop(struct sim *s);
void sim_head_settle(struct sim *s);    /* after whatever the controller was told */
void sim_head_drop(struct sim_node *n); /* the head sees the end of the connection */
void sim_head_cut(struct sim_node *n);  /* both ends do */
void sim_head_mourns(
    struct sim_node *n); /* another node comes in its place: the head will see its end */
void sim_join_later(struct sim_node *n, int64_t delay);
int sim_deploy(struct sim *s, const struct sim_input *in);
void sim_delete(struct sim *s, int app);
void sim_scale(struct sim *s, int app, unsigned count);
void sim_send_report(struct sim_node *n, json_t *json);         /* takes it */
void sim_send_built(struct sim_node *n, json_t *json, bool ok); /* takes it */

/* node.c */
void sim_node_start(struct sim *s, unsigned index, int64_t cpus);
void sim_node_stop(struct sim_node *n); /* killed, with all its processes */
void sim_node_settle(struct sim_node *n);
void sim_node_report(struct sim_node *n);

/* process.c */
extern const struct rs_agent_ops sim_agent_ops;
void sim_proc_gone(struct sim_proc *p); /* it ended; the agent hears of it separately */
void sim_proc_die(struct sim_proc *p, int status);
struct sim_proc *sim_proc_pick(struct sim *s, int app, int64_t which); /* one that is admitted */

/* traffic.c */
struct sim_pool *sim_pool_get(struct sim_node *n, int app, int deployment, bool make);
void sim_pool_free(struct sim_pool *p);
void sim_pool_remote(struct sim_pool *p, const char *node_id, const char *version, unsigned slots);
void sim_pool_settle(struct sim_pool *p);
void sim_load(struct sim *s, int app, int64_t rate, int64_t service);
void sim_lost(struct rs_sim_request *r, void *arg); /* its replica is gone */
void sim_requests_of_gone(struct sim_node *n);
void sim_request_settle(struct sim_request *r); /* freed, if nobody knows it any more */
void sim_requests_drop(struct sim *s);          /* the simulation is over */

/* check.c */
void sim_check_room(struct sim_node *n);
void sim_check_up(struct sim *s, int app, int deployment);
/* Now nobody may lose capacity by what is about to be deployed. */
void sim_check_promise(struct sim *s, int app, const struct sim_input *deploy);
void sim_check_break(struct sim *s, int64_t for_ns); /* a fault: promises no longer hold */
void sim_check_scaled(struct sim *s, int app, const struct rs_controller_event *e);
void sim_check_steady(struct sim *s, int app); /* its load is another one from here */
void sim_check_restored(struct sim *s);
/* True: all is as it is wanted. Else `why` tells what is not; `settled` says that it never will be. */
bool sim_check_reached(struct sim *s, struct rs_buf *why);
void sim_check_requests(struct sim *s);

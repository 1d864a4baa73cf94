/* A cluster in a test: one controller, some agents, and processes that are only pretended, on a clock
 * that jumps from event to event. Nothing sleeps, and every run is the same run.
 */
#pragma once

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/map.h"
#include "core/model/tally.h"
#include "sched/agent.h"
#include "sched/controller.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define NODES 3
#define DELAY RS_MS /* of any message */

struct world;

/* How the replicas of a deployment behave; by its name. */
struct behaviour {
    const char *deployment;
    int64_t start;        /* ns from INIT to READY */
    unsigned fail_starts; /* so many starts fail first */
    /* Of the option `version`, the replicas of which fail to start, never get ready, or die at once. */
    const char *broken, *hangs, *dies;
    bool exit_silently; /* a failing start just ends */
    bool deaf;          /* PING is not answered */
    bool sick;          /* PING is answered with no */
    bool bad_config;    /* RECONFIGURE fails */
    int64_t tune;       /* ns until RECONFIGURE is answered, beside DELAY */
    int64_t busy;       /* ns from retire to idle; -1: never */
    bool stubborn;      /* STOP and SIGTERM do nothing */
    unsigned load; /* requests that are there: replicas of the node take `room` each, others wait */
    unsigned room; /* 0: as many as there are */
    unsigned warm; /* rank of the replica that has a model loaded; 0: none */
    uint64_t
        dropped[3]; /* requests so far: the queue was full, they were shed, they were too late */
    uint64_t area;  /* the integral of the load, request ns */
    int64_t area_at;
    /* counted */
    unsigned inits, reconfigures;
};

struct node {
    struct world *world;
    char id[8];
    struct rs_agent *agent; /* NULL: not there */
    bool report_due;
    struct rs_map procs; /* id -> struct proc */
    char *routes;        /* last told */
    char *remotes;       /* all told */
    /* Of the deployment of which two versions run, as told last; "": none. */
    char split[32], fresh[80];
    double share;             /* < 0: none is kept */
    struct rs_tally tally[2]; /* of the old version, of the new one: what its reports say */
};

struct proc {
    char deployment[32];
    pid_t pid;
    unsigned spare;  /* percent of its share of requests that others take */
    uint64_t memory; /* bytes, as a look at it shows */
    bool stopped;    /* by a signal */
    bool admitted, waits;
    char version[16]; /* the option of that name */
    char *env;
};

struct event {
    int64_t at;
    uint64_t seq;
    void (*fn)(struct world *w, struct event *e);
    struct node *node;
    char id[64];
    int number;
    json_t *json;
};

struct world {
    int64_t now;
    struct rs_controller *controller;
    struct node nodes[NODES];
    struct event *events;
    size_t n_events, cap_events;
    uint64_t seq, random;
    pid_t next_pid;
    struct behaviour *behaviours;
    size_t n_behaviours;
    const char *labels; /* of nodes that join, JSON text; NULL: none */
    const char *graph;  /* GRAPH that a build gives, JSON text */
    const char *broken; /* import_path whose build fails */
    const char *hangs;  /* import_path whose build does not end */
    void (*on_routes)(struct world *w, const struct rs_agent_routes *r); /* NULL */
    json_t *changes; /* PLAN events are appended; NULL: they are not kept; the test's own */
    unsigned builds, zygotes;
    enum { ENV_OK, ENV_BROKEN, ENV_NETWORK, ENV_HANGS, ENV_DIES } env; /* what builders do .. */
    unsigned env_bad;     /* .. so many times; 0: always */
    unsigned env_builds;  /* builders that were started */
    char env_asked[1024]; /* the last one */
    unsigned lowest_up;   /* fewest admitted replicas of `watch` since it was last set */
    unsigned highest_up;  /* the most */
    const char *watch;
    json_t *answer;  /* of the head to the last CORE */
    json_t *refused; /* what node 0 says of HTTP requests */
    json_t *health;  /* {deployment: what nodes say of the first replica that runs} */
    unsigned orders; /* of the head to processes */
    /* What the user's autoscaling policy would answer. */
    struct {
        double wants;      /* < 0: it is asked and stays silent */
        const char *error; /* it raises this; NULL */
        const char *lost;  /* its process is gone, why; NULL */
        int64_t delay;     /* ns until the answer */
        unsigned asked;
        char node[8]; /* that was asked last */
    } policy;
    unsigned oom;      /* processes that the kernel ends for want of memory, next */
    char canary[2048]; /* its events, "STEP 10% 50%\n" */
    char log[8192];    /* statuses as they were told */
};

void world_open(struct world *w, struct behaviour *behaviours, size_t n);
void world_close(struct world *w);
void world_join(struct world *w, unsigned node, const char *resources);
/* The head is replaced by one that knows nothing; nodes join again with world_join. */
void world_new_head(struct world *w);
void world_leave(struct world *w, unsigned node);
/* Its connection to the head breaks: what runs goes on. It joins again with world_join. */
void world_cut(struct world *w, unsigned node);
struct rs_config *world_config(const char *yaml); /* it has to be a good one */
void world_apply(struct world *w, const char *yaml);
int world_put(struct world *w, const char *yaml, struct rs_error *err); /* as a program deploys */
/* Runs events for `ns`. */
void world_run(struct world *w, int64_t ns);
/* So many requests are there from now on; needs a behaviour of its own. */
void world_load(struct world *w, const char *deployment, unsigned n);
/* More requests ended on the node, all in `took`, and so many failed. It reports soon. */
void world_served(struct world *w, unsigned node, bool fresh, unsigned n, unsigned failed,
                  int64_t took);
/* Node 0 says from now on that so many HTTP requests were refused, {app: {cause: n}}, and that so many of
 * the deployment were dropped. */
void world_refused(struct world *w, json_t *refused);
/* The first replica of the deployment that runs is reported with this health. */
void world_health(struct world *w, const char *deployment, json_t *health);
void world_dropped(struct world *w, const char *deployment, unsigned drop, unsigned n);
struct behaviour *world_behaviour(struct world *w, const char *deployment);
/* The process of a replica; NULL: it has none. */
struct proc *world_proc(struct world *w, const char *replica_id);
/* SIGKILL from outside to one running replica of the deployment; false: there is none. */
bool world_kill_one(struct world *w, const char *deployment);
/* CORE of a process on that node, JSON text; what the head answers, until the next one. */
const json_t *world_ask(struct world *w, unsigned node, const char *who, const char *text);
void world_gone(struct world *w, unsigned node, const char *who);
/* One running process of the deployment lends its CPUs, or has them again; false: none is left. */
bool world_waits(struct world *w, const char *deployment, bool waits);
unsigned world_admitted(const struct world *w, const char *deployment);
/* Of those, that have this option `version`. */
unsigned world_admitted_of(const struct world *w, const char *deployment, const char *version);
unsigned world_processes(const struct world *w);
/* Environment of the first process of `deployment` ("zygote", "env"), with what was built for it; ""
 * if there is none. */
const char *world_env(const struct world *w, const char *deployment);

/* Looks into the details document: world_text(w, "applications.x.status"). */
const char *world_text(struct world *w, const char *path);
const json_t *world_json(struct world *w, const char *path); /* good until the next look */
json_int_t world_int(struct world *w, const char *path);
size_t world_size(struct world *w, const char *path);

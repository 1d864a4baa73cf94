/* What the files of a simulation share: simulate_world.c (head, node and time), simulate_process.c (the
 * ops of the agent: processes), simulate_requests.c (requests and figures).
 */
#pragma once

#include "cmd/simulate_events.h"
#include "cmd/simulate_world.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/map.h"
#include "sched/agent.h"
#include "sched/controller.h"

#include <string.h>

struct rs_sim_world;

/* A process that is only pretended. */
struct rs_sim_process {
    struct rs_sim_world *world;
    char id[80];
    pid_t pid;
    int64_t ready_at;
    struct rs_sim_served *of; /* where it is admitted; NULL */
    bool admitted;
    struct rs_sim_backend backend;
};

/* A deployment that takes requests. */
struct rs_sim_served {
    struct rs_sim_pool pool;
    struct rs_sim_world *world;
    struct rs_sim_deployment_figures figures;
    int64_t timeout;         /* ns; 0: none */
    int64_t wake_at;         /* of the queue */
    int64_t at;              /* up to when the sums below reach */
    double queued, busy, up; /* sums over time, in ns */
    unsigned running, peak;  /* peak: of the queue, in this step */
};

/* A request of a client; its calls live in it, one at a time beside the first. */
struct rs_sim_asked {
    const struct rs_sim_arrival *arrival;
    struct rs_sim_app_figures *app;
    int64_t came;
    bool ended;
};

struct rs_sim_call {
    struct rs_sim_request request;
    struct rs_sim_world *world;
    struct rs_sim_asked *asked;
    struct rs_sim_call *from; /* that called it; NULL: it is the client's */
    struct rs_sim_served *of;
    const struct rs_sim_work *work;
    struct rs_sim_call *calls; /* the one that it waits for; NULL */
    unsigned next;             /* the next work that the first one calls */
    unsigned known;            /* events that will ask for it */
    bool over;
};

struct rs_sim_world {
    const struct rs_sim_conf *conf;
    struct rs_sim_result *result;
    int64_t now, begins; /* begins: virtual time of the first arrival */
    struct rs_sim_events events;
    struct rs_controller *controller;
    struct rs_agent *agent;
    struct rs_map processes; /* id -> struct rs_sim_process */
    struct rs_map served;    /* "app#deployment" -> struct rs_sim_served */
    struct rs_map ingresses; /* app -> name of its ingress deployment */
    pid_t last_pid;
    uint64_t random;
    bool dirty, busy, told;
    int64_t reported_at, node_at, head_at;
    size_t next_arrival, under_way;
    unsigned step;
};

/* simulate_world.c */
void rs_sim_at(struct rs_sim_world *w, int64_t at, void (*fn)(struct rs_sim_event *e, void *arg),
               void *of, json_t *data, int64_t kind);
int64_t rs_sim_ns(double seconds);
/* After the agent, or a pool, was told something. */
void rs_sim_node_settle(struct rs_sim_world *w);
void rs_sim_note(struct rs_sim_result *r, char *text); /* takes it; once each */

/* simulate_process.c */
extern const struct rs_agent_ops rs_sim_process_ops;
void rs_sim_processes_fini(struct rs_sim_world *w);

/* simulate_requests.c */
struct rs_sim_served *rs_sim_serve(struct rs_sim_world *w, const char *app, const char *deployment);
void rs_sim_count(struct rs_sim_served *s); /* before what is there changes */
void rs_sim_served_settle(struct rs_sim_served *s);
void rs_sim_report_figures(struct rs_sim_world *w, struct rs_report *r);
void rs_sim_arrivals(struct rs_sim_world *w); /* posts the next one */
void rs_sim_lost(struct rs_sim_request *r, void *arg);
/* One of the steps in which time is shown is over. */
void rs_sim_step_end(struct rs_sim_world *w);
void rs_sim_requests_end(struct rs_sim_world *w); /* sums up, and frees */

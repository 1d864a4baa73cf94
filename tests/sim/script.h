/* What is done to the cluster of a simulation, and when: orders of people, load, faults. A script is
 * made from a seed, or read from a file; it is all that a run depends on.
 *
 * A line of text each: "12.500 kill-node n=2 silent=1 back=5000". Times in seconds, of options in ms.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/error.h"

#include <stdint.h>

enum sim_input_kind {
    IN_NODE,         /* a node joins */
    IN_DEPLOY,       /* an application is deployed */
    IN_SCALE,        /* an external scaler asks for another number */
    IN_DELETE,       /* an application is deleted */
    IN_LOAD,         /* requests come at that rate from now on */
    IN_KILL_NODE,    /* the node's process is killed */
    IN_PAUSE,        /* SIGSTOP to the node's process */
    IN_PARTITION,    /* nothing passes between the node and anybody else */
    IN_SLOW,         /* all messages of the node take longer */
    IN_CUT,          /* the connection of node and head breaks */
    IN_KILL_REPLICA, /* SIGKILL to a replica that takes requests */
    IN_CRASH,        /* so many of the next starts fail */
    IN_HANG,         /* a replica answers nothing any more */
    IN_NEW_HEAD,     /* the head is killed and started anew */
    IN_STORE_FAILS,  /* the head's store cannot be written */
    IN_KINDS
};

enum { SIM_ARGS = 10 };

struct sim_input {
    int64_t at; /* ns */
    enum sim_input_kind kind;
    int64_t args[SIM_ARGS]; /* in the order of the names in script.c */
};

/* Of IN_DEPLOY. */
enum {
    DEPLOY_APP,      /* 0 .. SIM_APPS - 1 */
    DEPLOY_VERSION,  /* of the code: another one asks for new replicas */
    DEPLOY_USER,     /* user_config: another one is told to those that run */
    DEPLOY_REPLICAS, /* of its deployment A; with max > 0 the autoscaler's least */
    DEPLOY_MAX,      /* > 0: it is autoscaled, up to so many */
    DEPLOY_SIDE,     /* replicas of a deployment B, which A calls; 0: there is none */
    DEPLOY_CPU,      /* percent of a CPU for each */
    DEPLOY_ONGOING,  /* max_ongoing_requests */
    DEPLOY_START,    /* ms that its constructor takes */
    DEPLOY_CRASH     /* 1: its constructor always fails; 2: its import does */
};

struct sim_script {
    uint64_t seed;
    struct sim_input *inputs;
    size_t n, cap;
};

void sim_script_fini(struct sim_script *s);
void sim_script_add(struct sim_script *s, const struct sim_input *in);
/* Made from the seed: every fourth one has orders and load only, the others faults of some kinds. */
void sim_script_make(struct sim_script *s, uint64_t seed);
void sim_script_print(const struct sim_script *s, struct rs_buf *out);
void sim_input_print(const struct sim_input *in, struct rs_buf *out);
RS_MUST_CHECK int sim_script_read(struct sim_script *s, const char *path, struct rs_error *err);

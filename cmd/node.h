/* A node: the agent's decisions joined to processes, the data plane and the link to the head.
 *
 * No rules live here: sched/agent decides, sched/supervise and net act. A node talks to its head
 * only through a connection that carries control messages, also when both are one process.
 *
 * Thread:    the control thread; rs_node_new starts the lanes, so fork what must be forked before.
 * Ownership: the configuration is copied; the loop and the metrics are borrowed.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/loop/loop.h"
#include "core/metrics/metrics.h"
#include "net/router/dataplane.h"
#include "net/wire/tcp.h"

#include <jansson.h>

struct rs_node;

struct rs_node_conf {
    const char *node_id, *name;
    const json_t *resources; /* {"CPU": 2.0, ..} */
    const json_t *labels;    /* {"region": "eu"}; NULL: none */
    const char *state_dir;   /* NULL: the default */
    bool alone;              /* its folder there is that of a head which keeps its state */
    const char *python;      /* default interpreter; NULL: python3 */
    bool echo;               /* pass the output of replicas on to our own */
    bool quiet_terminal;     /* no colour in prefixes */
    struct rs_ingress_conf ingress;
    const struct rs_address *peers; /* where other nodes reach this one; NULL: nowhere */
    bool drivers;                   /* programs of this user may connect to run/node.sock */
};

struct rs_node_ops {
    /* A line of a replica's output, in place of writing it; may be NULL. stream 1 or 2. */
    void (*on_output)(int stream, const char *line, size_t len, void *arg);
    /* `http` of a TARGET (core/model/target.h), each time; may be NULL. */
    void (*on_http)(const json_t *http, void *arg);
    /* The head took us in; may be NULL. */
    void (*on_joined)(void *arg);
    /* The head hung up, or broke the protocol. */
    void (*on_head_gone)(const char *why, void *arg);
    /* Everything drained: no request and no process is left. */
    void (*on_drained)(void *arg);
    /* The program that this node was started for is gone; may be NULL. */
    void (*on_owner_gone)(void *arg);
};

RS_MUST_CHECK int rs_node_new(struct rs_node **ret, struct rs_loop *loop,
                              const struct rs_node_conf *conf, struct rs_metrics *metrics,
                              const struct rs_node_ops *ops, void *arg, struct rs_error *err);
/* Kills what is left. */
void rs_node_free(struct rs_node *n);
RS_DEFINE_AUTO(struct rs_node *, rs_node_free);

/* Takes a connected socket to the head and joins. */
RS_MUST_CHECK int rs_node_link(struct rs_node *n, int head_fd, struct rs_error *err);

/* Takes the connection of the program that this node was started for: no other may connect. */
RS_MUST_CHECK int rs_node_owned_by(struct rs_node *n, int fd, struct rs_error *err);
/* Opens the file of the access log anew. */
void rs_node_reopen_log(struct rs_node *n);
/* Opens the HTTP listener of a node that has none; see rs_dataplane_listen. */
RS_MUST_CHECK int rs_node_listen(struct rs_node *n, const struct rs_ingress_conf *conf,
                                 struct rs_error *err);

uint16_t rs_node_port(const struct rs_node *n);             /* of the HTTP ingress; 0: none */
const char *rs_node_driver_socket(const struct rs_node *n); /* NULL: programs cannot connect */
const char *rs_node_state_dir(const struct rs_node *n);     /* its folder for all its files */
const char *rs_node_values_dir(const struct rs_node *n);
const char *rs_node_log_dir(const struct rs_node *n);

/* Finish what runs, take nothing new; on_drained follows. */
void rs_node_drain(struct rs_node *n);
/* SIGKILL to everything; on_drained follows. */
void rs_node_kill(struct rs_node *n);
/* HTTP requests under way. */
unsigned rs_node_ongoing(const struct rs_node *n);
/* What a drain still waits for, for people; the caller's. */
char *rs_node_waits_for(const struct rs_node *n);

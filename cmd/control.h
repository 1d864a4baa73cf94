/* The control plane as a child of the node, as `rserve head` has it: started, watched, and started again.
 *
 * The child is `rserve control-plane` (cmd/control_plane.c). It has what a head decides and remembers;
 * this process has what runs and what clients are connected to, and goes on without it. The sockets of
 * REST and of joining nodes are opened here and handed on: who connects while no control plane runs
 * waits for the next one.
 *
 * Thread: the control thread.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/config/config.h"
#include "core/loop/loop.h"
#include "net/wire/tcp.h"

#include <stdint.h>

struct rs_control;

struct rs_control_conf {
    const char *node_id;           /* of this node */
    const char *app_dir;           /* default for configurations that come over REST; absolute */
    const char *dashboard_host;    /* of the REST API */
    uint16_t dashboard_port;       /* 0: any free one */
    const struct rs_address *join; /* where nodes join */
    const char *http_host;         /* of the ingress here; "" and 0: none */
    uint16_t http_port;
    bool https;
    const char *driver_socket, *values_dir, *keep_dir; /* see cmd/head.h */
    bool forget;                                       /* what an earlier one kept */
    bool quiet, verbose, json;                         /* what it says on stdout and stderr */
    const struct rs_config *config; /* to be deployed by the first one; NULL: what was kept */
};

struct rs_control_ops {
    /* It runs: link the node by `fd`, which is taken. */
    void (*on_started)(int fd, void *arg);
    /* It ended before it was ready for the first time, and has said why: there will be none. */
    void (*on_failed)(int exit_status, void *arg);
};

/* Starts it. */
RS_MUST_CHECK int rs_control_new(struct rs_control **ret, struct rs_loop *loop,
                                 const struct rs_control_conf *conf,
                                 const struct rs_control_ops *ops, void *arg, struct rs_error *err);
/* Ends it, and waits for that. */
void rs_control_free(struct rs_control *c);
/* It took the node in: what it was given to deploy is on the disk. */
void rs_control_ready(struct rs_control *c);
/* Its link broke. If it runs still, it is of no use: it is killed, and followed by another. */
void rs_control_gone(struct rs_control *c);
/* This process is about to end: it shows nothing of that, and is not started again. */
void rs_control_stopping(struct rs_control *c);

uint16_t rs_control_port(const struct rs_control *c);                             /* of REST */
void rs_control_join_address(const struct rs_control *c, char *out, size_t size); /* HOST:PORT */

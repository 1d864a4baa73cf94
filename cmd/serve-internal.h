/* What the files of a serving process share: serve.c (its parts and its life), serve-link.c (the way to its
 * head, be that in this process, a child, or elsewhere).
 */
#pragma once

#include "cmd/control.h"
#include "cmd/head.h"
#include "cmd/node.h"
#include "cmd/reload.h"
#include "cmd/running.h"
#include "cmd/serve.h"
#include "cmd/view.h"
#include "net/api/side.h"
#include "net/wire/resolve.h"

struct rs_serve {
    const struct rs_serve_conf *conf;
    struct rs_loop *loop;
    struct rs_metrics *metrics;
    struct rs_head *head;       /* NULL: it is another process */
    struct rs_control *control; /* the process of this head's; NULL: no head, or one that is here */
    struct rs_node *node;
    struct rs_view *view; /* what people are shown; NULL: a worker */
    struct rs_running_file
        *running; /* tells others of us; NULL: not yet, or it cannot be written */
    struct rs_side *health, *figures; /* NULL: no such port */
    struct rs_reload *reload;         /* NULL: no files are watched */
    struct rs_io signals;
    struct rs_timer reconnect, note;
    struct rs_address head_address;
    struct rs_resolve
        *resolving; /* of the head's name; NULL: it is known, or nobody is asked now */
    char node_id[33];
    char http_host[256]; /* "" : no HTTP listener */
    unsigned interrupts;
    int status; /* exit status */
    bool away_told, ready_told, http_tried;
};

/* serve-link.c */
RS_MUST_CHECK int rs_serve_start_control(struct rs_serve *s, const struct rs_config *config,
                                         struct rs_error *err);
RS_MUST_CHECK int rs_serve_link(struct rs_serve *s, struct rs_error *err);
int rs_serve_on_reconnect(struct rs_timer *t);       /* of s->reconnect */
void rs_serve_head_gone(const char *why, void *arg); /* rs_node_ops.on_head_gone */

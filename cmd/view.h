/* What people see while `run` and `head` work: controller summaries -> progress text on the terminal,
 * and the output of replicas in between.
 *
 * Thread: the control thread.
 */
#pragma once

#include "core/base/error.h"
#include "core/loop/loop.h"
#include "sched/controller.h"

struct rs_view;

struct rs_view_conf {
    bool quiet, verbose, json;
    bool lines;       /* a line per change, on a terminal too: others write to it */
    const char *host; /* of the HTTP listener, for the URL */
    uint16_t port;    /* 0: none */
    bool https;
};

struct rs_view_ops {
    void (*on_failed)(void *arg); /* the first deploy settled, and an application failed */
};

RS_MUST_CHECK int rs_view_new(struct rs_view **ret, struct rs_loop *loop,
                              const struct rs_view_conf *conf, const struct rs_controller *c,
                              const struct rs_view_ops *ops, void *arg, struct rs_error *err);
void rs_view_free(struct rs_view *v);

/* Something changed: look again, soon. */
void rs_view_event(struct rs_view *v, const struct rs_controller_event *e);
/* A line that a replica wrote, without its newline, while a terminal shows the progress. `v` NULL: it
 * is over. */
void rs_view_output(struct rs_view *v, int stream, const char *line, size_t len);
/* Takes the block off the terminal and draws it no more. */
void rs_view_end(struct rs_view *v);

/* /metrics of a control plane that is a process of its own: what is measured is measured in the node, which is
 * asked. Requests wait for its answer; those that wait too long, or whose node is gone, get what is known here.
 *
 * Thread: the control thread.
 */
#pragma once

#include "core/loop/loop.h"
#include "net/api/api.h"

struct rs_far_metrics;

struct rs_far_metrics_ops {
    /* Sends READ_METRICS with this number. -1: there is no node to ask. */
    int (*ask)(uint64_t number, void *arg);
    /* All that there is to tell; `text` is the node's. NULL: it said nothing. */
    void (*complete)(struct rs_buf *out, const char *text, void *arg);
};

struct rs_far_metrics *rs_far_metrics_new(struct rs_loop *loop,
                                          const struct rs_far_metrics_ops *ops, void *arg);
/* After the server: its requests are dropped. */
void rs_far_metrics_free(struct rs_far_metrics *m);
/* In rs_web_ops.on_request: answers now or later. */
void rs_far_metrics_get(struct rs_far_metrics *m, const struct rs_web_request *req,
                        struct rs_web_answer *a, rs_api_form *form, const char *form_arg);
/* METRICS of the node. A number that nobody waits for is ignored. */
void rs_far_metrics_told(struct rs_far_metrics *m, uint64_t number, const char *text);
void rs_far_metrics_node_gone(struct rs_far_metrics *m);

/* The head's part of `rserve logs`: GET /api/v1/logs asks every node (LOGS) and answers with what they
 * have (LOG_LINES), ordered by time.
 *
 * A client that follows asks again and again with the cursor of the answer before, and waits at the nodes
 * meanwhile: nothing is kept here for it between two questions, so one that does not read holds nothing
 * up, and after a restart of the head it goes on where it was.
 *
 * Bounds:  QUESTIONS at a time; about 1 MiB of lines in an answer, whatever the number of nodes.
 * Thread:  the control thread.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/loop/loop.h"
#include "net/api/api.h"

struct rs_head_logs;

struct rs_head_logs_ops {
    /* Calls `fn` for each node that is there. */
    void (*each_node)(void (*fn)(const char *node_id, void *to), void *to, void *arg);
    void (*ask)(const char *node_id, uint64_t stream, const json_t *msg, void *arg);
    bool (*knows)(const char *app, void *arg); /* there is an application of this name */
};

struct rs_head_logs *rs_head_logs_new(struct rs_loop *loop, const struct rs_head_logs_ops *ops,
                                      void *arg);
void rs_head_logs_free(struct rs_head_logs *l); /* after the API: its answers are dropped */
RS_DEFINE_AUTO(struct rs_head_logs *, rs_head_logs_free);

/* As rs_api_fn. */
int rs_head_logs_asked(struct rs_head_logs *l, const struct rs_api_call *call,
                       struct rs_error *err);
void rs_head_logs_answered(struct rs_head_logs *l, const char *node_id, uint64_t stream,
                           const json_t *msg);
void rs_head_logs_node_gone(struct rs_head_logs *l, const char *node_id);

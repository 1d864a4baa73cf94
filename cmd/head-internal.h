/* What the files of the head share: head.c (nodes, what outlives it, life), head-api.c (the ops of the
 * REST API), head-plan.c (those for plans and for going back).
 */
#pragma once

#include "cmd/far_metrics.h"
#include "cmd/gauges.h"
#include "cmd/happened.h"
#include "cmd/head-logs.h"
#include "cmd/head.h"
#include "cmd/saved.h"
#include "net/api/api.h"
#include "net/wire/frame.h"

struct rs_head {
    struct rs_loop *loop;
    struct rs_head_ops ops;
    void *arg;
    struct rs_controller *controller;
    struct rs_api *api;
    struct rs_listener *joins;
    struct rs_list links;
    struct rs_after hook;
    struct rs_metrics *metrics;
    char *node_id;                      /* of the node that it came with */
    struct rs_far_metrics *far_metrics; /* NULL: they are in this process */
    struct rs_gauges gauges;
    bool has_gauges; /* false: nobody asked for figures */
    char *app_dir, *http_host, *later_host, *values_dir;
    uint16_t http_port;
    struct rs_saved *saved; /* NULL: nothing is kept */
    struct rs_happened *happened;
    bool changed;                /* something to be kept changed without an order */
    uint64_t forecasts_revision; /* kept last */
    struct rs_head_logs *logs;
    json_t *orders;    /* who changed what last (head-api.c); NULL: nobody yet */
    int64_t turned_at; /* 0: not yet */
    bool closing;
};

/* An order was carried out: it is acknowledged when it is on the disk. */
int rs_head_keep(struct rs_head *h, struct rs_error *err);
/* -1: it has not joined, or the message is too long. */
RS_MUST_CHECK int rs_head_tell(struct rs_head *h, const char *node_id, enum rs_msg type,
                               uint64_t stream, const json_t *msg, struct rs_error *err);
/* The listener that `c` asks for, told in it as it is. */
int rs_head_open_http(struct rs_head *h, struct rs_config *c, const char *default_host,
                      struct rs_error *err);

/* head-api.c; their argument is the head */
extern const struct rs_api_ops rs_head_api_ops;
void rs_head_note_order(struct rs_head *h, const struct rs_controller_event *e);
extern const struct rs_far_metrics_ops rs_head_far_metrics_ops;
/* {"dir", "app_dir", "document"} of now, with `app` in the place of its namesake; a new reference. */
json_t *rs_head_with_app(const struct rs_head *h, const char *name, json_t *app);

/* head-plan.c; their argument is the head */
rs_api_fn rs_head_api_plan, rs_head_api_plan_result, rs_head_api_history, rs_head_api_rollback;

/* What user code advises: how many replicas (autoscaling policies, asked by the head) and which replica
 * takes a request (request routers, asked by the data plane). Joins the processes that run it
 * (helpers.h) to those who ask, and keeps what replicas tell for them.
 *
 * Thread: the control thread.
 */
#pragma once

#include "cmd/helpers.h"
#include "core/model/report.h"
#include "net/router/dataplane.h"

struct rs_advice;

struct rs_advice_ops {
    /* As in rs_helpers_ops. */
    int (*fork)(const char *zygote, const json_t *msg, int fds[3], void *arg, struct rs_error *err);
    /* DECISION for the head. */
    void (*decision)(uint64_t question, const json_t *msg, void *arg);
};

struct rs_advice *rs_advice_new(const struct rs_helpers_conf *conf, const char *node_id,
                                const struct rs_advice_ops *ops, void *arg);
/* The data plane comes later than the agent. */
void rs_advice_dataplane(struct rs_advice *a, struct rs_dataplane *d);
void rs_advice_free(struct rs_advice *a);
struct rs_helpers *rs_advice_helpers(struct rs_advice *a);

/* A new TARGET is known. */
void rs_advice_target(struct rs_advice *a);
/* STATS of a replica: true if the head should know soon. */
bool rs_advice_stats(struct rs_advice *a, const char *replica_id, const json_t *stats);
void rs_advice_forget(struct rs_advice *a, const char *replica_id);

/* POLICY of the head. */
void rs_advice_policy(struct rs_advice *a, uint64_t question, const json_t *msg);
/* on_choose of the data plane. */
void rs_advice_choose(struct rs_advice *a, const char *app, const char *deployment,
                      const json_t *router, uint64_t id, json_t *question);
/* Fills in what replicas told, and which routers fail. */
void rs_advice_report(const struct rs_advice *a, struct rs_report *report);

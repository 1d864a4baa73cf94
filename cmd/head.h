/* The head: the controller's decisions joined to the links of nodes and to the REST API.
 *
 * No rules live here. Nodes talk to it through connections that carry control messages, also when
 * both are one process (rs_head_adopt with one end of a socket pair).
 *
 * Thread: the control thread.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/loop/loop.h"
#include "core/metrics/metrics.h"
#include "net/wire/tcp.h"
#include "sched/controller.h"

struct rs_config;
struct rs_head;

struct rs_head_conf {
    const char *node_id;        /* of the node in this process */
    const char *app_dir;        /* default for configurations that come over REST; absolute */
    const char *dashboard_host; /* "127.0.0.1" */
    uint16_t dashboard_port;    /* 0: any free one */
    int rest_listening;    /* a socket that listens already, in place of these; taken. 0: none */
    const char *http_host; /* where HTTP is really served, whatever a configuration says; */
    uint16_t http_port;    /* "" and 0: nowhere */
    const char *later_http_host; /* without http_port: HTTP listens from the first configuration of
                                    * REST on, here where that does not say; NULL: it does not */
    const char *driver_socket;   /* where programs connect; NULL: nowhere */
    const char *values_dir;      /* where they put what they deploy by value */
    const struct rs_address *join; /* where workers reach it; NULL: nowhere */
    int join_listening;            /* as rest_listening, in its place */
    bool asks_for_metrics;         /* of the node `node_id`, which is another process */
    const char *keep_dir;          /* where it keeps what it was told (saved.h); NULL: nowhere */
    bool forget;                   /* what an earlier one kept there */
};

struct rs_head_ops {
    void (*on_event)(const struct rs_controller_event *e, void *arg); /* may be NULL */
    /* Open the HTTP listener of the node in this process as `config` says; the port that it got. */
    int (*listen)(const struct rs_config *config, uint16_t *port, void *arg, struct rs_error *err);
};

/* Borrows loop and metrics. */
RS_MUST_CHECK int rs_head_new(struct rs_head **ret, struct rs_loop *loop,
                              const struct rs_head_conf *conf, struct rs_metrics *metrics,
                              const struct rs_head_ops *ops, void *arg, struct rs_error *err);
void rs_head_free(struct rs_head *h);
RS_DEFINE_AUTO(struct rs_head *, rs_head_free);

/* Takes the connected socket of a node that will JOIN. */
RS_MUST_CHECK int rs_head_adopt(struct rs_head *h, int fd, struct rs_error *err);
/* What an earlier head was told holds again; but for the configuration, if there is another `config`. */
void rs_head_restore(struct rs_head *h, bool config);
/* Who gives the next of these orders, for the events that it brings about: "program". */
void rs_head_who(struct rs_head *h, const char *who);
/* What these order is on the disk when they return 0. -1 with RS_SYSTEM: it holds, but is not. The
 * first one takes `config`. */
RS_MUST_CHECK int rs_head_apply(struct rs_head *h, struct rs_config *config, struct rs_error *err);
/* One application, beside those that there are. Takes `config`. */
RS_MUST_CHECK int rs_head_put(struct rs_head *h, struct rs_config *config, struct rs_error *err);
bool rs_head_delete(struct rs_head *h, const char *app); /* false: there is none of this name */
void rs_head_delete_all(struct rs_head *h);
/* HTTP listens from here as `config` (taken) says, if it did not before. *http: {"host", "port"} as it
 * is now, or null without a listener; a new reference. */
RS_MUST_CHECK int rs_head_start_http(struct rs_head *h, struct rs_config *config, json_t **http,
                                     struct rs_error *err);
const char *rs_head_values_dir(const struct rs_head *h);
json_t *rs_head_http(const struct rs_head *h);    /* the same of now */
json_t *rs_head_details(const struct rs_head *h); /* of REST, Ray's members; a new reference */

/* Brings the gauges of the cluster up to date, before figures are read. */
void rs_head_collect(struct rs_head *h);
const struct rs_controller *rs_head_controller(const struct rs_head *h);
uint16_t rs_head_port(const struct rs_head *h);                             /* of the REST API */
void rs_head_join_address(const struct rs_head *h, char *out, size_t size); /* "" : none */

/* The admin REST API of the head, on Ray's dashboard port, 8265: what Serve's tools use of Ray's
 * (ray.c), and our own below /api/v1 (v1.c). The table of routes (routes.c) says what there is; GET /api
 * lists it, and the OpenAPI document is made from it.
 *
 * net/api may include core, net/http and net/wire. What the answers say comes from the caller, who
 * joins the controller to it.
 *
 * Form:     a trailing slash makes no difference. Errors of Serve's own routes are plain text as Ray
 *           sends them; others are {"error": "..."}, with 404, 405 (Allow), 413, 403 and 401.
 * Thread:   callbacks run on the loop's thread.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/loop/loop.h"
#include "core/metrics/metrics.h"
#include "net/http/web.h"

#include <jansson.h>

struct rs_api;

/* --- a request, as the ops below see it; all of it borrowed for the call ------------------------- */

struct rs_api_call;
const char *rs_api_part(const struct rs_api_call *call, unsigned n); /* of the path, {0}, {1}, .. */
const char *rs_api_query(const struct rs_api_call *call, const char *name); /* NULL: absent */
/* A number from `min` to `max`, or `def` where there is none. */
RS_MUST_CHECK int rs_api_query_int(const struct rs_api_call *call, const char *name, int64_t min,
                                   int64_t max, int64_t def, int64_t *ret, struct rs_error *err);
const char *rs_api_body(const struct rs_api_call *call, size_t *len);
/* Who asks, in a few words: what it calls itself, and its address if that is another machine's. */
const char *rs_api_who(const struct rs_api_call *call);

/* Answers one question of /api/v1: a new reference, which is sent with 200. -1: the status follows from
 * err->code (RS_INVALID 400, RS_NOT_FOUND 404, RS_CONFLICT 409, RS_NO_ROOM 507, RS_TIMEOUT 504,
 * RS_SYSTEM 500). RS_API_LATER: the answer follows. */
typedef int rs_api_fn(const struct rs_api_call *call, json_t **ret, struct rs_error *err,
                      void *arg);
/* What such a function returns when the answer comes later, once: after it took this. Where the API is
 * freed before, the answer is dropped and must not be given any more. */
enum { RS_API_LATER = 1 };
struct rs_web_later;
struct rs_web_later *rs_api_later(const struct rs_api_call *call);
void rs_api_later_answer(struct rs_web_later *later, const json_t *value);
void rs_api_later_fail(struct rs_web_later *later, const struct rs_error *err);

/* Makes an answer of a Prometheus exposition. */
typedef void rs_api_form(struct rs_web_answer *a, const char *text, const char *form_arg);

struct rs_api_ops {
    /* ServeInstanceDetails (Ray's shape; `extended`: and our own members under "rserve"), a new
     * reference; NULL: cannot tell now (503). */
    json_t *(*details)(bool extended, void *arg);
    /* The body is ServeConfigV2 as JSON. 0: taken. -1: `error` holds the text, *http_status is 400
     * unless set. */
    int (*apply)(const struct rs_api_call *call, struct rs_buf *error, int *http_status, void *arg);
    /* Every application goes. As apply. */
    int (*delete_all)(const struct rs_api_call *call, struct rs_buf *error, int *http_status,
                      void *arg);
    /* This application goes; RS_NOT_FOUND's status is 404. As apply. */
    int (*delete_app)(const struct rs_api_call *call, const char *app, struct rs_buf *error,
                      int *http_status, void *arg);
    /* So many replicas of a deployment, until the next apply. As apply. */
    int (*scale)(const struct rs_api_call *call, const char *app, const char *deployment,
                 unsigned replicas, struct rs_buf *error, int *http_status, void *arg);
    /* This application of a ServeConfigV2 (the body, JSON), beside those that there are. As apply. */
    int (*put_app)(const struct rs_api_call *call, const char *app, struct rs_buf *error,
                   int *http_status, void *arg);
    /* What rs_controller_desired tells (etag.h); a new reference. NULL: without ETags. */
    json_t *(*desired)(void *arg);
    /* Who ordered something of `app` (NULL: of anything) last, and when, in s since 1970. -1: not known.
     * May be NULL. */
    int (*last_change)(const char *app, char *who, size_t size, double *when, void *arg);
    /* Bring gauges up to date before they are read; may be NULL. */
    void (*collect)(void *arg);
    /* The figures are another process's: answers, now or later (rs_web_wait), through `form` with
     * `form_arg` (copied). false, or NULL: they are those here. */
    bool (*metrics)(const struct rs_web_request *req, struct rs_web_answer *a, rs_api_form *form,
                    const char *form_arg, void *arg);

    /* Below /api/v1: a row of the table in routes.c names the member. NULL: 501. */
    rs_api_fn *events, *plan, *why, *why_app, *why_deployment, *replace, *logs, *plan_result,
        *history, *rollback, *roll_app, *roll_deployment;
};

struct rs_api_conf {
    const char *host;  /* IP address or localhost; "127.0.0.1" */
    uint16_t port;     /* 0: any free one; see rs_api_port */
    int listening;     /* a socket that listens already, in place of these; taken. 0: none */
    const char *token; /* NULL: none; then only this machine may change anything */
    struct rs_metrics *metrics;             /* borrowed; NULL: only figures of the process */
    const char *version, *commit, *session; /* borrowed */
    const char *driver_socket;              /* where programs connect; NULL: nowhere; borrowed */
    size_t body_max;                        /* bytes; 0: 4 MiB */
    unsigned idle_s;                        /* 0: 30 */
};

RS_MUST_CHECK int rs_api_new(struct rs_api **ret, struct rs_loop *loop,
                             const struct rs_api_conf *conf, const struct rs_api_ops *ops,
                             void *arg, struct rs_error *err);
void rs_api_free(struct rs_api *api);
RS_DEFINE_AUTO(struct rs_api *, rs_api_free);
uint16_t rs_api_port(const struct rs_api *api);

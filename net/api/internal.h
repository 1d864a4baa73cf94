/* What the files of the REST API share: api.c (who may ask, dispatch, life), routes.c (the table),
 * answer.c (forms of answers), change.c (conditions of changes, what they changed), ray.c (Ray's
 * contract), v1.c (our own), views.c (what our own shows), openapi.c (the document).
 */
#pragma once

#include "core/base/alloc.h"
#include "core/base/error.h"
#include "net/api/api.h"
#include "net/api/etag.h"
#include "net/api/guard.h"
#include "net/http/web.h"

enum {
    RS_API_PARTS = 3,
    RS_API_SHOWN = 200, /* bytes of a path or value that a message quotes */
    RS_API_WHO = 160
};

struct rs_api {
    struct rs_web *web;
    struct rs_guard guard;
    struct rs_metrics *metrics;
    const struct rs_api_ops *ops;
    void *arg;
    char *token, *version, *commit, *session, *driver_socket;
    char hostname[256];
};

struct rs_api_call {
    struct rs_api *api;
    const struct rs_web_request *req;
    const struct rs_api_route *route;
    char *part[RS_API_PARTS];
    char who[RS_API_WHO];
    json_t *desired; /* before it; null where the op cannot tell */
    bool failed;     /* some application is: the same configuration again is another try */
};

typedef void rs_api_handler(const struct rs_api_call *call, struct rs_web_answer *a);

struct rs_api_param {
    const char *name; /* NULL ends a list */
    const char *type; /* as in schema.h */
    const char *help;
};

/* What a GET shows, out of the details: as rs_api_fn. */
typedef int rs_api_view(const struct rs_api_call *call, const json_t *details, json_t **ret,
                        struct rs_error *err);

struct rs_api_route {
    const char *method, *path; /* "{app}" in it stands for any one part */
    const char *help;
    rs_api_handler *fn;
    bool changes;      /* something; logged */
    bool tagged;       /* the answer has an ETag; what changes takes conditions */
    size_t op;         /* of rs_api_v1_op: offsetof(struct rs_api_ops, ..) */
    rs_api_view *view; /* of rs_api_v1_view */
    const struct rs_api_param *query;
    const char *body, *answer; /* types as in schema.h; NULL: none; text */
};

/* --- routes.c --- */
extern const struct rs_api_route rs_api_routes[];
extern const size_t rs_api_n_routes;
const struct rs_api_route *rs_api_route_find(const char *method, const char *path);
/* "GET, HEAD, PUT": the methods of a path; "" if there is no such path. */
void rs_api_route_allow(const char *path, char *out, size_t size);
/* Copies of what stands where the route has "{..}". */
void rs_api_route_parts(const struct rs_api_route *route, const char *path,
                        char *part[RS_API_PARTS]);

/* --- answer.c --- */
extern const char rs_api_json[], rs_api_text[]; /* types */
void rs_api_answer_text(struct rs_web_answer *a, int status, const char *text);
void rs_api_answer_json(struct rs_web_answer *a, int status, const json_t *value);
void rs_api_answer_error(struct rs_web_answer *a, int status, const char *fmt, ...) RS_PRINTF(3, 4);
/* {"error": ..}, with the status that the code stands for. */
void rs_api_answer_failure(struct rs_web_answer *a, const struct rs_error *err);

/* --- change.c --- */
json_t *rs_api_desired(const struct rs_api *api); /* a new reference, perhaps null */
/* What If-Match and If-None-Match say of `app` (NULL: of the configuration) holds. False: `a` is a 412. */
bool rs_api_may(const struct rs_api_call *call, const char *app, struct rs_web_answer *a);
/* Something is desired now that was not before the call. */
bool rs_api_changed(const struct rs_api_call *call);

/* --- ray.c --- */
void rs_api_figures(const struct rs_api_call *call, struct rs_web_answer *a, rs_api_form *form,
                    const char *form_arg);
rs_api_handler rs_api_get_applications, rs_api_put_applications, rs_api_delete_applications,
    rs_api_scale, rs_api_version, rs_api_metrics, rs_api_health;

/* --- v1.c --- */
rs_api_handler rs_api_v1_op, rs_api_v1_view, rs_api_v1_application, rs_api_v1_config,
    rs_api_v1_put_config, rs_api_v1_put_application, rs_api_v1_delete_application,
    rs_api_v1_metrics;

/* --- views.c --- */
rs_api_view rs_api_view_applications, rs_api_view_application, rs_api_view_deployments,
    rs_api_view_app_deployments, rs_api_view_deployment, rs_api_view_replicas, rs_api_view_replica,
    rs_api_view_nodes, rs_api_view_node;

/* --- openapi.c --- */
rs_api_handler rs_api_openapi;
json_t *rs_api_openapi_json(const char *version); /* a new reference */

/* --- api.c --- */
rs_api_handler rs_api_list_routes;

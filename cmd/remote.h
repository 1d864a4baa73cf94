/* Finding a running rserve and asking its REST API, for verbs that do something to one.
 *
 * Where it is, the first that says something: what the command line says, $RSERVE_ADDRESS,
 * $RAY_DASHBOARD_ADDRESS, $RAY_ADDRESS (the address of a cluster, whose dashboard is then on the same
 * host), the newest head that this user runs on this machine (running.h), http://127.0.0.1:8265.
 * $RSERVE_TOKEN is sent as the token.
 */
#pragma once

#include "core/base/error.h"
#include "net/http/client.h"

#include <jansson.h>

enum rs_remote_by {
    RS_REMOTE_NAMED,   /* by the command line or the environment */
    RS_REMOTE_HEAD,    /* a head that runs here */
    RS_REMOTE_RUN,     /* a `run` of this machine: where it is, but not there to be deployed to */
    RS_REMOTE_DEFAULT, /* nobody says anything */
};

struct rs_remote {
    char base[300];   /* "http://127.0.0.1:8265" */
    char origin[100]; /* who said so: "--address", "$RAY_ADDRESS"; "the default" */
    enum rs_remote_by by;
    char etag[80]; /* of the configuration, by the details asked for last; "" if none was told */
    char if_match[80]; /* what rs_remote_put expects there: an ETag, "*"; "": anything */
};

/* `given` NULL or "auto": the command line says nothing. -1: that is no address. */
RS_MUST_CHECK int rs_remote_find(struct rs_remote *ret, const char *given, struct rs_error *err);
/* `given` may also be the address where nodes join a cluster, as `ray` has it. */
RS_MUST_CHECK int rs_remote_find_cluster(struct rs_remote *ret, const char *given,
                                         struct rs_error *err);
/* One call. `body` NULL: none, else JSON. An HTTP status is not an error; that nothing answers is one
 * (RS_NOT_FOUND), which says what was tried and what to do. */
RS_MUST_CHECK int rs_remote_call(const struct rs_remote *r, const char *method, const char *path,
                                 const char *body, struct rs_http_answer *ret,
                                 struct rs_error *err);
/* GET of a JSON document, a new reference; `what` names it in errors: "the question for events". */
RS_MUST_CHECK int rs_remote_get(const struct rs_remote *r, const char *path, const char *what,
                                json_t **ret, struct rs_error *err);
/* As rs_remote_get, of any method, with a body (NULL: none). A refusal is RS_INVALID (400), RS_NOT_FOUND (404),
 * RS_CONFLICT (409) or RS_SYSTEM, with the text that came. */
RS_MUST_CHECK int rs_remote_ask(const struct rs_remote *r, const char *method, const char *path,
                                const json_t *body, json_t **ret, struct rs_error *err);
/* Appends `text` as one part of a path or query. */
void rs_remote_encode(struct rs_buf *out, const char *text);
/* Appends `text` as one part of a path, or a value of a query. */
void rs_remote_encode(struct rs_buf *out, const char *text);
/* The details of GET /api/serve/applications/, extended. A new reference. */
RS_MUST_CHECK int rs_remote_details(const struct rs_remote *r, json_t **ret, struct rs_error *err);
RS_MUST_CHECK int rs_remote_details_tagged(struct rs_remote *r, json_t **ret, struct rs_error *err);
/* PUT of a configuration, DELETE of everything. -1: it was refused (RS_CONFLICT: what is there is not what
 * if_match says), or as above; the whole of a longer answer goes to stderr. */
RS_MUST_CHECK int rs_remote_put(const struct rs_remote *r, const json_t *config,
                                struct rs_error *err);
/* The same, refused (RS_CONFLICT) where it would restart replicas that serve. */
RS_MUST_CHECK int rs_remote_put_in_place(const struct rs_remote *r, const json_t *config,
                                         struct rs_error *err);
RS_MUST_CHECK int rs_remote_delete(const struct rs_remote *r, struct rs_error *err);
RS_MUST_CHECK int rs_remote_delete_app(const struct rs_remote *r, const char *app,
                                       struct rs_error *err);
